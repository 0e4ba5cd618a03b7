"""Laws of residual branches and their scalings, of normalized and of gated MLPs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradsim import theory
from gradsim.laws.limits import EXACT, ROOT2, alike, at_infinity, exactly, in_the_limit
from gradsim.laws.record import Check, added, estimated, sampled, sampled_variance
from gradsim.networks.depth.normalized import layernorm
from gradsim.networks.depth.residual import residual
from gradsim.networks.depth.transformer import Transformer, transformer
from gradsim.sweeps.sweep import sweep


def linear_residual(effort: int, key: int) -> list[Check]:
    n = 8
    network = residual(n, "identity", form="pre_activation")
    log = sweep(network, depth=16, seeds=1000 * effort, key=key, statistics="log_jvp").log_jvp
    block, wide, sample = theory.residual_block(n, 1.0), theory.residual_block(64, 1.0), added(log)
    return [
        exactly("mean, variance at n = 8, of the book", block[:2], (0.296761403201, 0.054141061590), 1e-12),
        exactly("mean, variance at n = 64, of the book", wide[:2], (0.340670625767, 0.005960245332), 1e-12),
        sampled("mean a block, n = 8, a = 1", sample, float(block.mean), math.sqrt(block.variance)),
        sampled_variance("variance a block", sample, float(block.variance)),
        sampled("E‖Ju‖⁴, L = 2", np.exp(4 * log.sel(depth=2)), float(block.fourth) ** 2),
    ]


def scaled_relu(effort: int, key: int) -> list[Check]:
    n, options = 8, dict[str, Any](key=key, sigma_w=ROOT2)
    log = sweep(residual(n), depth=8, seeds=1000 * effort, statistics="log_jvp", **options).log_jvp
    harmonic = sweep(residual(n, scaling="inverse_index"), depth=8, seeds=2000 * effort, **options).log_gain
    zero = sweep(residual(n, scaling="rezero"), depth=8, seeds=2, **options, statistics=("log_gain", "log_jvp"))
    block, sample = theory.residual_block(n, 1.0, "relu"), added(log)
    book = [math.exp(2 * theory.residual_stack(1.0, 100, one)) for one in ("inverse_sqrt_depth", "inverse_depth")]
    book.append(math.exp(2 * theory.residual_stack(1.0, 1e15, "inverse_index")))
    return [
        exactly("1/√L and 1/L at L = 100, 1/l at ∞", book, (2.704813829422, 1.010049662093, 3.676077910375), 1e-12),
        exactly("mean ln‖Ju‖ a block, of the book", block.mean, 0.2702921152, 1e-10),
        sampled("mean ln‖Ju‖ a block, n = 8, s = a = 1", sample, float(block.mean)),
        sampled_variance("variance of ln‖Ju‖ a block", sample, float(block.variance)),
        sampled("E‖Ju‖², a = 1/l, n = 8, L = 8", np.exp(2 * harmonic.sel(depth=8)),
                math.exp(2 * theory.residual_stack(1.0, 8, "inverse_index"))),
        exactly("ReZero: |ln‖J‖|", [abs(zero.log_gain).max(), abs(zero.log_jvp).max()], 0.0, 1e-7),
    ]  # fmt: skip


def lengths(effort: int, key: int) -> list[Check]:
    """At width 6, dead branches and all."""
    n, checks = 6, []
    for position, target in (("pre", 5.5), ("peri", 6.421875)):
        network = transformer(n, 0, 1, mlp=1, activation="relu", position=position, epsilon=0.0)
        data = sweep(
            network, depth=5, seeds=2000 * effort, key=key, statistics="length", inputs=alike(1, n, q=1.5),
            sigma_w=math.sqrt(1.6),
        )  # fmt: skip
        checks.append(sampled(f"{position}-norm: E‖x‖²/n, q₀ = 1.5, L = 5", data.length.sel(depth=5), target))
    return checks


def normalized_mlps(effort: int, key: int) -> list[Check]:
    """Through the RMS norm, two widths extrapolated."""

    def make(position: str) -> Callable[[int], Transformer]:
        return lambda width: transformer(width, 0, 1, mlp=2, activation="relu", position=position, **EXACT)

    checks, seeds = [], (200 * effort, 100 * effort)
    for position, depth, target in (("pre", 8, 9.0), ("peri", 12, 13.0)):
        limit = at_infinity(make(position), (24, 48), 1.0, seeds, depth, key=key, sigma_w=ROOT2)["log_gain"]
        checks.append(in_the_limit(f"{position}-norm: E‖J‖²/n, q₀ = s = 1, L = {depth}", limit, target))
    ratios, errors = zip(*(_over_the_last(width, 150 * effort, key) for width in (48, 96)), strict=True)
    for i, (block, target) in enumerate(((1, 11 / 2), (5, 11 / 6))):
        limit, error = 2 * ratios[1][i] - ratios[0][i], math.hypot(2 * errors[1][i], errors[0][i])
        checks.append(estimated(f"E‖∂loss/∂U_{block}‖² over that of block 10", limit, error, target))
    return checks


def _over_the_last(width: int, seeds: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean squares of the gradient of U in blocks 1 and 5 over that in block 10, with jackknife errors."""
    network = transformer(width, 0, 1, 1, "relu", final_norm=True, layers=10, **EXACT)
    data = sweep(
        network, depth=10, seeds=seeds, key=key, direction="backward", statistics="log_weight_gradient", sigma_w=ROOT2
    )
    squares = np.exp(2 * data.log_weight_gradient.sel(parameter="u").transpose("seed", "depth").to_numpy())
    left_out = (squares.sum(axis=0) - squares) / (seeds - 1)
    each = left_out[:, [0, 4]] / left_out[:, [9]]
    return squares.mean(axis=0)[[0, 4]] / squares[:, 9].mean(), each.std(axis=0) * math.sqrt(seeds - 1)


