"""A chain rounded at every step, beside the exact one: against one that ml_dtypes rounds step by step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax import Array
from unrolled import own_checks

import gradsim as gs
from gradsim import Network
from gradsim.engine.backward import backward
from gradsim.engine.chain import Source
from gradsim.engine.formats import FORMATS
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.rounding import of_chain
from gradsim.engine.statistic import Statistic, View
from gradsim.engine.streams import ahead, extent, network_keys
from gradsim.engine.tiling import Tiling
from gradsim.scaled import Scaled

DEPTH = 6
RUNS = {"forward": forward, "backward": backward}
NARROW = [one.name for one in of_chain()]


def _rounded(view: View) -> Scaled:
    assert view.rounded is not None
    return Scaled(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(view.rounded.mantissa)]),
                  view.rounded.exponent)  # fmt: skip


VECTOR = Statistic("vector", "the rounded vector, as it is", "1", _rounded, ("one", "rounded"))


@partial(jax.jit, static_argnames=("network", "direction", "format"))
def engine(network: Network, direction: str, format: str, scale: Array) -> tuple[Any, ...]:
    """The rounded vectors after each step, and what they were made of."""
    hashed = ahead(network_keys(jax.random.key(0), 0), extent(network, DEPTH + 1, given=False))
    source = Source(network, hashed, None, "float32")
    gains = {name: jnp.float32(value) for name, value in network.gains.items()}
    cells = Cells({name: value[None] for name, value in gains.items()}, loss_scale=scale[None])
    with jax.default_matmul_precision("highest"):
        found = RUNS[direction](source, cells, Task((VECTOR,), DEPTH, Tiling(1, 3), burn_in=1, format=format))
    steps = jax.vmap(source.drawn)(jnp.arange(DEPTH + 1))
    shared = source.weights(0) if network.tied else None
    return (
        jax.tree.map(lambda leaf: leaf[0], found["vector"]),
        gains,
        shared,
        steps,
        source.first_input(),
        source.vector(),
    )


@partial(jax.jit, static_argnames=("network", "direction"))
def one_step(network: Network, direction: str, weights: Any, gains: Any, x: Any, state: Any, vector: Any) -> Any:
    """The state after a step, and what the step makes of a tangent, or its transpose of a gradient; in float32."""

    def step(state: Any) -> Any:
        return network.step(weights, gains, state, x)[0]

    with jax.default_matmul_precision("highest"):
        if direction == "forward":
            return jax.jvp(step, (state,), (vector,))
        new, pullback = jax.vjp(step, state)
        return new, pullback(vector)[0]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("network", "direction", "format", "scale"),
    [
        (gs.feedforward(6, "tanh", "he_normal"), "forward", "float8_e5m2", 3.0),
        (gs.lstm(4, of="cell", features=3), "backward", "float16", 4.0),
        (gs.layernorm(5, "relu", form="pre"), "backward", "bfloat16", 1.0),
    ],
    ids=["float8_e5m2", "float16", "bfloat16"],
)
def test_the_rounded_chain_is_that_of_ml_dtypes(network: Network, direction: str, format: str, scale: float) -> None:
    to = FORMATS[format].dtype

    def held(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float32).astype(to).astype(np.float32)), tree)

    found, gains, shared, drawn, first, u = engine(network, direction, format, jnp.float32(scale))
    steps = [jax.tree.map(lambda leaf, t=t: leaf[t], held(drawn)) for t in range(DEPTH + 1)]
    states = [held(network.initial_state(gains, held(first)))]
    like = states[0]

    def step(t: int, state: Any, vector: Any) -> Any:
        weights = held(shared) if network.tied else steps[t].weights
        return held(one_step(network, direction, weights, gains, steps[t].inputs, state, vector))

    for t in range(DEPTH + 1):
        states.append(step(t, states[-1], like)[0])
    unit = jax.tree.unflatten(jax.tree.structure(network.observed(like)), [u / jnp.linalg.norm(u)])
    vector = held(jax.tree.map(lambda leaf: scale * leaf, jax.linear_transpose(network.observed, like)(unit)[0]))
    order = range(1, DEPTH + 1) if direction == "forward" else range(DEPTH, 0, -1)
    expected = []
    for t in order:
        vector = step(t, states[t], vector)[1]
        expected.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(network.observed(vector))]) / scale)
    got = np.ldexp(np.asarray(found.mantissa, np.float64), np.asarray(found.exponent)[:, None])
    wanted = np.array(expected if direction == "forward" else expected[::-1])
    assert got.shape == wanted.shape
    # A sum that another program rounds otherwise in float32 may fall on the other side of a middle.
    assert np.mean(np.isclose(got, wanted, rtol=1e-6, atol=0)) > 0.9
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2.0 ** (1 - FORMATS[format].digits) * np.abs(wanted).max())


SIZES: dict[str, Any] = {"depth": 12, "seeds": 8, "sigma_w": 0.7, "statistics": "log_jvp"}


@pytest.fixture(scope="module")
def both() -> xarray.Dataset:
    """A wide network whose gradient float16 loses, and a narrow one of which layers die; three loss scales."""
    networks = {"tanh": gs.feedforward(6, "tanh"), "relu": gs.feedforward(2, "relu")}
    return gs.sweep(networks, dtype="float16", loss_scale=[1.0, 2.0**-15, 2.0**20], **SIZES)


def test_exact_statistics_are_those_of_float32_and_all_are_labelled(both: xarray.Dataset) -> None:
    plain = gs.sweep(gs.feedforward(6, "tanh"), **SIZES)
    for scale in both.loss_scale.values:
        exact = both.log_jvp.sel(network="tanh", loss_scale=scale)
        np.testing.assert_allclose(exact, plain.log_jvp, rtol=0, atol=2e-6)  # sums in another order
    assert (both.attrs["dtype"], both.attrs["exact_dtype"]) == ("float16", "float32")
    assert "exact_dtype" not in plain.attrs
    assert both.log_jvp.attrs["dtype"] == "float32"
    assert list(both.data_vars) == ["dead", "log_jvp", *NARROW]
    assert both.zeros.dims == ("network", "loss_scale", "seed", "depth")
    assert both.loss_scale.attrs["long_name"] == "loss scale"
    for name in NARROW:
        assert both[name].attrs["dtype"] == "float16"
        assert both[name].attrs["long_name"].endswith("rounded at every step")


def test_what_is_lost_says_so(both: xarray.Dataset) -> None:
    """Dead networks, a vector of which nothing is left, and one that overflows: each NaN has its flag."""
    tanh, relu = both.sel(network="tanh"), both.sel(network="relu")
    assert bool(relu.dead.any())
    for name in NARROW:
        assert bool(both[name].isnull().where(both.dead, True).all())
        assert f"{name}_lost" not in both
        assert both[name].attrs["lost"] == 0
    for name in ("zeros", "overflow"):
        np.testing.assert_array_equal(both[name].isnull(), both.dead)
    assert bool((tanh.overflow.sel(loss_scale=2.0**20) > 0).all())  # the vector itself is too large
    assert bool((tanh.overflow.sel(loss_scale=1.0) == 0).all())
    np.testing.assert_array_equal(tanh.noise.isnull(), tanh.overflow > 0)
    np.testing.assert_array_equal(tanh.angle.isnull(), (tanh.overflow > 0) | (tanh.energy_kept == 0))
    small = tanh.sel(loss_scale=2.0**-15)
    assert bool((small.zeros == 1).any())
    np.testing.assert_array_equal(small.noise.where(small.zeros == 1, 1), 1)
    np.testing.assert_array_equal(small.energy_kept.where(small.zeros == 1, 0), 0)
    assert bool((tanh.zeros.sel(loss_scale=1.0) == 0).all())
    assert 0 < float(tanh.noise.sel(loss_scale=1.0).median()) < 1e-5


def test_measures_agree_with_one_another(both: xarray.Dataset) -> None:
    """|g − x|² = |g|² + |x|² − 2 |g| |x| cos: by the energy, the noise and the angle."""
    one = both.sel(network="tanh", loss_scale=2.0**-15)
    norm = np.sqrt(one.energy_kept)
    expected = (1 + norm**2 - 2 * norm * np.cos(one.angle)).where(one.energy_kept > 0, 1)
    np.testing.assert_allclose(one.noise, expected, atol=2e-6)


def test_runs_are_joined_reopened_and_read_by_the_analysis(both: xarray.Dataset, tmp_path: Any) -> None:
    networks = {"tanh": gs.feedforward(6, "tanh"), "relu": gs.feedforward(2, "relu")}
    later = gs.sweep(networks, dtype="float16", loss_scale=[1.0, 2.0**-15, 2.0**20], **{**SIZES, "seeds": range(8, 16)})
    joined = gs.concat([both, later])
    assert joined.sizes["seed"] == 16
    assert joined.zeros.attrs == {**both.zeros.attrs, "networks": 2 * both.zeros.attrs["networks"]}
    plain = gs.sweep(gs.feedforward(6, "tanh"), **SIZES)
    with pytest.raises(ValueError, match=r"^datasets: dtype is 'float16' in one run and 'float32' in another"):
        gs.concat([both.sel(network="tanh", loss_scale=1.0, drop=True), plain.assign_coords(seed=plain.seed + 8)])
    tanh = both.sel(network="tanh", drop=True)
    tanh.to_zarr(tmp_path / "narrow.zarr", consolidated=False)
    again = xarray.open_zarr(tmp_path / "narrow.zarr", consolidated=False).load()
    xarray.testing.assert_identical(again, tanh)
    found = gs.growth(again, statistic="log_jvp").sel(loss_scale=1.0)
    np.testing.assert_allclose(found, gs.growth(plain, statistic="log_jvp"), atol=1e-6)
    with pytest.raises(ValueError, match=r"^statistic: 'zeros' is no logarithm"):
        gs.horizon(both, statistic="zeros")


def largest(view: View) -> Array:
    return jnp.max(jnp.abs(_rounded(view).mantissa))


def test_over_time_from_a_loss_with_tied_weights() -> None:
    """The gradient of a loss at the rounded state; both ways of asking for it agree.

    A statistic of one's own may read the rounded vector.
    """
    network = gs.vanilla_rnn(5, features=3)
    options: dict[str, Any] = {
        "depth": 8,
        "direction": "backward",
        "loss": lambda h: jnp.sum(h**2),
        "dtype": "float8_e4m3",
    }
    own = Statistic("largest", "largest entry", "1", largest, ("one", "rounded"))
    found = gs.sweep(network, seeds=2, statistics=[own, "zeros"], loss_scale=16.0, **options)
    assert list(found.data_vars) == ["dead", "log_gradient", *NARROW, "largest"]
    assert bool((found.largest < 1).all())
    assert found.zeros.dims == ("seed", "time")
    assert bool((found.noise > 0).all())
    assert bool((found.noise.isel(time=0) > found.noise.isel(time=-1)).all())
    key = jax.random.fold_in(jax.random.key(0), 1)
    measure = jax.jit(lambda key, gains: gs.jacobian_norms(network, key, gains, statistics="log_gradient", **options))
    pure = measure(key, {"loss_scale": jnp.float32(16)})
    assert set(pure) == {"log_gradient", *NARROW}
    for name in NARROW:
        np.testing.assert_allclose(pure[name], found[name].sel(seed=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "dtype: got 'float8'; pass one of: float32, float64, bfloat16, float16, float8_e4m3"),
        ({"dtype": "float16", "loss_scale": 0.0}, "loss_scale: got 0.0; pass a positive"),
        ({"dtype": "float16", "loss_scale": -1.0}, "loss_scale: got -1.0; pass a finite"),
        ({"dtype": "float16", "loss_scale": 1e60}, "loss_scale: got 1e\\+60, beyond float32"),
        ({"loss_scale": 2.0}, "loss_scale: neither an option of sweep nor a gain of feedforward"),
        ({"statistics": "zeros"}, "statistics: 'zeros' is of a chain rounded at every step; pass it to gradsim.sweep"),
        ({"statistics": VECTOR}, "statistics: 'vector' is of a chain rounded at every step"),
    ],
)
def test_wrong_calls_are_refused(options: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises(ValueError, match=f"^{message}"):
        gs.sweep(gs.feedforward(6, "tanh"), **{**SIZES, **options})


def test_a_sweep_of_one_step_is_the_first_of_several_to_the_last_bit() -> None:
    """Where it costs little: XLA makes no loop of one step, and would round its sums otherwise."""
    network = gs.feedforward(7, "gelu", "torch_linear")
    one, several = (
        gs.sweep(network, depth=depth, seeds=2, key=85, statistics="angle", dtype="float16") for depth in (1, 3)
    )
    for name in one.data_vars:
        np.testing.assert_array_equal(several[name].sel(depth=one.depth), one[name])


def test_other_measurements_have_no_narrow_dtype() -> None:
    network = gs.feedforward(6)
    for call in (
        lambda: gs.partial_products(network, depth=3, seeds=2, dtype="float16"),
        lambda: gs.critical(network, between=(1, 2), depth=3, seeds=2, dtype="float16"),
        lambda: gs.lyapunov_exponents(network, depth=3, seeds=2, dtype="float16"),
    ):
        with own_checks(), pytest.raises(ValueError, match=r"^dtype: got 'float16'; pass one of: float32, float64$"):
            call()
