"""Mean field of the deep feed-forward network: fixed points, correlations and depth scales at infinite width.

h' = φ(z), z = h W + b, W_ij ~ N(0, σ_w²/n), b ~ N(0, σ_b²). The mean square q of z and the correlation c of
two inputs obey scalar maps (Poole et al. 2016; Schoenholz et al. 2017).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradsim import activations
from gradsim.activations import Activation
from gradsim.theory import correlation
from gradsim.theory.correlation import solve
from gradsim.theory.given import ActivationLike, Number, broadcast
from gradsim.theory.moments import Moments, moments

_ROUNDING = 1e-14  # a relative excess below this is noise, not growth
_NEUTRAL = 1e-12
_DIVERGES, _BELOW = -1, -2
_GAINS = (0.0, 1e20)  # their squares lie inside the grid on which lengths are sought
_SHORTEST = 1e-300  # the quadrature's shortest length; from here down the maps no longer change


class FixedPoint(NamedTuple):
    """The fixed point of each network; NaN where the length has none."""

    q: Float[np.ndarray, "*shape"]
    """q*, the variance of a pre-activation."""
    c: Float[np.ndarray, "*shape"]
    """c*, the stable correlation of two inputs: 1 in the ordered phase, less in the chaotic one."""
    chi: Float[np.ndarray, "*shape"]
    """χ = σ_w² E φ'², the growth of a squared gradient in one layer."""
    xi_q: Float[np.ndarray, "*shape"]
    """ξ_q, layers in which the length forgets its start by a factor e; inf where it never does."""
    xi_c: Float[np.ndarray, "*shape"]
    """ξ_c, layers in which the correlation does; inf at the edge of chaos."""


def feedforward(activation: ActivationLike, sigma_w: Number, sigma_b: Number) -> FixedPoint:
    """Fixed point and depth scales of each network, with σ_w and σ_b broadcast against each other.

    q* = σ_w² V(q*) + σ_b²,  χ = σ_w² D(q*),  1/ξ_q = −ln |χ + σ_w² E φ''φ|,
    c* = [σ_w² E φ(u₁)φ(u₂) + σ_b²] / q*,  1/ξ_c = −ln σ_w² E φ'(u₁)φ'(u₂) at c*.

    Where several stable lengths exist, q* is the one reached from every large input. NaN where large inputs grow
    for ever: ReLU with σ_w² > 2, or at 2 with a bias. A GELU with σ_w² > 2 may hold small inputs at a small
    length all the same, and `transient` follows a given input. A homogeneous activation at criticality (ReLU,
    σ_w² = 2, σ_b = 0) keeps every length; q = 1 is returned, with ξ_q = ξ_c = inf. c* and ξ_c are NaN where q* is
    too large for an oscillating φ to be integrated, above 700 for a sine. Gains up to 1e20.

    Returns: FixedPoint(q, c, chi, xi_q, xi_c) of float64 arrays of the broadcast shape.
    Raises: TypeError or ValueError naming the argument.
    Sources: Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232.

    >>> point = feedforward("tanh", 2.0, np.sqrt(0.05))
    >>> print(f"{point.chi:.6f} {point.xi_c:.6f}")
    1.342402 6.980274
    """
    phi = activations.get(activation)
    (sigma_w, sigma_b), shape = broadcast({"sigma_w": _GAINS, "sigma_b": _GAINS}, sigma_w=sigma_w, sigma_b=sigma_b)
    table = moments(phi)
    q, chi, growth = lengths(table, sigma_w, sigma_b)
    c, slope = np.where(np.isnan(q), np.nan, 1.0), chi.copy()
    chaotic = (chi > 1 + _NEUTRAL) & (q > 0)
    if np.any(chaotic):
        epsilon, slope[chaotic] = correlation.fixed_points(phi, q[chaotic], sigma_w[chaotic] ** 2)
        # An odd φ without bias keeps orthogonal inputs orthogonal; there the root is at the very end, c = 0.
        epsilon[(sigma_b[chaotic] == 0) & table.odd] = 1.0
        c[chaotic] = np.where(np.isnan(slope[chaotic]), np.nan, 1 - epsilon)
    fields = (q, c, chi, _depth_scale(growth), _depth_scale(slope))
    return FixedPoint(*(field.reshape(shape) for field in fields))


def length_map(activation: ActivationLike, q: Number, sigma_w: Number, sigma_b: Number) -> np.ndarray:
    """The variance one layer on, q' = σ_w² V(q) + σ_b²; broadcast shape, float64.

    Raises: TypeError or ValueError naming the argument. Source: Poole et al. 2016, equation 3.
    """
    phi = activations.get(activation)
    (q, sigma_w, sigma_b), shape = broadcast(q=q, sigma_w=sigma_w, sigma_b=sigma_b)
    return (sigma_w**2 * _v(moments(phi), q) + sigma_b**2).reshape(shape)