def gated(effort: int, key: int) -> list[Check]:
    n, closed = 8, theory.gated_mlp("silu", 1.0, 8)
    network = transformer(n, 0, 1, 2, "silu", gated=True, position="none", skip=False)
    log = sweep(network, depth=1, seeds=2000 * effort, key=key, inputs=alike(1, n)).log_gain
    relu = theory.gated_mlp("relu", 1.0, n)
    found = (closed.square, closed.exponent, relu.square, relu.exponent)
    path = theory.transformer(1, 6, attention=False, gated=True, sigma_w=ROOT2)
    return [
        exactly("theory: SiLU and ReLU, n = 8, and ζ", found, (0.856802308972, 2.066634241242, 1.125, 2), 1e-12),
        exactly("theory: ReGLU after a norm, P = (L + 1)(L + 2)/2", path.power[-1], 28.0, 1e-11),
        sampled("E‖J‖²/n, SiLU, n = 8, r = 1", np.exp(2 * log), 0.856802308972),
    ]


def weighted_skip(effort: int, key: int) -> list[Check]:
    """Stationary after some blocks; two widths."""
    mu, rates, errors, depth = 0.5, [], [], 12
    for width, seeds in ((64, 200 * effort), (128, 100 * effort)):
        network = layernorm(width, "tanh", form="pre", norm="rms", epsilon=0.0, scaling="weighted_skip")
        data = sweep(network, depth=depth, seeds=seeds, key=key, burn_in=8, skip_gain=mu)
        square = np.exp(2 * data.log_gain.to_numpy())
        rate = math.log(square[:, depth - 1].mean() / square[:, 3].mean()) / (depth - 4)
        left = [np.delete(square, i, axis=0).mean(axis=0) for i in range(seeds)]
        jackknife = np.std([math.log(one[depth - 1] / one[3]) / (depth - 4) for one in left]) * math.sqrt(seeds - 1)
        rates.append(rate)
        errors.append(jackknife)
    chi = float(theory.weighted_skip_growth("tanh", mu))
    relu = theory.weighted_skip_growth("relu", [0.0, 0.5, 1.0], [0.5, 1.0, 3.0])
    return [
        exactly("theory: tanh, μ = ½", chi, 1.133355424228, 1e-12),
        exactly("theory: a ReLU is critical at every μ, σ_w", relu, 1.0, 1e-12),
        estimated("ln χ, tanh, μ = ½", 2 * rates[1] - rates[0], math.hypot(2 * errors[1], errors[0]), math.log(chi)),
    ]
