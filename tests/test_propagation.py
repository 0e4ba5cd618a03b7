"""The engine against the slow and obvious: jax.jacfwd of a whole network, written here in plain jax.numpy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax import Array, nn, random

import gradsim as gs
from gradsim import Activation, initializers
from gradsim.engine import products
from gradsim.engine.streams import Keys, network_keys
from gradsim.networks.depth.feedforward import Feedforward

DEPTH, KEY = 5, 11
BURN_IN = 4
HE_NORMAL = nn.initializers.he_normal()
EACH = 4  # units of each activation
PRODUCTS = ("log_gain", "log_jvp", "log_spectral")
STATES = ("length", "log_length", "slope")
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}  # of the products, hence absolute in their logarithms

# The definitions, differentiated by JAX as they stand.
PLAIN: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + jnp.exp(-z)),
    "tanh": jnp.tanh,
    "hard_tanh": lambda z: jnp.clip(z, -1, 1),
    "relu": lambda z: jnp.where(z > 0, z, 0),
    "leaky_relu": lambda z: jnp.where(z > 0, z, 0.01 * z),
    "elu": lambda z: jnp.where(z > 0, z, jnp.exp(z) - 1),
    "selu": lambda z: 1.0507009873554805 * jnp.where(z > 0, z, 1.6732632423543772 * (jnp.exp(z) - 1)),
    "celu": lambda z: jnp.where(z > 0, z, jnp.exp(z) - 1),
    "gelu": lambda z: z * (1 + jax.lax.erf(z / np.sqrt(2.0).item())) / 2,
    "silu": lambda z: z / (1 + jnp.exp(-z)),
    "mish": lambda z: z * jnp.tanh(jnp.log(1 + jnp.exp(z))),
    "softplus": lambda z: jnp.log(1 + jnp.exp(z)),
    "softsign": lambda z: z / (1 + jnp.abs(z)),
    "erf": jax.lax.erf,
    "sin": jnp.sin,
    "hard_sigmoid": lambda z: jnp.clip(z / 6 + 0.5, 0, 1),
    "hard_swish": lambda z: z * jnp.clip(z / 6 + 0.5, 0, 1),
    "relu6": lambda z: jnp.clip(z, 0, 6),
}


@dataclass(frozen=True)
class OfEvery(Feedforward):
    """A network some of whose units have each activation: all of them in one program."""

    family: ClassVar[str] = "of every activation"

    @property
    def activations(self) -> tuple[Activation, ...]:
        return tuple(gs.ACTIVATIONS[name] for name in PLAIN)

    def step(self, weights: Any, gains: Any, state: Array, inputs: Array | None) -> tuple[Array, tuple[Array, ...]]:
        z = tuple(jnp.split(gains["sigma_w"] * (state @ weights.w) + gains["sigma_b"] * weights.b, len(PLAIN)))
        return jnp.concatenate([phi(part) for phi, part in zip(self.activations, z, strict=True)]), z


def every(z: Array) -> Array:
    """The definitions, of the units of `OfEvery`."""
    return jnp.concatenate([phi(part) for phi, part in zip(PLAIN.values(), jnp.split(z, len(PLAIN)), strict=True)])


def double(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64)


@partial(jax.jit, static_argnames=("network", "dtype"))
def draws(network: Feedforward, dtype: str, keys: Keys, inputs: Array) -> tuple[Any, Array]:
    """The weights of each step and the vector of log_jvp.

    Compiled, as in a sweep: an operation at a time rounds otherwise.
    """
    n = inputs.size  # the vector's numbers come after those of the input
    numbers = initializers.normal(keys.once, (2 * n,), dtype)
    u = products.along(network, inputs, numbers[n:])[0]
    steps = jnp.arange(BURN_IN + DEPTH, dtype=jnp.int32)
    return jax.vmap(lambda t: network.draw(random.fold_in(keys.weights, t), dtype))(steps), u


@partial(jax.jit, static_argnames=("phi", "burn_in"))
def whole(
    phi: Callable[[Array], Array], burn_in: int, w: Array, b: Array, gains: Array, start: Array
) -> tuple[Array, Array, Array]:
    """Jacobians of the states after each layer that is not burn-in, those states, and the slopes of their units."""

    def layer(h: Array, draw: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        z = gains[0] * (h @ draw[0]) + gains[1] * draw[1]
        return phi(z), (z, phi(z))

    def chain(h: Array) -> tuple[Array, tuple[Array, Array]]:
        z, states = jax.lax.scan(layer, h, (w[burn_in:], b[burn_in:]))[1]
        return states, (z, states)

    for t in range(burn_in):
        start = layer(start, (w[t], b[t]))[0]
    jacobians, (z, states) = jax.jacfwd(chain, has_aux=True)(start)
    return jacobians, states, jax.vmap(lambda z: jax.jvp(phi, (z,), (jnp.ones_like(z),))[1])(z)


def measure_plainly(
    network: Feedforward,
    phi: Callable[[Array], Array],
    *,
    dtype: str,
    sigma_w: float,
    sigma_b: float,
    inputs: np.ndarray,
    burn_in: int = 0,
) -> dict[str, np.ndarray]:
    """Every statistic at every depth, in float64, from weights drawn in `dtype` with the engine's keys."""
    with jax.enable_x64(dtype == "float64"):
        linear = replace(network, activation=gs.ACTIVATIONS["identity"])  # of which the draws do not depend
        drawn, u = draws(linear, dtype, network_keys(random.key(KEY), 0), np.asarray(inputs, dtype))
        gains = np.asarray([sigma_w, sigma_b], dtype)
    w, b = (double(leaf)[: burn_in + DEPTH] for leaf in (drawn.w, drawn.b))
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        found = whole(phi, burn_in, w, b, double(gains), double(np.asarray(inputs, dtype)))
    jacobians, states, slopes = map(np.asarray, found)
    mean_squares = np.mean(np.square(states), axis=1)
    return {
        "log_gain": 0.5 * np.log((jacobians**2).sum(axis=(1, 2)) / jacobians.shape[2]),
        "log_jvp": np.log(np.linalg.norm(jacobians @ np.asarray(u, np.float64), axis=1)),
        "log_spectral": np.log(np.linalg.norm(jacobians, 2, axis=(1, 2))),
        "length": mean_squares,
        "log_length": np.log(mean_squares),
        "slope": np.mean(slopes**2, axis=1),
    }


