"""Moments of softmax over Gaussian logits, of one row of attention and of two, to near rounding at any size."""

import math
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from gradsim import arguments
from gradsim.theory.given import Number, broadcast

LARGEST_TOKENS = 10**6
LARGEST_VARIANCE = 400.0  # the grids grow with its root, and time with its cube
# The trapezium rule is exact to e^(−π²/step) for what is analytic up to ±iπ/2, as e^(−e^x) is.
_STEP = 0.22
_GAUSSIAN_STEP, _REACH = 0.3, 12.5  # e^(−z²/4) is 1e-17 there
_DIGITS = 40.0  # nat: 4e-18
_ROOM = 19.0  # below it e^(2x) is 1e-16


class SoftmaxMoments(NamedTuple):
    """Expectations over rows p and p' of attention weights, at correlation c of their logits."""

    square: Float[np.ndarray, "*shape"]
    """S₂ = E Σ p_j²: 1 over the number of tokens that a token attends to."""
    slope: Float[np.ndarray, "*shape"]
    """A = E Σ p_j² (1 − 2 p_j + Σ p²): the mean square of what the logits move the weights by."""
    overlap: Float[np.ndarray, "*shape"]
    """T = E Σ p_j p'_j."""
    slope_overlap: Float[np.ndarray, "*shape"]
    """U = E Σ p_j p'_j (1 − p_j − p'_j + Σ p p')."""


def softmax_moments(tokens: int, variance: Number, correlation: Number = 0.0) -> SoftmaxMoments:
    """Moments of p = softmax(l) and p' = softmax(l') over n tokens, for logits N(0, t), correlated c from row to row.

    Within a row they are independent. With Z = Σ e^{l_j} and 1/Z^k = ∫ s^(k−1) e^{−sZ} ds/Γ(k) the tokens part:

        E Σ p_j²      = n ∫ g₂ g₀^(n−1) du,         g_k(u) = E e^{k(l+u)} exp(−e^{l+u}),  s = e^u
        E Σ p_j p'_j  = n ∫∫ g₁₁ g₀₀^(n−1) du du',  g_ij = E[…][…] = Σ_k c^k g_i^(k)(u) g_j^(k)(u'),

    the last by Mehler's formula in the Hermite coefficients g^(k). Nothing is sampled: 12 digits and more.

    Args:
        tokens: n.
        variance: t, of the logits; 0 is uniform attention.
        correlation: c between the two rows, from −1 to 1.

    Returns: SoftmaxMoments(square, slope, overlap, slope_overlap), of the broadcast shape.
    Raises: TypeError or ValueError naming the argument; a variance above 400.
    Source: law G8 of the project's law book.

    >>> print(f"{softmax_moments(2, 0.25).square:.12f}")
    0.550753264013
    """
    n = arguments.whole("tokens", tokens, maximum=LARGEST_TOKENS)
    bounds = {"variance": (0.0, LARGEST_VARIANCE), "correlation": (-1.0, 1.0)}
    (t, c), shape = broadcast(bounds, variance=variance, correlation=correlation)
    found = np.array([_moments(n, float(one), float(other)) for one, other in zip(t, c, strict=True)])
    return SoftmaxMoments(*(column.reshape(shape) for column in found.T))


def _moments(n: int, t: float, c: float) -> tuple[float, float, float, float]:
    """S₂, A, T, U at one t and c."""
    if n == 1:
        return 1.0, 0.0, 1.0, 0.0
    if t == 0:
        return 1 / n, (1 - 1 / n) / n, 1 / n, (1 - 1 / n) / n
    spread = 8.5 * math.sqrt(t)
    u = np.arange(-math.log(n) - spread - _ROOM, spread + 4.0, _STEP)
    orders, shifts = _orders(t, c), 17.2 * math.sqrt(t * max(c, 0.0)) / _STEP
    # Close to c = 1 the rows share most of their logits: fewer nodes of what they share than Hermite coefficients.
    few = t * c > 1 and shifts < orders
    (g0, g1, g2, g3, g4), pairs, mean = _shared(u, t, c) if few else _mehler(u, t, c, orders)
    one, alone = _STEP * n, g0 @ mean
    others, twice = _power(alone, n - 1), g2 @ mean
    square, cube = one * twice @ others, one / 2 * (g3 @ mean) @ others
    squared = one / 6 * ((g4 @ mean) @ others + (n - 1) * twice**2 @ _power(alone, n - 2))
    g1[0] /= -math.expm1(-_STEP)  # stands for all below it, where g₁ falls as e^u
    both = alone[:, None] + alone - (g0 * pairs) @ g0.T
    g11, others, pair = (g1 * pairs) @ g1.T, _power(both, n - 1), _STEP**2 * n
    overlap = pair * np.sum(g11 * others)
    three = pair * np.sum(((g2 * pairs) @ g1.T) * others)
    four = pair * (np.sum(((g2 * pairs) @ g2.T) * others) + (n - 1) * np.sum(g11**2 * _power(both, n - 2)))
    return square, square - 2 * cube + squared, overlap, overlap - 2 * three + four


