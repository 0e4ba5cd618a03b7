"""The recurrent families: against flax's cells, and against jacfwd of the unrolled network."""

import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import TypeCheckError
from unrolled import Bound, bind

import gradsim as gs
from gradsim.digits import digits, digits_sequence
from gradsim.engine.statistic import Statistic, View
from gradsim.networks.network import Network
from gradsim.networks.time.gated import LSTMState, gru, lstm
from gradsim.networks.time.linear_recurrence import linear_recurrence
from gradsim.networks.time.recurrent import minimal_rnn, vanilla_rnn
from gradsim.scaled import Scaled

GAINS = {"sigma_w": 1.3, "sigma_v": 0.8, "sigma_b": 0.4}
FAMILIES: dict[str, Network] = {
    "vanilla_rnn": vanilla_rnn(7, features=3),
    "vanilla_rnn of ReLU and identity": vanilla_rnn(7, "relu", "identity", features=3),
    "minimal_rnn": minimal_rnn(7, tied=False),
    "lstm": lstm(5, features=3, initial="gaussian"),
    "lstm, hidden": lstm(5, "orthogonal", of="hidden", initial="gaussian"),
    "lstm, cell": lstm(5, of="cell", features=3, chrono=12, tied=False),
    "gru": gru(6, features=3, chrono=12),
    "linear_recurrence": linear_recurrence(5, features=3, ring=(0.6, 0.95)),
}


def _product(view: View) -> Scaled:
    assert view.product is not None
    rows = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(view.product.mantissa)]
    return Scaled(jnp.concatenate(rows, axis=1).T, view.product.exponent)


def _state(view: View) -> Scaled:
    return Scaled(ravel_pytree(view.state.mantissa)[0], view.state.exponent)


WHOLE = (Statistic("product", "J", "1", _product, ("all",)), Statistic("state", "the state", "1", _state))


