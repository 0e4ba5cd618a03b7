"""Layer, RMS and batch norm against autodiff and against Flax's own layers, and laws D1 and D3."""

import math
from collections.abc import Callable
from functools import partial
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
from gradsim.networks.depth.batchnorm import OF, PLACES, batchnorm
from gradsim.networks.depth.norm import _mean, standardize
from gradsim.networks.depth.normalized import FORMS, layernorm

NETWORKS = [
    layernorm(6, "gelu", "orthogonal", form="pre", scaling="inverse_depth", layers=4, tied=True),
    batchnorm(4, 5, "tanh", place="after", epsilon=0.0, tied=True),
]  # the tests against Flax have the rest


@pytest.mark.sampled(1)
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_product_equals_jacfwd_of_the_whole_network(network: Network) -> None:
    with jax.enable_x64(True):
        unrolled, product = unroll(network, {"sigma_b": 0.3})
        assert_equal(product, jacobian(unrolled.whole, unrolled.state))


def flax_norm(norm: str, epsilon: float) -> Callable[[Array], Array]:
    options: dict[str, Any] = {"use_scale": False, "epsilon": epsilon, "dtype": jnp.float64, "param_dtype": jnp.float64}
    if norm == "rms":
        layer: Any = linen.RMSNorm(**options)
    elif norm == "layer":
        layer = linen.LayerNorm(use_bias=False, use_fast_variance=False, **options)
    else:
        layer = linen.BatchNorm(use_running_average=False, use_bias=False, use_fast_variance=False, **options)
    return lambda x: layer.init_with_output(jax.random.key(0), x)[0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("form", "norm", "epsilon"), [*((form, "layer", 1e-6) for form in FORMS), ("pre", "rms", 0.1)])
def test_layer_norm_equals_flax(form: str, norm: str, epsilon: float) -> None:
    with jax.enable_x64(True):
        network = layernorm(6, "tanh", form=form, norm=norm, epsilon=epsilon)
        unrolled, product = unroll(network, {"sigma_w": 1.4, "sigma_b": 0.3})
        normalize = flax_norm(norm, epsilon)

        def step(x: Array, weights: Any) -> Array:
            w, b = 1.4 * weights.w, 0.3 * weights.b
            if form == "plain":
                return jnp.tanh(normalize(x @ w + b))
            if form == "pre":
                return x + jnp.tanh(normalize(x)) @ w + b
            return normalize(x + jnp.tanh(x) @ w + b)

        with jax.numpy_dtype_promotion("standard"):  # which Flax relies on
            assert_equal(product, jacobian(unrolled.chain(step), unrolled.state))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("place", PLACES)
def test_batch_norm_equals_flax_in_training_mode(place: str, of: str) -> None:
    with jax.enable_x64(True):
        unrolled, product = unroll(batchnorm(4, 5, "tanh", place=place, of=of), {"sigma_w": 1.4, "sigma_b": 0.3})
        normalize = flax_norm("batch", 1e-5)

        def step(x: Array, weights: Any) -> Array:
            w, b = 1.4 * weights.w, 0.3 * weights.b
            return jnp.tanh(normalize(x @ w) + b) if place == "before" else normalize(jnp.tanh(x @ w + b))

        with jax.numpy_dtype_promotion("standard"):  # which Flax relies on
            expected = jacobian(unrolled.chain(step), unrolled.state)
        assert_equal(product, expected if of == "batch" else expected[:4, :4])


@pytest.mark.parametrize("axis", [-1, -2])
def test_pullback_is_the_transpose(axis: int) -> None:
    with jax.enable_x64(True):
        x = np.random.default_rng(1).normal(size=(5, 6))

        def normalize(x: Array) -> Array:
            return standardize(x, axis, 1e-4)

        assert_equal(np.asarray(jax.jit(jax.jacrev(normalize))(x)).reshape(30, 30), jacobian(normalize, x))


@partial(jax.jit, static_argnames=("axis", "epsilon"))
def normalized(x: Array, along: Array, axis: int, epsilon: float) -> tuple[Array, Array]:
    """`standardize`, and its derivative in a direction."""
    return jax.jvp(lambda x: standardize(x, axis, epsilon), (x,), (along,))


