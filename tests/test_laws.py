"""Published and exact results, reproduced by real networks through the public API.

Each test carries the id of its law in the law book. Keys are fixed; a tolerance is 4.5 standard errors of
the Monte-Carlo mean, computed from theory or, where said, from the sample, and never widened. W_ij has
variance σ_w²/n; ψ is digamma, ψ₁ trigamma.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy import integrate, stats
from scipy.special import digamma, polygamma

import gradsim as gs

# The law book measures them as well.
pytestmark = pytest.mark.further

ERRORS = 4.5  # standard errors; a correct program fails one assertion in 150,000


def steps(log_norm: Any) -> np.ndarray:
    """What each layer adds to a logarithm, [seeds, layers]."""
    return np.diff(np.asarray(log_norm), axis=-1, prepend=0.0)


def assert_mean(sample: Any, wanted: float, deviation: float | None = None) -> None:
    """The mean of independent numbers; the standard error is the sample's unless its deviation is known."""
    sample = np.asarray(sample).ravel()
    error = (sample.std(ddof=1) if deviation is None else deviation) / math.sqrt(sample.size)
    assert abs(sample.mean() - wanted) < ERRORS * error, (
        f"mean {sample.mean():.6g} is {(sample.mean() - wanted) / error:+.1f} standard errors from {wanted:.6g}"
    )


def assert_variance(sample: Any, wanted: float, excess_kurtosis: float) -> None:
    sample = np.asarray(sample).ravel()
    error = wanted * math.sqrt((2 + excess_kurtosis) / sample.size)
    assert abs(sample.var(ddof=1) - wanted) < ERRORS * error, (
        f"variance {sample.var(ddof=1):.6g} is {(sample.var(ddof=1) - wanted) / error:+.1f} errors from {wanted:.6g}"
    )


# A1: Gaussian linear networks


@pytest.fixture(scope="module")
def linear() -> Any:
    """ln ‖J u‖ of 2,000 Gaussian linear networks at two gains."""
    network = gs.feedforward(64, "identity")
    return gs.sweep(network, depth=16, seeds=2000, key=1, statistics="log_jvp", sigma_w=[1.0, 1.7]).log_jvp


@pytest.mark.parametrize("sigma_w", [1.0, 1.7])
def test_law_A1_mean_and_variance_a_layer(linear: Any, sigma_w: float) -> None:
    """A layer adds ½ ln(σ² χ²_N / N): mean ½[ln(2σ²/N) + ψ(N/2)], variance ψ₁(N/2)/4."""
    n = 64
    mean, variance = (math.log(2 * sigma_w**2 / n) + digamma(n / 2)) / 2, float(polygamma(1, n / 2)) / 4
    assert mean == pytest.approx(-0.0078531861 + math.log(sigma_w), abs=1e-9)
    assert variance == pytest.approx(0.0079358416, abs=1e-9)
    added = steps(linear.sel(sigma_w=sigma_w))
    assert_mean(added, mean, math.sqrt(variance))
    assert_variance(added, variance, float(polygamma(3, n / 2)) / (4 * variance) ** 2)


def test_law_A1_layers_are_independent(linear: Any) -> None:
    """The variance of the whole is the sum over layers, and neighbours are uncorrelated."""
    whole = linear.sel(sigma_w=1.0, depth=16)
    assert_variance(whole, 16 * 0.0079358416, 0.0)
    added = steps(linear.sel(sigma_w=1.0)) + 0.0078531861
    assert_mean(added[:, 1:] * added[:, :-1], 0.0, 0.0079358416)


def test_law_A1_fourth_moment(linear: Any) -> None:
    """E ‖J u‖⁴ = (1 + 2/N)^L at σ = 1, with its exact standard error, from E ‖J u‖⁸."""
    n = 64
    eighth = n * (n + 2) * (n + 4) * (n + 6) / n**4
    for depth in (1, 2, 4, 8):
        wanted = (1 + 2 / n) ** depth
        fourth = np.exp(4 * linear.sel(sigma_w=1.0, depth=depth))
        assert_mean(fourth, wanted, math.sqrt(eighth**depth - wanted**2))


def test_law_A1_at_width_128() -> None:
    network = gs.feedforward(128, "identity")
    added = steps(gs.sweep(network, depth=8, seeds=500, key=2, statistics="log_jvp").log_jvp)
    assert_mean(added, -0.0039164223, math.sqrt(0.0039369265))
    assert_variance(added, 0.0039369265, 2 / 64)


# A3, A5: second moments of the spectrum, where the sweep's statistics reach them