def decorrelation_map(
    activation: ActivationLike, epsilon: Number, q: Number, sigma_w: Number, sigma_b: Number
) -> np.ndarray:
    """1 − c one layer on, for two inputs of variance q and 1 − c = ε: ε' = σ_w² ½E(φ(u₁) − φ(u₂))² / q'.

    Iterate this, not c: near c = 1 a float64 c has too few digits left. Broadcast shape, float64. NaN where
    q' = 0, since states of length 0 have no correlation, and where `correlation_map` is.
    Raises: TypeError or ValueError naming the argument; 0 ≤ ε ≤ 2.
    """
    phi = activations.get(activation)
    (epsilon, q, sigma_w, sigma_b), shape = broadcast(
        {"epsilon": (0.0, 2.0)}, epsilon=epsilon, q=q, sigma_w=sigma_w, sigma_b=sigma_b
    )
    return _decorrelated(phi, epsilon, q, sigma_w, sigma_b).reshape(shape)


def correlation_map(activation: ActivationLike, c: Number, q: Number, sigma_w: Number, sigma_b: Number) -> np.ndarray:
    """The correlation one layer on, c' = [σ_w² E φ(u₁)φ(u₂) + σ_b²] / q', of two inputs of variance q.

    NaN where q' = 0, as at q = σ_b = 0 with φ(0) = 0: states of length 0 have no correlation. NaN, too, where q is
    too large for an oscillating φ to be integrated, above 700 for a sine.
    Raises: TypeError or ValueError naming the argument; −1 ≤ c ≤ 1. Source: Poole et al. 2016, equation 5.
    """
    phi = activations.get(activation)
    (c, q, sigma_w, sigma_b), shape = broadcast({"c": (-1.0, 1.0)}, c=c, q=q, sigma_w=sigma_w, sigma_b=sigma_b)
    return np.asarray(1 - _decorrelated(phi, 1 - c, q, sigma_w, sigma_b).reshape(shape))


def _v(table: Moments, q: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.exp(table.log_v(np.maximum(np.log(q), -1e3)))


def lengths(table: Moments, sigma_w: np.ndarray, sigma_b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q*, χ and the slope of the length map, σ_w² V'(q*)."""
    if table.homogeneous():
        ratio = sigma_w**2 * np.exp(table.log_v(np.zeros(1)))
        neutral = np.abs(ratio - 1) <= _NEUTRAL
        ratio = np.where(neutral, 1.0, ratio)
        with np.errstate(divide="ignore", invalid="ignore"):
            q = np.where(ratio < 1, sigma_b**2 / (1 - ratio), np.where(neutral & (sigma_b == 0), 1.0, np.nan))
        ratio[np.isnan(q)] = np.nan
        return q, ratio * np.exp(table.log_d(np.zeros(1)) - table.log_ratio(np.zeros(1))), ratio
    log_q = _log_fixed_points(table, sigma_w**2, sigma_b**2)
    at = np.maximum(log_q, table.log_q[0])
    chi = sigma_w**2 * np.exp(table.log_d(at))
    return np.exp(log_q), chi, sigma_w**2 * table.elasticity(at) * np.exp(table.log_ratio(at))


def _log_fixed_points(table: Moments, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """ln q of the fixed point reached from above: the last place where σ_w² V + σ_b² falls through q."""
    grid = table.log_q
    v_over_q, one_over_q = np.exp(table.log_ratio(grid)), np.exp(-grid)
    bracket = np.full(weight.shape, -1)
    for start in range(0, weight.size, 4096):  # [cells, grid] in pieces of 80 MB
        rows = slice(start, start + 4096)
        grows = weight[rows, None] * v_over_q + bias[rows, None] * one_over_q - 1 > _ROUNDING
        last = grid.size - 1 - np.argmax(grows[:, ::-1], axis=1)
        bracket[rows] = np.where(grows[:, -1], _DIVERGES, np.where(grows.any(axis=1), last, _BELOW))
    log_q = np.full(weight.shape, np.nan)
    inside = bracket >= 0

    def excess(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return weight * np.exp(table.log_ratio(x)) + bias * np.exp(-x) - 1

    low, high = grid[bracket[inside]], grid[bracket[inside] + 1]
    log_q[inside] = solve(excess, low, high, weight[inside], bias[inside])
    # Below the table V is a constant or proportional to q: nothing is left to solve.
    below = bracket == _BELOW
    v = np.exp(table.log_v(grid[:1]))
    linear = float(table.elasticity(grid[:1])[0]) > 0.5
    with np.errstate(divide="ignore"):
        linear_q = bias[below] / np.maximum(1 - weight[below] * v_over_q[0], _ROUNDING)
        log_q[below] = np.log(linear_q if linear else bias[below] + weight[below] * v)
    return log_q


def _decorrelated(
    phi: Activation, epsilon: np.ndarray, q: np.ndarray, sigma_w: np.ndarray, sigma_b: np.ndarray
) -> np.ndarray:
    seen = np.where(q > 0, np.maximum(q, _SHORTEST), 0.0)
    length = sigma_w**2 * _v(moments(phi), seen) + sigma_b**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 0, sigma_w**2 * correlation.gaps(phi, seen, epsilon) / length, np.nan)


def _depth_scale(growth: np.ndarray) -> np.ndarray:
    """−1 / ln |growth|: inf where nothing decays."""
    with np.errstate(divide="ignore"):
        rate = -np.log(np.abs(np.where(np.abs(growth - 1) <= _NEUTRAL, 1.0, growth)))
        return np.where(rate == 0, np.inf, 1 / rate)
