"""What an inspection costs: programs that depth does not add to, and little more memory than jax.grad takes."""

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inspected import Sigmoids

import gradsim as gs
from gradsim.inspection import passes, together
from gradsim.inspection.together import MANY, Together, itself


def test_programs_are_few_at_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[Any, Any] = {}
    monkeypatch.setattr(passes, "known", known)
    counts = []
    for depth in (5, 9):
        gs.inspect(Sigmoids(depth, 4), jnp.ones((2, 4)), loss=jnp.sum)
        counts.append(len(known))
    assert counts[0] == counts[1]


def test_no_more_memory_is_held_than_forward_and_none_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, width, depth = 2048, 8, 12
    model, x = Sigmoids(depth, width), jnp.ones((examples, width))
    size = x.nbytes

    def live() -> int:
        return sum(one.nbytes for one in jax.live_arrays())

    before = live()
    held = []
    step = passes.Pass.step

    def watched(*args: Any, **options: Any) -> None:
        step(*args, **options)
        held.append(live() - before)

    monkeypatch.setattr(passes.Pass, "step", watched)
    gs.inspect(model, x, loss=jnp.sum)
    # An activation a layer, as jax.grad has, and what comes into a layer and leaves it in three backward passes.
    assert max(held) < (depth + 6.5) * size
    assert live() - before < size


def test_small_arrays_are_measured_at_once_and_as_they_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    many = together._many

    def counted(*args: Any) -> Any:
        runs.append(1)
        return many(*args)

    monkeypatch.setattr(together, "_many", counted)
    gathered = Together()
    xs = [jnp.full((2,), i, jnp.float32) for i in range(MANY + 5)]
    laters = [gathered(itself, x) for x in xs]
    other = gathered(itself, jnp.ones((3,), jnp.float32))
    found, alone, plain = gathered.fetched((laters, other, xs[0]))
    np.testing.assert_array_equal(found, np.stack(xs))
    np.testing.assert_array_equal(alone, np.ones(3))
    np.testing.assert_array_equal(plain, xs[0])
    assert len(runs) == 2


def test_a_loss_written_in_the_call_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[Any, Any] = {}
    monkeypatch.setattr(import_module("gradsim.inspection.inspect"), "plans", kept)
    model, x, factor = Sigmoids(2, 4), jnp.ones((2, 4)), 2.0
    first, again = (gs.inspect(model, x, loss=lambda y: jnp.sum(y**2)) for _ in range(2))
    assert len(kept) == 1
    np.testing.assert_array_equal(first.log_gradient, again.log_gradient)
    # What is written elsewhere, or reads what is around it, is a loss of its own.
    other = gs.inspect(model, x, loss=lambda y: jnp.sum(y**3))
    assert len(kept) == 2
    assert not np.array_equal(first.log_gradient, other.log_gradient)
    scaled = gs.inspect(model, x, loss=lambda y: factor * jnp.sum(y**2))
    np.testing.assert_allclose(scaled.log_gradient, first.log_gradient + np.log(2.0), atol=1e-5)
    assert len(kept) == 2