@pytest.mark.parametrize("rows", [1, 7])
def test_a_mean_over_any_number_of_rows_and_its_transpose(rows: int) -> None:
    """Halves and what is left over: 7 is 2 · (1 + 1 + 1) + 1."""
    x = jax.random.normal(jax.random.key(rows), (2, rows, 3))
    cotangent = jnp.arange(6.0).reshape(2, 1, 3)

    @jax.jit
    def both(x: Array) -> tuple[Array, Array]:
        found, pullback = jax.vjp(lambda x: _mean(x, -2), x)
        return found, pullback(cotangent)[0]

    found, pulled = both(x)
    np.testing.assert_allclose(found, np.mean(np.asarray(x, np.float64), 1, keepdims=True), rtol=0, atol=3e-7)
    np.testing.assert_allclose(pulled, np.broadcast_to(cotangent / rows, x.shape), rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10, 1e30])
def test_norm_of_huge_and_tiny_vectors(axis: int, size: float) -> None:
    x = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    y, dy = normalized(x * np.float32(size), x[::-1] * np.float32(size), axis, 0.0)
    expected, tangent = normalized(x, x[::-1], axis, 0.0)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(dy, tangent, atol=1e-5)


def test_epsilon_rules_where_the_variance_is_below_it() -> None:
    x = np.array([1e-30, -1e-30], np.float32)
    y, dy = normalized(x, x, -1, 1e-6)
    np.testing.assert_allclose(y, x * 1e3, rtol=1e-5)
    np.testing.assert_allclose(dy, x * 1e3, rtol=1e-5)


def test_a_constant_vector_is_dead_and_not_nan() -> None:
    y, dy = normalized(np.ones(4, np.float32), np.arange(4, dtype=np.float32), -1, 0.0)
    assert np.all(np.asarray(y) == 0)
    assert np.all(np.asarray(dy) == 0)


def test_without_epsilon_the_gain_of_the_weights_drops_out() -> None:
    networks = {"layer": layernorm(16, epsilon=0.0), "batch": batchnorm(8, 4, epsilon=0.0)}
    data = gs.sweep(networks, depth=10, seeds=2, sigma_w=[1e-3, 1.0, 1e3], dtype="float64")
    np.testing.assert_allclose(data.log_gain, data.log_gain.isel(sigma_w=[1, 1, 1]), rtol=0, atol=1e-10)


