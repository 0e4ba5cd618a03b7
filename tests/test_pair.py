"""Two inputs through one network against autodiff of the whole, far beyond the floats, and crossed with the rest."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from families import Own
from jax import Array
from unrolled import own_checks, whole_pair

import gradsim as gs
from gradsim import Network, Statistic
from gradsim.networks.network import leaves_of

DEPTH, KEY, SEED, C = 4, 5, 1, (-0.6, 0.8)
EXACT = 1e-12
PAIR = gs.pair(gs.feedforward(3))
DYING = gs.pair(gs.feedforward(1, "relu", "identity"))
SOME: dict[str, Any] = {"depth": 3, "seeds": 6, "input_correlation": [0.2, 0.7]}
FORWARD = ("log_gain", "log_jvp", "correlation", "log_decorrelation", "gradient_correlation", "jvp_correlation")
SEEN = ("log_gain", "correlation", "log_decorrelation", "gradient_correlation")
BACKWARD = (
    "log_gradient", "gradient_correlation", "loss_gradient_correlation", "weight_gradient_correlation",
    "weight_gradient_sum_correlation",
)  # fmt: skip


def cosine(arrays: Any, inner: int = 2) -> np.ndarray:
    """That of arrays [2, …] over their last axes."""
    a, b = np.asarray(arrays)
    axes = tuple(range(-inner, 0))
    with np.errstate(invalid="ignore"):  # what is zero has no direction
        return np.sum(a * b, axes) / np.sqrt(np.sum(a * a, axes) * np.sum(b * b, axes))


def some_gains(network: Network) -> dict[str, float]:
    return {name: value * 1.1 if value else 0.3 for name, value in network.gains.items()}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("network", "back"), [(gs.feedforward(5, tied=True), True), (gs.cornn(3, features=2), False)])
def test_every_statistic_equals_autodiff_of_the_whole_network(network: Network, back: bool) -> None:
    """Over depth both ways; over time driven, with a state of two parts. Each half is what its own input gives."""
    gains = some_gains(network)
    options: dict[str, Any] = {"depth": DEPTH, "seeds": SEED + 1, "key": KEY, "dtype": "float64", **gains}
    ahead = gs.sweep(gs.pair(network), statistics=FORWARD, input_correlation=C, **options).isel(seed=SEED)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        values = {name: jnp.asarray(value) for name, value in gains.items()}
        found = [
            jax.tree.map(np.asarray, whole_pair(network, values, jnp.asarray(c), KEY, SEED, DEPTH, back)) for c in C
        ]
    for c, both in zip(C, found, strict=True):
        forward = {
            "log_gain": 0.5 * np.log(np.sum(both.prefixes**2, axis=(2, 3)).T / both.prefixes.shape[-1]),
            "log_jvp": np.log(np.linalg.norm(both.prefixes @ both.vector, axis=-1)).T,
            "correlation": cosine(both.states, 1),
            "log_decorrelation": np.log(1 - cosine(both.states, 1)),
            "gradient_correlation": cosine(both.prefixes),
            "jvp_correlation": cosine(both.prefixes @ both.vector, 1),
        }
        assert_equal(ahead.sel(input_correlation=c), forward)
    if not back:
        return
    down = gs.sweep(gs.pair(network), statistics=BACKWARD, input_correlation=C, direction="backward", **options)
    for c, both in zip(C, found, strict=True):
        one = down.isel(seed=SEED).sel(input_correlation=c)
        flowing = np.swapaxes(both.suffixes, -1, -2) @ both.vector
        backward = {
            "log_gradient": np.log(np.linalg.norm(flowing, axis=-1)).T,
            "gradient_correlation": cosine(both.suffixes),
            "loss_gradient_correlation": cosine(flowing, 1),
        }
        assert_equal(one, backward)
        assert_of_weights(one.weight_gradient_correlation, network, gains, both.weights)
        later = jax.tree.map(lambda leaf: np.cumsum(leaf[:, ::-1], axis=1)[:, ::-1], both.weights)
        assert_of_weights(one.weight_gradient_sum_correlation, network, gains, later)


def assert_equal(found: xarray.Dataset, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=EXACT, err_msg=name)


def assert_of_weights(found: xarray.DataArray, network: Network, gains: dict[str, float], gradients: Any) -> None:
    """The cosines of the gradients by each gain · weights, and of all of these."""
    flat = {
        name: np.concatenate([leaf.reshape(2, DEPTH, -1) for leaf in leaves_of(gradients, name).values()], -1)
        / gains[gain]
        for name, gain in network.parameters.items()
    }
    np.testing.assert_allclose(
        found.sel(parameter="all"), cosine(np.concatenate(list(flat.values()), -1), 1), rtol=0, atol=EXACT
    )
    for name, leaf in flat.items():
        np.testing.assert_allclose(found.sel(parameter=name), cosine(leaf, 1), rtol=0, atol=EXACT, err_msg=name)


@pytest.fixture(scope="module")
def bent() -> Network:
    """Two units that keep their sign, and multiply the positive by 3: J = diag(3^L or 1)."""
    return gs.feedforward(2, gs.Activation("bent", jax.jit(lambda x: jnp.maximum(x, 3 * x)), (0.0,)), "identity")


def test_one_chain_may_explode_beside_the_other(bent: Network) -> None:
    """3^2000 is 1e954: each chain has exponents of its own, of states, products and the gradients of weights."""
    depth = 2000
    options: dict[str, Any] = {"depth": depth, "seeds": 12, "key": KEY, "sigma_w": 1.0, "input_correlation": -1.0}
    ahead = gs.sweep(gs.pair(bent), statistics=("log_gain", "gradient_correlation", "log_length"), **options)
    back = gs.sweep(
        gs.pair(bent), statistics=("log_gain", "gradient_correlation", "weight_gradient_correlation"),
        direction="backward", **options,
    )  # fmt: skip
    last, first = ahead.isel(depth=-1), back.isel(depth=0)
    positive = np.sort(np.round(2 * np.exp(2 * (last.log_gain - depth * np.log(3.0)))).to_numpy())  # units that grow
    assert set(map(tuple, positive.tolist())) == {(0.0, 2.0), (1.0, 1.0)}
    apart = positive[:, 0] == 1
    grown, still = np.log(3.0) * depth, 0.0
    wanted = np.where(apart[:, None], grown - 0.5 * np.log(2), np.array([still, grown]))
    np.testing.assert_allclose(np.sort(last.log_gain, axis=-1), wanted, rtol=0, atol=1e-2)
    np.testing.assert_array_equal(last.gradient_correlation, np.where(apart, 0.0, 1.0))
    np.testing.assert_allclose(first.log_gain, last.log_gain, rtol=0, atol=1e-2)
    np.testing.assert_array_equal(first.gradient_correlation, last.gradient_correlation)
    assert np.isfinite(back.weight_gradient_correlation.sel(parameter=["all", "w"])).all()
    assert not last.dead.any()


def test_a_dead_chain_has_no_direction_and_is_flagged() -> None:
    """A ReLU that keeps what is positive: at c = −1 each unit lives in one chain alone."""
    options: dict[str, Any] = {**SOME, "key": KEY, "sigma_w": 1.0, "input_correlation": [-1.0, 1.0]}
    found = gs.sweep(DYING, statistics=SEEN, **options)
    apart, equal = (found.sel(input_correlation=c) for c in (-1.0, 1.0))
    assert (apart.dead.sum("input") == 1).all()
    np.testing.assert_array_equal(np.isnan(found.log_gain), found.dead)
    for name in ("correlation", "gradient_correlation", "log_decorrelation"):
        assert np.isnan(apart[name]).all()
        assert found[name].attrs["lost"] == 0
    np.testing.assert_array_equal(equal.gradient_correlation, np.where(equal.dead.all("input"), np.nan, 1.0))
    alone = gs.sweep(DYING, statistics=("correlation", "gradient_correlation"), **options)
    np.testing.assert_array_equal(alone.dead, found.dead.any("input"))
    assert "one of the two" in alone.dead.attrs["long_name"]


def test_given_inputs_are_the_two_samples(tmp_path: Path) -> None:
    """As they are at c = 0, mixed at others; what is measured is read again from a file, and joined over seeds."""
    samples = np.random.default_rng(0).standard_normal((2, 2, 6)).astype("float32")
    network = gs.feedforward(6)
    options: dict[str, Any] = {"depth": 6, "statistics": ("log_gain", "correlation", "gradient_correlation")}
    runs = [
        gs.sweep(gs.pair(network), inputs=samples, seeds=seeds, input_correlation=[-0.5, 0.0], **options)
        for seeds in (range(2), range(2, 4))
    ]
    found = runs[0].sel(input_correlation=0.0)
    for half in range(2):
        one = gs.sweep(network, inputs=samples[:, half], depth=6, seeds=2)
        np.testing.assert_allclose(found.log_gain.isel(input=half), one.log_gain, rtol=0, atol=1e-6)
    runs[0].to_zarr(tmp_path / "pair.zarr", consolidated=False)
    again = xarray.open_zarr(tmp_path / "pair.zarr", consolidated=False).load()
    joined = gs.concat([again, runs[1]])
    assert joined.sizes["seed"] == 4
    assert joined.gradient_correlation.dims == ("input_correlation", "seed", "depth")
    growth = gs.growth(again)
    assert growth.dims == ("input_correlation", "input")
    np.testing.assert_allclose(growth.sel(input_correlation=0.0), gs.growth(found))
    assert gs.horizon(again).horizon_fit.dims == ("input_correlation", "input")
    assert gs.correlation_depth(again).xi_c.dims == ("input_correlation",)


def test_over_time_both_sequences_and_first_states_are_correlated() -> None:
    """As at c = 1 both chains are one, so at c = −1 without a bias they are mirror images of an odd network."""
    network = gs.pair(gs.vanilla_rnn(6, features=3))
    found = gs.sweep(
        network, depth=6, seeds=2, burn_in=2, statistics=("correlation", "gradient_correlation"),
        input_correlation=[-1.0, 0.0, 1.0],
    )  # fmt: skip
    assert found.correlation.dims == ("input_correlation", "seed", "time")
    np.testing.assert_allclose(found.correlation.sel(input_correlation=-1.0), -1.0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.gradient_correlation.sel(input_correlation=-1.0), 1.0, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.correlation.sel(input_correlation=1.0), 1.0)
    assert (abs(found.correlation.sel(input_correlation=0.0)) < 0.99).all()


@pytest.fixture(scope="module")
def several() -> xarray.Dataset:
    return gs.sweep({"one": PAIR, "other": DYING}, statistics=SEEN, **SOME)


def test_several_pairs_widths_and_pairs_of_steps(several: xarray.Dataset) -> None:
    assert several.log_gain.dims == ("network", "input_correlation", "seed", "depth", "input")
    steps = gs.partial_products(PAIR, **SOME)
    assert steps.log_gain.dims == ("input_correlation", "seed", "start", "depth", "input")
    np.testing.assert_allclose(steps.log_gain.sel(start=0), several.log_gain.sel(network="one"), rtol=0, atol=1e-6)
    assert np.isnan(steps.log_gain.sel(start=1, depth=1)).all()
    widths = gs.sweep(gs.pair(gs.feedforward(8)), widths=[3], statistics=SEEN, **SOME)  # the program of the first
    np.testing.assert_allclose(widths.log_gain.sel(width=3), several.log_gain.sel(network="one"), rtol=0, atol=1e-6)


def test_the_critical_gain_of_a_pair_is_that_of_both_inputs() -> None:
    network = gs.pair(gs.feedforward(3, "identity", "orthogonal"))
    found = gs.critical(network, between=(0.8, 1.4), depth=4, seeds=2, burn_in=0)
    np.testing.assert_allclose(found.sigma_w, 1.0, rtol=1e-6)


def test_the_pure_function_measures_the_same_and_may_be_traced(several: xarray.Dataset) -> None:
    @jax.jit
    def norms(c: Array) -> dict[str, Any]:
        key = jax.random.fold_in(jax.random.key(0), 0)
        return gs.jacobian_norms(PAIR, key, {"input_correlation": c}, depth=3, statistics=SEEN[::3])

    found, swept = norms(jnp.array([0.2, 0.7], "float32")), several.sel(network="one").isel(seed=0)
    assert found["log_gain"].shape == (2, 3, 2)
    for name in SEEN[::3]:
        np.testing.assert_allclose(found[name], swept[name], rtol=0, atol=1e-5, err_msg=name)


def test_a_pair_keeps_the_contract_and_says_what_a_network_of_ones_own_breaks() -> None:
    assert gs.check(gs.pair(Own(3))) == []
    assert gs.pair(Own(3)).describe() == {**Own(3).describe(), "paired": True}
    network = PAIR
    with jax.enable_x64(True):
        state = jax.eval_shape(
            network.step, network.draw(jax.random.key(0), "float32"),
            {name: jnp.float32(value) for name, value in network.gains.items()}, jnp.zeros((2, 3), "float32"), None,
        )[0]  # fmt: skip
    assert state.shape == (2, 3)
    assert network.output(jnp.ones((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gs.pair("feedforward"), "network: got 'feedforward' of type str; pass a"),  # type: ignore[arg-type]
        (lambda: gs.pair(PAIR), "network: got a pair"),
        (lambda: gs.sweep(PAIR, depth=1, seeds=1, input_correlation=1.5), "from -1 to 1"),
        (lambda: gs.sweep(gs.feedforward(3), depth=1, seeds=1, input_correlation=0.5), "input_correlation: neither"),
        (
            lambda: gs.sweep(gs.feedforward(3), depth=1, seeds=1, statistics="correlation"),
            "'correlation' is not there for feedforward: it compares two inputs; pass gradsim.pair",
        ),
        (
            lambda: gs.sweep({"a": gs.feedforward(3), "b": PAIR}, depth=1, seeds=1),
            "network: some are pairs",
        ),
        (
            lambda: gs.sweep(PAIR, depth=1, seeds=1, inputs=np.ones((4, 3))),
            r"inputs: got shape \[4, 3\]; pass an array of shape \[samples, 2, 3\]",
        ),
        (
            lambda: gs.sweep(PAIR, depth=1, seeds=1, statistics="loss_gradient_correlation"),
            "needs direction='backward'",
        ),
        (lambda: gs.lyapunov_exponents(PAIR, depth=1, seeds=1), "lyapunov_exponents takes"),
        (
            lambda: gs.train(PAIR, data="digits", optimizer=optax.adam, depth=1, seeds=1, steps=1),
            "train takes networks of one",
        ),
        (
            lambda: gs.sweep(gs.pair(gs.residual(3, scaling="inverse_depth", layers=9)), depth=3, seeds=1),
            "layers: the branches of residual",
        ),
        (
            lambda: Statistic("mine", "mine", "1", lambda view: view.state.mantissa, of_pair=1),  # type: ignore[arg-type]
            "of_pair: got 1",
        ),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=message):
        call()
