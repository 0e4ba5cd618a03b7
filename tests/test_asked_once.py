"""What is known of a program is asked once for all arguments of the same shapes."""

from typing import Any

import jax
import numpy as np

from gradsim import programs
from gradsim.programs import once


def test_a_program_is_asked_once_for_the_same_shapes_and_static_arguments(monkeypatch: Any) -> None:
    asked: list[Any] = []

    @once
    def ask(program: Any, *given: Any, **options: Any) -> int:
        asked.append((given, options))
        return len(asked)

    program: Any = jax.jit(lambda n, x: x * n, static_argnums=0)
    x = np.ones(3, np.float32)
    assert ask(program, 2, x) == ask(program, 2, jax.numpy.zeros(3)) == 1
    others: list[Any] = [(3, x), (2.0, x), (2, x[:2]), (2, x.astype(np.int32)), (2, {"x": x}), (2, np.float32(1))]
    assert [ask(program, *one) for one in others] == list(range(2, 8))
    assert ask(program, 2, x, static=1) == 8
    assert ask(jax.jit(lambda n, x: x + n, static_argnums=0), 2, x) == 9
    assert ask(program, 2, x) == 1
    monkeypatch.setattr(programs, "MOST", 2)  # then all are forgotten, and asked again
    assert ask(program, 2, x[:1]) == 10
    assert ask(program, 2, x) == 11
