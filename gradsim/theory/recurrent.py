"""Mean field of the recurrent families: how a squared gradient grows a step, at infinite width.

Weights are independent from step to step (`tied=False`) and so are the inputs, of variance R. Every
pre-activation is then N(0, q) with q = σ_w² E h² + σ_v² R + σ_b², beside the gate's own bias, and independent of
the unit's state and of the other gates. A tied vanilla RNN has the same limit. Tied gated cells do not, as a
unit's gates at two steps are correlated: their λ₁ lies up to 0.1 above or below at widths of 256.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.theory.cells import CELLS, Cell, memory
from gradsim.theory.correlation import solve
from gradsim.theory.feedforward import lengths
from gradsim.theory.given import ActivationLike, Number, broadcast
from gradsim.theory.moments import moments

_NOISE = 1e-8  # of χ
# Beyond these the moments of a gate are lost in rounding, or its edge in what is noise.
_GAINS, _GATED, _VARIANCES, _DRIVES = (0.0, 1e10), (0.0, 1e6), (0.0, 1e20), 1e10
_GATES = {"update_bias": (-300.0, 300.0), "forget_bias": (-300.0, 30.0), "gate_bias": (-300.0, 15.0)}
_REACH = 40.0  # nats of σ_w² E h² that are searched: e^-40 of the largest is rounding


class RecurrentFixedPoint(NamedTuple):
    """The stationary state of each network."""

    q: Float[np.ndarray, "*shape"]
    """The variance of a pre-activation."""
    length: Float[np.ndarray, "*shape"]
    """E h²."""
    chi: Float[np.ndarray, "*shape"]
    """χ, the growth of a squared gradient in one step."""
    lyapunov: Float[np.ndarray, "*shape"]
    """λ₁ = ½ ln χ, the growth of the log gain in one step, in nats."""


class LSTMFixedPoint(NamedTuple):
    """The stationary state of each LSTM; fields as in `RecurrentFixedPoint`, and E c² of the memory cell."""

    q: Float[np.ndarray, "*shape"]
    length: Float[np.ndarray, "*shape"]
    chi: Float[np.ndarray, "*shape"]
    lyapunov: Float[np.ndarray, "*shape"]
    cell: Float[np.ndarray, "*shape"]


def vanilla_rnn(
    activation: ActivationLike, sigma_w: Number, sigma_v: Number, sigma_b: Number = 0.0, input_variance: Number = 1.0
) -> RecurrentFixedPoint:
    """Fixed point of the vanilla RNN: a feed-forward network whose bias has the variance σ_b² + σ_v² R.

    q = σ_w² V(q) + σ_v² R + σ_b²,  χ = σ_w² D(q),  E h² = V(q); R = input_variance. NaN where the length diverges.

    Returns: RecurrentFixedPoint(q, length, chi, lyapunov), float64 arrays of the broadcast shape.
    Raises: TypeError or ValueError naming the argument. Source: Sompolinsky, Crisanti & Sommers 1988.

    >>> print(f"{vanilla_rnn('tanh', 2.0, 0.0).lyapunov:.6f}")
    0.154724
    """
    table = moments(activations.get(activation))
    (weight, drive, _, _), shape = _checked(sigma_w, sigma_v, sigma_b, input_variance)
    q, chi, _ = lengths(table, np.sqrt(weight), np.sqrt(drive))
    with np.errstate(divide="ignore"):
        length = np.exp(table.log_v(np.maximum(np.log(q), -1e3)))
    return RecurrentFixedPoint(*(field.reshape(shape) for field in (q, length, chi, _half_log(chi))))


def minimal_rnn(
    sigma_w: Number, sigma_v: Number, sigma_b: Number = 0.0, update_bias: Number = 0.0, input_variance: Number = 1.0
) -> RecurrentFixedPoint:
    """Fixed point of the minimalRNN, h' = u h + (1 − u) x.

    E h² (1 − E u²) = R E (1 − u)²,  χ = E u² + σ_w² E u'² (E h² + R); R = input_variance, u' = u (1 − u).
    Where an update_bias well above 0 makes several lengths stable, the largest.

    Returns: RecurrentFixedPoint(q, length, chi, lyapunov), float64 arrays of the broadcast shape.
    Raises: TypeError or ValueError naming the argument. Source: Chen, Pennington & Schoenholz 2018,
    arXiv:1806.05394.
    """
    return _fixed_point("minimal_rnn", sigma_w, sigma_v, sigma_b, input_variance, update_bias=update_bias)[0]


def gru(
    sigma_w: Number, sigma_v: Number, sigma_b: Number = 0.0, update_bias: Number = 0.0, input_variance: Number = 1.0
) -> RecurrentFixedPoint:
    """Fixed point of the GRU, h' = (1 − z) n + z h with n = tanh(a + r b), a from the input and b from the state.

    a and b are Gaussian, E a² = σ_v² R + σ_b² and E b² = σ_w² E h², and q is their sum:

        E h² (1 − E z²) = E (1 − z)² E n²,
        χ = E z² + σ_w² [E z'² (E h² + E n²) + E (1 − z)² E n'² (r² + r'² b²)].

    Exact in the second moments: that h is no Gaussian plays no part, since it acts through sums over units. Where
    an update_bias well above 0 makes several lengths stable, the largest. No chrono times.

    Returns: RecurrentFixedPoint(q, length, chi, lyapunov), float64 arrays of the broadcast shape.
    Raises: TypeError or ValueError naming the argument. Source: Gilboa et al. 2019, arXiv:1901.08987, for the
    method; the cell is this package's, whose reset gate acts after the product.
    """
    return _fixed_point("gru", sigma_w, sigma_v, sigma_b, input_variance, update_bias=update_bias)[0]


def lstm(
    sigma_w: Number, sigma_v: Number, sigma_b: Number = 0.0, forget_bias: Number = 0.0, input_variance: Number = 1.0
) -> LSTMFixedPoint:
    """Fixed point of the LSTM, c' = f c + i g, h' = o tanh c', and the growth of the whole tangent (dh, dc).

    The memory cell is no Gaussian. Its law enters through its characteristic function ψ(t) = E cos(t c), with

        ψ(t) = E cos(t i g) E ψ(f t),  E h² = E o² E tanh² c,  E sech² c = ∫₀^∞ ψ(t) t / sinh(πt/2) dt.

    A tangent of the cell is correlated with the cell, as both were kept by the same gates: Φ(t) = E dc² cos(t c) and
    H = E dh² obey a linear map, whose largest eigenvalue is χ:

        Φ'(t) = E cos(t i g) E f² Φ(f t) + σ_w² H S(t),
        H' = E o² E sech⁴(c') dc'² + σ_w² H E o'² E tanh² c',
        S(t) = −E cos(t i g) E f'² ψ''(f t) + E ψ(f t) E (i'² g² + i² g'²) cos(t i g).

    Solved by Chebyshev expansion in t, without sampling; some 0.1 s a network. No chrono times.

    Returns: LSTMFixedPoint(q, length, chi, lyapunov, cell), float64 arrays of the broadcast shape.
    Raises: TypeError or ValueError naming the argument. Source: Gilboa et al. 2019, arXiv:1901.08987, for the
    recursion of the cell, which they sample.
    """
    point, bias = _fixed_point("lstm", sigma_w, sigma_v, sigma_b, input_variance, forget_bias=forget_bias)
    cell = [memory(float(q), float(b)).square for q, b in zip(point.q.flat, bias, strict=True)]
    return LSTMFixedPoint(*point, cell=np.array(cell, np.float64).reshape(point.q.shape))


def recurrent_edge(
    family: str, sigma_v: Number, sigma_b: Number = 0.0, gate_bias: Number = 0.0, input_variance: Number = 1.0
) -> Float[np.ndarray, "*shape"]:
    """The smallest σ_w with χ ≥ 1 in the "minimal_rnn", "gru" or "lstm"; NaN where there is none.

    gate_bias is the update_bias or forget_bias. At that gain χ = 1, unless the state jumps there from a short
    length to a long one, and χ over 1 with it, as in a GRU without input. An LSTM without input leaves c = 0 there.
    The edge of a vanilla RNN is `edge_of_chaos` at the bias √(σ_v² R + σ_b²).

    Returns: float64 array of the broadcast shape.
    Raises: TypeError or ValueError naming the argument. Source: Chen et al. 2018; Gilboa et al. 2019.

    >>> print(f"{recurrent_edge('minimal_rnn', 1.39, input_variance=0.46):.2f}")
    6.89
    """
    cell = CELLS[arguments.choice("family", family, CELLS)]
    (_, *given), shape = _checked(0.0, sigma_v, sigma_b, input_variance, gate_bias=gate_bias)
    drive = max(given[0].max(), given[1].max())
    if drive > _DRIVES:
        raise ValueError(
            f"sigma_v, sigma_b, input_variance: got R or σ_v² R + σ_b² of {drive:g}; pass at most {_DRIVES:g}"
        )

    # Every x = ln σ_w² E h² fixes q, then E h² and σ_w: no fixed point has to be sought.
    def log_gain(x: np.ndarray, *given: np.ndarray) -> np.ndarray:
        return x - np.log(cell.length(given[0] + np.exp(x), *given))

    def log_chi(x: np.ndarray, *given: np.ndarray) -> np.ndarray:
        return np.log(cell.chi(np.exp(log_gain(x, *given)), given[0] + np.exp(x), *given))

    edge = np.full(given[0].shape, np.nan)
    grid = np.linspace(-_REACH, 14.0, cell.points)
    with np.errstate(divide="ignore", invalid="ignore"):
        gains, chis = (
            np.stack([function(np.full_like(edge, x), *given) for x in grid], axis=1)
            for function in (log_gain, log_chi)
        )
        # A fixed point is the largest of its σ_w if no larger one needs less.
        largest = gains <= np.minimum.accumulate(gains[:, ::-1], axis=1)[:, ::-1] + _NOISE
        grows = largest & (chis >= -_NOISE)
        rows = np.flatnonzero(grows.any(axis=1))
        first, local = np.argmax(grows[rows], axis=1), [array[rows] for array in given]
        before = np.maximum(first - 1, 0)
        low, high = grid[before], grid[first]
        folds = ~largest[rows, before]
        bracket = low[folds], high[folds], grid[np.minimum(first + 1, grid.size - 1)][folds]
        low[folds] = _minimum(log_gain, bracket, [array[folds] for array in local])
        root = solve(log_chi, low, high, *local)
        x = np.where(log_chi(low, *local) >= -_NOISE, low, root)
        edge[rows] = np.exp(log_gain(x, *local) / 2)
    return edge.reshape(shape)


def _minimum(
    function: Callable[..., np.ndarray], bracket: tuple[np.ndarray, np.ndarray, np.ndarray], args: list[np.ndarray]
) -> np.ndarray:
    """Where a function has its minimum in each bracket."""
    from scipy.optimize import elementwise  # a third of a second to import

    return np.asarray(elementwise.find_minimum(function, bracket, args=tuple(args)).x) if args[0].size else bracket[0]


def _fixed_point(
    family: str, sigma_w: Any, sigma_v: Any, sigma_b: Any, variance: Any, **bias: Any
) -> tuple[RecurrentFixedPoint, np.ndarray]:
    cell = CELLS[family]
    (weight, *given), shape = _checked(sigma_w, sigma_v, sigma_b, variance, **bias)
    q = _stable(cell, weight, *given)
    chi = cell.chi(weight, q, *given)
    fields = (q, cell.length(q, *given), chi, _half_log(chi))
    return RecurrentFixedPoint(*(field.reshape(shape) for field in fields)), given[-1]


def _checked(
    sigma_w: Any, sigma_v: Any, sigma_b: Any, variance: Any, **bias: Any
) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """σ_w², s = σ_v² R + σ_b², R and the gate's bias, flat, and their shape."""
    bounds = {"sigma_w": _GATED if bias else _GAINS, "sigma_v": _GAINS, "sigma_b": _GAINS}
    bias = bias or {"update_bias": 0.0}
    (w, v, b, variance, shift), shape = broadcast(
        {**bounds, "input_variance": _VARIANCES, **_GATES},
        sigma_w=sigma_w, sigma_v=sigma_v, sigma_b=sigma_b, input_variance=variance, **bias,
    )  # fmt: skip
    return [w**2, v**2 * variance + b**2, variance, shift], shape


def _stable(cell: Cell, weight: np.ndarray, *given: np.ndarray) -> np.ndarray:
    """q of the largest fixed point of q = s + σ_w² E h², sought in x = ln σ_w² E h²."""

    def excess(x: np.ndarray, weight: np.ndarray, *given: np.ndarray) -> np.ndarray:
        return np.log(weight * cell.length(given[0] + np.exp(x), *given)) - x

    with np.errstate(divide="ignore", invalid="ignore"):
        top = np.log(weight * np.maximum(given[1], 1.0))  # |h| is below 1, or below R in mean square
        driven = top - np.log(weight * cell.length(given[0], *given)) + 1  # a weak input keeps a short state alive
        reach = np.where(np.isfinite(driven), np.maximum(driven, _REACH), _REACH)
        grid = top - np.linspace(0.0, 1.0, cell.points)[:, None] * reach
        values = np.stack([excess(x, weight, *given) for x in grid])
        # Near a fold two roots lie within one step of the grid: put a grid point on the peak between them.
        peak = (values[1:-1] > np.maximum(values[:-2], values[2:]) + 1e-12) & (values[1:-1] <= 0)
        k, at = np.nonzero(peak)
        local = [weight[at], *(array[at] for array in given)]
        bracket = grid[k + 2, at], grid[k + 1, at], grid[k, at]
        grid[k + 1, at] = _minimum(lambda *args: -excess(*args), bracket, local)
        values[k + 1, at] = excess(grid[k + 1, at], *local)
        grows = (values > 0).T
        rows = np.flatnonzero(grows.any(axis=1))
        first = np.maximum(np.argmax(grows[rows], axis=1), 1)
        local = [weight[rows], *(array[rows] for array in given)]
        q = given[0].copy()
        q[rows] += np.exp(solve(excess, grid[first, rows], grid[first - 1, rows], *local))
    return q


def _half_log(chi: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(chi) / 2
