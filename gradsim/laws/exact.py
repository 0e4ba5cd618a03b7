"""Laws that hold at every finite width."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.special import digamma, polygamma

from gradsim.laws.record import Check, Law, added, exact, sampled, sampled_variance
from gradsim.networks.depth.attention import attention
from gradsim.networks.depth.convolutional import convolutional
from gradsim.networks.depth.feedforward import feedforward
from gradsim.networks.depth.residual import residual
from gradsim.networks.time.gated import lstm
from gradsim.sweeps.sweep import sweep


def gaussian_linear(effort: int, key: int) -> list[Check]:
    n, depth = 64, 16
    log_jvp = sweep(feedforward(n, "identity"), depth=depth, seeds=1000 * effort, key=key, statistics="log_jvp").log_jvp
    variance = float(polygamma(1, n / 2)) / 4
    eighth = n * (n + 2) * (n + 4) * (n + 6) / n**4
    fourth = (1 + 2 / n) ** 4
    return [
        sampled("mean a layer", added(log_jvp), (math.log(2 / n) + digamma(n / 2)) / 2, math.sqrt(variance)),
        sampled_variance("variance a layer", added(log_jvp), variance),
        sampled("E‖Ju‖⁴, L = 4", np.exp(4 * log_jvp.sel(depth=4)), fourth, math.sqrt(eighth**4 - fourth**2)),
    ]


def spectral_moments(activation: str) -> Callable[[int, int], list[Check]]:
    """At width 2 the gain and the spectral norm give both singular values."""

    def measure(effort: int, key: int) -> list[Check]:
        n, depth, relu = 2, 2, activation == "relu"
        data = sweep(
            feedforward(n, activation), depth=depth, seeds=20_000 * effort, key=key, sigma_w=math.sqrt(1 + relu),
            statistics=("log_gain", "log_spectral"),
        ).sel(depth=depth)  # fmt: skip
        s2, ss = float(n), float(n * n)
        for _ in range(depth):
            if relu:
                s2, ss = (
                    4 / n**2 * ((n * n + 3 * n) / 4 * s2 + n / 2 * ss),
                    4 / n**2 * ((n * n + n) / 4 * ss + n * s2),
                )
            else:
                s2, ss = ((n * n + n) * s2 + n * ss) / n**2, (n * n * ss + 2 * n * s2) / n**2
        total = np.where(data.dead, 0.0, n * np.exp(2 * data.log_gain))
        largest = np.where(data.dead, 0.0, np.exp(2 * data.log_spectral))
        return [
            sampled("E (tr JJᵀ)², n = L = 2", total**2, ss),
            sampled("E tr (JJᵀ)², n = L = 2", largest**2 + (total - largest) ** 2, s2),
        ]

    return measure


def relu(effort: int, key: int) -> list[Check]:
    n, depth = 64, 12
    data = sweep(
        feedforward(n, "relu"), depth=depth, seeds=1000 * effort, key=key, statistics="log_jvp", sigma_w=math.sqrt(2),
        sigma_b=0.5,
    )  # fmt: skip
    active = np.arange(1, n + 1)
    weight = stats.binom.pmf(active, n, 0.5)
    weight /= weight.sum()
    conditional = 0.5 * (math.log(4 / n) + digamma(active / 2))
    mean = float(weight @ conditional)
    variance = float(weight @ (polygamma(1, active / 2) / 4 + (conditional - mean) ** 2))
    sample = added(data.log_jvp)
    return [
        sampled("mean a layer", sample, mean, math.sqrt(variance)),
        sampled_variance("variance a layer", sample, variance),
        sampled("E‖Ju‖⁴, L = 4", np.exp(4 * data.log_jvp.sel(depth=4)), (1 + 5 / n) ** 4),
    ]


def dead_layers(effort: int, key: int) -> list[Check]:
    n, depth = 4, 6
    data = sweep(
        feedforward(n, "relu"), depth=depth, seeds=4000 * effort, key=key, statistics="log_jvp", sigma_w=math.sqrt(2)
    )
    return [sampled("dead networks, n = 4, L = 6", data.dead.sel(depth=depth), 1 - (1 - 2.0**-n) ** depth)]


def isometry(effort: int, key: int) -> list[Check]:
    depth, sigma_w = 10_000, [0.9, 1.1]
    networks = {
        "linear": feedforward(8, "identity", "orthogonal"),
        "convolution": convolutional(3, 4, activation="identity", initializer="delta_orthogonal"),
    }
    checks = []
    for name, network in networks.items():
        data = sweep(
            network, depth=depth, seeds=1, key=key, sigma_w=sigma_w, dtype="float64",
            statistics=("log_gain", "log_spectral"),
        ).sel(depth=depth)  # fmt: skip
        expected = depth * np.log(data.sigma_w)
        # The mean square and the largest singular value agree: so do all n.
        apart = math.prod(network.input_shape) * abs(data.log_gain - data.log_spectral)
        checks.append(exact(f"{name}: ln σ_max − L ln σ_w", data.log_spectral - expected, 0.0, 1e-9))
        checks.append(exact(f"{name}: spread of ln σ", apart, 0.0, 1e-9))
    return checks


def relu_residual(effort: int, key: int) -> list[Check]:
    data = sweep(residual(8, "relu"), depth=6, seeds=10_000 * effort, key=key, sigma_w=1.0)
    return [sampled("E‖Ju‖², n = 8, L = 6", np.exp(2 * data.log_gain.sel(depth=6)), 11.390625)]


def uniform_attention(effort: int, key: int) -> list[Check]:
    network = attention(8, 2, 6, mlp=0, norm="none")
    data = sweep(network, depth=4, seeds=2000 * effort, key=key, sigma_q=0.0, sigma_v=1.0)
    return [sampled("E‖J‖²/(n d), n = 6, L = 4", np.exp(2 * data.log_gain.sel(depth=4)), 3.5)]


def error_carousel(effort: int, key: int) -> list[Check]:
    biases = np.array([1.0, 5.0])
    data = sweep(
        lstm(4, of="cell"), depth=100, seeds=1, key=key, sigma_w=0.0, sigma_v=0.0, forget_bias=biases, dtype="float64"
    )
    predicted = -100 * np.log1p(np.exp(-biases))
    return [exact("ln sigmoid(1)^100, ln sigmoid(5)^100", data.log_gain.isel(seed=0).sel(time=100), predicted, 1e-12)]


def a_tenth(effort: int, key: int) -> list[Check]:
    data = sweep(feedforward(1, "identity", "identity"), depth=50, seeds=1, key=key, sigma_w=0.1)
    return [exact("ln 0.1^50, in float32", data.log_gain.sel(depth=50), -115.1292546497, 1e-5)]


LAWS = (
    Law("A1", "Gaussian linear: ln‖Ju‖ adds ½ ln(σ²χ²_N/N) a layer", "χ² of a Gaussian matrix", gaussian_linear),
    Law("A3", "Gaussian linear: fourth moments of J by recursion", "Wick's theorem", spectral_moments("identity")),
    Law("A4", "ReLU: ‖Ju‖² is a product of χ² of random degree", "Hanin & Nica 2018", relu),
    Law("A4 dead", "ReLU: a layer is dead with probability 2^−n", "Hanin & Nica 2018", dead_layers),
    Law("A5", "ReLU: fourth moments of J by recursion", "Wick's theorem", spectral_moments("relu")),
    Law("A7", "Orthogonal linear and delta-orthogonal: every σ is σ_w^L", "Xiao et al. 2018", isometry),
    Law("A8", "x + V relu(W x): E‖Ju‖² = (1 + σ_v²σ_w²/2)^L", "Yang & Schoenholz 2017", relu_residual),
    Law("A9", "Uniform attention with a skip: 1 − 1/n + (1 + σ_v²)^L/n", "Gaussian values", uniform_attention),
    Law("A10", "LSTM without weights: ∂c_T/∂c_0 = sigmoid(b_f)^T", "Hochreiter & Schmidhuber 1997", error_carousel),
    Law("A14", "A slope of 0.1 over 50 layers leaves 1e-50", "arithmetic", a_tenth),
)
