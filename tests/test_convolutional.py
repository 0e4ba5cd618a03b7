"""Convolutional networks against autodiff and against Flax's own layer, and law A7."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import Array
from unrolled import assert_equal, jacobian, own_checks, unroll

import gradsim as gs
from gradsim import Network
from gradsim.networks.depth.convolutional import convolutional

NETWORKS = [
    convolutional(2, 5, kernel=5, initializer="he_normal", activation="relu"),
    convolutional(3, 4, padding="zero", initializer="delta_orthogonal", tied=True),
    convolutional(2, 3, dimensions=2, initializer="orthogonal"),
]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_product_equals_jacfwd_of_the_whole_network(network: Network) -> None:
    with jax.enable_x64(True):
        unrolled, product = unroll(network, {"sigma_b": 0.3})
        assert_equal(product, jacobian(unrolled.whole, unrolled.state))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("padding", ["circular", "zero"])
@pytest.mark.parametrize(("dimensions", "kernel", "size"), [(1, 3, 5), (2, 3, 4)])
def test_convolution_equals_flax(dimensions: int, kernel: int, size: int, padding: str) -> None:
    with jax.enable_x64(True):
        network = convolutional(2, size, kernel, dimensions, padding, "tanh")
        unrolled, product = unroll(network, {"sigma_w": 1.4, "sigma_b": 0.3})
        layer: Any = linen.Conv(
            2, (kernel,) * dimensions, padding={"circular": "CIRCULAR", "zero": "SAME"}[padding], dtype=jnp.float64
        )

        def step(x: Array, weights: Any) -> Array:
            return jnp.tanh(layer.apply({"params": {"kernel": 1.4 * weights.w, "bias": 0.3 * weights.b}}, x))

        with jax.numpy_dtype_promotion("standard"):  # which Flax relies on
            assert_equal(product, jacobian(unrolled.chain(step), unrolled.state))


def test_a_kernel_of_one_is_a_dense_layer_at_each_position() -> None:
    with jax.enable_x64(True):
        unrolled, product = unroll(convolutional(4, 3, kernel=1, activation="identity"), depth=1)
        assert_equal(product, np.kron(np.eye(3), np.asarray(unrolled.weights.w[0, 0]).T))


@pytest.mark.parametrize("dimensions", [1, 2])
def test_weights_have_variance_one_over_fan_in(dimensions: int) -> None:
    network = convolutional(16, 5, dimensions=dimensions)
    w = network.draw(jax.random.key(0), jnp.float32).w
    assert w.shape == (3,) * dimensions + (16, 16)
    assert float(jnp.var(w)) * 16 * 3**dimensions == pytest.approx(1, rel=0.15)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "network",
    [
        convolutional(4, 3, activation="identity", initializer="delta_orthogonal"),
        convolutional(3, 3, dimensions=2, activation="identity", initializer="delta_orthogonal"),
    ],
    ids=["1d", "2d"],
)
def test_law_A7_ten_thousand_delta_orthogonal_layers(network: Network) -> None:
    """Every ln σ within 1e-9 of L ln σ_w.

    The root mean square of the n singular values is σ_w^L within 1e-12 and so is the largest, within 1e-12:
    then Σ_i (1 − σ_i²/σ_max²) < 1e-11 n, and no single one is lower than that.
    """
    at = [1, 100, 10_000]
    data = gs.sweep(
        network, depth=10_000, seeds=1, sigma_w=[0.9, 1.0, 1.1], statistics=("log_gain", "log_spectral"), at=at,
        dtype="float64",
    ).sel(depth=at)  # fmt: skip
    expected = data.depth * np.log(data.sigma_w)
    n = int(np.prod(network.input_shape))
    assert np.all(abs(data.log_spectral - expected) < 1e-10)
    assert np.all(n * abs(data.log_gain - data.log_spectral) < 1e-10)


def test_zero_padding_breaks_the_isometry() -> None:
    network = convolutional(4, 3, activation="identity", padding="zero")
    data = gs.sweep(network, depth=20, seeds=4, statistics=("log_gain", "log_spectral"))
    assert np.all(data.log_spectral.sel(depth=20) > data.log_gain.sel(depth=20) + 0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel": 5}, ValueError, r"kernel: got 5; with circular padding and size=4 pass at most 4"),
        ({"kernel": 9, "padding": "zero"}, ValueError, r"kernel: got 9; with zero padding and size=4 pass at most 7"),
        ({"kernel": 2}, ValueError, r"kernel: got 2; pass an odd number"),
        ({"kernel": 0}, ValueError, r"kernel: got 0; pass a whole number of at least 1"),
        ({"dimensions": 3}, ValueError, r"dimensions: got 3; pass 1 or 2"),
        ({"padding": "same"}, ValueError, r"padding: got 'same'; pass one of: circular, zero"),
        ({"size": 0}, ValueError, r"size: got 0"),
        ({"channels": "3"}, TypeError, r"channels: got '3' of type str"),
        ({"initializer": "delta"}, ValueError, r"initializer: unknown name 'delta'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message):
        convolutional(**{"channels": 2, "size": 4, **arguments})
