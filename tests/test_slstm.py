"""The sLSTM against its paper's equations, with and without their stabilizer, and autodiff of all steps together."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.scipy.linalg import block_diag
from unrolled import MATRIX, bind

import gradsim as gs

N, HEADS, FEATURES, DEPTH = 4, 2, 3, 5
GAINS = {"sigma_w": 1.3, "sigma_b": 0.2, "forget_bias": 0.4, "input_bias": 0.3, "initial_normalizer": 0.7}


def gates(w: Any, g: Any, h: Array, x: Array, forget: str) -> tuple[Array, ...]:
    """ln i, ln f, z and o, unit by unit and head by head."""
    found = []
    for gate in "ifzo":
        r = block_diag(*getattr(w, f"w_{gate}"))
        of_input = g["sigma_v"] * x @ getattr(w, f"v_{gate}") + g["sigma_b"] * getattr(w, f"b_{gate}")
        found.append(g["sigma_w"] * h @ r + of_input)
    start = np.array([5 - 12 * (j / (N - 1)) ** (0.3 + 1.3 * 0.5) for j in range(N)])
    i, f = found[0] + g["input_bias"], found[1] + start + g["forget_bias"]
    return i, f if forget == "exp" else jnp.log(jax.nn.sigmoid(f)), jnp.tanh(found[2]), jax.nn.sigmoid(found[3])


def plain(w: Any, g: Any, state: Any, x: Array, forget: str) -> Any:
    c, n, h = state
    log_i, log_f, z, o = gates(w, g, h, x, forget)
    c, n = jnp.exp(log_f) * c + jnp.exp(log_i) * z, jnp.exp(log_f) * n + jnp.exp(log_i)
    return c, n, o * c / n


def stabilized(w: Any, g: Any, state: Any, x: Array, forget: str) -> Any:
    """As the paper's appendix has it: all of it is differentiated, m too."""
    c, n, h, m = state
    log_i, log_f, z, o = gates(w, g, h, x, forget)
    new = jnp.maximum(log_f + m, log_i)
    i, f = jnp.exp(log_i - new), jnp.exp(log_f + m - new)
    c, n = f * c + i * z, f * n + i
    return c, n, o * c / n, new


class Drawn(NamedTuple):
    """What the steps of a network read, and its gains."""

    weights: Any  # of all steps
    inputs: Any  # [DEPTH, FEATURES]
    gains: Mapping[str, Array]


def whole(step: Any, drawn: Drawn, forget: str, chart: Any, back: Any, first: Array) -> Array:
    """The state after all steps from the first one; in which coordinates, `chart` and `back` say."""

    def after(state: Any, x: Array) -> tuple[Any, None]:
        return step(drawn.weights, drawn.gains, state, x, forget), None

    return jnp.concatenate(chart(*jax.lax.scan(after, back(*jnp.split(first, 3)), drawn.inputs)[0]))


def jacobian(step: Any, drawn: Drawn, forget: str, chart: Any, back: Any, first: np.ndarray) -> Array:
    """Autodiff's of all steps."""
    derivative: Array = jax.jit(jax.jacfwd(partial(whole, step, drawn, forget, chart, back)))(first)
    return derivative


def ratios(c: Array, n: Array, h: Array, m: Array | float = 0.0) -> tuple[Array, ...]:
    return c / n, jnp.log(n) + m, h


def from_ratios(ratio: Array, log_n: Array, h: Array) -> tuple[Array, ...]:
    return ratio * jnp.exp(log_n), jnp.exp(log_n), h


def with_m(ratio: Array, log_n: Array, h: Array) -> tuple[Array, ...]:
    return *from_ratios(ratio, log_n, h), jnp.zeros(N)


def as_it_is(*state: Array) -> tuple[Array, ...]:
    return state


WAYS: dict[str, Any] = {"plain": (plain, ratios, from_ratios), "stabilized": (stabilized, ratios, with_m)}


def products(forget: str, *parts: str) -> tuple[Drawn, np.ndarray, list[np.ndarray]]:
    """A network's draw and first state, and gradsim's product of its steps, [outputs, inputs], of each of the parts."""
    options: dict[str, Any] = {"forget": forget, "layer": 0.5, "features": FEATURES, "initial": "gaussian"}
    bounds = [bind(gs.slstm(N, HEADS, of=part, **options), GAINS) for part in parts]

    @jax.jit
    def measured() -> Any:
        chain, steps = bounds[0].chain, jax.vmap(bounds[0].source.drawn)(jnp.arange(DEPTH))
        drawn = Drawn(chain.weights(steps), steps.inputs, chain.gains)
        return drawn, chain.initial_state(), [bound.forward((MATRIX,), DEPTH)["matrix"] for bound in bounds]

    drawn, first, found = measured()
    last = [np.concatenate([np.asarray(leaf)[-1].T for leaf in jax.tree.leaves(one.mantissa)]) for one in found]
    exponents = [int(np.asarray(one.exponent)[-1]) for one in found]
    state = np.ldexp(np.concatenate(jax.tree.leaves(first.mantissa)), int(first.exponent))
    return drawn, state, [np.ldexp(matrix, exponent) for matrix, exponent in zip(last, exponents, strict=True)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_it_is_the_papers_and_its_stabilizer_changes_no_derivative(forget: str) -> None:
    with jax.enable_x64(True):
        drawn, first, (found, cell, hidden) = products(forget, "state", "cell", "hidden")
        for step, chart, back in WAYS.values():
            expected = jacobian(step, drawn, forget, chart, back, first)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-13)
        for matrix, part in ((cell, slice(0, N)), (hidden, slice(2 * N, None))):
            np.testing.assert_allclose(matrix, found[part, part], rtol=0, atol=1e-15)


@pytest.mark.further
def test_without_the_stabilizer_it_is_of_c_n_and_h() -> None:
    with jax.enable_x64(True):
        drawn, first, (found,) = products("exp", "unstabilized")
        expected = jacobian(plain, drawn, "exp", as_it_is, as_it_is, first)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.further
def test_what_outgrows_the_floats_without_the_stabilizer_is_nan() -> None:
    """f = 1.2: law I4 holds c/n to that of 2,000 steps with it."""
    with pytest.warns(RuntimeWarning, match="left the range of floats, first at time 1[67][0-9]"):
        lost = gs.sweep(
            gs.slstm(1, forget="exp", of="unstabilized"), depth=200, seeds=1, sigma_v=0.0, forget_bias=np.log(1.2) - 5
        ).log_gain
    assert np.isfinite(lost.isel(time=160)).all()
    assert np.isnan(lost.isel(time=-1)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forget": "tanh"}, r"^forget: got 'tanh'; pass one of: sigmoid, exp"),
        ({"of": "gate"}, r"^of: got 'gate'; pass one of: state, hidden, cell, unstabilized"),
        ({"heads": 3}, r"^heads: got 3, which does not divide width=4"),
        ({"layer": 2.0}, r"^layer: got 2.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gs.slstm(4, **arguments)