def product(bound: Bound, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The engine's ∂state/∂state_0 after `depth` steps as a plain matrix [out, in], and the state."""
    measured = jax.jit(lambda: bound.forward(WHOLE, depth))()
    arrays = jax.tree.map(np.asarray, measured)
    last = {name: np.ldexp(m[-1].astype(np.float64), e[-1]) for name, (m, e) in arrays.items()}
    return last["product"], last["state"]


def initial_state(bound: Bound) -> Any:
    state = jax.jit(lambda: bound.chain.initial_state())()
    return jax.tree.map(lambda leaf: jnp.asarray(np.ldexp(leaf, state.exponent)), state.mantissa)


def unrolled_jacobian(bound: Bound, depth: int) -> np.ndarray:
    """∂observed(state_T)/∂observed(state_0) by jacfwd of the whole network, the rest of state_0 held fixed."""
    network, first = bound.source.network, initial_state(bound)

    def run(change: jax.Array) -> jax.Array:
        embed = jax.linear_transpose(network.observed, first)
        state = jax.tree.map(jnp.add, first, embed(unravel(change))[0])
        steps = jnp.arange(depth, dtype=jnp.int32)
        state = jax.lax.scan(lambda state, t: (bound.step(t)(state)[0], None), state, steps)[0]
        return ravel_pytree(network.observed(state))[0]

    flat, unravel = ravel_pytree(network.observed(first))
    return np.asarray(jax.jit(jax.jacfwd(run))(jnp.zeros_like(flat)))


# test_conformance.py has these families as they are by default, and the comparison with flax the others.
@pytest.mark.sampled(2)
@pytest.mark.parametrize("family", ["minimal_rnn", "lstm, hidden", "lstm, cell"])
def test_the_forward_product_is_the_jacobian_of_the_unrolled_network(family: str) -> None:
    with jax.enable_x64(True):
        network = FAMILIES[family]
        gains = {name: value for name, value in GAINS.items() if name in network.gains}
        gains |= {name: 0.7 for name in ("forget_bias", "update_bias", "radius") if name in network.gains}
        bound = bind(network, gains)
        expected = unrolled_jacobian(bound, 8)
        np.testing.assert_allclose(product(bound, 8)[0], expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


# The cells of flax, given our draws times our gains.


def _cell(kind: Any, v: np.ndarray, dtype: str) -> Any:
    """A cell of flax for input weights of that shape; it starts at zero, since ours replace its own."""
    zeros = nnx.initializers.zeros_init()
    laws = {"kernel_init": zeros, "recurrent_kernel_init": zeros}
    return kind(*v.shape, **laws, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))


def _flax_vanilla(weights: Any, gains: dict[str, float], dtype: str) -> Callable[[Any, jax.Array], Any]:
    cell = _cell(nnx.SimpleCell, weights.v, dtype)
    cell.dense_h.kernel[...] = gains["sigma_w"] * weights.w
    cell.dense_i.kernel[...] = gains["sigma_v"] * weights.v
    cell.dense_i.bias[...] = gains["sigma_b"] * weights.b
    return lambda state, x: cell(state, x)[0]


def _flax_lstm(weights: Any, gains: dict[str, float], dtype: str) -> Callable[[Any, jax.Array], Any]:
    cell = _cell(nnx.LSTMCell, weights.v_i, dtype)
    extra = {"i": -weights.log_time, "f": weights.log_time + gains["forget_bias"], "g": 0.0, "o": 0.0}
    for gate, bias in extra.items():
        of_input, of_state = getattr(cell, "if_" if gate == "f" else "i" + gate), getattr(cell, "h" + gate)
        of_state.kernel[...] = gains["sigma_w"] * getattr(weights, "w_" + gate)
        of_input.kernel[...] = gains["sigma_v"] * getattr(weights, "v_" + gate)
        of_state.bias[...] = gains["sigma_b"] * getattr(weights, "b_" + gate) + bias

    def step(state: LSTMState, x: jax.Array) -> LSTMState:
        (c, h), _ = cell((state.c, state.h), x)
        return LSTMState(h, c)

    return step


def _flax_optimized_lstm(weights: Any, gains: dict[str, float], dtype: str) -> Callable[[Any, jax.Array], Any]:
    cell = _cell(nnx.OptimizedLSTMCell, weights.v_i, dtype)
    zero = np.zeros_like(weights.log_time)
    shift = np.concatenate([-weights.log_time, weights.log_time + gains["forget_bias"], zero, zero])
    cell.dense_h.kernel[...] = gains["sigma_w"] * np.concatenate(weights[0:4], axis=1)
    cell.dense_i.kernel[...] = gains["sigma_v"] * np.concatenate(weights[4:8], axis=1)
    cell.dense_h.bias[...] = gains["sigma_b"] * np.concatenate(weights[8:12]) + shift

    def step(state: LSTMState, x: jax.Array) -> LSTMState:
        (c, h), _ = cell((state.c, state.h), x)
        return LSTMState(h, c)

    return step


def _flax_gru(weights: Any, gains: dict[str, float], dtype: str) -> Callable[[Any, jax.Array], Any]:
    cell = _cell(nnx.GRUCell, weights.v_r, dtype)
    zero = np.zeros_like(weights.log_time)
    shift = np.concatenate([zero, weights.log_time + gains["update_bias"], zero])
    cell.dense_h.kernel[...] = gains["sigma_w"] * np.concatenate(weights[0:3], axis=1)
    cell.dense_i.kernel[...] = gains["sigma_v"] * np.concatenate(weights[3:6], axis=1)
    cell.dense_i.bias[...] = gains["sigma_b"] * np.concatenate(weights[6:9]) + shift
    return lambda state, x: cell(state, x)[0]


FLAX: dict[str, tuple[Network, Callable[..., Any], dict[str, float]]] = {
    "SimpleCell": (vanilla_rnn(9, features=4), _flax_vanilla, {}),
    "LSTMCell": (lstm(9, features=4, chrono=30), _flax_lstm, {"forget_bias": -0.4}),
    "OptimizedLSTMCell": (lstm(9, features=4, initial="gaussian"), _flax_optimized_lstm, {"forget_bias": 0.6}),
    "GRUCell": (gru(9, features=4, chrono=3, initial="gaussian"), _flax_gru, {"update_bias": 0.6}),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", FLAX)
def test_cells_agree_with_flax(cell: str) -> None:
    network, build, biases = FLAX[cell]
    steps, tolerance, dtype = 5, 1e-12, "float64"
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        inputs = jnp.asarray(np.random.default_rng(1).normal(size=(steps, 4)).astype(dtype))
        bound = bind(network, {**GAINS, **biases}, dtype, seed=1, inputs=inputs)
        weights = jax.tree.map(np.asarray, jax.jit(lambda: bound.weights(0))())
        flax_step = build(weights, {**GAINS, **biases}, dtype)
        flat, unravel = ravel_pytree(initial_state(bound))

        def theirs(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = jax.lax.scan(lambda state, x: (flax_step(state, x), None), unravel(flat), inputs)[0]
            return ravel_pytree(state)[0], ravel_pytree(state)[0]

        expected_jacobian, expected_state = jax.jit(jax.jacrev(theirs, has_aux=True))(flat)
        jacobian, state = product(bound, steps)
        assert expected_state.dtype == dtype
        np.testing.assert_allclose(state, expected_state, rtol=0, atol=tolerance)
        np.testing.assert_allclose(jacobian, expected_jacobian, rtol=0, atol=tolerance)


def test_linear_recurrence_has_the_singular_values_of_its_eigenvalues() -> None:
    with jax.enable_x64(True):
        network = linear_recurrence(6, ring=(0.5, 0.9), max_phase=1.0)
        bound = bind(network, {"radius": 0.8})
        re, im = jax.jit(lambda: bound.weights(0))().eigenvalues
        modulus, phase = np.hypot(re, im), np.arctan2(im, re)
        values = np.linalg.svd(product(bound, 9)[0], compute_uv=False)
    assert np.all((modulus >= 0.5) & (modulus <= 0.9) & (phase >= 0) & (phase <= 1))
    np.testing.assert_allclose(values, np.sort(np.repeat((0.8 * modulus) ** 9, 2))[::-1], rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_networks_share_a_draw_and_untied_ones_do_not(family: str) -> None:
    network = FAMILIES[family]
    bound = bind(network, {}, "float32")
    weights = jax.jit(bound.weights)
    same = jax.tree.map(np.array_equal, weights(0), weights(5))
    assert all(jax.tree.leaves(same)) == network.tied


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_activations_and_parameters_are_consistent(family: str) -> None:
    network = FAMILIES[family]
    bound = bind(network, {}, "float32")
    weights = jax.eval_shape(lambda: bound.weights(0))
    state = jax.eval_shape(lambda: bound.chain.initial_state().mantissa)
    new, preactivations = jax.eval_shape(lambda state: bound.step(0)(state), state)
    assert [leaf.shape for leaf in jax.tree.leaves(new)] == [leaf.shape for leaf in jax.tree.leaves(state)]
    assert type(new) is type(state) or network.family not in ("lstm", "linear_recurrence")
    assert len(preactivations) == len(network.activations)
    assert set(network.parameters) <= set(weights._fields)
    assert set(network.parameters.values()) <= set(network.gains)
    assert (network.axis, network.axis_units, network.driven) == ("time", "step", True)


def test_initial_states() -> None:
    noise, noises = jnp.arange(1.0, 4.0), jnp.arange(1.0, 7.0).reshape(2, 3)
    for network in (vanilla_rnn(3), minimal_rnn(3), gru(3, initial="gaussian")):
        np.testing.assert_array_equal(network.initial_state({}, noise), noise)
    for network in (vanilla_rnn(3, initial="zero"), minimal_rnn(3, initial="zero"), gru(3)):
        np.testing.assert_array_equal(network.initial_state({}, noise), 0 * noise)
    np.testing.assert_array_equal(lstm(3, initial="gaussian").initial_state({}, noises), noises)
    np.testing.assert_array_equal(lstm(3).initial_state({}, noises), 0 * noises)
    np.testing.assert_array_equal(linear_recurrence(3).initial_state({}, noises), 0 * noises)


def test_defaults_of_the_gains_are_the_initializers_own() -> None:
    gains = lstm(16, "torch_linear", features=4, input_initializer="he_normal").gains
    assert gains == {"sigma_w": 3**-0.5, "sigma_v": 2**0.5, "sigma_b": 48**-0.5, "forget_bias": 0.0}


def test_digits_drive_a_network() -> None:
    assert digits().mean() == pytest.approx(0, abs=1e-12)
    assert digits().std() == pytest.approx(1, rel=1e-12)
    pixels, rows = digits_sequence("pixels"), digits_sequence("rows")
    assert (pixels.shape, rows.shape) == ((1797, 64, 1), (1797, 8, 8))
    np.testing.assert_array_equal(pixels.reshape(1797, 64), digits())
    np.testing.assert_array_equal(rows.reshape(1797, 64), digits())
    maps = gs.sweep(vanilla_rnn(4, features=8), depth=8, seeds=3, inputs=rows)
    assert maps.sizes == {"seed": 3, "time": 8}
    assert bool(np.isfinite(maps.log_gain).all())
    with pytest.raises(ValueError, match=r"^inputs: got shape \[1797"):
        gs.sweep(vanilla_rnn(4, features=3), depth=8, seeds=3, inputs=rows)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install gradsim\[digits\]"):
        digits()


SWEEP = {"network": gru(4), "depth": 3, "seeds": 1}


@pytest.mark.parametrize(
    ("function", "arguments", "error", "start"),
    [
        (vanilla_rnn, {"width": 0}, ValueError, "width: got 0; pass"),
        (vanilla_rnn, {"width": "8"}, TypeError, "width: got '8'"),
        (vanilla_rnn, {"width": 8, "features": 0}, ValueError, "features: got 0; pass"),
        (vanilla_rnn, {"width": 8, "features": 2.5}, ValueError, "features: got 2.5; pass"),
        (vanilla_rnn, {"width": 8, "activation": "tanhh"}, ValueError, "activation: unknown name 'tanhh'"),
        (vanilla_rnn, {"width": 8, "initializer": "gauss"}, ValueError, "initializer: unknown name 'gauss'"),
        (vanilla_rnn, {"width": 8, "input_initializer": "x"}, ValueError, "input_initializer: unknown name 'x'"),
        (vanilla_rnn, {"width": 8, "initial": "ones"}, ValueError, "initial: got 'ones'; pass one of: gaussian, zero"),
        (vanilla_rnn, {"width": 8, "tied": 1}, TypeError, "tied: got 1 of type int; pass True or False"),
        (minimal_rnn, {"width": -3}, ValueError, "width: got -3; pass"),
        (lstm, {"width": 8, "of": "gate"}, ValueError, "of: got 'gate'; pass one of: state, hidden, cell"),
        (gru, {"width": 8, "of": "cell"}, ValueError, "of: got 'cell'; pass one of: state, hidden"),
        (gru, {"width": 8, "of": None}, TypeError, "of: got None"),
        (lstm, {"width": 8, "chrono": 1}, ValueError, "chrono: got 1; pass a whole number of at least 2"),
        (gru, {"width": 8, "chrono": "long"}, TypeError, "chrono: got 'long'"),
        (linear_recurrence, {"width": 8, "ring": (0.9, 0.5)}, ValueError, "ring: got (0.9, 0.5); pass two numbers"),
        (linear_recurrence, {"width": 8, "ring": (0.9, 1.5)}, ValueError, "ring: got (0.9, 1.5); pass two numbers"),
        (linear_recurrence, {"width": 8, "ring": (0.9, math.nan)}, ValueError, "ring: got (0.9, nan); pass two"),
        (linear_recurrence, {"width": 8, "ring": 0.9}, TypeError, "ring: got 0.9 of type float; pass two numbers"),
        (linear_recurrence, {"width": 8, "max_phase": 7.0}, ValueError, "max_phase: got 7.0; pass a number from 0 to"),
        (linear_recurrence, {"width": 8, "max_phase": "π"}, TypeError, "max_phase: got 'π' of type str"),
        (digits_sequence, {"by": "columns"}, ValueError, "by: got 'columns'; pass one of: pixels, rows"),
        (gs.sweep, {**SWEEP, "forget_bias": 1}, ValueError, "forget_bias: neither an option"),
        (gs.sweep, {**SWEEP, "depth": 0}, ValueError, "depth: got 0; pass"),
        (gs.sweep, {**SWEEP, "inputs": np.ones((5, 4))}, ValueError, "inputs: got shape [5, 4]"),
        (gs.sweep, {**SWEEP, "inputs": np.ones((5, 2, 4))}, ValueError, "inputs: got shape [5, 2, 4]"),
    ],
)
def test_bad_input_is_one_clear_line(
    function: Any, arguments: dict[str, Any], error: type[Exception], start: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        function(**arguments)
    if not isinstance(caught.value, TypeCheckError):  # where annotations are checked, that check comes first
        assert isinstance(caught.value, error)
        assert str(caught.value).startswith(start)
        assert "\n" not in str(caught.value)
