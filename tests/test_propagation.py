"""The engine against the slow and obvious: jax.jacfwd of a whole network, written here in plain jax.numpy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, nn, random

import gradsim as gs
from gradsim import initializers
from gradsim.engine import products
from gradsim.engine.chain import kind, network_keys
from gradsim.networks.feedforward import Feedforward

DEPTH, KEY = 5, 11
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


def double(value: Any) -> Array:
    return jnp.asarray(np.asarray(value, np.float64))


def measure_plainly(
    network: Feedforward,
    phi: Callable[[Array], Array],
    *,
    dtype: str,
    sigma_w: float,
    sigma_b: float,
    inputs: np.ndarray,
    depth: int = DEPTH,
    burn_in: int = 0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Every statistic at every depth, in float64, from weights drawn in `dtype` with the engine's keys."""
    keys = network_keys(random.key(KEY), seed)
    with jax.enable_x64(dtype == "float64"):
        # Compiled, as in a sweep: an operation at a time rounds otherwise.
        draw = jax.jit(lambda t: network.draw(random.fold_in(keys.weights, t), dtype))
        draws = [draw(t) for t in range(burn_in + depth)]
        n = inputs.size  # the vector's numbers come after those of the input
        numbers = jax.jit(lambda keys: initializers.normal(keys.once, (2 * n,), dtype))
        u = jax.jit(lambda: products.along(network, jnp.asarray(inputs, dtype), numbers(keys)[n:])[0])()
        gains = np.asarray([sigma_w, sigma_b], dtype)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        weights = [(double(draw.w), double(draw.b)) for draw in draws]
        g_w, g_b = double(gains)

        def chain(h: Array) -> tuple[Array, tuple[Array, Array]]:
            zs, hs = [], []
            for w, b in weights:
                zs.append(g_w * (h @ w) + g_b * b)
                h = phi(zs[-1])
                hs.append(h)
            return jnp.stack(hs), (jnp.stack(zs), jnp.stack(hs))

        start = double(np.asarray(inputs, dtype))
        if burn_in:
            start = chain(start)[0][burn_in - 1]
            weights = weights[burn_in:]

        def whole(h: Array) -> tuple[Array, Array, Array]:
            # The outputs after 1, 2, … layers, differentiated with respect to the input.
            jacobians, (z, states) = jax.jacfwd(chain, has_aux=True)(h)
            return jacobians, states, jax.vmap(jax.vmap(jax.grad(phi)))(z)

        jacobians, states, slopes = (np.asarray(part) for part in jax.jit(whole)(start))
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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", PLAIN)
def test_every_activation_equals_jacfwd_of_the_whole_network(name: str, dtype: str) -> None:
    compare(gs.feedforward(10, name), PLAIN[name], some_inputs(10), dtype, sigma_w=1.3, sigma_b=0.3)


def test_the_reference_knows_every_activation() -> None:
    assert set(PLAIN) == set(gs.ACTIVATIONS)


@pytest.mark.parametrize("initializer", gs.INITIALIZERS)
def test_every_initializer_equals_jacfwd_of_the_whole_network(initializer: str) -> None:
    """With the gains that the scheme brings along, and wide enough for sparse to be sparse."""
    compare(gs.feedforward(18, "softplus", initializer), PLAIN["softplus"], some_inputs(18), "float64")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_callable_equals_jacfwd_of_the_whole_network(dtype: str) -> None:
    def bump(z: Array) -> Array:
        return z * jnp.exp(-z * z / 4) + 0.1 * jnp.square(z)

    network = gs.feedforward(9, bump, nn.initializers.he_normal())
    compare(network, bump, some_inputs(9, 1.0), dtype, sigma_w=0.9, sigma_b=0.2)


def test_width_one_equals_jacfwd() -> None:
    compare(gs.feedforward(1, "tanh"), jnp.tanh, some_inputs(1), "float64", sigma_w=1.5, sigma_b=0.5)


@pytest.mark.parametrize("burn_in", [1, 4])
def test_burn_in_starts_the_product_after_so_many_steps(burn_in: int) -> None:
    network = gs.feedforward(10, "tanh")
    compare(network, jnp.tanh, some_inputs(10), "float64", burn_in=burn_in, sigma_w=1.7, sigma_b=0.3)


# Forms that neither overflow nor cancel in float64.
STABLE: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": lambda z: nn.gelu(z, approximate=False),
    "selu": nn.selu,
    "elu": nn.elu,
    "softplus": nn.softplus,
    "tanh": jnp.tanh,
}