def spectral_moments(n: int, depth: int, *, relu: bool) -> tuple[float, float]:
    """(E tr (JJᵀ)², E (tr JJᵀ)²) by the recursions A3 (linear, σ_w = 1) and A5 (ReLU, σ_w² = 2)."""
    s2, ss = float(n), float(n * n)
    for _ in range(depth):
        if relu:
            s2, ss = (
                (2 / n) ** 2 * ((n * n + 3 * n) / 4 * s2 + n / 2 * ss),
                (2 / n) ** 2 * ((n * n + n) / 4 * ss + n * s2),
            )
        else:
            s2, ss = ((n * n + n) * s2 + n * ss) / n**2, (n * n * ss + 2 * n * s2) / n**2
    return s2, ss


def test_law_A3_A5_recursions_give_the_tabulated_values() -> None:
    assert spectral_moments(64, 16, relu=False)[0] / 64 - 1 == pytest.approx(18.67275364, abs=1e-8)
    assert spectral_moments(64, 8, relu=True)[0] / 64 - 1 == pytest.approx(20.64417215, abs=1e-8)


@pytest.mark.parametrize(("activation", "law"), [("identity", "A3"), ("relu", "A5")])
def test_law_A3_A5_spectral_moments(activation: str, law: str) -> None:
    """At width 2 gain and spectral norm give both singular values; at width 8 the gain gives E (tr JJᵀ)²."""
    relu = law == "A5"
    sigma_w = math.sqrt(2) if relu else 1.0
    for n, depth in ((2, 2), (8, 4)):
        sweep = gs.sweep(
            gs.feedforward(n, activation), depth=depth, seeds=6000, key=3, sigma_w=sigma_w,
            statistics=("log_gain", "log_spectral") if n == 2 else "log_gain",
        ).sel(depth=depth)  # fmt: skip
        s2, ss = spectral_moments(n, depth, relu=relu)
        total = np.where(sweep.dead, 0.0, n * np.exp(2 * sweep.log_gain))
        assert_mean(total, n * 1.0)
        assert_mean(total**2, ss)
        if n == 2:
            largest = np.where(sweep.dead, 0.0, np.exp(2 * sweep.log_spectral))
            assert_mean(largest**2 + (total - largest) ** 2, s2)


# A4: ReLU and leaky ReLU


def relu_steps(n: int) -> tuple[float, float]:
    """Mean and variance of ½ ln((2/n) χ²_B), B ~ Bin(n, ½) without B = 0: what a living He-scaled layer adds."""
    active = np.arange(1, n + 1)
    weight = stats.binom.pmf(active, n, 0.5)
    weight /= weight.sum()
    conditional = 0.5 * (math.log(4 / n) + digamma(active / 2))
    mean = float(weight @ conditional)
    return mean, float(weight @ (polygamma(1, active / 2) / 4 + (conditional - mean) ** 2))


def test_law_A4_relu_mean_and_variance_a_layer_under_any_bias() -> None:
    n = 64
    sweep = gs.sweep(
        gs.feedforward(n, "relu"), depth=12, seeds=1500, key=4, statistics="log_jvp",
        sigma_w=math.sqrt(2), sigma_b=[0.0, 0.5],
    )  # fmt: skip
    mean, variance = relu_steps(n)
    assert mean == pytest.approx(-0.020054299, abs=1e-9)
    assert variance == pytest.approx(0.020749338, abs=1e-9)
    assert relu_steps(128) == pytest.approx((-0.009893201, 0.010058498), abs=1e-9)
    assert not sweep.dead.any()
    for sigma_b in (0.0, 0.5):
        added = steps(sweep.log_jvp.sel(sigma_b=sigma_b))
        assert_mean(added, mean, math.sqrt(variance))
        assert_variance(added, variance, stats.kurtosis(added.ravel()))


def test_law_A4_relu_at_its_own_he_gain_has_the_law_of_its_gaussian_twin() -> None:
    """he_normal is √2 times a truncated Gaussian: E ‖J u‖² = 1 a layer all the same."""
    sweep = gs.sweep(gs.feedforward(32, "relu", "he_normal"), depth=4, seeds=1500, key=5, statistics="log_jvp")
    for depth in (1, 2, 4):
        assert_mean(np.exp(2 * sweep.log_jvp.sel(depth=depth)), 1.0)


def test_law_A4_dead_networks_and_the_living() -> None:
    """A layer of n units is dead with probability 2^−n; the living follow the law conditioned on life."""
    n, depth, seeds = 4, 6, 6000
    sweep = gs.sweep(
        gs.feedforward(n, "relu"), depth=depth, seeds=seeds, key=6, statistics="log_jvp", sigma_w=math.sqrt(2)
    )  # fmt: skip
    for layers in range(1, depth + 1):
        wanted = 1 - (1 - 2.0**-n) ** layers
        assert_mean(sweep.dead.sel(depth=layers), wanted, math.sqrt(wanted * (1 - wanted)))
    living = sweep.log_jvp.isel(seed=~sweep.dead.sel(depth=depth).to_numpy())
    mean, variance = relu_steps(n)
    added = steps(living)
    assert np.isfinite(added).all()
    assert_mean(added, mean, math.sqrt(variance))
    assert_variance(added, variance, stats.kurtosis(added.ravel()))


