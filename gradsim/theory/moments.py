"""The Gaussian moments of an activation as functions of the variance, tabulated once for each activation."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradsim.activations import Activation
from gradsim.theory import chebyshev, quadrature
from gradsim.theory.chebyshev import Interpolant

# Moments are analytic in ln q for |Im ln q| < π/2 at least, so 18 points a nat leave rounding alone.
_ORDER = 18
_LOWEST, _SPLIT, _HIGHEST = -56.0, 0.0, 38.0  # ln q, from 5e-25 to 3e16
_NARROW_REACH = 16.0  # a narrow Gaussian needs no panel further out, which matters where a sine has thousands
_GRID_END = 100.0
_HIGHEST_OSCILLATING = 14.0  # 1.2e6: as far as `quadrature.panels` follows an oscillation


@dataclass(frozen=True)
class Moments:
    """Functions of ln q: ln V/q, ln D, ln μ₂, d ln V / d ln q = q V'/V, E φ⁴/V² and E φ²φ'²/(V D)."""

    log_ratio: Interpolant
    log_d: Interpolant
    log_mu2: Interpolant
    elasticity: Interpolant
    fourth: Interpolant
    mixed: Interpolant
    log_q: np.ndarray
    """A grid of sixteen points a nat, on which roots are bracketed."""
    odd: bool
    """Whether E φ = 0 at every variance."""

    def log_v(self, log_q: np.ndarray) -> np.ndarray:
        """ln V."""
        return self.log_ratio(log_q) + log_q

    def homogeneous(self) -> bool:
        """Whether V(q) = V(1) q, as for the identity and the ReLU, so that no length is preferred."""
        return bool(np.ptp(self.log_ratio(self.log_q)) < 1e-12)


@lru_cache(maxsize=64)
def moments(activation: Activation) -> Moments:
    """The moments of that activation.

    Raises: ValueError where φ or its slope vanishes on all that a Gaussian reaches, so that there is no signal.
    """
    edges = np.arange(_LOWEST, (_HIGHEST_OSCILLATING if quadrature.oscillates(activation) else _HIGHEST) + 1)
    log_q = chebyshev.points(edges, _ORDER)
    few, many = edges[:-1] < _SPLIT, edges[:-1] >= _SPLIT
    v, d, mu2, v_prime, fourth, mixed, mean = _evaluate(activation, np.exp(log_q[few]), np.exp(log_q[many]))
    finite = np.all(np.isfinite(v + d + mu2 + v_prime), axis=1)  # exp overflows at some length
    last = len(finite) if finite.all() else int(np.argmin(finite))
    if last < 8 or not np.any(v[:last] > 0) or not np.any(d[:last] > 0):
        raise ValueError(f"activation: {activation.name} has no finite, nonzero values and slopes to propagate")
    edges, log_q = edges[: last + 1], log_q[:last]
    v, d, mu2, v_prime = v[:last], d[:last], mu2[:last], v_prime[:last]
    q = np.exp(log_q)
    # Ten standard deviations hide anything below e^-50: the floors say so instead of ln 0.
    v, d, mu2 = np.maximum(v, 1e-24 * q), np.maximum(d, 1e-24), np.maximum(mu2, 1e-48)
    odd = bool(np.all(np.abs(mean[:last]) < 1e-13 * np.sqrt(v)))
    # Bounded activations may sit at any length: the grid goes on where the tables are straight lines.
    grid = np.linspace(edges[0], _GRID_END, int(16 * (_GRID_END - edges[0])) + 1)
    functions = np.log(v / q), np.log(d), np.log(mu2), q * v_prime / v, fourth[:last] / v**2, mixed[:last] / (v * d)
    t = [Interpolant.through(edges, values) for values in functions]
    return Moments(t[0], t[1], t[2], t[3], t[4], t[5], log_q=grid, odd=odd)


def _evaluate(activation: Activation, narrow: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """V, D, μ₂, V', E φ⁴, E φ²φ'² and E φ at each q, for narrow and wide Gaussians: [7, panels, order].

    One program, a panel at a time: nothing is left over that would be compiled once more.
    """

    def at(q: Array, features: np.ndarray) -> Array:
        scale = jnp.sqrt(q)

        def integrands(x: Array) -> Array:
            value, slope = activation(x), activation.derivative(x)
            squares, slopes = value**2, slope**2
            stein = (x / scale) * (value / scale) * slope
            return jnp.stack([squares, slopes, slopes**2, stein, squares**2, squares * slopes, value])

        return quadrature.expectation(integrands, q, features)

    features = quadrature.panels(activation)
    near = features[np.abs(features) <= _NARROW_REACH]

    @jax.jit
    def all_panels(narrow: Array, wide: Array) -> Array:
        parts = [(narrow, near), (wide, features)]
        return jnp.concatenate([jax.lax.map(jax.vmap(lambda q, f=f: at(q, f)), part) for part, f in parts])

    with jax.enable_x64(True):
        return np.moveaxis(np.asarray(all_panels(narrow, wide)), -1, 0)