def grows(batch: int, activation: str) -> float:
    """Law D1: the growth of E‖grad‖² a layer (Yang et al. 2019, theorem 8)."""
    if activation == "identity":
        return (batch - 2) / (batch - 3)
    c = -1 / (batch - 1)
    slope = (math.pi - math.acos(c)) / math.pi
    kernel = (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / math.pi
    return (batch - 2 + kernel + slope) / ((batch - 3) * (1 - kernel))


def growth(network: Network, depth: int, seeds: int, burn_in: int) -> tuple[float, float]:
    """The mean of ‖J_{l+1} u‖² / ‖J_l u‖² over layers and seeds, with its standard error.

    A mean of ratios and not of logarithms; in a wide network the ratios of successive layers are independent.
    """
    data = gs.sweep(network, depth=depth, seeds=seeds, burn_in=burn_in, statistics="log_jvp")
    ratios = np.exp(2 * np.diff(data.log_jvp, axis=-1))[..., 2:]
    return float(ratios.mean()), float(ratios.std() / math.sqrt(ratios.size))


# A small batch fluctuates more, so it takes more layers to see 1 %.
@pytest.mark.further
@pytest.mark.parametrize(("batch", "depth"), [(8, 160), (32, 30)])
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_law_D1_batch_norm_makes_gradients_explode(activation: str, batch: int, depth: int) -> None:
    mean, error = growth(batchnorm(1000, batch, activation, epsilon=0.0), depth, seeds=1, burn_in=10)
    assert error < 0.004 * mean
    assert abs(mean / grows(batch, activation) - 1) < 0.01


def test_law_D1_limit_of_large_batches() -> None:
    assert grows(8, "relu") == pytest.approx(1.7881899767, abs=1e-10)
    assert grows(32, "relu") == pytest.approx(1.5219528306, abs=1e-10)
    assert grows(10**9, "relu") == pytest.approx(math.pi / (math.pi - 1), abs=1e-6)


VARIANCES = {"relu": 0.5, "tanh": 0.3942944903}  # V = E φ² at q = 1
SLOPES = {"relu": 0.5, "tanh": 0.4644029020}  # D = E φ'² there


@pytest.mark.further
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_law_D3_pre_layer_norm_grows_as_a_power_of_depth(activation: str) -> None:
    """E‖Ju‖² = ((l + l₀)/(k + l₀))^ζ between layers k and l, ζ = σ_w² D / (σ_w² V + σ_b²).

    l₀ = 1/(σ_w² V + σ_b²) is for the length that the input brings.
    """
    seeds, first, last = 64, 20, 150
    network = layernorm(128, activation, form="pre", epsilon=0.0)
    sigma_b = [0.0, math.sqrt(0.5)]
    data = gs.sweep(network, depth=last, seeds=seeds, sigma_w=[0.5, 1.0, 2.0], sigma_b=sigma_b, statistics="log_jvp")
    log = 2 * (data.log_jvp.sel(depth=last) - data.log_jvp.sel(depth=first))
    added = data.sigma_w**2 * VARIANCES[activation] + data.sigma_b**2
    zeta, offset = data.sigma_w**2 * SLOPES[activation] / added, 1 / added
    squares = np.exp(log - zeta * np.log((last + offset) / (first + offset)))
    error = squares.std("seed") / math.sqrt(seeds)
    assert np.all(error < 0.1)
    assert np.all(abs(squares.mean("seed") - 1) < 4 * error)


@pytest.mark.further
@pytest.mark.parametrize(("activation", "chi"), [("relu", 1.0), ("tanh", 1.0502823561)])
def test_law_D3_post_layer_norm_grows_exponentially(activation: str, chi: float) -> None:
    if activation == "tanh":
        assert chi == pytest.approx((1 + SLOPES["tanh"]) / (1 + VARIANCES["tanh"]), abs=1e-9)
    mean, error = growth(layernorm(250, activation, form="post", epsilon=0.0), depth=80, seeds=16, burn_in=5)
    assert error < 0.004
    assert abs(mean - chi) < 4 * error


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: batchnorm(8, 1), ValueError, r"batch: got 1; pass a whole number of at least 3"),
        (lambda: batchnorm(8, 2), ValueError, r"batch: got 2; pass a whole number of at least 3"),
        (lambda: batchnorm(8, 4.5), ValueError, r"batch: got 4.5"),  # type: ignore[arg-type]
        (lambda: batchnorm(8, 4, place="inside"), ValueError, r"place: got 'inside'; pass one of: before, after"),
        (lambda: batchnorm(8, 4, of="mean"), ValueError, r"of: got 'mean'; pass one of: batch, sample"),
        (lambda: batchnorm(8, 4, epsilon=-1e-5), ValueError, r"epsilon: got -1e-05"),
        (lambda: layernorm(1), ValueError, r"width: got 1; pass a whole number of at least 2"),
        (lambda: layernorm(8, form="mid"), ValueError, r"form: got 'mid'; pass one of: plain, pre, post"),
        (lambda: layernorm(8, norm="group"), ValueError, r"norm: got 'group'; pass one of: layer, rms"),
        (lambda: layernorm(8, epsilon="small"), TypeError, r"epsilon: got 'small'"),  # type: ignore[arg-type]
        (lambda: layernorm(8, epsilon=[1e-5]), ValueError, r"epsilon: got an array"),  # type: ignore[arg-type]
        (
            lambda: layernorm(8, scaling="inverse_depth", layers=4),
            ValueError,
            r"scaling: got 'inverse_depth'; pass one",
        ),
        (lambda: layernorm(8, form="pre", scaling="inverse_depth"), ValueError, r"layers: got None; pass the depth"),
    ],
)
def test_bad_arguments(build: Callable[[], Network], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message):
        build()


def test_inputs_of_batch_norm_are_whole_batches() -> None:
    with pytest.raises(ValueError, match=r"inputs: got shape \[5, 8\]; pass an array of shape \[samples, 4, 8\]"):
        gs.sweep(batchnorm(8, 4), depth=2, seeds=1, inputs=np.ones((5, 8)))
