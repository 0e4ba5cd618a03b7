"""Residual and highway networks against autodiff, and laws A8 and D2."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy import integrate
from unrolled import assert_equal, jacobian, own_checks, unroll

import gradsim as gs
from gradsim import Network
from gradsim.networks.depth.residual import FORMS, highway, residual
from gradsim.networks.depth.scaling import branch_scale

NETWORKS: list[Network] = [
    residual(5, "tanh", scaling="inverse_depth", layers=4),
    residual(5, "gelu", "orthogonal", form="pre_activation", tied=True),
    residual(6, "relu", "he_normal", form="post_activation"),
    highway(5, "softsign"),
]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_product_equals_jacfwd_of_the_whole_network(network: Network) -> None:
    with jax.enable_x64(True):
        unrolled, product = unroll(network, {"sigma_b": 0.3})
        assert_equal(product, jacobian(unrolled.whole, unrolled.state))


@pytest.mark.parametrize("form", FORMS)
def test_block_is_its_formula(form: str) -> None:
    with jax.enable_x64(True):
        network = residual(6, "tanh", form=form, scaling="weighted_skip")
        gains = {"sigma_w": 1.3, "sigma_b": 0.4, "branch_gain": 0.7, "skip_gain": 0.6}
        (_, _, weights, x), product = unroll(network, gains, depth=1)
        w, b = 1.3 * np.asarray(weights.w[0]), 0.4 * np.asarray(weights.b[0])
        # d/dx of μ x + a f(x), written out: row vectors, so the matrix of the map is the transpose.
        slope = np.diag(1 / np.cosh(np.asarray(x) if form == "pre_activation" else x @ w + b) ** 2)
        branch = {
            "two_layer": lambda: w @ slope @ np.asarray(weights.v[0]),
            "pre_activation": lambda: slope @ w,
            "post_activation": lambda: w @ slope,
        }[form]()
        assert_equal(product.T, 0.6 * np.eye(6) + 0.7 * branch)


def test_highway_carries_where_its_gate_is_shut() -> None:
    data = gs.sweep(highway(16), depth=50, seeds=2, transform_bias=[-40.0, -2.0, 2.0], dtype="float64")
    gain = data.log_gain.sel(depth=50)
    np.testing.assert_allclose(gain.sel(transform_bias=-40.0), 0, atol=1e-12)
    assert np.all(gain.sel(transform_bias=2.0) < gain.sel(transform_bias=-2.0))


def test_scaling_divides_the_branch_gain() -> None:
    plain = gs.sweep(residual(8), depth=9, seeds=2, branch_gain=1 / 3, dtype="float64")
    scaled = gs.sweep(residual(8, scaling="inverse_sqrt_depth", layers=9), depth=9, seeds=2, dtype="float64")
    np.testing.assert_allclose(scaled.log_gain, plain.log_gain, rtol=0, atol=1e-12)
    assert [branch_scale(s, 9) for s in ("constant", "inverse_sqrt_depth", "inverse_depth")] == [1.0, 1 / 3, 1 / 9]


def test_inverse_sqrt_depth_bounds_the_gradient_at_any_depth() -> None:
    # E‖Ju‖² = (1 + ½/L)^L -> √e by law A8.
    depth, seeds = 100, 64
    network = residual(32, scaling="inverse_sqrt_depth", layers=depth)
    squares = np.exp(2 * gs.sweep(network, depth=depth, seeds=seeds).log_gain.isel(depth=-1))
    expected = (1 + 0.5 / depth) ** depth
    assert expected == pytest.approx(math.sqrt(math.e), rel=2e-3)
    assert abs(squares.mean() - expected) < 4.5 * squares.std() / math.sqrt(seeds)


def test_law_A8_squared_gradients_grow_as_1_plus_s_to_the_depth() -> None:
    seeds, sigma_w = 8000, [0.5, 1.0]
    data = gs.sweep(residual(8, "relu"), depth=6, seeds=seeds, sigma_w=sigma_w, dtype="float64")
    squares = np.exp(2 * data.log_gain)  # E‖J‖_F²/n = E‖Ju‖²
    s = data.sigma_w**2 / 2
    assert (1 + 0.5) ** 6 == 11.390625
    error = squares.std("seed") / math.sqrt(seeds)
    assert np.all(abs(squares.mean("seed") - (1 + s) ** data.depth) < 4.5 * error)


def mean_field(sigma_w: float, depth: int, q: float = 1.0) -> np.ndarray:
    """ln E‖Ju‖² of x + W tanh x after 1 … depth blocks: q' = q + σ_w² V(q), growth 1 + σ_w² D(q)."""
    z = np.linspace(-12, 12, 4001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    log = np.zeros(depth)
    for i in range(depth):
        h = math.sqrt(q) * z
        log[i] = math.log1p(sigma_w**2 * integrate.trapezoid(density / np.cosh(np.clip(h, -100, 100)) ** 4, z))
        q += sigma_w**2 * integrate.trapezoid(density * np.tanh(h) ** 2, z)
    return np.cumsum(log)


def law_D2(sigma_w: float, depth: Any) -> Any:
    linear = 4 / (3 * math.pi) - 4 * sigma_w**2 / (9 * math.pi)
    return 8 / 3 * sigma_w * np.sqrt(depth / (2 * math.pi)) + linear * np.log(depth)


@pytest.mark.parametrize("sigma_w", [1.0, 1.5])
def test_law_D2_is_the_limit_of_the_mean_field(sigma_w: float) -> None:
    log = mean_field(sigma_w, 3200)
    constant = [log[depth - 1] - law_D2(sigma_w, depth) for depth in (200, 800, 3200)]
    # It settles as ln L / √L; σ_w = ½ is slower. The law itself moves by 48 nats and more over this range.
    first, second = np.diff(constant)
    assert 0 < second < 0.75 * first < 0.04


@pytest.mark.further
def test_law_D2_tanh_residual_grows_slower_than_any_exponential() -> None:
    seeds, depths, sigma_w = 32, (10, 40, 100), [0.5, 1.0]
    network = residual(256, "tanh", form="pre_activation")
    data = gs.sweep(network, depth=100, seeds=seeds, sigma_w=sigma_w, statistics="log_jvp")
    for gain in sigma_w:
        log = 2 * data.log_jvp.sel(sigma_w=gain, depth=list(depths))
        expected = mean_field(gain, 100)[np.array(depths) - 1]
        squares = np.exp(log - expected)  # a mean of squares, as the law has it, not of logarithms
        error = squares.std("seed") / math.sqrt(seeds)
        assert np.all(abs(squares.mean("seed") - 1) < 4 * error)
        assert np.all(error < 0.2)
        rates = np.diff(log.mean("seed")) / np.diff(depths)
        assert rates[1] < 0.7 * rates[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"width": 0}, ValueError, r"width: got 0; pass a whole number of at least 1"),
        ({"width": 4, "form": "bottleneck"}, ValueError, r"form: got 'bottleneck'; pass one of: two_layer, pre_act"),
        ({"width": 4, "scaling": "deep"}, ValueError, r"scaling: got 'deep'; pass one of: constant, inverse_sqrt"),
        ({"width": 4, "scaling": "inverse_depth"}, ValueError, r"layers: got None; pass the depth L"),
        ({"width": 4, "layers": 3}, ValueError, r"layers: got 3 with scaling='constant'; leave it out"),
        ({"width": 4, "scaling": "inverse_depth", "layers": 0}, ValueError, r"layers: got 0; pass a whole number"),
        ({"width": 4, "activation": "rely"}, ValueError, r"activation: unknown name 'rely'"),
        ({"width": 4, "tied": 1}, TypeError, r"tied: got 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message):
        residual(**arguments)


def test_bad_gains() -> None:
    with pytest.raises(ValueError, match="sigma_v: neither an option of sweep nor a gain of residual"):
        gs.sweep(residual(4, form="pre_activation"), depth=2, seeds=1, sigma_v=1.0)
    with pytest.raises(ValueError, match=r"branch_gain: got -1\.0"):
        gs.sweep(residual(4), depth=2, seeds=1, branch_gain=-1.0)


def test_float32_survives_a_state_beyond_its_range() -> None:
    data = gs.sweep(residual(16), depth=600, seeds=2, sigma_w=3.0, statistics=("log_gain", "log_length"))
    assert float(data.log_length.max()) > 2 * 88  # squares of float32 end at e^88
    assert np.all(np.isfinite(data.log_gain))
