"""Residual stacks in closed form at every width: the law of one block, and what each scaling makes of many."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from gradsim import arguments
from gradsim.networks.depth.scaling import FACTORS, SCHEMES
from gradsim.theory.given import Number, broadcast

SMALL = 0.02  # of n v: from here on 14 terms of a series in v are exact to rounding
_LOG_STEP = 0.05  # of the trapezium rule in the logarithm of χ²


class ResidualBlock(NamedTuple):
    """Of ln‖Ju‖ in one block, for a unit vector u; blocks are independent, so that all adds up over them."""

    mean: Float[np.ndarray, "*shape"]
    variance: Float[np.ndarray, "*shape"]
    fourth: Float[np.ndarray, "*shape"]
    """E‖Ju‖⁴, to be multiplied over blocks; E‖Ju‖² is 1 + s."""


def residual_block(width: int, share: Number, activation: str = "identity") -> ResidualBlock:
    """The law of ‖Ju‖ in one block of n units whose branch adds s to E‖Ju‖², exact for Gaussian weights.

        identity  x + a W x, s = a²:                              ‖Ju‖² = (s/n) χ'²_n(n/s)
        relu      x + a σ_v relu(σ_w x W) V, s = a²σ_v²σ_w²/2:    ‖Ju‖² = v χ'²_n(1/v),  v = (2s/n²) χ²_B

    with B ~ Bin(n, ½) and the noncentral χ'², so that E ln‖Ju‖² given v is ln 2v + Σ_j Pois(j; 1/2v) ψ(n/2 + j). Over
    a stack of L blocks of a = σ/√L, ln‖Ju‖ has mean σ²(n − 2)/2n and variance σ²/n as L → ∞: depth over width plays no
    part. Law G2 is L times this mean at s = σ²/L, to rounding: 0.484148086305 at n = 64, L = 1000, σ = 1.

    Args:
        width: n.
        share: s.
        activation: identity or relu.

    Returns: ResidualBlock(mean, variance, fourth), float64 in the shape of `share`.
    Raises: TypeError or ValueError naming the argument.
    Source: laws G1 to G3 of the project's law book; Hanin & Nica 2018, arXiv:1812.05994, for the ReLU's χ²_B.

    >>> print("{:.12f} {:.12f}".format(*residual_block(8, 1.0)[:2]))
    0.296761403201 0.054141061590
    >>> print(f"{1000 * residual_block(64, 1 / 1000).mean:.12f}")
    0.484148086305
    """
    n = arguments.whole("width", width, maximum=10**6)
    relu = arguments.choice("activation", activation, ("identity", "relu")) == "relu"
    (s,), shape = broadcast({"share": (0.0, 1e12)}, share=share)
    found = np.array([_relu_block(n, float(one)) if relu else _log_square(n, float(one) / n) for one in s])
    moved = (n + 2) * (n + 5) / n**2 if relu else 1 + 2 / n
    fourth = 1 + 2 * s + 4 * s / n + moved * s**2
    return ResidualBlock(*(one.reshape(shape) for one in (found[:, 0] / 2, found[:, 1] / 4, fourth)))


def _log_square(n: int, v: float) -> tuple[float, float]:
    """Mean and variance of ln‖u + √v g‖², g of n normal numbers."""
    if max(n, 10) * v < SMALL:
        return _series(n, v)
    rate = 1 / (2 * v)
    reach = 10 * np.sqrt(rate) + 50
    j = np.arange(max(0, int(rate - reach)), int(rate + reach) + 1)
    weight = scipy.stats.poisson.pmf(j, rate)
    weight /= weight.sum()  # which is off by rounding times j ln j
    logs = scipy.special.digamma(n / 2 + j) - np.log(rate)
    mean = weight @ logs
    return mean, weight @ (scipy.special.polygamma(1, n / 2 + j) + (logs - mean) ** 2)


def _series(n: int, v: float) -> tuple[float, float]:
    """By the heat equation E f = Σ (vΔ/2)^m f/m! at r = 1, which ends up to e^(−1/2v).

    Of f = ln r² = l: Δ^m l = c r^−2m; of l²: Δ^m l² = r^−2m (a l + b).
    """
    c, a, b, factor = 2.0 * (n - 2), 4.0 * (n - 2), 8.0, 1.0
    mean = square = 0.0
    for m in range(1, 15):
        factor *= v / (2 * m)
        mean, square = mean + factor * c, square + factor * b
        onward = 2.0 * m * (2 * m + 2 - n)
        c, a, b = onward * c, onward * a, onward * b + (2 * n - 4 - 8 * m) * a
    return mean, square - mean**2


def _relu_block(n: int, s: float) -> tuple[float, float]:
    """The same over χ²_B; B = 0, a dead branch, leaves u as it is."""
    if s == 0:
        return 0.0, 0.0
    active = np.arange(1, n + 1)
    few = n < 500
    chances = scipy.special.binom(n, active) / 2.0**n if few else scipy.stats.binom.pmf(active, n, 0.5)
    log_x = np.arange(-26.0, np.log(n + 20 * np.sqrt(2 * n) + 80), _LOG_STEP)
    x = np.exp(log_x)
    weight = _LOG_STEP * x * (scipy.stats.chi2.pdf(x[:, None], active) @ chances)
    mean, variance = np.array([_log_square(n, 2 * s / n**2 * one) for one in x]).T
    total = weight @ mean
    dead = max(1 - weight.sum(), 0.0)
    return total, weight @ (variance + (mean - total) ** 2) + dead * total**2


def residual_stack(share: Number, depth: Number, scaling: str = "constant") -> Float[np.ndarray, "*shape"]:
    """½ ln E‖Ju‖² = ½ Σ ln(1 + s a_l²) of a linear or ReLU residual network, at every width.

        constant            L ln(1 + s)
        inverse_sqrt_depth  L ln(1 + s/L) → s
        inverse_depth       L ln(1 + s/L²) → 0
        inverse_sqrt_index  ln Γ(L + 1 + s) − ln Γ(1 + s) − ln Γ(L + 1), a power L^s of the depth
        inverse_index       2 Re[ln Γ(L + 1 + i√s) − ln Γ(1 + i√s)] − 2 ln Γ(L + 1) → ln [sinh(π√s)/(π√s)]

    and, before the factor ½, of all of them 0 at s = 0: ReZero, SkipInit, Fixup and every branch whose last layer
    starts at zero begin with J = I.

    Args:
        share: s, the mean square that one block adds at a = 1: a² of a linear one, σ_v²σ_w²/2 of a ReLU.
        depth: L.
        scaling: what a_l is: 1, 1/√L, 1/L, 1/√l or 1/l.

    Returns: nat, float64 of the broadcast shape: what the `log_gain` of a sweep has, its squares averaged.
    Raises: TypeError or ValueError naming the argument.
    Source: Hayou et al. 2021, arXiv:2010.12859; De & Smith 2020, arXiv:2002.10444; law G3 of the project's law book.

    >>> print(f"{np.exp(2 * residual_stack(1.0, 100, 'inverse_sqrt_depth')):.12f}")
    2.704813829422
    """
    scaling = arguments.choice("scaling", scaling, FACTORS)
    (s, length), shape = broadcast({"depth": (1.0, 1e15)}, share=share, depth=depth)
    if scaling == "inverse_sqrt_index":
        total = np.where(s > 0, -np.log(length + 1 + s) - scipy.special.betaln(length + 1, 1 + s), 0.0)
    elif scaling == "inverse_index":
        total = _inverse_squares(s, length)
    else:
        total = length * np.log1p(s * length ** (2 * SCHEMES[scaling].power))
    return (total / 2).reshape(shape)


def _inverse_squares(s: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Σ_{l ≤ L} ln(1 + s/l²), beyond some thousand blocks as that of infinitely many without the rest."""
    root = np.sqrt(s)
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.where(s > 0, np.pi * root + np.log(-np.expm1(-2 * np.pi * root) / (2 * np.pi * root)), 0.0)
    order = np.arange(1, 12)
    share = s[:, None] * (-1.0) ** (order + 1) / order
    # Hurwitz's zeta(2k, L + 1), in its ratio to (L + 1)^(−2k + 2), which does not underflow.
    many = length >= np.maximum(1e3, 10 * root)
    at = np.where(many, length + 1, 1e3)[:, None]
    small = np.where(many, s, 0.0)[:, None] / at**2
    zeta = scipy.special.zeta(2 * order, at)
    rest = np.sum(small ** (order - 1) * share * zeta * at ** (2 * order - 2), axis=1)
    above, below = (scipy.special.loggamma(start + 1j * root) for start in (length + 1, 1))
    few = 2 * (above - below - scipy.special.loggamma(length + 1)).real
    return np.where(many, whole - rest, few)
