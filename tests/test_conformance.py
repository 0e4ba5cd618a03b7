"""What must hold of every family: each instance registered in families.py goes through all of it."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import xarray
from families import FAMILIES
from jax import Array, random
from jax.flatten_util import ravel_pytree

import gradsim as gs
from gradsim import Network, initializers, scaled
from gradsim.engine import products
from gradsim.engine.chain import network_keys
from gradsim.networks.network import leaves_of

DEPTH, KEY, SEED = 4, 13, 1
PRODUCTS = ("log_gain", "log_jvp", "log_spectral")
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}

families = pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES.keys())


def some_gains(network: Network) -> dict[str, Any]:
    """Gains near the defaults; none is zero, so that every term of a step is there."""
    return {name: value * 1.1 if value else 0.3 for name, value in network.gains.items()}


def double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), tree)


def jacobians_and_vector(network: Network, dtype: str, burn_in: int) -> tuple[np.ndarray, np.ndarray]:
    """jax.jacfwd of the whole network in float64, [depth, n, n], and the unit vector of log_jvp.

    The draws are those of `dtype`, from the keys that the package promises: fold_in(stream, step).
    """
    keys, driven = network_keys(random.key(KEY), SEED), network.driven
    shape = network.initial_shape if driven else network.input_shape

    def drawn(t: Array) -> tuple[Any, Array]:
        weights = network.draw(random.fold_in(keys.weights, 0 if network.tied else t), dtype)
        return weights, initializers.normal(random.fold_in(keys.inputs, t), network.input_shape, dtype)

    @jax.jit
    def draws(gains: dict[str, Any]) -> tuple[Any, Array, Any]:
        """Those of all steps, the numbers of the first state and the vector, which are drawn together."""
        state = network.initial_state(gains, jnp.zeros(shape, dtype))
        entries, inputs = scaled.size(jax.tree.leaves(network.observed(state))), math.prod(shape)
        numbers = initializers.normal(keys.once, (inputs + entries,), dtype)
        u = products.along(network, state, numbers[inputs:])
        each = jax.vmap(drawn)(jnp.arange(burn_in + DEPTH, dtype=jnp.int32))
        return each, numbers[:inputs].reshape(shape), jax.tree.map(lambda leaf: leaf[0], u)

    def flat_observed(state: Any) -> Array:
        return ravel_pytree(network.observed(state))[0]

    @jax.jit
    def whole(gains: dict[str, Any], each: Any, first: Array, u: Any) -> tuple[Array, Array, Array]:
        """Jacobians of the states after each step, those of what is observed of the first, and the vector."""

        def states(state: Any, steps: slice) -> Any:
            """The states after those steps, one after the other."""

            def advance(state: Any, draw: tuple[Any, Array]) -> tuple[Any, Any]:
                new = network.step(draw[0], gains, state, draw[1] if driven else None)[0]
                return new, new

            return jax.lax.scan(advance, state, jax.tree.map(lambda leaf: leaf[steps], each))

        flat, unravel = ravel_pytree(states(network.initial_state(gains, first), slice(burn_in))[0])
        chain = jax.jacfwd(lambda flat: jax.vmap(flat_observed)(states(unravel(flat), slice(burn_in, None))[1]))
        return chain(flat), jax.jacfwd(lambda flat: flat_observed(unravel(flat)))(flat), ravel_pytree(u)[0]

    with jax.enable_x64(dtype == "float64"):
        gains = {name: jnp.asarray(value, dtype) for name, value in some_gains(network).items()}
        found = draws(gains)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        chain, select, unit = map(np.asarray, whole(double(gains), *map(double, found)))
    return chain @ select.T, select @ unit


@families
@pytest.mark.parametrize(("dtype", "burn_in"), [("float64", 3), ("float32", 0)])
def test_products_equal_jacfwd_of_the_whole_network(network: Network, dtype: str, burn_in: int) -> None:
    """All prefixes, and in float64 the whole product pushed backward, which is the first suffix."""
    options: dict[str, Any] = {
        "depth": DEPTH, "seeds": SEED + 1, "key": KEY, "dtype": dtype, "burn_in": burn_in, **some_gains(network)
    }  # fmt: skip
    measured = gs.sweep(network, statistics=PRODUCTS, at=range(1, DEPTH + 1), **options).isel(seed=SEED)
    jacobians, u = jacobians_and_vector(network, dtype, burn_in)
    expected = {
        "log_gain": 0.5 * np.log((jacobians**2).sum(axis=(1, 2)) / jacobians.shape[2]),
        "log_jvp": np.log(np.linalg.norm(jacobians @ u, axis=1)),
        "log_spectral": np.log(np.linalg.norm(jacobians, 2, axis=(1, 2))),
    }
    assert np.linalg.norm(u) == pytest.approx(1, rel=1e-6)
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, rtol=0, atol=TOLERANCE[dtype], err_msg=name)
    if dtype == "float64":
        backward = gs.sweep(network, direction="backward", **options).log_gain.isel(seed=SEED)
        np.testing.assert_allclose(backward[0], expected["log_gain"][-1], rtol=0, atol=TOLERANCE[dtype])


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def grid(request: pytest.FixtureRequest) -> tuple[Network, xarray.Dataset]:
    """Every gain of a family as an axis of two points."""
    network: Network = request.param
    axes: dict[str, Any] = {name: np.array([value, 1.5 * value + 0.1]) for name, value in some_gains(network).items()}
    return network, gs.sweep(network, depth=6, seeds=3, key=KEY, statistics=("log_gain", "log_jvp", "length"), **axes)


def test_every_gain_makes_a_named_axis(grid: tuple[Network, xarray.Dataset]) -> None:
    network, dataset = grid
    assert dataset.log_gain.dims == (*network.gains, "seed", network.axis)
    assert dataset[network.axis].attrs["units"] == network.axis_units
    for name in network.gains:
        assert dataset[name].attrs["long_name"]
        assert dataset[name].attrs["units"] == "1"


def test_every_gain_changes_the_states(grid: tuple[Network, xarray.Dataset]) -> None:
    """A gain that is read nowhere, or baked into the draw, would not."""
    network, dataset = grid
    for name in network.gains:
        lengths = dataset.length.transpose(name, ...).to_numpy()
        gains = dataset.log_gain.transpose(name, ...).to_numpy()
        assert np.any(lengths[0] != lengths[1]) or np.any(gains[0] != gains[1]), name


def test_a_cell_equals_the_sweep_of_that_cell_alone(grid: tuple[Network, xarray.Dataset]) -> None:
    network, dataset = grid
    corner: dict[str, Any] = {name: float(dataset[name][1]) for name in network.gains}
    alone = gs.sweep(network, depth=6, seeds=3, key=KEY, statistics=("log_gain", "log_jvp", "length"), **corner)
    for name in ("log_gain", "log_jvp"):
        np.testing.assert_allclose(dataset[name].sel(corner), alone[name], atol=3e-5)


def test_seeds_are_different_networks(grid: tuple[Network, xarray.Dataset]) -> None:
    _, dataset = grid
    for cell in dataset.log_jvp.to_numpy()[..., -1].reshape(-1, dataset.seed.size):
        living = cell[~np.isnan(cell)]
        assert np.unique(living).size == living.size


def test_a_direction_gains_no_more_than_all_together(grid: tuple[Network, xarray.Dataset]) -> None:
    """‖J u‖ ≤ ‖J‖_F = √n e^log_gain."""
    network, dataset = grid
    plan_size = sum(np.size(leaf) for leaf in jax.tree.leaves(observed_shape(network)))
    living = ~dataset.dead.to_numpy()
    excess = (dataset.log_jvp - dataset.log_gain).to_numpy()[living] - 0.5 * np.log(plan_size)
    assert np.all(excess < 1e-5)
    for name in ("log_jvp", "log_gain"):
        np.testing.assert_array_equal(np.isnan(dataset[name]), dataset.dead)


def observed_shape(network: Network) -> Any:
    gains = {name: jnp.asarray(value, jnp.float32) for name, value in network.gains.items()}
    first = network.initial_shape if network.driven else network.input_shape
    return network.observed(network.initial_state(gains, jnp.ones(first, jnp.float32)))


DECADES: dict[str, Any] = {"depth": 150, "seeds": 2, "key": KEY, "statistics": ("log_jvp", "log_length")}


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def decades(request: pytest.FixtureRequest) -> tuple[Network, dict[str, xarray.Dataset]]:
    """A hundredth and a hundredfold of each gain."""
    network: Network = request.param
    axes: dict[str, dict[str, Any]] = {
        name: {name: [0.01 * value, 100 * value]} for name, value in some_gains(network).items()
    }
    return network, {name: gs.sweep(network, **DECADES, **axis) for name, axis in axes.items()}


def test_range_over_four_decades_of_every_gain(decades: tuple[Network, dict[str, xarray.Dataset]]) -> None:
    """No NaN or inf; a product is zero only where the flag says so."""
    network, datasets = decades
    for name, dataset in datasets.items():
        living = ~dataset.dead.to_numpy()
        assert living.any()
        assert np.isfinite(dataset.log_jvp.to_numpy()[living]).all(), name
        assert np.isfinite(dataset.log_length.to_numpy()[living]).all(), name
    zeros: dict[str, Any] = dict.fromkeys(network.gains, 0.0)
    zeros[next(iter(zeros))] = [0.0, 1.0]  # two cells, as before: nothing is compiled anew
    dataset = gs.sweep(network, **DECADES, **zeros)
    np.testing.assert_array_equal(np.isnan(dataset.log_jvp), dataset.dead)


def test_a_longer_sweep_extends_a_shorter_one_bit_for_bit(decades: tuple[Network, dict[str, xarray.Dataset]]) -> None:
    network, datasets = decades
    name, long = next(iter(datasets.items()))
    axis: dict[str, Any] = {name: long[name].to_numpy()}
    short = gs.sweep(network, **{**DECADES, "depth": 7}, **axis)
    for statistic in DECADES["statistics"]:
        np.testing.assert_array_equal(long[statistic][..., :7], short[statistic])


@families
def test_networks_are_compared_by_value(network: Network) -> None:
    """Equal networks share one compilation."""
    copy = dataclasses.replace(network)
    assert copy is not network
    assert copy == network
    assert hash(copy) == hash(network)


@families
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_and_steps_keep_dtype_and_shape(network: Network, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        draw = jax.jit(lambda seed: network.draw(random.key(seed), dtype))
        weights, again, other = draw(0), draw(0), draw(1)
        gains = {name: jnp.asarray(value, dtype) for name, value in some_gains(network).items()}
        first = network.initial_shape if network.driven else network.input_shape
        state = jax.eval_shape(network.initial_state, gains, jnp.ones(first, dtype))
        inputs = jnp.ones(network.input_shape, dtype) if network.driven else None
        new, preactivations = jax.eval_shape(network.step, weights, gains, state, inputs)
    assert str(jax.tree.structure(new)) == str(jax.tree.structure(state))
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves((weights, state, preactivations)))
    assert len(preactivations) == len(network.activations)
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(again), strict=True)]
    differs = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(other), strict=True)]
    assert all(same)
    assert any(differs)


@families
def test_parameters_are_fields_of_the_weights_and_name_their_gain(network: Network) -> None:
    weights = network.draw(random.key(0), "float32")
    for field, gain in network.parameters.items():
        assert leaves_of(weights, field)
        assert gain in network.gains


@families
def test_bad_gains_and_inputs_are_refused(network: Network) -> None:
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # the library's own checks
    bad: list[tuple[str, Any]] = [("sigma_nonsense", 1.0), *((name, float("nan")) for name in network.gains)]
    bad += [("inputs", np.ones((2, 1, 1, 1, 1, 3)))]
    try:
        for name, value in bad:
            with pytest.raises(ValueError, match=f"^{name}: "):
                gs.sweep(network, depth=2, seeds=1, **{name: value})
    finally:
        jaxtyping.config.update("jaxtyping_disable", disabled)