def in_doubles(
    network: Feedforward, phi: Callable[[Array], Array], sigma_w: float, depth: int, key: int = KEY, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """log_gain and log_length at every depth of the float32 network, in float64 arithmetic layer by layer."""
    keys = network_keys(random.key(key), seed)
    h = np.asarray(random.normal(keys.once, (network.width,), jnp.float32), np.float64)
    draws = jax.vmap(lambda t: network.draw(random.fold_in(keys.weights, t), jnp.float32).w)(jnp.arange(depth))
    product, gains, lengths = np.eye(network.width), [], []
    with jax.enable_x64(True):
        both = jax.jit(lambda z: (phi(z), jax.vmap(jax.grad(phi))(z)))
        for w in np.asarray(draws, np.float64):
            z = float(np.float32(sigma_w)) * (h @ w)
            h, slope = (np.asarray(part) for part in both(z))
            product = float(np.float32(sigma_w)) * (product @ w) * slope
            with np.errstate(divide="ignore"):  # all units of an ELU saturated
                gains.append(0.5 * np.log(np.mean(np.sum(product**2, axis=1))))
            lengths.append(np.log(np.mean(h**2)))
    return np.array(gains), np.array(lengths)


@pytest.mark.parametrize("name", ["relu", "gelu", "selu", "elu", "softplus"])
def test_states_far_above_the_range_of_float32_are_exact(name: str) -> None:
    """At σ_w = 4 a state passes 3e38 near layer 85; float64 still holds states and product at layer 250."""
    network, depth = gs.feedforward(32, name), 250
    measured = gs.sweep(
        network, depth=1000, seeds=1, key=KEY, statistics=("log_gain", "log_length"), sigma_w=4.0
    ).isel(seed=0)  # fmt: skip
    gains, lengths = in_doubles(network, STABLE[name], 4.0, depth)
    assert lengths[-1] > 2 * np.log(3.4e38)
    # 250 layers of float32 rounding, against logarithms of some 250 nats.
    np.testing.assert_allclose(measured.log_gain[:depth], gains, atol=2e-3)
    np.testing.assert_allclose(measured.log_length[:depth], lengths, atol=4e-3)
    assert np.isfinite(measured.log_gain).all()
    assert np.isfinite(measured.log_length).all()
    assert not measured.dead.any()


@pytest.mark.parametrize("name", ["relu", "gelu", "selu", "tanh"])
def test_states_far_below_the_range_of_float32_are_exact(name: str) -> None:
    """At σ_w = 0.01 a state passes 1e-38 near layer 19; the definitions in float64 go on to layer 60."""
    network, depth = gs.feedforward(32, name), 60
    measured = gs.sweep(
        network, depth=depth, seeds=1, key=KEY, statistics=("log_gain", "log_length"), sigma_w=0.01
    ).isel(seed=0)  # fmt: skip
    gains, lengths = in_doubles(network, STABLE[name], 0.01, depth)
    assert lengths[-1] < 2 * np.log(1e-45)
    np.testing.assert_allclose(measured.log_gain, gains, atol=1e-4)
    np.testing.assert_allclose(measured.log_length, lengths, atol=2e-4)


def test_products_alone_may_leave_the_range() -> None:
    """Linear: the gain of k layers at σ_w is σ_w**k times that at 1, whatever becomes of the state."""
    network, depth = gs.feedforward(16, "identity"), 400
    sigma_w = np.array([1e-6, 1.0, 1e6])
    gain = gs.sweep(network, depth=depth, seeds=2, statistics="log_gain", sigma_w=sigma_w).log_gain
    for point in sigma_w:
        growth = (gain.sel(sigma_w=point) - gain.sel(sigma_w=1.0)) / gain.depth
        np.testing.assert_allclose(growth, np.log(point), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "scale", "gains"),
    [("sigmoid", 1e-35, {}), ("softplus", 1e-35, {}), ("tanh", 1e-35, {"sigma_b": 1.0}), ("tanh", 1e35, {})],
)
def test_an_input_at_the_edge_of_float32_does_not_break_steps_that_are_not_homogeneous(
    name: str, scale: float, gains: dict[str, float]
) -> None:
    """The first layer of a network with φ(0) ≠ 0, a bias or a bounded φ forgets the size of such an input."""
    inputs = scale * np.sign(some_inputs(8))[None]
    network = gs.feedforward(8, name)
    options: dict[str, Any] = {"depth": 2, "seeds": 1, "statistics": ("length", "slope"), **gains}
    extreme = gs.sweep(network, inputs=inputs, **options)
    moderate = gs.sweep(network, inputs=inputs / scale * (1e-9 if scale < 1 else 1e9), **options)
    np.testing.assert_allclose(extreme.length, moderate.length, rtol=1e-5)


@pytest.mark.parametrize(
    ("whole", "half", "scales", "constant"),
    [
        (0, 0, True, True),
        (2, 1.0005, True, False),
        (2, 1.002, False, False),
        (1, 1.0005, False, True),
        (1, 1.002, False, False),
        (1, np.inf, False, False),
        (np.inf, 1, False, False),
        (np.inf, np.inf, False, False),
        (1, np.nan, False, False),
        (np.nan, 1, False, False),
    ],
)
def test_a_step_scales_or_is_constant_but_never_beyond_the_floats(
    whole: float, half: float, scales: bool, constant: bool
) -> None:
    for state in (lambda x: jnp.array([x, 0.0]), lambda x: (jnp.zeros(3), jnp.array(x))):
        assert tuple(map(bool, kind(state(float(whole)), state(float(half))))) == (scales, constant)


