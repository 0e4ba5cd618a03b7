"""States and products outside the range of floats, against float64 arithmetic layer by layer."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, nn, random

import gradsim as gs
from gradsim.engine.chain import kind
from gradsim.engine.streams import Keys, network_keys
from gradsim.networks.depth.feedforward import Feedforward

KEY = 11

# Forms that neither overflow nor cancel in float64.
STABLE: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": lambda z: nn.gelu(z, approximate=False),
    "selu": nn.selu,
    "elu": nn.elu,
    "softplus": nn.softplus,
    "tanh": jnp.tanh,
}


@partial(jax.jit, static_argnums=0)
def drawn(width: int, keys: Keys) -> tuple[Array, Array]:
    """The input and the weights of a float32 network, of more layers than any test takes."""
    draw = gs.feedforward(width).draw
    each = jax.vmap(lambda t: draw(random.fold_in(keys.weights, t), jnp.float32).w)(jnp.arange(250))
    return random.normal(keys.once, (width,), jnp.float32), each


@cache
def with_slopes(phi: Callable[[Array], Array]) -> Callable[[np.ndarray], tuple[Array, Array]]:
    return jax.jit(lambda z: (phi(z), jax.vmap(jax.grad(phi))(z)))


def in_doubles(
    network: Feedforward, phi: Callable[[Array], Array], sigma_w: float, depth: int, key: int = KEY, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """log_gain and log_length at every depth of the float32 network, in float64 arithmetic layer by layer."""
    h, draws = (np.asarray(one, np.float64) for one in drawn(network.width, network_keys(random.key(key), seed)))
    product, gains, lengths = np.eye(network.width), [], []
    with jax.enable_x64(True):
        for w in draws[:depth]:
            z = float(np.float32(sigma_w)) * (h @ w)
            h, slope = (np.asarray(part) for part in with_slopes(phi)(z))
            product = float(np.float32(sigma_w)) * (product @ w) * slope
            with np.errstate(divide="ignore"):  # all units of an ELU saturated
                gains.append(0.5 * np.log(np.mean(np.sum(product**2, axis=1))))
            lengths.append(np.log(np.mean(h**2)))
    return np.array(gains), np.array(lengths)


@pytest.mark.sampled(2)
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


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["relu", "gelu", "selu", "tanh"])
def test_states_far_below_the_range_of_float32_are_exact(name: str) -> None:
    """At σ_w = 0.01 a state passes 1e-38 near layer 19; the definitions in float64 go on to layer 60."""
    network, depth = gs.feedforward(32, name), 60
    measured = gs.sweep(
        network, depth=1000, seeds=1, key=KEY, statistics=("log_gain", "log_length"), sigma_w=0.01
    ).isel(seed=0)  # fmt: skip
    gains, lengths = in_doubles(network, STABLE[name], 0.01, depth)
    assert lengths[-1] < 2 * np.log(1e-45)
    np.testing.assert_allclose(measured.log_gain[:depth], gains, atol=1e-4)
    np.testing.assert_allclose(measured.log_length[:depth], lengths, atol=2e-4)


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
    inputs = scale * np.sign(np.random.default_rng(5).normal(size=(1, 8)))
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


@pytest.mark.further
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
