"""How the gradient of an inspected model changes from layer to layer and from step to step."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import xarray

LEAST = 3  # layers of a chain, for a slope with an error


class Slope(NamedTuple):
    """Of a straight line, with its standard error, and how far it rises between its ends."""

    slope: float
    error: float
    change: float

    @property
    def is_clear(self) -> bool:
        return abs(self.slope) > 2 * self.error


class Chain(NamedTuple):
    """Layers that are alike, or the steps of one: what a gradient passes through one after the other.

    `gradient` is positive where the gradient grows on its way back, `activation` where outputs grow on their way on.
    """

    first: str
    last: str
    length: int
    rows: tuple[int, ...]
    by_step: bool
    is_composite: bool  # do its layers hold others?
    gradient: Slope
    activation: Slope | None
    drop: tuple[str, float]  # the layer or step that changes the gradient most, on its way back, and by how much

    @property
    def is_one_place(self) -> bool:
        """Is most of the change in one of several layers?"""
        change, whole = abs(self.drop[1]), abs(self.gradient.change)
        return self.length > LEAST and change > max(0.5 * whole, float(np.log(10.0)))


def chains(inspection: xarray.Dataset) -> list[Chain]:
    """The outermost rows of layers that differ by numbers in their paths, each at least three; and steps of scans.

    Without either, all layers that hold no others.
    """
    labels = [str(one) for one in inspection["layer"].values]
    counted = np.isfinite(inspection["log_gradient"].values) & (inspection["type"].values != "input")
    families = _families(labels, counted)
    if not families and "step" not in inspection.dims:
        leaves = [row for row in np.flatnonzero(counted).tolist() if labels[row] != "model"]
        families = [[row for row in leaves if not _holds(labels[row], labels)]]
    found = []
    for rows in families:
        gradient, activation = (inspection[name].values[rows] for name in ("log_gradient", "log_activation"))
        fitted = fit(gradient)
        if fitted is not None:
            names = [labels[row] for row in rows]
            composite = _holds(names[0].partition("#")[0], labels)
            found.append(_chain(names, rows, gradient, activation, fitted, composite=composite))
    return found + _over_steps(inspection, labels)


def _holds(path: str, labels: Sequence[str]) -> bool:
    return any(other.startswith(f"{path}.") for other in labels)


def _chain(
    names: Sequence[str],
    rows: Sequence[int],
    gradient: np.ndarray,
    activation: np.ndarray,
    fitted: Slope,
    *,
    composite: bool = False,
    by_step: bool = False,
) -> Chain:
    with np.errstate(invalid="ignore"):
        changes = gradient[:-1] - gradient[1:]
    changes = np.where(np.isfinite(changes), changes, 0.0)
    place = int(np.argmax(-np.sign(fitted.change) * changes))  # the way the whole goes
    back = Slope(-fitted.slope, fitted.error, -fitted.change)
    drop = names[place + 1], float(changes[place])
    return Chain(names[0], names[-1], len(names), tuple(rows), by_step, composite, back, fit(activation), drop)


def fit(values: np.ndarray) -> Slope | None:
    """The least-squares line through values at 0, 1, 2, …; those that are not finite do not count."""
    at = np.flatnonzero(np.isfinite(values)).astype(float)
    if at.size < LEAST:
        return None
    finite = values[np.isfinite(values)]
    apart = at - at.mean()
    slope = float(apart @ finite / (apart @ apart))
    rest = finite - finite.mean() - slope * apart
    error = float(np.sqrt(rest @ rest / (at.size - 2) / (apart @ apart)))
    return Slope(slope, error, slope * float(at[-1] - at[0]))


def _families(labels: Sequence[str], counted: np.ndarray) -> list[list[int]]:
    """Rows by pattern of their paths: none within another, none that runs beside a longer one."""
    by_pattern: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        if counted[row]:
            path, _, _ = label.partition("#")
            by_pattern[re.sub(r"\d+", "0", path)].append(row)
    several = {pattern: rows for pattern, rows in by_pattern.items() if len(rows) >= LEAST}
    outermost = [
        rows
        for pattern, rows in several.items()
        if not any(pattern.startswith(f"{other}.") for other in several if other != pattern)
    ]
    kept: list[list[int]] = []
    for rows in sorted(outermost, key=len, reverse=True):
        if all(rows[-1] < other[0] or other[-1] < rows[0] for other in kept):
            kept.append(rows)
    return sorted(kept)


def _over_steps(inspection: xarray.Dataset, labels: Sequence[str]) -> list[Chain]:
    """The outermost layer of each scan, over its steps."""
    if "step" not in inspection.dims:
        return []
    found: list[Chain] = []
    gradients, activations = (inspection[f"log_{name}_by_step"].values for name in ("gradient", "activation"))
    stepped = [row for row in range(len(labels)) if np.isfinite(gradients[row]).sum() >= LEAST]
    paths = {labels[row] for row in stepped}
    for row in stepped:
        if any(labels[row].startswith(f"{path}.") for path in paths):
            continue
        fitted = fit(gradients[row])
        if fitted is not None:
            length = int(np.flatnonzero(~np.isnan(gradients[row])).max()) + 1
            names = [f"step {step} of {labels[row]}" for step in range(1, length + 1)]
            parts = gradients[row, :length], activations[row, :length]
            found.append(_chain(names, [row], *parts, fitted, by_step=True))
    return found
