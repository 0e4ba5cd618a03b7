"""What is known of jitted programs: asked once for all arguments of the same shapes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax import Array

Answer = TypeVar("Answer")
MOST = 256  # shapes of one program


def once(ask: Callable[..., Answer]) -> Callable[..., Answer]:
    """`ask(program, *given, **options)`, whose answers are kept as long as the program is.

    Lowering a program only to look at it takes as long as some of its calls.
    """
    answers: WeakKeyDictionary[Any, dict[Any, Answer]] = WeakKeyDictionary()

    @wraps(ask)
    def answer(program: Any, *given: Any, **options: Any) -> Answer:
        leaves, tree = jax.tree.flatten((given, options))
        shapes = tree, *(jax.typeof(one) if isinstance(one, Array | np.ndarray | np.generic) else one for one in leaves)
        known = answers.setdefault(program, {})
        if shapes not in known:
            if len(known) >= MOST:
                known.clear()
            known[shapes] = ask(program, *given, **options)
        return known[shapes]

    return answer