def compare(
    network: Feedforward,
    phi: Callable[[Array], Array],
    inputs: np.ndarray,
    dtype: str,
    *,
    burn_in: int = 0,
    **gains: Any,
) -> None:
    """The sweep of one network against the plain reference, at every depth."""
    measured = gs.sweep(
        network, depth=DEPTH, seeds=1, key=KEY, statistics=PRODUCTS + STATES, at=range(1, DEPTH + 1),
        burn_in=burn_in, inputs=inputs[None], dtype=dtype, **gains,
    ).isel(seed=0)  # fmt: skip
    expected = measure_plainly(
        network, phi, dtype=dtype, inputs=inputs, burn_in=burn_in,
        sigma_w=gains.get("sigma_w", network.gains["sigma_w"]), sigma_b=gains.get("sigma_b", network.gains["sigma_b"]),
    )  # fmt: skip
    assert not measured.dead.any()
    for name, values in expected.items():
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(
            measured[name], values, rtol=tolerance, atol=tolerance, err_msg=f"{name} in {dtype}", strict=True
        )


def some_inputs(width: int, scale: float = 3.0) -> np.ndarray:
    """Wide enough to reach the kinks at 6 and the saturated parts."""
    return scale * np.random.default_rng(5).normal(size=width)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_activation_equals_jacfwd_of_the_whole_network(dtype: str) -> None:
    width = EACH * len(PLAIN)
    plain = gs.feedforward(width)
    network = OfEvery(width, plain.activation, plain.initializer)
    compare(network, every, some_inputs(width), dtype, sigma_w=1.3, sigma_b=0.3)


def test_the_reference_knows_every_activation() -> None:
    assert set(PLAIN) == set(gs.ACTIVATIONS)


@pytest.mark.parametrize("initializer", ["sparse", "he_uniform"])  # test_initializers.py has the draws and gains of all
def test_an_initializer_equals_jacfwd_of_the_whole_network(initializer: str) -> None:
    """With the gains that the scheme brings along, and wide enough for sparse to be sparse."""
    compare(gs.feedforward(18, "softplus", initializer), PLAIN["softplus"], some_inputs(18), "float64")


