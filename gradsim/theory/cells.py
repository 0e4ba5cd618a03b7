"""One step of each gated cell at infinite width: the length of its state and the growth of a squared tangent.

Given the variance q of the pre-activations everything here is a few Gaussian integrals, except for the law of an
LSTM's memory, c' = f c + i g, which solves a linear equation for its characteristic function.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev
from numpy.polynomial.legendre import leggauss

from gradsim.activations import ACTIVATIONS
from gradsim.theory.moments import moments

# Panels of Gauss-Legendre in units of √q, and where a sigmoid or a tanh bends.
_GAUSSIAN_EDGES = np.array([-8.5, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.5])
_BENDS = np.array([-30.0, -15.0, -7.0, -3.0, -1.0, 1.0, 3.0, 7.0, 15.0, 30.0])
_NODES, _WEIGHTS = leggauss(10)
_ORDER = 56  # of the Chebyshev expansions in the frequency: 1e-7 for q up to 100, 1e-6 at 1e4
_FREQUENCY = 20.0  # where t / sinh(πt/2) has fallen to 1e-12

Array = np.ndarray


class Cell(NamedTuple):
    """A cell as two functions of q, elementwise, with s = σ_v² R + σ_b² the part of q that is not the state's."""

    length: Callable[[Array, Array, Array, Array], Array]
    """(q, s, R, bias) -> E h², if the state stays as it is."""
    chi: Callable[[Array, Array, Array, Array, Array], Array]
    """(σ_w², q, s, R, bias) -> χ."""
    points: int
    """The size of a grid on which roots in ln q are bracketed: 2 where there is only one."""


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))  # to full relative precision, however small


def _rule(q: Array, bias: Array) -> tuple[Array, Array]:
    """Nodes and weights, along a new last axis, of the expectation over N(bias, q)."""
    q, bias = q[..., None], bias[..., None]
    scale, reach = np.sqrt(q), _GAUSSIAN_EDGES[-1]
    bends = np.clip((_BENDS - bias) / np.maximum(scale, 1e-150), -reach, reach)
    edges = np.concatenate([np.broadcast_to(_GAUSSIAN_EDGES, (*bends.shape[:-1], _GAUSSIAN_EDGES.size)), bends], -1)
    edges = np.sort(edges)[..., None]
    half, middle = np.diff(edges, axis=-2) / 2, (edges[..., 1:, :] + edges[..., :-1, :]) / 2
    t = middle + half * _NODES
    weight = half * _WEIGHTS * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
    shape = (*bends.shape[:-1], t.shape[-2] * t.shape[-1])
    return bias + scale * t.reshape(shape), weight.reshape(shape)


def _filled(q: Array, bias: Array) -> tuple[Array, Array]:
    """The rule for one q, without the nodes of empty panels."""
    a, weight = _rule(q, bias)
    return a[weight > 0], weight[weight > 0]


def _mean(weight: Array, values: Array) -> Array:
    return np.sum(weight * values, axis=-1)


class _Gate(NamedTuple):
    """E u², E (1 − u)², 1 − E u² and E u'² of a gate u = sigmoid(a), a ~ N(bias, q)."""

    kept: Array
    passed: Array
    lost: Array
    slope: Array


def _gate(q: Array, bias: Array) -> _Gate:
    a, weight = _rule(q, bias)
    u, rest = _sigmoid(a), _sigmoid(-a)
    return _Gate(*(_mean(weight, values) for values in (u**2, rest**2, rest * (1 + u), (u * rest) ** 2)))


def _minimal_length(q: Array, s: Array, variance: Array, bias: Array) -> Array:
    u = _gate(q, bias)
    return variance * u.passed / u.lost


def _minimal_chi(gain: Array, q: Array, s: Array, variance: Array, bias: Array) -> Array:
    u = _gate(q, bias)
    return u.kept + gain * u.slope * (variance * u.passed / u.lost + variance)


def _gru_candidate(q: Array, s: Array) -> tuple[Array, Array]:
    """E n² and E n'² (r² + r'² b²) of n = tanh(a + r b), E a² = s, E b² = q − s."""
    a, weight = _rule(q, np.zeros_like(q))
    r, table = _sigmoid(a), moments(ACTIVATIONS["tanh"])
    s, state = s[..., None], (q - s)[..., None]
    v = s + r**2 * state  # the variance of a + r b, given r
    x = np.log(np.maximum(v, np.exp(table.log_q[0])))
    # b given a + r b is Gaussian again, and E n'² (a + r b)² = v D (1 + 2 d ln D / d ln v).
    square = state / np.maximum(v, 1e-300) * (s + r**2 * state * (1 + 2 * table.log_d.derivative()(x)))
    slope = np.exp(table.log_d(x)) * (r**2 + (r * _sigmoid(-a)) ** 2 * square)
    return _mean(weight, v * np.exp(table.log_ratio(x))), _mean(weight, slope)


def _gru_length(q: Array, s: Array, variance: Array, bias: Array) -> Array:
    z = _gate(q, bias)
    return _gru_candidate(q, s)[0] * z.passed / z.lost


def _gru_chi(gain: Array, q: Array, s: Array, variance: Array, bias: Array) -> Array:
    z, (square, slope) = _gate(q, bias), _gru_candidate(q, s)
    return z.kept + gain * (z.slope * square * (1 + z.passed / z.lost) + z.passed * slope)


class Memory(NamedTuple):
    """An LSTM's memory c, and the linear map of its tangents at the frequencies t."""

    length: float
    """E h²."""
    square: float
    """E c²."""
    keep: Float[np.ndarray, "t t"]
    """Φ -> E cos(t i g) E f² Φ(f t)."""
    source: Float[np.ndarray, " t"]
    """S(t), what a tangent of h adds to Φ at σ_w = 1."""
    read: Float[np.ndarray, " t"]
    """Φ -> E o² E sech⁴(c) dc²."""
    past: float
    """E o'² E tanh² c, from h to h past the memory at σ_w = 1."""