def _power(complement: np.ndarray, n: int) -> np.ndarray:
    """(1 − a)^n, where rounding may have taken a past 1."""
    return np.exp(n * np.log1p(-np.minimum(complement, 1 - 1e-16))) if n else np.ones_like(complement)


_Features = tuple[list[np.ndarray], np.ndarray, np.ndarray]
"""Of 1 − g₀, g₁ … g₄ each [u, features]; then the weights of a product of two rows, and of one row alone."""


def _mehler(u: np.ndarray, t: float, c: float, orders: int) -> _Features:
    """E f(l)f'(l') = Σ_k c^k f^(k) f'^(k) in Hermite coefficients."""
    z, weight = _normal(math.sqrt(t), _REACH)
    basis = weight[:, None] * _hermite(z, orders)
    alone = np.eye(1, orders)[0]
    return [one @ basis for one in _integrands(u[:, None] + math.sqrt(t) * z)], c ** np.arange(orders), alone


def _shared(u: np.ndarray, t: float, c: float) -> _Features:
    """l = √(tc) z₀ + what is a row's own: given z₀ both rows are independent, and z₀ shifts u by whole steps."""
    (own, weight), (shift, pairs) = _normal(math.sqrt(t * (1 - c)), 9.0), _normal(math.sqrt(t * c), 8.6)
    wide = u[0] + _STEP * np.arange(-(shift.size // 2), u.size + shift.size // 2)
    each = [one @ weight for one in _integrands(wide[:, None] + math.sqrt(t * (1 - c)) * own)]
    return [np.array(np.lib.stride_tricks.sliding_window_view(one, shift.size)) for one in each], pairs, pairs


def _integrands(x: np.ndarray) -> list[np.ndarray]:
    """1 − e^(−e^x), and e^(kx) e^(−e^x) for k = 1 … 4.

    Not e^(−e^x): what it lacks to 1 is small where a large n makes a power of it.
    """
    e = np.exp(np.clip(x, -700.0, 7.0))  # e^(−e^7) is 0
    falling = np.exp(-e)
    return [-np.expm1(-e), *(e**k * falling for k in range(1, 5))]


def _normal(scale: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of a normal number that is to be multiplied by `scale`, and their weights."""
    step = min(_GAUSSIAN_STEP, _STEP / max(scale, 1e-100))
    last = math.ceil(reach / step)
    z = step * np.arange(-last, last + 1)
    return z, step * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _orders(t: float, c: float) -> int:
    """How many Hermite coefficients are not lost beside the first.

    Their squares fall as t^k k! (2/π)^2k while that falls, and then as e^(−π√(8k/t)), times c^k.
    """
    if c == 0:
        return 1
    k = np.arange(1, 400)
    series = k * math.log(abs(c) * t * 4 / math.pi**2) + scipy.special.gammaln(k + 1)
    early = int(k[np.argmax(series < -_DIGITS)]) if series.min() < -_DIGITS else 0
    fall, slow = -math.log(abs(c)), math.pi * math.sqrt(2 / t)
    root = (math.sqrt(slow**2 + 4 * fall * _DIGITS) - slow) / (2 * fall) if fall > 1e-12 else _DIGITS / slow
    return max(early, math.ceil(root**2)) + 2


def _hermite(z: np.ndarray, orders: int) -> np.ndarray:
    """He_k(z)/√k!, [z, orders]."""
    values = np.ones((orders, z.size))
    if orders > 1:
        values[1] = z
    for k in range(2, orders):
        values[k] = (z * values[k - 1] - math.sqrt(k - 1) * values[k - 2]) / math.sqrt(k)
    return values.T
