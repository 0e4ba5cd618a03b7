"""The stable correlation of two inputs in the chaotic phase, and how fast it is reached."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import jax
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.polynomial.chebyshev import chebder, chebval, chebvander

from gradsim.activations import Activation
from gradsim.theory import chebyshev, quadrature

# The angle θ = arccos c, not c: at a kink the covariance is analytic in θ but has a root of 1 − c.
_ANGLE_ORDER = 14
_LENGTH_ORDER = 12
_CHUNK = 2  # rows a call: little enough to waste for a single network


def gaps(activation: Activation, q: Float[np.ndarray, " n"], epsilon: Float[np.ndarray, " n"]) -> np.ndarray:
    """V(q) − E φ(u₁)φ(u₂) at correlation 1 − ε, for each pair of q and ε."""
    return chunked(_gap(activation), q, epsilon)


def fixed_points(
    activation: Activation, q: Float[np.ndarray, " n"], weight: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """ε* = 1 − c* and the slope of the correlation map there, for lengths q = q* with χ > 1; weight = σ_w².

    A fixed point has σ_w² = ρ(q, θ) := q ε / (V − E φ(u₁)φ(u₂)), which rises with ε = 1 − cos θ from 1/D(q)
    because the covariance is convex in c ≥ 0; so c* lies in [0, 1) and is unique. There the slope
    σ_w² E φ'(u₁)φ'(u₂) is 1 − d ln ρ / d ln ε.
    """
    epsilon, slope = np.empty_like(q), np.empty_like(q)
    # The covariance varies with θ on the scale of 1/√q: finer angles for larger q, in groups of a factor 16.
    levels = 4 + 2 * np.ceil(np.log2(np.maximum(q, 1.0)) / 4).astype(int)
    for level in np.unique(levels):
        rows = levels == level
        epsilon[rows], slope[rows] = _solve_group(activation, q[rows], weight[rows], int(level))
    return epsilon, slope


def _solve_group(
    activation: Activation, q: np.ndarray, weight: np.ndarray, level: int
) -> tuple[np.ndarray, np.ndarray]:
    edges = np.concatenate([[0.0], np.pi / 2 * 2.0 ** np.arange(-level, 1.0)])
    coefficients = chebyshev.coefficients(_log_ratios(activation, q, edges))  # [n, panels, order]
    ends = chebval(1.0, np.moveaxis(coefficients, -1, 0))
    target = np.log(weight)
    panel = np.minimum(np.sum(ends < target[:, None], axis=1), ends.shape[1] - 1)
    local = coefficients[np.arange(len(q)), panel].T  # [order, n]
    low, high = edges[panel], edges[panel + 1]

    def mismatch(t: np.ndarray, cell: np.ndarray) -> np.ndarray:
        cell = cell.astype(int)
        return chebval(t, local[:, cell], tensor=False) - target[cell]

    t = solve(mismatch, np.full(len(q), -1.0), np.ones(len(q)), np.arange(len(q), dtype=np.float64))
    theta = (low + high) / 2 + t * (high - low) / 2
    derivative = chebval(t, chebder(local), tensor=False) * 2 / (high - low)
    return 2 * np.sin(theta / 2) ** 2, 1 - derivative * np.tan(theta / 2)


def solve(function: Callable[..., np.ndarray], low: np.ndarray, high: np.ndarray, *args: np.ndarray) -> np.ndarray:
    """The root of each bracket; where rounding or a bound leaves no change of sign, the end nearer to a root."""
    from scipy.optimize import elementwise  # a third of a second to import

    if low.size == 0:
        return low
    at_low, at_high = function(low, *args), function(high, *args)
    nearer = np.where(np.abs(at_low) < np.abs(at_high), low, high)
    bracketed = np.sign(at_low) * np.sign(at_high) < 0
    root = np.array(nearer)
    if np.any(bracketed):
        args = tuple(arg[bracketed] for arg in args)
        found = elementwise.find_root(
            function,
            (low[bracketed], high[bracketed]),
            args=args,
            tolerances={"xatol": 1e-300, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0},
        )
        # Evaluated among others, a value that is rounding alone may have the other sign.
        root[bracketed] = np.where(np.isnan(found.x), nearer[bracketed], found.x)
    return root


def _log_ratios(activation: Activation, q: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """ln ρ at the Chebyshev points of the angle panels for each q, through a table in ln q where there are many."""
    unique, back = np.unique(q, return_inverse=True)
    log_q = np.log(unique)
    panel = np.floor(log_q).astype(int)  # one nat a panel, and only those that hold many lengths
    starts, counts = np.unique(panel, return_counts=True)
    starts = starts[counts > _LENGTH_ORDER]
    few = ~np.isin(panel, starts)
    nodes = [chebyshev.points(np.array([start, start + 1.0]), _LENGTH_ORDER)[0] for start in starts]
    values = _evaluate(activation, np.concatenate([unique[few], *np.exp(nodes)]), edges)
    table = np.empty((unique.size, *values.shape[1:]))
    direct = np.count_nonzero(few)
    table[few] = values[:direct]
    for index, start in enumerate(starts):
        rows = panel == start
        piece = values[direct + index * _LENGTH_ORDER :][:_LENGTH_ORDER]
        along_q = np.moveaxis(chebyshev.coefficients(np.moveaxis(piece, 0, -1)), -1, 0)
        table[rows] = np.tensordot(chebvander(2 * (log_q[rows] - start) - 1, _LENGTH_ORDER - 1), along_q, axes=1)
    return table[back]


def _evaluate(activation: Activation, q: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """ln ρ at each q and angle: Mehler's series where it ends, which is cheap, and the integral elsewhere."""
    theta = chebyshev.points(edges, _ANGLE_ORDER)
    epsilon = 2 * np.sin(theta.ravel() / 2) ** 2
    gap = np.full((q.size, epsilon.size), np.nan)
    if not activation.kinks:
        gap = _by_series(activation, q, epsilon)
    left = np.isnan(gap).any(axis=1)
    if np.any(left) and not quadrature.oscillates(activation):
        # 16 √q covers the Gaussian; features further out would only cost time.
        gap[left] = _by_integral(activation, q[left], epsilon, float(np.pi / 2 / edges[1]))
    return np.log(q[:, None] * epsilon / gap).reshape(q.size, *theta.shape)