@lru_cache(maxsize=4096)
def memory(q: float, bias: float) -> Memory:
    """The memory at pre-activation variance q and forget bias `bias`, as `gradsim.theory.lstm` writes it."""
    (a, weight), (a_f, weight_f) = (_filled(np.array(q), np.array(shift)) for shift in (0.0, bias))
    i, f, g = _sigmoid(a), _sigmoid(a_f), np.tanh(a)
    i_slope, f_slope, g_slope = i * _sigmoid(-a), f * _sigmoid(-a_f), 1 - g**2
    kept, opened, slope = weight_f @ (_sigmoid(-a_f) * (1 + f)), weight @ i**2, weight @ i_slope**2  # of f; i and o
    square = opened * (weight @ g**2) / kept
    grid = _frequencies(float(square))
    t, identity = grid.t, np.eye(_ORDER)
    by_i, by_f = grid.scaling(i), grid.scaling(f)
    i_squared, f_squared = by_i(weight * i**2), by_f(weight_f * f**2)
    t_g = t[:, None] * g
    # E cos(t i g) = 1 − t² falls and ψ = 1 − t² η: full relative precision, however small c is.
    falls = i_squared @ (np.sinc(t_g / (2 * np.pi)) ** 2 @ (weight * g**2 / 2))
    cosine = 1 - t**2 * falls
    keep = cosine[:, None] * f_squared
    eta = np.linalg.solve(identity - keep, falls)
    bent = 2 * eta + 4 * t * (grid.slope @ eta) + t**2 * (grid.slope @ (grid.slope @ eta))  # −ψ''
    renewed = i_squared @ (np.cos(t_g) @ (weight * g_slope**2))
    renewed += by_i(weight * i_slope**2) @ (np.cos(t_g) @ (weight * g**2))
    source = cosine * (by_f(weight_f * f_slope**2) @ bent) + (1 - t**2 * (f_squared @ eta)) * renewed
    # The Fourier transforms of sech² and sech⁴, times their densities.
    kernel = grid.weights * t / np.sinh(np.pi * t / 2)
    tanh_square = kernel @ (t**2 * eta)
    return Memory(
        length=float(opened * tanh_square),
        square=float(square),
        keep=keep,
        source=source,
        read=opened * kernel * (t**2 + 4) / 6,
        past=float(slope * tanh_square),
    )


class _Frequencies(NamedTuple):
    """Chebyshev points on 0 < t < 20, and what acts on functions given there."""

    t: Array
    weights: Array  # of the integral over t
    slope: Array  # the matrix of d/dt
    scaling: Callable[[Array], Callable[[Array], Array]]  # u -> weight -> the matrix of Φ(t) -> Σ weight Φ(u t)


def _frequencies(square: float) -> _Frequencies:
    # t = τ (e^{κ x} − 1) with x on [0, 1] resolves the width of ψ, 1/√E c², as well as the range of the kernels.
    tau = 1 / (1 + np.sqrt(square))
    kappa = np.log1p(_FREQUENCY / tau)
    nodes = chebyshev.chebpts1(_ORDER)
    t = tau * np.expm1(kappa * (nodes + 1) / 2)
    expand = np.linalg.inv(chebyshev.chebvander(nodes, _ORDER - 1))
    rate = 2 / (kappa * (tau + t))  # d node / dt
    slope = rate[:, None] * (chebyshev.chebvander(nodes, _ORDER - 2) @ chebyshev.chebder(expand))
    ends = chebyshev.chebint(expand, lbnd=-1.0)
    weights = np.sum(ends, axis=0) / rate  # every Chebyshev polynomial is 1 at 1

    def scaling(u: Array) -> Callable[[Array], Array]:
        basis = chebyshev.chebvander(2 * np.log1p(t[:, None] * u / tau) / kappa - 1, _ORDER - 1)
        return lambda weight: weight @ basis @ expand

    return _Frequencies(t, weights, slope, scaling)


def _each(function: Callable[[Memory, float], float]) -> Callable[..., Array]:
    """A function of the memory and σ_w² as one of arrays."""

    def of_arrays(gain: Array, q: Array, bias: Array) -> Array:
        values = [function(memory(float(a), float(b)), float(w)) for w, a, b in np.broadcast(gain, q, bias)]
        return np.array(values, np.float64).reshape(np.shape(q))

    return of_arrays


def _lstm_length(q: Array, s: Array, variance: Array, bias: Array) -> Array:
    return _each(lambda c, _: c.length)(np.zeros_like(q), q, bias)


def _lstm_chi(gain: Array, q: Array, s: Array, variance: Array, bias: Array) -> Array:
    return _each(_largest_eigenvalue)(gain, q, bias)


def _largest_eigenvalue(c: Memory, gain: float) -> float:
    """Of (Φ, H) -> (Φ' = keep Φ + σ_w² H source, H' = read Φ' + σ_w² H past)."""
    step = np.zeros((_ORDER + 1, _ORDER + 1))
    step[:-1, :-1], step[:-1, -1] = c.keep, gain * c.source
    step[-1] = c.read @ step[:-1]
    step[-1, -1] += gain * c.past
    return float(np.max(np.linalg.eigvals(step).real))


CELLS: dict[str, Cell] = {
    "gru": Cell(_gru_length, _gru_chi, points=217),
    "lstm": Cell(_lstm_length, _lstm_chi, points=2),
    "minimal_rnn": Cell(_minimal_length, _minimal_chi, points=217),
}
