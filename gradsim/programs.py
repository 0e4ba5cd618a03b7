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
    answers: WeakKeyDictionary[Any, dict[Any, tuple[Answer]]] = WeakKeyDictionary()

    @wraps(ask)
    def answer(program: Any, *given: Any, **options: Any) -> Answer:
        leaves, tree = jax.tree.flatten((given, options))
        shapes = tree, *map(_shape, leaves)
        known = answers.setdefault(program, {})
        if (told := known.get(shapes)) is None:
            if len(known) >= MOST:
                known.clear()
            told = known[shapes] = (ask(program, *given, **options),)
        return told[0]

    return answer


def _shape(leaf: Any) -> Any:
    """What a program is compiled for: an array's shape and dtype, or a static argument itself."""
    return jax.typeof(leaf) if isinstance(leaf, Array | np.ndarray | np.generic) else (type(leaf), leaf)
