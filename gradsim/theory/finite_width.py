"""The log gain of a random network and, to first order in 1/N, what finite width does to it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.theory.given import ActivationLike, Number, broadcast
from gradsim.theory.moments import moments
from gradsim.theory.transient import transient


class LogGain(NamedTuple):
    """The predicted log gain of J = ∂h_l/∂h_0; the last axis is the depth l, 1 to depth."""

    mean: Float[np.ndarray, "*shape depth"]
    variance: Float[np.ndarray, "*shape depth"]


def log_gain(
    activation: ActivationLike,
    sigma_w: Number,
    sigma_b: Number,
    depth: int,
    q0: Number = 1.0,
    width: int | None = None,
    orthogonal: bool = False,
) -> LogGain:
    """The log gain at every depth along the transient from inputs of mean square q0.

    At infinite width ½ Σ ln χ_l with l = 1…L, as J = ∂h_L/∂h_0 has L slopes; its variance is 0. With `width` N,
    mean and variance over networks of ln ‖J u‖ for one random unit vector u, to first order in 1/N: see
    `corrections`.

    Returns: LogGain(mean, variance), float64 [*shape, depth], in nats; at a gain of 0 the mean is −inf, the
    variance at finite width NaN.
    Raises: TypeError or ValueError naming the argument. Source: Hanin & Nica 2018, arXiv:1812.05994, for ReLU.
    """
    orthogonal = arguments.flag("orthogonal", orthogonal)
    width = None if width is None else arguments.whole("width", width)
    path = transient(activation, sigma_w, sigma_b, depth, q0)
    depth = path.q.shape[-1]
    with np.errstate(divide="ignore"):
        mean = np.cumsum(np.log(path.chi), axis=-1) / 2
    if width is None:
        return LogGain(mean, np.zeros_like(mean))
    shift, variance = corrections(activation, sigma_w, sigma_b, depth, q0, orthogonal)
    # A gain of 0 has the log gain −inf in every network, and no spread.
    return LogGain(mean + shift / width, np.where(np.isneginf(mean), np.nan, variance / width))


def corrections(
    activation: ActivationLike, sigma_w: Number, sigma_b: Number, depth: int, q0: Number, orthogonal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """N (E ln ‖J u‖ − ½ Σ ln χ) and N Var ln ‖J u‖ as N → ∞, for inputs of mean square exactly q0.

    A layer is followed by three small numbers: the relative deviation R of its length from q_l (mean m/N,
    variance s/N) and the squared overlap r/N of u with the state, as Gaussians seen through W. Given them

        E ln ‖φ'·W u‖² = ln χ_l + [b (m − s/2) + b' s/2 + 2 b r − (3κ − 1)/2] / N,   b = d ln D / d ln q.

    The last term alone is the textbook's; the others vanish only where D is constant, as for a ReLU. With
    e = d ln V / d ln q and v = σ_w² V / q_{l+1} the three numbers go on as

        m ← v [e m + ½ (e' + e² − e) s],  s ← v² [e² s + E φ⁴/V² − 1],  r ← v [e² V r / (q D) + E φ²φ'²/(V D)].

    An expansion: it holds while r, m and s stay small against N. Where e² V > q D, as for a softplus, u turns
    towards the state and r grows exponentially.

    Orthogonal weights fix the norms of W h and W u, which takes the corresponding projections away again.
    """
    (sigma_w, sigma_b, q0), shape = broadcast(sigma_w=sigma_w, sigma_b=sigma_b, q0=q0)
    path = transient(activation, sigma_w, sigma_b, depth, q0)
    table = moments(activations.get(activation))
    fix = 1.0 if orthogonal else 0.0
    b_of, e_of = table.log_d.derivative(), table.elasticity
    b2_of, e2_of = b_of.derivative(), e_of.derivative()
    shift, variance = np.zeros((2, depth, sigma_w.size))
    m, s, k, mean, spread = np.zeros((5, sigma_w.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        v = r = _share(sigma_b, path.q[..., 0])
        for layer in range(depth):
            x = np.clip(np.log(path.q[..., layer]), table.log_d.edges[0], table.log_d.edges[-1])
            b, b2, e, e2 = b_of(x), b2_of(x), e_of(x), e2_of(x)
            curve, mixed = e2 + e**2 - e, table.mixed(x)
            aligned = e**2 * np.exp(table.log_ratio(x) - table.log_d(x))
            noise = 3 * path.kurtosis[..., layer] - 1 - fix * 2 * (1 + (v * b) ** 2)
            mean = mean + b * (m - s / 2) + b2 * s / 2 + 2 * b * r - noise / 2
            mean = mean - fix * (2 * v * b + v**2 * (b2 + b**2 - b))
            spread = spread + b**2 * s + 2 * b * k + noise
            shift[layer], variance[layer] = mean / 2, spread / 4
            onward = _share(sigma_b, path.q[..., min(layer + 1, depth - 1)])
            k = onward * (e * (k + b * s) + mixed - 1 - fix * 2 * v**2 * b * e)
            m = onward * (e * m + curve * s / 2 - fix * v**2 * curve)
            s = onward**2 * (e**2 * s + table.fourth(x) - 1 - fix * 2 * (v * e) ** 2)
            r = onward * (aligned * r + mixed - fix * v * aligned)
            v = onward
    return np.moveaxis(shift, 0, -1).reshape(*shape, depth), np.moveaxis(variance, 0, -1).reshape(*shape, depth)


def _share(sigma_b: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The part of the length q that comes from the weights."""
    return np.where(q > 0, 1 - sigma_b**2 / np.where(q > 0, q, 1.0), 1.0)
