"""A run in float64 measures the same networks as one in float32: what differs is rounding."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, random

import gradsim as gs
from gradsim import Network, initializers

ROUNDING = 2.0**-24  # of float32, half a unit in the last place
KEY = random.key(3)
QR = ("orthogonal", "delta_orthogonal")  # the factor is taken in the run's own precision


def both(draw: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every leaf of draw(dtype) in float32 and in float64."""
    with jax.enable_x64(True):
        single, double = (
            jax.tree.leaves(jax.jit(lambda dtype=dtype: draw(dtype))()) for dtype in ("float32", "float64")
        )
    assert {leaf.dtype.name for leaf in single} == {"float32"}
    assert {leaf.dtype.name for leaf in double} == {"float64"}
    return [(np.asarray(a), np.asarray(b)) for a, b in zip(single, double, strict=True)]


def of_jax(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    return random.uniform(key, shape, dtype)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("law", [*gs.INITIALIZERS.values(), initializers.get(of_jax)], ids=lambda law: law.name)
def test_laws_draw_the_same_numbers_in_both(law: initializers.Initializer) -> None:
    *weights, bias = both(
        lambda dtype: [
            *(law.draw(KEY, shape, dtype) for shape in [(20, 16), (16, 20)]),
            law.draw_bias(KEY, (20,), dtype),
        ]
    )
    for single, double in weights:
        np.testing.assert_allclose(double, single, rtol=0, atol=1e-6 if law.name in QR else 0)
    np.testing.assert_array_equal(*bias)


def test_an_orthogonal_matrix_of_float64_is_orthogonal_to_its_own_rounding() -> None:
    ((_, w),) = both(lambda dtype: gs.INITIALIZERS["orthogonal"].draw(KEY, (20, 20), dtype))
    np.testing.assert_allclose(w.T @ w, np.eye(20), rtol=0, atol=1e-14)


def test_a_network_draws_the_same_weights_in_both() -> None:
    """Logarithms of what was drawn are taken in the run's precision. (Every family: test_conformance.py.)"""
    for single, double in both(lambda dtype: gs.gru(4, chrono=20).draw(KEY, dtype)):
        np.testing.assert_allclose(double, single, rtol=0, atol=1e-6 * max(1, np.abs(single).max()))


class Stable(NamedTuple):
    network: Network
    width: int  # the terms of the longest sum in a step
    depth: int
    gains: dict[str, Any]


STABLE = {
    "feedforward": Stable(gs.feedforward(8, "tanh", "orthogonal"), 8, 100, {"sigma_w": 1.0}),
    "lstm": Stable(gs.lstm(8, initial="gaussian"), 8, 100, {}),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("case", STABLE.values(), ids=STABLE)
def test_sweeps_of_both_differ_by_rounding(case: Stable) -> None:
    """A sum of n terms is rounded by at most n u, so L steps by n L u; what a step is off in its state grows like
    the product, so the largest gain on the way multiplies it. Other draws would differ by whole nats."""
    common: dict[str, Any] = {"depth": case.depth, "seeds": 2, "statistics": ("log_gain", "log_jvp", "log_length")}
    single, double = (gs.sweep(case.network, dtype=dtype, **common, **case.gains) for dtype in ("float32", "float64"))
    growth = np.exp(max(0.0, float(double.log_gain.max())))
    for name in common["statistics"]:
        difference = np.abs(single[name] - double[name]).to_numpy()
        assert difference.max() > 0
        assert difference.max() < growth * case.width * case.depth * ROUNDING, name


def test_widened_laws_are_compared_by_value() -> None:
    """Equal networks share one compilation."""
    assert initializers.get(of_jax) == initializers.get(of_jax)
    assert hash(initializers.get(of_jax)) == hash(initializers.get(of_jax))


def test_normal_and_uniform_are_those_of_jax_in_float32() -> None:
    np.testing.assert_array_equal(initializers.normal(KEY, (5,), "float32"), random.normal(KEY, (5,), jnp.float32))
    np.testing.assert_array_equal(
        initializers.uniform(KEY, (5,), "float32", 1, 9), random.uniform(KEY, (5,), jnp.float32, 1, 9)
    )