def test_a_callable_equals_jacfwd_of_the_whole_network() -> None:
    @jax.jit  # or each of its operations compiles by itself where gradsim tries it
    def bump(z: Array) -> Array:
        return z * jnp.exp(-z * z / 4) + 0.1 * jnp.square(z)

    network = gs.feedforward(9, bump, HE_NORMAL)
    compare(network, bump, some_inputs(9, 1.0), "float64", sigma_w=0.9, sigma_b=0.2)


def test_width_one_equals_jacfwd() -> None:
    compare(gs.feedforward(1, "tanh"), jnp.tanh, some_inputs(1), "float64", sigma_w=1.5, sigma_b=0.5)


def test_burn_in_starts_the_product_after_so_many_steps() -> None:
    network = gs.feedforward(9, "tanh", HE_NORMAL)
    compare(network, jnp.tanh, some_inputs(9), "float64", burn_in=BURN_IN, sigma_w=1.7, sigma_b=0.3)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "hard_tanh"])
def test_saturated_is_the_share_of_flat_units(name: str) -> None:
    network = gs.feedforward(50, name, "identity")
    z = np.linspace(-9.05, 9.0, 50)
    sweep = gs.sweep(network, depth=1, seeds=1, statistics="saturated", inputs=z[None])
    share = float(sweep.saturated[0, 0])
    slope = {"tanh": 1 / np.cosh(z) ** 2, "sigmoid": 1 / np.cosh(z / 2) ** 2, "hard_tanh": (np.abs(z) < 1) * 1.0}[name]
    assert share == pytest.approx(np.mean(slope < 0.01), abs=1e-6)


@pytest.fixture(scope="module")
def dying() -> xarray.Dataset:
    """Many networks of two units, all of which are dead in some layer of some networks; and where nothing lives."""
    return gs.sweep(
        gs.feedforward(2, "relu"), depth=12, seeds=40, statistics=("log_gain", "log_jvp", "log_length"),
        sigma_w=[0.0, 1.0],
    )  # fmt: skip


def test_zero_gain_is_dead_and_nan(dying: xarray.Dataset) -> None:
    assert dying.dead.sel(sigma_w=0.0).all()
    assert not dying.dead.sel(sigma_w=1.0, depth=1).all()
    for name in ("log_gain", "log_jvp"):
        assert np.isnan(dying[name].sel(sigma_w=0.0)).all()
        assert (np.isfinite(dying[name]) | dying.dead).sel(sigma_w=1.0).all()


def test_zero_gain_keeps_the_state_alive() -> None:
    """The product is zero, the state is not: φ(0), or the bias."""
    sweep = gs.sweep(gs.feedforward(6, "sigmoid"), depth=2, seeds=1, statistics=("log_gain", "length"), sigma_w=0.0)
    np.testing.assert_allclose(sweep.length, 0.25, rtol=1e-6)
    assert sweep.dead.all()


def test_one_dead_layer_kills_all_later_products_and_is_flagged_from_there_on(dying: xarray.Dataset) -> None:
    sweep = dying.sel(sigma_w=1.0)
    dead = sweep.dead.to_numpy()
    assert dead.any()
    assert not dead.all()
    assert np.all(np.diff(dead.astype(int), axis=1) >= 0)
    for name in ("log_gain", "log_jvp", "log_length"):
        np.testing.assert_array_equal(np.isnan(sweep[name]), dead)


def test_the_smallest_gains_of_a_saturated_sigmoid_are_not_lost() -> None:
    """Slopes of 1e-26 in every layer: two of them together lie below the smallest float32."""
    network = gs.feedforward(1, "sigmoid", "identity")
    sweep = gs.sweep(network, depth=20, seeds=1, inputs=np.ones((1, 1)), sigma_w=[60.0]).isel(seed=0, sigma_w=0)
    # h stays at sigmoid(60 h) = 1: every slope is e**-60 / (1 + e**-60)².
    np.testing.assert_allclose(sweep.log_gain, sweep.depth * (np.log(60) - 60), rtol=1e-6)
