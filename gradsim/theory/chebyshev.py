"""Piecewise Chebyshev interpolation, so that a smooth function is integrated a few hundred times, not a million."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev


def points(edges: Float[np.ndarray, " edges"], order: int) -> Float[np.ndarray, "panels order"]:
    """The Chebyshev points of each panel."""
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    return middle[:, None] + half[:, None] * chebyshev.chebpts1(order)


def coefficients(values: Float[np.ndarray, "*batch order"]) -> Float[np.ndarray, "*batch order"]:
    """Chebyshev coefficients of the polynomial through values at the Chebyshev points of a panel."""
    order = values.shape[-1]
    return values @ np.linalg.inv(chebyshev.chebvander(chebyshev.chebpts1(order), order - 1)).T


@dataclass(frozen=True)
class Interpolant:
    """A function of one variable on panels between `edges`, straight lines beyond the ends."""

    edges: Float[np.ndarray, " edges"]
    coefficients: Float[np.ndarray, "panels order"]

    @classmethod
    def through(cls, edges: Float[np.ndarray, " edges"], values: Float[np.ndarray, "panels order"]) -> "Interpolant":
        """The interpolant with those values at `points(edges, order)`."""
        return cls(edges, coefficients(values))

    def __call__(self, x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """The interpolated values at x."""
        x = np.asarray(x, np.float64)
        low, high = self.edges[0], self.edges[-1]
        rise, last_rise = self._rises
        below = np.minimum(x - low, 0.0) * rise / (self.edges[1] - low)
        above = np.maximum(x - high, 0.0) * last_rise / (high - self.edges[-2])
        return self._inside(np.clip(x, low, high)) + below + above

    def derivative(self) -> "Interpolant":
        """The derivative, panel by panel."""
        half = (self.edges[1:] - self.edges[:-1])[:, None] / 2
        return Interpolant(self.edges, chebyshev.chebder(self.coefficients, axis=-1) / half)

    @cached_property
    def _rises(self) -> tuple[float, float]:
        """By how much the first and the last panel rise."""
        first, second, third, last = self._inside(self.edges[[0, 1, -2, -1]])
        return second - first, last - third

    def _inside(self, x: np.ndarray) -> np.ndarray:
        panel = np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, len(self.edges) - 2)
        low, high = self.edges[panel], self.edges[panel + 1]
        t = (2 * x - low - high) / (high - low)
        return chebyshev.chebval(t, np.moveaxis(self.coefficients[panel], -1, 0), tensor=False)
