"""The edge of chaos: the weights at which a squared gradient neither grows nor shrinks at infinite width."""

import numpy as np
from jaxtyping import Float

from gradsim import activations
from gradsim.theory.correlation import solve
from gradsim.theory.feedforward import lengths
from gradsim.theory.given import ActivationLike, Number, broadcast
from gradsim.theory.moments import Moments, moments

EXISTS = "exists"
NO_LENGTH = "no length is fixed where chi = 1"
UNSTABLE = "the length fixed where chi = 1 is not the stable one"
_REACH = 36.0  # ln q; further out an ELU's distance to its asymptote is lost in rounding
_LARGEST_BIAS = 1e7  # its square and more lie within that reach
_NOISE = 1e-13  # of q - V/D - σ_b², relative to q


def edge_of_chaos(activation: ActivationLike, sigma_b: Number) -> Float[np.ndarray, "*shape"]:
    """The smallest σ_w with χ = σ_w² D(q*) = 1, for each σ_b; NaN where there is none.

    With σ_w² = 1/D(q) the fixed point asks q = V(q)/D(q) + σ_b², one equation in q alone. Its root counts if
    `feedforward` ends up there too, that is if q is the length reached from large inputs. `explain_edge` says
    why a value is NaN. σ_b up to 1e7.

    Returns: float64 array of the shape of sigma_b.
    Raises: TypeError or ValueError naming the argument.
    Sources: Schoenholz et al. 2017, arXiv:1611.01232; Hayou et al. 2019, arXiv:1902.06853.

    >>> print(f"{edge_of_chaos('tanh', np.sqrt(0.05)) ** 2:.6f}")
    1.760955
    """
    return _edges(activation, sigma_b)[0]


def explain_edge(activation: ActivationLike, sigma_b: Number) -> np.ndarray:
    """For each σ_b whether the edge of chaos exists, or why it does not, as text.

    `EXISTS`; `NO_LENGTH`, as for a ReLU with bias, whose length diverges before its gradient does; `UNSTABLE`,
    as for a SiLU without bias, where networks with χ = 1 leave that length for another one or for infinity.
    """
    return _edges(activation, sigma_b)[1]


def _edges(activation: ActivationLike, sigma_b: Number) -> tuple[np.ndarray, np.ndarray]:
    phi = activations.get(activation)
    (sigma_b,), shape = broadcast({"sigma_b": (0.0, _LARGEST_BIAS)}, sigma_b=sigma_b)
    table = moments(phi)
    if table.homogeneous():  # V = q D by Euler, so that every q is a root without a bias and none is with one
        sigma_w = np.where(sigma_b == 0, np.exp(-table.log_d(np.zeros(1)) / 2), np.nan)
        return sigma_w.reshape(shape), np.where(sigma_b == 0, EXISTS, NO_LENGTH).reshape(shape)
    rows, log_q = _roots(table, sigma_b**2)
    sigma_w = np.exp(-table.log_d(np.maximum(log_q, table.log_q[0])) / 2)
    # Compare χ, not q: near criticality at small q many lengths are fixed within rounding, all with χ = 1.
    reached = np.abs(lengths(table, sigma_w, sigma_b[rows])[1] - 1) < 1e-7
    best, any_root = np.full(sigma_b.shape, np.inf), np.zeros(sigma_b.shape, bool)
    np.minimum.at(best, rows, np.where(reached, sigma_w, np.inf))
    any_root[rows] = True
    found = np.isfinite(best)
    reason = np.where(found, EXISTS, np.where(any_root, UNSTABLE, NO_LENGTH))
    return np.where(found, best, np.nan).reshape(shape), reason.reshape(shape)


def _roots(table: Moments, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every root ln q of q = V/D + σ_b², with the row of `bias` that it belongs to; −inf for q → 0."""

    def excess(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return -np.expm1(table.log_ratio(x) - table.log_d(x)) - bias * np.exp(-x)

    grid = table.log_q[table.log_q <= _REACH]
    rows, roots = [], []
    unbiased = excess(grid, np.zeros(1))
    for row, value in enumerate(unbiased - bias[:, None] * np.exp(-grid)):
        clear = np.flatnonzero(np.abs(value) > _NOISE)
        change = np.flatnonzero(np.sign(value[clear[:-1]]) != np.sign(value[clear[1:]]))
        low, high = grid[clear[change]], grid[clear[change + 1]]
        roots.append(solve(excess, low, high, np.full(low.shape, bias[row])))
        negligible = bias[row] * np.exp(-grid[0]) <= _NOISE
        if negligible and clear.size and np.abs(unbiased[0]) <= 1e-10:  # φ(0) = 0: q = 0 is fixed
            roots[-1] = np.append(roots[-1], -np.inf)
        rows.append(np.full(roots[-1].shape, row))
    return np.concatenate(rows), np.concatenate(roots)
