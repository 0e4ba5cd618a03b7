"""Laws of two inputs through one network: how alike their states and their gradients stay."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import integrate

from gradsim import theory
from gradsim.analysis.correlation_depth import correlation_depth, mean_ratio, overlaps
from gradsim.laws.mean_field import EDGE
from gradsim.laws.record import Check, Law, estimated, exact, sampled
from gradsim.networks.depth.feedforward import feedforward
from gradsim.networks.depth.mirrored import mirrored
from gradsim.networks.depth.residual import residual
from gradsim.networks.network import Network
from gradsim.networks.pair import pair
from gradsim.sweeps.sweep import sweep

BIAS = math.sqrt(0.05)
HE = math.sqrt(2)
BOTH = ("log_gain", "gradient_correlation")


SAMPLES = 64


def two(width: int, c: float, q: float = 1.0) -> np.ndarray:
    """Pairs of inputs of mean square q and cosine c, both exactly, [samples, 2, width]; their directions are random."""
    both = np.random.default_rng(0).standard_normal((SAMPLES, width, 2))
    x, z = np.moveaxis(np.linalg.qr(both)[0], -1, 0)
    return np.stack([x, c * x + math.sqrt(1 - c * c) * z], axis=1) * math.sqrt(width * q)


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float


def correlation(network: Network, width: int, depth: int, c: float, q: float = 1.0, **options: Any) -> Estimate:
    """E tr J(x)ᵀJ(x') / E‖J‖² at the last layer, measured."""
    data = sweep(pair(network), depth=depth, inputs=two(width, c, q), statistics=BOTH, progress=False, **options)
    ratio, apart = mean_ratio(*overlaps(data.isel(depth=-1)))
    return Estimate(float(ratio), float(apart.std(ddof=1) / math.sqrt(apart.size)))


def at_infinite_width(
    network: Callable[[int], Network], depth: int, c: float, q: float = 1.0, **options: Any
) -> Estimate:
    """`correlation` without its term in 1/N, from widths 64 and 128."""
    narrow, wide = (correlation(network(n), n, depth, c, q, **options) for n in (64, 128))
    return Estimate(2 * wide.value - narrow.value, math.hypot(2 * wide.error, narrow.error))


def relu(effort: int, key: int) -> list[Check]:
    path = theory.gradient_correlation("relu", HE, 0.0, 10)
    n, c = 4, 0.3
    data = sweep(
        pair(feedforward(n, "relu")), depth=1, seeds=4000 * effort, key=key, inputs=two(n, c), sigma_w=HE,
        statistics=(*BOTH, "length", "correlation"),
    ).isel(depth=0)  # fmt: skip
    products = np.nan_to_num(data.correlation) * np.sqrt(data.length.prod("input"))
    kappa0 = (math.pi - math.acos(c)) / math.pi
    deep = at_infinite_width(lambda n: feedforward(n, "relu"), 10, 0.0, seeds=400 * effort, key=key, sigma_w=HE)
    return [
        exact("theory: c and g from c₀ = 0, L = 10", path.correlation[-1], 0.8715355160215, 1e-10),
        exact("theory: g from c₀ = 0, L = 10", path.gradient_correlation[-1], 0.03365215097663, 1e-10),
        sampled("E tr J(x)ᵀJ(x')/n, n = 4, c = 0.3", overlaps(data)[0], kappa0),
        sampled("E h·h'/‖x‖‖x'‖, n = 4, c = 0.3", products, math.sqrt(1 - c * c) / math.pi + c * kappa0),
        estimated("g, L = 10, N → ∞", deep.value, deep.error, 0.03365215097663),
    ]


def relu_residual(effort: int, key: int) -> list[Check]:
    def path(depth: int, gain: float) -> theory.TwoInputs:
        return theory.gradient_correlation("relu", 1.0, 0.0, depth, form="two_layer", sigma_v=HE, branch_gain=gain)

    def flow(t: float, c: np.ndarray) -> list[float]:
        angle = math.acos(min(1.0, c[0]))
        kappa0 = 1 - angle / math.pi
        return [math.sin(angle) / math.pi + c[0] * kappa0 - c[0], kappa0 - 1]

    c, log_g = integrate.solve_ivp(flow, (0, 1), [0.0, 0.0], rtol=1e-12, atol=1e-14).y[:, -1]
    options: dict[str, Any] = {"seeds": 400 * effort, "key": key, "sigma_w": 1.0, "sigma_v": HE}
    deep = at_infinite_width(lambda n: residual(n, "relu"), 10, 0.0, **options)
    limits = [path(depth, depth**-0.5).gradient_correlation[-1] for depth in (32, 64)]
    return [
        exact("theory: g, s = 1, L = 10", path(10, 1.0).gradient_correlation[-1], 0.1401568038066, 1e-10),
        exact("limit of 1/√L: c", c, 0.2538591012975, 1e-9),
        exact("limit of 1/√L: g", math.exp(log_g), 0.6336377683846, 1e-9),
        exact("theory: g at 1/√L, L → ∞", 2 * limits[1] - limits[0], math.exp(log_g), 5e-5),
        estimated("g, s = 1, L = 10, N → ∞", deep.value, deep.error, 0.1401568038066),
    ]


def smooth(effort: int, key: int) -> list[Check]:
    settled = float(theory.feedforward("tanh", EDGE, BIAS).q)
    start = {"c": -(BIAS**2) / (settled - BIAS**2), "q": (settled - BIAS**2) / EDGE**2}  # z at q*, uncorrelated
    path = theory.gradient_correlation("tanh", EDGE, BIAS, 10, start["c"], start["q"])
    x, weight = np.polynomial.hermite_e.hermegauss(120)
    t = np.tanh(math.sqrt(settled) * x)
    curvature = float(weight @ (2 * t * (1 - t**2)) ** 2) / math.sqrt(2 * math.pi)
    chaos = theory.feedforward("tanh", 2.0, BIAS)
    deep = at_infinite_width(
        lambda n: feedforward(n, "tanh"), 10, **start, seeds=400 * effort, key=key, sigma_w=EDGE, sigma_b=BIAS
    )
    data = sweep(
        pair(feedforward(256, "tanh")), depth=10, burn_in=20, seeds=48 * effort, key=key, statistics=BOTH,
        sigma_w=2.0, sigma_b=BIAS, input_correlation=0.5,
    )  # fmt: skip
    found = correlation_depth(data)
    return [
        exact("edge: lim l(1 − c_l) = 2/(σ_w²q E φ''²)", 2 / (EDGE**2 * settled * curvature), 6.1711261422, 1e-8),
        exact("theory, edge: g, L = 10", path.gradient_correlation[-1], 0.2967753764, 1e-9),
        exact("theory, σ_w = 2: −1/ξ_c − ln χ", -1 / chaos.xi_c - np.log(chaos.chi), -0.43772171, 1e-7),
        estimated("edge: g, L = 10, N → ∞", deep.value, deep.error, 0.2967753764),
        estimated("σ_w = 2, N = 256: 1/ξ_c", -float(found.rate), float(found.rate_error), float(1 / chaos.xi_c)),
    ]


def looks_linear(effort: int, key: int) -> list[Check]:
    data = sweep(
        pair(mirrored(16)), depth=20, seeds=8 * effort, key=key, statistics=(*BOTH, "correlation"), sigma_b=0.4,
        input_correlation=[-0.9, 0.0, 0.5], dtype="float64",
    )  # fmt: skip
    apart = data.log_gain.diff("input")
    return [
        exact("cosine of J(x) and J(x')", data.gradient_correlation, 1.0, 1e-14),
        exact("ln‖J(x')‖ − ln‖J(x)‖", apart, 0.0, 1e-14),
    ]


LAWS = (
    Law("H1", "ReLU: E tr J(x)ᵀJ(x')/n = ∂k_L/∂k₀; g ~ L^−3", "derived, from Cho & Saul 2009", relu),
    Law("H2", "ReLU residual: g = Π(1 + sκ₀)/(1 + s); a limit at 1/√L", "derived", relu_residual),
    Law("H3", "Smooth: g ~ L^−2 on the edge, e^(−L/ξ_c)/χ^L in chaos", "derived, from Schoenholz et al. 2017", smooth),
    Law("H4", "Mirrored ReLU: J(x) = J(x') in every network", "Balduzzi et al. 2017", looks_linear),
)