def test_a_state_above_the_range_may_fall_back_into_it() -> None:
    """Where all units of a narrow network turn negative, an ELU's state is −1 again, however large it was."""
    network, depth = gs.feedforward(4, "elu"), 150
    sweep = gs.sweep(network, depth=depth, seeds=6, key=3, statistics="log_length", sigma_w=100.0)
    largest = 0.0
    for seed in range(6):
        _, lengths = in_doubles(network, nn.elu, 100.0, depth, key=3, seed=seed)
        assert np.isfinite(lengths).all()
        np.testing.assert_allclose(sweep.log_length[seed], lengths, atol=1e-2)
        largest = max(largest, np.max(lengths[np.flatnonzero(lengths == 0.0) - 1], initial=0.0))
    assert largest > 2 * np.log(2.0**94), "no state fell back from above the range: choose another key"


def test_range_to_ten_thousand_layers() -> None:
    """tanh, sigmoid and ReLU of width 64, σ_w from 0.01 to 100: finite everywhere, and nothing is called dead.

    A ReLU layer of 64 units dies with probability 2**-64.
    """
    depth = 10_000
    networks = {name: gs.feedforward(64, name) for name in ("tanh", "sigmoid", "relu")}
    names = ("log_gain", "log_jvp", "log_length")
    sweep = gs.sweep(networks, depth=depth, seeds=1, statistics=names, sigma_w=[0.01, 100.0])
    for name in names:
        assert np.isfinite(sweep[name]).all(), name
    assert not sweep.dead.any()
    # In the long run every direction meets the same exponent.
    np.testing.assert_allclose(sweep.log_jvp[..., -1], sweep.log_gain[..., -1], rtol=1e-3, atol=20)
    # sigmoid and tanh contract at 0.01: ¼ and 1 at the origin, times the exponent of the Gaussian factor.
    # Finite size: that of A1 in the law book, −0.0078 a layer with standard deviation 0.089 / √10,000.
    growth = sweep.log_jvp.sel(depth=depth, sigma_w=0.01).isel(seed=0) / depth
    assert abs(float(growth.sel(network="tanh")) - (np.log(0.01) - 0.0078531861)) < 5 * 0.0891 / 100
    assert abs(float(growth.sel(network="relu")) - (np.log(0.01) - np.log(2) / 2 - 0.020054299)) < 5 * 0.144 / 100


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu"])
def test_range_over_the_gains(name: str) -> None:
    """Four decades of σ_w at once, at moderate depth."""
    sweep = gs.sweep(
        gs.feedforward(64, name), depth=300, seeds=2, statistics=("log_jvp", "log_length"),
        sigma_w=np.geomspace(0.01, 100, 9), sigma_b=[0.0, 1.0],
    )  # fmt: skip
    assert np.isfinite(sweep.log_jvp).all()
    assert np.isfinite(sweep.log_length).all()
    assert not sweep.dead.any()


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "hard_tanh"])
def test_saturated_is_the_share_of_flat_units(name: str) -> None:
    network = gs.feedforward(50, name, "identity")
    z = np.linspace(-9.05, 9.0, 50)
    sweep = gs.sweep(network, depth=1, seeds=1, statistics="saturated", inputs=z[None])
    share = float(sweep.saturated[0, 0])
    slope = {"tanh": 1 / np.cosh(z) ** 2, "sigmoid": 1 / np.cosh(z / 2) ** 2, "hard_tanh": (np.abs(z) < 1) * 1.0}[name]
    assert share == pytest.approx(np.mean(slope < 0.01), abs=1e-6)


def test_zero_gain_is_dead_and_nan() -> None:
    sweep = gs.sweep(
        gs.feedforward(12, "relu"), depth=3, seeds=2, statistics=("log_gain", "log_jvp"), sigma_w=[0.0, 1.0]
    )
    assert sweep.dead.sel(sigma_w=0.0).all()
    assert not sweep.dead.sel(sigma_w=1.0).any()
    for name in ("log_gain", "log_jvp"):
        assert np.isnan(sweep[name].sel(sigma_w=0.0)).all()
        assert np.isfinite(sweep[name].sel(sigma_w=1.0)).all()


def test_zero_gain_keeps_the_state_alive() -> None:
    """The product is zero, the state is not: φ(0), or the bias."""
    sweep = gs.sweep(gs.feedforward(6, "sigmoid"), depth=2, seeds=1, statistics=("log_gain", "length"), sigma_w=0.0)
    np.testing.assert_allclose(sweep.length, 0.25, rtol=1e-6)
    assert sweep.dead.all()


def test_one_dead_layer_kills_all_later_products_and_is_flagged_from_there_on() -> None:
    sweep = gs.sweep(gs.feedforward(2, "relu"), depth=12, seeds=40, statistics=("log_gain", "log_jvp", "log_length"))
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
