"""Laws of residual, normalized and recurrent networks."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray

from gradsim import theory
from gradsim.laws.record import Check, Law, bound, estimated, exact, sampled
from gradsim.networks.depth.batchnorm import batchnorm
from gradsim.networks.depth.feedforward import feedforward
from gradsim.networks.depth.normalized import layernorm
from gradsim.networks.depth.residual import residual
from gradsim.networks.time.gated import gru, lstm
from gradsim.networks.time.recurrent import minimal_rnn, vanilla_rnn
from gradsim.sweeps.lyapunov import lyapunov_exponents
from gradsim.sweeps.sweep import sweep


def batch_norm(activation: str, batch: int, depth: int) -> Callable[[int, int], list[Check]]:
    """The mean of ‖J_{l+1} u‖²/‖J_l u‖²: a small batch fluctuates more, and takes more layers to see 1 %."""

    def measure(effort: int, key: int) -> list[Check]:
        data = sweep(
            batchnorm(1000, batch, activation, epsilon=0.0), depth=depth, seeds=effort, key=key, burn_in=10,
            statistics="log_jvp",
        )  # fmt: skip
        ratio = float(np.exp(2 * np.diff(data.log_jvp, axis=-1))[..., 2:].mean())
        predicted = float(theory.batchnorm_growth(activation, batch))
        return [exact(f"growth of E‖grad‖², B = {batch}, N = 1000", ratio, predicted, 0.01 * predicted)]

    return measure


def tanh_residual(effort: int, key: int) -> list[Check]:
    seeds, depth = 48 * effort, 100
    network = residual(256, "tanh", form="pre_activation")
    data = sweep(network, depth=depth, seeds=seeds, key=key, sigma_w=1.0, statistics="log_jvp")
    expected = 2 * theory.residual("tanh", 1.0, 0.0, depth, form="pre_activation").log_gain[-1]
    blocks = np.array([800, 3200, 12_800])
    path = 2 * theory.residual("tanh", 1.0, 0.0, int(blocks[-1]), form="pre_activation").log_gain
    constant, rest = path[blocks - 1] - theory.tanh_residual_growth(1.0, blocks), np.log(blocks) / np.sqrt(blocks)
    settles, as_the_rest = (np.diff(values)[1] / np.diff(values)[0] for values in (constant, rest))
    squares = np.exp(2 * data.log_jvp.sel(depth=depth) - expected)
    return [
        sampled("E‖Ju‖² over the mean field's, L = 100", squares, 1.0),
        exact("how C settles with L, against ln L/√L", settles, as_the_rest, 0.03),
    ]


def pre_norm(activation: str, variance: float, zeta: float) -> Callable[[int, int], list[Check]]:
    """The power of depth between two layers, from the length that the input brings."""

    def measure(effort: int, key: int) -> list[Check]:
        first, last = 20, 200
        network = layernorm(256, activation, form="pre", epsilon=0.0)
        data = sweep(network, depth=last, seeds=16 * effort, key=key, statistics="log_jvp")
        log = 2 * (data.log_jvp.sel(depth=last) - data.log_jvp.sel(depth=first))
        ratio = math.log((last + 1 / variance) / (first + 1 / variance))
        return [sampled(f"E‖Ju‖² over L^{zeta:.4g}, layers 20 to 200", np.exp(log - zeta * ratio), 1.0)]

    return measure


def post_norm(effort: int, key: int) -> list[Check]:
    network = layernorm(512, "tanh", form="post", epsilon=0.0)
    data = sweep(network, depth=40, seeds=8 * effort, key=key, burn_in=5, statistics="log_jvp")
    ratios = np.exp(2 * np.diff(data.log_jvp, axis=-1))[..., 2:]
    return [sampled("growth of E‖Ju‖² a block, N = 512", ratios, 1.0502823561)]


def autonomous_rnn(effort: int, key: int) -> list[Check]:
    """Tied weights fall short of the limit by several 1/N, so two widths are extrapolated."""
    gains = np.array([1.5, 2.0])
    means, errors = [], []
    for width, seeds in ((256, 128 * effort), (512, 48 * effort)):
        data = lyapunov_exponents(
            vanilla_rnn(width, features=1), depth=300, burn_in=200, seeds=seeds, key=key, count=1,
            sigma_w=gains, sigma_v=0.0,
        )  # fmt: skip
        largest = data.lyapunov.squeeze("exponent")
        means.append(largest.mean("seed").to_numpy())
        errors.append(largest.std("seed", ddof=1).to_numpy() / math.sqrt(seeds))
    limit, error = 2 * means[1] - means[0], np.hypot(2 * errors[1], errors[0])
    expected = theory.vanilla_rnn("tanh", gains, 0.0).lyapunov
    book = exact("theory at g = 1.5, 2", expected, [0.0652172119, 0.1547242298], 1e-9)
    return [book, *(estimated(f"λ₁ at g = {gains[i]}, N → ∞", limit[i], error[i], expected[i]) for i in range(2))]


def spectral_bound(effort: int, key: int) -> list[Check]:
    """A tied linear network of the same key gives ‖W‖₂, as its first step."""
    options: dict[str, Any] = {
        "seeds": 200 * effort,
        "key": key,
        "statistics": "log_spectral",
        "sigma_w": [0.5, 1.0, 3.0],
    }
    norm = sweep(feedforward(8, "identity", tied=True), depth=1, **options).log_spectral.isel(depth=0)
    checks = []
    for activation, slope in (("tanh", 1.0), ("sigmoid", 0.25)):
        chain = sweep(feedforward(8, activation, tied=True), depth=12, at=range(1, 13), **options).log_spectral
        excess = chain - chain.depth * (norm + math.log(slope))
        checks.append(bound(f"{activation}: ln‖J_T…J_1‖₂ − T ln(γ‖W‖₂)", excess, 0.0, 1e-4))
    return checks


def minimal_edge(effort: int, key: int) -> list[Check]:
    """Inputs of variance 0.46, and weights that differ from step to step, as the mean field has them."""
    variance, seeds, burn_in, depth, n = 0.46, 160 * effort, 10, 16, 128
    sigma_w = np.array([6.2, 6.9, 7.6])
    inputs = math.sqrt(variance) * np.random.default_rng(key).standard_normal((seeds, burn_in + depth, n))
    data = sweep(
        minimal_rnn(n, initial="zero", tied=False), depth=depth, burn_in=burn_in, seeds=seeds, key=key, inputs=inputs,
        sigma_w=sigma_w, sigma_v=1.39,
    )  # fmt: skip
    edge = float(theory.recurrent_edge("minimal_rnn", 1.39, input_variance=variance))
    measured, error = crossing(data.log_gain.sel(time=depth), sigma_w)
    return [
        exact("theory, against the published 6.88", edge, 6.88, 0.02 * 6.88),
        estimated("critical σ_w at σ_v = 1.39, N = 128", measured, error, edge),
    ]


def crossing(log_gain: xarray.DataArray, sigma_w: np.ndarray) -> tuple[float, float]:
    """Where E‖J‖² = n, through a parabola in so small a range, and its jackknife error over seeds."""
    squares = np.exp(2 * log_gain.transpose("sigma_w", "seed").to_numpy())

    def root(squares: np.ndarray) -> float:
        return float(np.polyfit(np.log(squares.mean(axis=1)), sigma_w, 2)[-1])

    seeds = squares.shape[1]
    left_out = [root(np.delete(squares, seed, axis=1)) for seed in range(seeds)]
    return root(squares), math.sqrt(seeds - 1) * float(np.std(left_out))


def gate_bias(effort: int, key: int) -> list[Check]:
    biases = np.array([1.0, 2.0])
    options: dict[str, Any] = {"depth": 50, "seeds": 1, "key": key, "sigma_w": 0.0, "sigma_v": 0.0}
    cells = {
        "LSTM": sweep(lstm(4, of="cell"), **options, forget_bias=biases),
        "GRU": sweep(gru(4), **options, update_bias=biases),
    }
    return [
        exact(
            f"{name}: time scale at b = 1, 2",
            -40 / (maps.log_gain.sel(time=50) - maps.log_gain.sel(time=10)).to_numpy().ravel(),
            [3.1922, 7.8785],
            5e-5,
        )
        for name, maps in cells.items()
    ]


LAWS = (
    Law("D1 linear", "Batch norm: (B − 2)/(B − 3)", "Yang et al. 2019", batch_norm("identity", 32, 30)),
    Law("D1 ReLU", "Batch norm explodes whatever σ_w", "Yang et al. 2019", batch_norm("relu", 32, 30)),
    Law("D1 ReLU, B = 8", "A smaller batch explodes faster", "Yang et al. 2019", batch_norm("relu", 8, 160)),
    Law("D2", "x + W tanh x: slower than any exponential", "Yang & Schoenholz 2017", tanh_residual),
    Law("D3 ReLU", "Pre-LN residual: a power law L^ζ", "mean field of layer norm", pre_norm("relu", 0.5, 1.0)),
    Law("D3 tanh", "Pre-LN residual", "mean field", pre_norm("tanh", 0.3942944903, 1.1778072)),
    Law("D3 post", "Post-LN residual: exponential", "mean field", post_norm),
    Law("E1", "tanh RNN without input: λ₁ = ½ ln g²D(q)", "Sompolinsky et al. 1988", autonomous_rnn),
    Law("E4", "‖J_T…J_1‖₂ ≤ (γ‖W‖₂)^T in every network", "Pascanu et al. 2013", spectral_bound),
    Law("E5", "Critical σ_w of the minimalRNN", "Chen et al. 2018", minimal_edge),
    Law("E7", "A gate bias sets the time scale −1/ln sigmoid(b)", "Tallec & Ollivier 2018", gate_bias),
)
