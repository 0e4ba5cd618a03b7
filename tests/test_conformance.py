"""What must hold of every family: each instance registered in families.py goes through all of it."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from families import FAMILIES
from jax import Array, random
from jax.flatten_util import ravel_pytree

import gradsim as gs
from gradsim import Network, initializers, scaled
from gradsim.engine import products
from gradsim.engine.streams import Keys, network_keys

DEPTH, KEY, SEED, BURN_IN = 4, 13, 1, 3
STATISTICS = ("log_gain", "log_jvp", "log_length")
DECADES: dict[str, Any] = {"depth": 150, "seeds": 3, "key": KEY, "statistics": STATISTICS}

families = pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES.keys())

# Over depth and over time; the others take these steps in the same way.
BURNED_IN = ("feedforward", "vanilla_rnn")
# Norms, whose products are singular; states of several parts, of which all is observed or some.
SPECTRA = ("layernorm", "lstm_cell", "s4d")
OF_SPECTRA = {FAMILIES[name] for name in SPECTRA}


def some_gains(network: Network) -> dict[str, Any]:
    """Gains near the defaults; none is zero, so that every term of a step is there."""
    return {name: value * 1.1 if value else 0.3 for name, value in network.gains.items()}


def double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), tree)


@partial(jax.jit, static_argnames="network")
def draws(network: Network, keys: Keys, gains: dict[str, Array]) -> tuple[Any, Array, Array]:
    """The weights and inputs of all steps, the numbers of the first state, and the unit vector of log_jvp.

    Drawn from the keys that the package promises: fold_in(stream, step).
    """
    shape, dtype = network.initial_shape if network.driven else network.input_shape, "float64"
    state = network.initial_state(gains, jnp.zeros(shape, dtype))
    entries, inputs = scaled.size(jax.tree.leaves(network.observed(state))), math.prod(shape)
    numbers = initializers.normal(keys.once, (inputs + entries,), dtype)
    u = products.along(network, state, numbers[inputs:])

    def drawn(t: Array) -> tuple[Any, Array]:
        weights = network.draw(random.fold_in(keys.weights, 0 if network.tied else t), dtype)
        if network.numbered:
            return weights, t
        return weights, initializers.normal(random.fold_in(keys.inputs, t), network.input_shape, dtype)

    each = jax.vmap(drawn)(jnp.arange(BURN_IN + DEPTH, dtype=jnp.int32))
    return each, numbers[:inputs].reshape(shape), ravel_pytree(jax.tree.map(lambda leaf: leaf[0], u))[0]


def drawn(network: Network, seed: int = SEED) -> tuple[Any, Array, Array]:
    """`draws` of the network of this seed."""
    with jax.enable_x64(True):
        gains = {name: jnp.asarray(value, "float64") for name, value in some_gains(network).items()}
        return draws(network, network_keys(random.key(KEY), seed), gains)


@partial(jax.jit, static_argnames="network")
def chain(network: Network, gains: dict[str, Array], each: Any, state: Any) -> tuple[Any, Array, Array]:
    """The states after each step; the Jacobians, by the first state, of what is observed of them, and of it."""

    def observed(state: Any) -> Array:
        return ravel_pytree(network.observed(state))[0]

    def advance(state: Any, draw: tuple[Any, Array]) -> tuple[Any, Any]:
        new = network.step(draw[0], gains, state, draw[1] if network.driven or network.numbered else None)[0]
        return new, new

    def states(flat: Array) -> tuple[Array, Any]:
        after = jax.lax.scan(advance, unravel(flat), each)[1]
        return jax.vmap(observed)(after), after

    flat, unravel = ravel_pytree(state)
    jacobians, after = jax.jacfwd(states, has_aux=True)(flat)
    return after, jacobians, jax.jacfwd(lambda flat: observed(unravel(flat)))(flat)


def jacobians_and_vector(network: Network) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """jax.jacfwd of the whole network, [depth, n, n], and after a burn-in, and the vector of log_jvp; in float64."""
    found = drawn(network)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        each, first, u = jax.tree.map(np.asarray, found)
        gains = double(some_gains(network))
        state = network.initial_state(gains, jnp.asarray(first))
        after, *ahead = chain(network, gains, jax.tree.map(lambda leaf: leaf[:DEPTH], each), state)
        state = jax.tree.map(lambda leaf: np.asarray(leaf)[BURN_IN - 1], after)
        later, _ = chain(network, gains, jax.tree.map(lambda leaf: leaf[BURN_IN:], each), state)[1:]
        jacobians, select = map(np.asarray, ahead)
    return jacobians @ select.T, np.asarray(later) @ select.T, select @ u


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def grid(request: pytest.FixtureRequest) -> tuple[Network, xarray.Dataset]:
    """Every gain of a family as an axis of two points, the first of them `some_gains`; in float64."""
    network: Network = request.param
    axes: dict[str, Any] = {name: np.array([value, 1.5 * value + 0.1]) for name, value in some_gains(network).items()}
    statistics = (*STATISTICS, "log_spectral", *("log_singular_values",) * (network in OF_SPECTRA))
    return network, gs.sweep(
        network, depth=6, seeds=3, key=KEY, statistics=statistics, at=range(1, DEPTH + 1), dtype="float64", **axes
    )


def expected(jacobians: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
    """The statistics of all prefixes, from the products themselves."""
    assert np.linalg.norm(u) == pytest.approx(1, rel=1e-6)
    return {
        "log_gain": 0.5 * np.log((jacobians**2).sum(axis=(1, 2)) / jacobians.shape[2]),
        "log_jvp": np.log(np.linalg.norm(jacobians @ u, axis=1)),
        "log_spectral": np.log(np.linalg.norm(jacobians, 2, axis=(1, 2))),
    }


@pytest.mark.sampled(6)
def test_products_equal_jacfwd_of_the_whole_network(grid: tuple[Network, xarray.Dataset]) -> None:
    """And the whole product pushed backward, which is the first suffix; in some families after a burn-in."""
    network, dataset = grid
    ahead, later, u = jacobians_and_vector(network)
    cell = dataset.isel(seed=SEED, **dict.fromkeys(network.gains, 0))  # type: ignore[arg-type]
    for name, values in expected(ahead, u).items():
        np.testing.assert_allclose(cell[name][:DEPTH], values, rtol=0, atol=1e-12, err_msg=name)
    whole = later if network.family in BURNED_IN else ahead
    np.testing.assert_allclose(backward(network).log_gain[0], expected(whole, u)["log_gain"][-1], rtol=0, atol=1e-12)


def backward(network: Network) -> xarray.Dataset:
    """One network pushed backward from the last step; its spectra too where they are compared."""
    spectra: dict[str, Any] = {"statistics": ("log_gain", "log_singular_values"), "at": 1}
    return gs.sweep(
        network, depth=DEPTH, seeds=SEED + 1, key=KEY, burn_in=BURN_IN * (network.family in BURNED_IN), dtype="float64",
        direction="backward", **(spectra if network in OF_SPECTRA else {}), **some_gains(network),
    ).isel(seed=SEED)  # fmt: skip


@pytest.mark.sampled(1)
@pytest.mark.parametrize("grid", [FAMILIES[name] for name in SPECTRA], ids=SPECTRA, indirect=True)
def test_singular_values_equal_those_of_the_whole_network(grid: tuple[Network, xarray.Dataset]) -> None:
    """Of every prefix; and of the whole product pushed backward."""
    network, dataset = grid
    products, _, _ = jacobians_and_vector(network)
    cell = dataset.isel(seed=SEED, **dict.fromkeys(network.gains, 0))  # type: ignore[arg-type]
    assert_spectra(cell.log_singular_values.to_numpy()[:DEPTH], products)
    assert_spectra(backward(network).log_singular_values.to_numpy()[:1], products[-1:])


def assert_spectra(logs: np.ndarray, products: np.ndarray) -> None:
    """To 1e-12, and beyond that to what an SVD of the product resolves; −inf where it finds rounding alone."""
    values = np.linalg.svd(products, compute_uv=False)
    relative = values / values[:, :1]
    zero = np.isneginf(logs)
    assert not np.isnan(logs).any()
    assert (relative[zero] < 1e-13).all()
    np.testing.assert_array_less(np.abs(logs - np.log(values))[~zero], (1e-12 + 4e-15 / relative)[~zero])


@pytest.mark.sampled(6)
def test_every_gain_makes_a_named_axis(grid: tuple[Network, xarray.Dataset]) -> None:
    network, dataset = grid
    assert dataset.log_gain.dims == (*network.gains, "seed", network.axis)
    assert dataset[network.axis].attrs["units"] == network.axis_units
    for name in network.gains:
        assert dataset[name].attrs["long_name"]
        assert dataset[name].attrs["units"] == "1"


@pytest.mark.sampled(6)
def test_every_gain_changes_the_states(grid: tuple[Network, xarray.Dataset]) -> None:
    """A gain that is read nowhere, or baked into the draw, would not."""
    network, dataset = grid
    for name in network.gains:
        lengths = dataset.log_length.fillna(0).transpose(name, ...).to_numpy()
        gains = dataset.log_gain.fillna(0).transpose(name, ...).to_numpy()
        assert np.any(lengths[0] != lengths[1]) or np.any(gains[0] != gains[1]), name


@pytest.mark.sampled(3)
def test_cells_in_float32_equal_those_of_a_grid_in_float64(grid: tuple[Network, xarray.Dataset]) -> None:
    """Cells swept alone, those along the first gain where all others are at their first or second point."""
    network, dataset = grid
    first, *others = network.gains
    axis: dict[str, Any] = {first: dataset[first].to_numpy()}
    for point, tolerance in ((0, 1e-5), (1, 3e-5)):
        corner: dict[str, Any] = {name: float(dataset[name][point]) for name in others}
        alone = gs.sweep(network, **{**DECADES, "depth": 6}, **axis, **corner)
        for name in ("log_gain", "log_jvp"):
            np.testing.assert_allclose(alone[name], dataset[name].sel(corner), rtol=0, atol=tolerance)


@pytest.mark.sampled(6)
def test_seeds_are_different_networks(grid: tuple[Network, xarray.Dataset]) -> None:
    _, dataset = grid
    for cell in dataset.log_jvp.to_numpy()[..., -1].reshape(-1, dataset.seed.size):
        living = cell[~np.isnan(cell)]
        assert np.unique(living).size == living.size


@pytest.mark.sampled(6)
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


@pytest.fixture(scope="module", params=list(FAMILIES.values()), ids=list(FAMILIES))
def decades(request: pytest.FixtureRequest) -> tuple[Network, dict[str, xarray.Dataset]]:
    """A hundredth and a hundredfold of each gain."""
    network: Network = request.param
    axes: dict[str, dict[str, Any]] = {
        name: {name: [0.01 * value, 100 * value]} for name, value in some_gains(network).items()
    }
    return network, {name: gs.sweep(network, **DECADES, **axis) for name, axis in axes.items()}


@pytest.mark.sampled(3)
def test_range_over_four_decades_of_every_gain(decades: tuple[Network, dict[str, xarray.Dataset]]) -> None:
    """No NaN or inf; a product is zero only where the flag says so."""
    network, datasets = decades
    for name, dataset in datasets.items():
        living = ~dataset.dead.to_numpy()
        assert living.any()
        for statistic in STATISTICS:
            assert np.isfinite(dataset[statistic].to_numpy()[living]).all(), name
    zeros: dict[str, Any] = dict.fromkeys(network.gains, 0.0)
    zeros[next(iter(zeros))] = [0.0, 1.0]  # two cells, as before: nothing is compiled anew
    dataset = gs.sweep(network, **DECADES, **zeros)
    np.testing.assert_array_equal(np.isnan(dataset.log_jvp), dataset.dead)


@pytest.mark.sampled(3)
def test_a_longer_sweep_extends_a_shorter_one_bit_for_bit(decades: tuple[Network, dict[str, xarray.Dataset]]) -> None:
    network, datasets = decades
    name, long = next(iter(datasets.items()))
    axis: dict[str, Any] = {name: long[name].to_numpy()}
    short = gs.sweep(network, **{**DECADES, "depth": 7}, **axis)
    for statistic in STATISTICS:
        np.testing.assert_array_equal(long[statistic][..., :7], short[statistic])


@pytest.mark.sampled(6)
@families
def test_draws_of_a_seed_are_its_own(network: Network) -> None:
    one, again, other = (jax.tree.leaves(drawn(network, seed)[0][0]) for seed in (0, 0, 1))
    assert all(map(np.array_equal, one, again))
    assert not all(map(np.array_equal, one, other))