def _by_series(activation: Activation, q: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    return chunked(_series_row(activation), q, np.broadcast_to(epsilon, (q.size, epsilon.size)))


def _by_integral(activation: Activation, q: np.ndarray, epsilon: np.ndarray, reach: float) -> np.ndarray:
    return chunked(_integral_row(activation, reach), q, np.broadcast_to(epsilon, (q.size, epsilon.size)))


Rows = Callable[[np.ndarray, np.ndarray], Array]


@lru_cache(maxsize=64)
def _gap(activation: Activation) -> Rows:
    def row(pair: tuple[Array, Array]) -> Array:
        return quadrature.decorrelation(activation, *pair)

    return jax.jit(lambda q, epsilon: jax.lax.map(row, (q, epsilon)))


@lru_cache(maxsize=64)
def _series_row(activation: Activation) -> Rows:
    def row(pair: tuple[Array, Array]) -> Array:
        squares = quadrature.hermite_coefficients(activation, pair[0]) ** 2
        return jax.vmap(lambda e: quadrature.decorrelation_series(squares, e))(pair[1])

    return jax.jit(lambda q, epsilon: jax.lax.map(row, (q, epsilon)))


@lru_cache(maxsize=64)
def _integral_row(activation: Activation, reach: float) -> Rows:
    def square(u: Array, v: Array) -> Array:
        return (activation(u) - activation(v)) ** 2 / 2

    def row(pair: tuple[Array, Array]) -> Array:
        def at(e: Array) -> Array:
            return quadrature.pair_expectation(square, pair[0], e, activation, positive=True, reach=reach)

        return jax.lax.map(at, pair[1])

    return jax.jit(lambda q, epsilon: jax.lax.map(row, (q, epsilon)))


def chunked(function: Rows, q: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    """`function` over rows in pieces of one shape, so that it compiles once, on every core."""

    def piece(start: int) -> np.ndarray:
        rows = np.arange(start, start + _CHUNK).clip(max=len(q) - 1)
        with jax.enable_x64(True):  # the setting belongs to the thread
            return np.asarray(function(q[rows], epsilon[rows]))

    first = piece(0)  # compiles, before the threads ask for it together
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate([first, *pool.map(piece, range(_CHUNK, len(q), _CHUNK))])[: len(q)]
