"""The squared singular values λ of a product of L free layers √d W, out of the law of the squared slopes d.

Free probability multiplies S-transforms (Voiculescu): S = S_d^L S_W^L, with S_W = (1 + w)^{−g}, where g = 1 for
Gaussian and 0 for orthogonal matrices. Nothing needs inverting where the curve is followed in the variable x of the
law of the slopes in place of z, that of the product (Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979):

    w = E d/(x − d),   ln z(x) = ln (1 + w)/w + L [ln x w + (g − 1) ln(1 + w)],

and w is E λ/(z − λ) as well. On the curve arg z(x) = 0 in the upper half-plane λ = |z|, the density of ln λ is
−Im w/π, and since E ln(1 − λ/z) = L [g w + (1 − g) ln(1 + w) + E ln(1 − d/x)] − ln(1 + w), of which the imaginary
part is π times the share beyond λ, so is its integral known. To each |x| belongs one point of the curve, at which λ
rises with |x|: a bracketed root in the angle, at every depth.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradsim.theory.correlation import solve

_PIECE = 2**19  # numbers in a matrix of points and nodes
_REAL = 1e-150  # an angle that leaves signs of imaginary parts, and nothing else
_LAST = np.pi - 1e-7  # nearer to the real axis ln z is rounding; where it has risen until here, x is real
_LOWEST = -300.0  # ln |x|, whose square is still a float
_NEAR, _SCAN = 1e-10, 120  # how near to an end of the law an edge is told from it; points of the scan for edges
_TAIL = 1e-4  # the share that a grid leaves out below, where there is no edge


class Law(NamedTuple):
    """The squared slopes: distinct values d ≥ 0 of mean 1, rising, with their weights of sum 1."""

    d: np.ndarray
    p: np.ndarray


class Curve(NamedTuple):
    """Points of the spectrum of the product, for slopes of mean square 1 and σ_w = 1; λ rises."""

    log: np.ndarray
    """ln λ."""
    density: np.ndarray
    """Of ln λ."""
    above: np.ndarray
    """The share of the spectrum beyond λ."""


class Product(NamedTuple):
    """L layers with slopes of that law; g = 1 with Gaussian and 0 with orthogonal matrices."""

    law: Law
    layers: float
    g: float

    def log_z(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ln z, its derivative in ln x, and w at each x."""
        one, down, square = _moments(self.law, x)
        # The imaginary parts of w and 1 + w are the same; where w nears −1, that of 1 + w keeps its sign and digits.
        w, slope = (down / x).real + 1j * one.imag, -square / x  # w and x dw/dx
        log = np.log(one) - np.log(w) + self.layers * (np.log(down) + (self.g - 1) * np.log(one))
        rate = slope / one - slope / w + self.layers * (1 + slope / w + (self.g - 1) * slope / one)
        return log, rate, w

    def potential(self, x: np.ndarray) -> np.ndarray:
        """E ln(1 − λ/z) at each x."""
        one, down, _ = _moments(self.law, x)
        logs = _pieces(lambda x: np.log(1 - self.law.d / x[:, None]) @ self.law.p, x, self.law.d.size)
        return self.layers * (self.g * down / x + (1 - self.g) * np.log(one) + logs) - np.log(one)

    def at(self, log_x: np.ndarray) -> tuple[Curve, np.ndarray]:
        """The curve at each ln |x|, and ln x itself."""
        low, high = np.full(log_x.shape, _REAL), np.full(log_x.shape, _LAST)
        angle = solve(lambda angle, log_x: self.log_z(_point(log_x, angle))[0].imag, low, high, log_x)
        angle = np.where(angle == _LAST, np.pi, angle)
        return self._curve(log_x + 1j * np.maximum(np.pi - angle, _REAL), _point(log_x, angle))

    def _curve(self, log_x: np.ndarray, x: np.ndarray) -> tuple[Curve, np.ndarray]:
        log, _, w = self.log_z(x)
        above = np.clip(self.potential(x).imag / np.pi, 0.0, 1.0 - zeros(self.law))
        return Curve(log.real, np.maximum(-w.imag, 0.0) / np.pi, above), log_x

    def edges(self, bounded: bool) -> tuple[np.ndarray, np.ndarray]:
        """ln |x| and ln λ at the lower and the upper edge; −inf below where the spectrum reaches down to 0.

        Outside, x is real and ln z rises with it; an edge is where that ends. `bounded`: whether the slopes that are
        not 0 stay away from it.
        """
        share, log = atom(self)
        if share == 1:  # one value, and nothing else
            return np.full(2, log / self.layers), np.full(2, log)
        d = self.law.d[self.law.d > 0]
        spread = self.law.d**2 @ self.law.p
        # x = d (1 + e^t) above the law, d / (1 + e^t) below it, from afar
        far = np.log(1e4 * (self.layers + 1) * spread)
        high = self._edge(lambda t: np.log(d[-1]) + np.logaddexp(0.0, t), far)
        low = self._edge(lambda t: np.log(d[0]) - np.logaddexp(0.0, t), 30.0) if bounded else (-np.inf, -np.inf)
        return np.array([low[0], high[0]]), np.array([low[1], high[1]])

    def _edge(self, log_x: Callable[[np.ndarray], np.ndarray], far: float) -> tuple[float, float]:
        def real(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self.log_z(np.exp(log_x(t)) * (1 + 1j * _REAL))[:2]

        t = np.linspace(far, np.log(_NEAR), _SCAN)
        log, rate = real(t)
        inside = (np.abs(log.imag) > 1e-9) | (rate.real <= 0)
        if inside[0]:
            return -np.inf, -np.inf
        first = int(np.argmax(inside))
        # Where no point is inside, the edge is that of the law.
        t = solve(lambda t: real(t)[1].real, t[first : first + 1], t[first - 1 : first]) if first else t[-1:]
        return float(log_x(t)[0]), float(real(t)[0].real[0])


def zeros(law: Law) -> float:
    """The share of slopes that are 0, and so of singular values: a free product loses no more than its factors."""
    return float(law.p[0]) if law.d[0] == 0 else 0.0


def atom(product: Product) -> tuple[float, float]:
    """The share of orthogonal products that lies at one λ > 0, and ln λ; NaN where there is none.

    Where a share p of the slopes is the same, L subspaces of that size meet in 1 − L (1 − p) of all directions.
    """
    law, layers, g = product
    weight = np.where((law.d > 0) & (g == 0), law.p, 0.0)
    most = int(np.argmax(weight))
    share = 1 - layers * (1 - weight[most])
    return (float(share), float(layers * np.log(law.d[most]))) if share > 1e-12 else (0.0, np.nan)


def spectrum(product: Product, bounded: bool, points: int) -> tuple[Curve, np.ndarray, np.ndarray]:
    """The curve between its edges, or above all but 1e-4 of it; ln x of the same points; and ln λ at the edges."""
    (low, high), edges = product.edges(bounded)
    place = (np.arange(points) + 0.5) / points  # between the edges, at which a density may be infinite
    if low == high:
        log = edges[0] + place - 0.5
        return Curve(log, np.zeros(points), np.where(log < edges[0], 1.0, 0.0)), log + 0j, edges
    if np.isneginf(low):
        coarse = high - np.geomspace(1e-3, high - _LOWEST, 24)
        left = 1 - zeros(product.law) - product.at(coarse)[0].above
        low = np.interp(np.log(_TAIL), np.log(np.maximum(left, 1e-300))[::-1], coarse[::-1])
        log_x = high - (high - low) * (1 - place) ** 2  # finer towards the edge, where the density is a square root
    else:
        log_x = low + (high - low) * np.sin(np.pi / 2 * place) ** 2
    return *product.at(log_x), edges


def evaluate(product: Product, bounded: bool, log: np.ndarray) -> Curve:
    """The curve at given values of ln λ."""
    table, path, edges = spectrum(product, bounded, 200)
    full = 1 - zeros(product.law)
    density, above = np.zeros(log.shape), np.where(log >= edges[1], 0.0, full)
    ends = product.edges(bounded)[0]
    parts = [(table.log, path), (edges[1:], ends[1:] + 1j * _REAL)]
    if np.isfinite(edges[0]):
        parts.insert(0, (edges[:1], ends[:1] + 1j * _REAL))
    elif log.min() < table.log[0]:
        tail, below = product.at(path.real[0] + (_LOWEST - path.real[0]) * np.linspace(1, 0, 200)[:-1] ** 3)
        parts.insert(0, (tail.log, below))
    known, path = (np.concatenate(part) for part in zip(*parts, strict=True))
    inside = (log > max(edges[0], known[0])) & (log < edges[1])
    if inside.any():
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # where a step went astray
            found = _newton(product, log[inside], known, path)
        density[inside], above[inside] = found.density, found.above
    return Curve(log, density, above)


def _newton(product: Product, log: np.ndarray, table: np.ndarray, path: np.ndarray) -> Curve:
    y = np.interp(log, table, path.real) + 1j * np.interp(log, table, path.imag)
    for _ in range(12):
        value, rate, _ = product.log_z(np.exp(y))
        step = (value - log) / rate
        step /= np.maximum(1.0, np.abs(step))
        angle = np.clip(y.imag - step.imag, y.imag / 4, (y.imag + 3 * np.pi) / 4)  # within the half-plane
        y = np.where(np.isfinite(step), y.real - step.real + 1j * angle, y)
    value = product.log_z(np.exp(y))[0]
    place = np.clip(np.searchsorted(table, log), 1, table.size - 1)
    low, high = path.real[place - 1], path.real[place]
    found = (np.abs(value - log) <= 1e-10 * (product.layers + np.abs(log))) & (low <= y.real) & (y.real <= high)
    if not found.all():
        log_x = solve(lambda x, log: product.at(x)[0].log - log, low[~found], high[~found], log[~found])
        y[~found] = product.at(log_x)[1]
    return product._curve(y, np.exp(y))[0]


def _point(log_x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """x at that angle from the negative axis: there it lies where the layers are many."""
    return np.exp(log_x) * (-np.cos(angle) + 1j * np.sin(angle))


def _moments(law: Law, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1 + w = E 1/(1 − d/x), x w = E d/(1 − d/x) and E d/(1 − d/x)²: nothing cancels, be x large or small."""
    weights = np.stack([law.p, law.p * law.d], axis=1).astype(complex)

    def piece(x: np.ndarray) -> np.ndarray:
        a = 1 / (1 - law.d * (1 / x[:, None]))
        return np.concatenate([a @ weights, a**2 @ weights[:, 1:]], axis=1)

    one, down, square = _pieces(piece, x, law.d.size).T
    return one, down, square


def _pieces(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, nodes: int) -> np.ndarray:
    """A function that needs a matrix of points and nodes, in pieces that fit."""
    rows = max(1, _PIECE // nodes)
    return np.concatenate([function(x[start : start + rows]) for start in range(0, max(x.size, 1), rows)])