def leaky_03(z: Array) -> Array:
    return jnp.where(z > 0, z, 0.3 * z)


@pytest.mark.parametrize(("activation", "a"), [("leaky_relu", 0.01), (leaky_03, 0.3)])
def test_law_A4_leaky_relu(activation: Any, a: float) -> None:
    """‖J u‖² = ∏ (σ_w²/n)(χ²_B + a² χ²_{n−B}): its mean, its mean square, and the mean of its logarithm."""
    n = 16
    log_jvp = gs.sweep(
        gs.feedforward(n, activation), depth=4, seeds=4000, key=7, statistics="log_jvp",
        sigma_w=math.sqrt(2 / (1 + a**2)), sigma_b=0.4,
    ).log_jvp  # fmt: skip
    for depth in (1, 2, 4):
        square = np.exp(2 * log_jvp.sel(depth=depth))
        assert_mean(square, 1.0)
        assert_mean(square**2, (1 + (6 * (1 + a**4) / (1 + a**2) ** 2 - 1) / n) ** depth)

    # E ln S = ∫ (e^−t − E e^−tS) dt/t, and a unit's part of S is (σ_w²/n) g² with or without a².
    def integrand(log_t: float) -> float:
        t, part = math.exp(log_t), 2 / (1 + a**2) / n
        laplace = 0.5 * (1 + 2 * t * part) ** -0.5 + 0.5 * (1 + 2 * t * part * a**2) ** -0.5
        return math.exp(-t) - laplace**n

    mean_log = integrate.quad(integrand, -40, 60, limit=500, epsabs=1e-10)[0]
    assert_mean(steps(log_jvp), mean_log / 2)


# F1, F2: why initialization schemes were made


def test_law_F1_uniform_of_one_over_root_n_shrinks_squared_gradients_threefold() -> None:
    """U[±1/√n] has n Var = 1/3 (Glorot & Bengio 2010): E ‖J‖²/n = 3^−L; with Var = 2/(n_in + n_out) it is 1."""
    n, depth = 32, 20
    networks = {
        "torch": gs.feedforward(n, "identity", "torch_linear"),
        "glorot uniform": gs.feedforward(n, "identity", "glorot_uniform"),
        "glorot normal": gs.feedforward(n, "identity", "glorot_normal"),
    }
    log_gain = gs.sweep(networks, depth=depth, seeds=400, key=10).log_gain
    for name, shrinks in (("torch", 1 / 3), ("glorot uniform", 1.0), ("glorot normal", 1.0)):
        for layers in (1, 5, 10, 20):
            square = np.exp(2 * log_gain.sel(network=name, depth=layers) - layers * math.log(shrinks))
            assert_mean(square, 1.0)
            assert float(square.std()) / math.sqrt(square.size) < 0.05  # the statement is not empty


def test_law_F1_holds_for_tanh_in_its_linear_regime() -> None:
    """Small data, no bias: the slopes are 1 to 1e-6."""
    n, depth = 32, 10
    data = 1e-3 * np.random.default_rng(0).normal(size=(50, n))
    sweep = gs.sweep(
        gs.feedforward(n, "tanh", "uniform"), depth=depth, seeds=400, key=11, inputs=data, sigma_w=math.sqrt(1 / 3),
        statistics=("log_gain", "slope"),
    )  # fmt: skip
    assert np.all(sweep.slope > 1 - 1e-4)
    assert_mean(np.exp(2 * sweep.log_gain.sel(depth=depth) + depth * math.log(3)), 1.0)


def test_law_F2_xavier_with_relu_halves_the_squared_gradient_every_layer() -> None:
    """He et al. 2015: 2^−22 = 2.384e-7 and 2^−30 = 9.313e-10, under every Xavier law, and 1 under He's."""
    n = 96
    names = ("glorot_normal", "glorot_uniform", "he_normal")
    networks = {name: gs.feedforward(n, "relu", name) for name in names}
    log_gain = gs.sweep(networks, depth=30, seeds=150, key=12).log_gain
    for depth, vanishing in ((22, 2.384e-7), (30, 9.313e-10)):
        assert 2.0**-depth == pytest.approx(vanishing, rel=1e-3)
        for name in names:
            wanted = 1.0 if name == "he_normal" else 2.0**-depth
            square = np.exp(2 * log_gain.sel(network=name, depth=depth)) / wanted
            assert_mean(square, 1.0)
            assert float(square.std()) / math.sqrt(square.size) < 0.1
