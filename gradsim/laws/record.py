"""A law is data: what it says, where it is from, and how real networks are asked about it."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Numbers = ArrayLike | float
ERRORS = 4.5  # standard errors; a correct program fails one comparison in 150,000

Kind = Literal["sampled", "exact", "bound"]


class Check(NamedTuple):
    """One number of a law beside what was measured."""

    quantity: str
    predicted: float
    measured: float
    error: float
    """The standard error of a sampled number; the tolerance of an exact one, or of a bound."""
    kind: Kind

    @property
    def z(self) -> float:
        """(measured − predicted) / error."""
        return (self.measured - self.predicted) / self.error

    @property
    def holds(self) -> bool:
        """Within 4.5 standard errors; within the tolerance; no farther above a bound than that."""
        if self.kind == "bound":
            return self.z <= 1
        return abs(self.z) <= (ERRORS if self.kind == "sampled" else 1)


class Law(NamedTuple):
    """A published or exact result, and the networks that are measured for it."""

    id: str
    statement: str
    source: str
    measure: Callable[[int, int], list[Check]]
    """(effort, key) -> checks; the number of networks is proportional to the effort."""


def sampled(quantity: str, sample: Numbers, predicted: float, deviation: float | None = None) -> Check:
    """The mean of independent numbers; their deviation is the sample's unless it is known."""
    sample = np.asarray(sample, np.float64).ravel()
    spread = sample.std(ddof=1) if deviation is None else deviation
    return Check(quantity, float(predicted), float(sample.mean()), float(spread) / math.sqrt(sample.size), "sampled")


def estimated(quantity: str, measured: float, error: float, predicted: float) -> Check:
    """A number that comes with its own standard error."""
    return Check(quantity, float(predicted), float(measured), float(error), "sampled")


def sampled_variance(quantity: str, sample: Numbers, predicted: float) -> Check:
    """The variance of independent numbers, with the error that their fourth moment gives."""
    sample = np.asarray(sample, np.float64).ravel()
    squares = (sample - sample.mean()) ** 2
    return Check(
        quantity, float(predicted), float(sample.var(ddof=1)), float(squares.std() / math.sqrt(sample.size)), "sampled"
    )


def exact(quantity: str, measured: Numbers, predicted: Numbers, tolerance: float) -> Check:
    """Numbers without randomness; of several, the one that is farthest off."""
    measured, predicted = np.broadcast_arrays(np.asarray(measured, np.float64), np.asarray(predicted, np.float64))
    apart = np.abs(measured - predicted).ravel()
    worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
    return Check(quantity, float(predicted.flat[worst]), float(measured.flat[worst]), tolerance, "exact")


def bound(quantity: str, measured: Numbers, predicted: float, tolerance: float) -> Check:
    """The largest of many numbers that none may exceed."""
    return Check(quantity, predicted, float(np.max(np.asarray(measured, np.float64))), tolerance, "bound")


def added(log_norm: Numbers) -> np.ndarray:
    """What each layer adds to a logarithm, [..., layers]."""
    return np.diff(np.asarray(log_norm), axis=-1, prepend=0.0)
