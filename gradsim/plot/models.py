"""Models as one writes them: the gradient by layer and the learning curves, before and after a cure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, heading, legend_above, new_figure, powers_of_ten, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[str, dict[str, Any]] = {
    "before": {"color": COLOURS[1], "linestyle": "-"},
    "after": {"color": COLOURS[0], "linestyle": (0, (4, 1.5))},
}
INNER: Any = {"linestyle": "none", "marker": ".", "markersize": 2, "alpha": 0.5}


@styled
def models(datasets: Sequence[xarray.Dataset]) -> Figure:
    """A row for each model: the norm of its gradient over layers or steps, and accuracy over training.

    Left, the outermost layers that are alike are a line, others dots. Right, thin lines are single models, the thick
    one their mean; grey is chance.

    Args:
        datasets: with the title as attribute, and starts "before" and "after": `log_gradient` (start, layer) with the
            flag `outer`, or `log_gradient_by_step` (start, step); `accuracy` (seed, start, update).
    """
    figure = new_figure(0.75 + 1.15 * len(datasets))
    panels = figure.subplots(len(datasets), 2, squeeze=False, width_ratios=[1.6, 1])
    letters = iter(LETTERS)
    for (left, right), one in zip(panels, datasets, strict=True):
        _gradients(left, one)
        _accuracy(right, one)
        heading(left, next(letters), str(one.attrs["title"]))
        heading(right, next(letters), "")
    panels[-1][1].set_xlabel("updates")
    handles = [proxy(f"{start} tuning", **style) for start, style in STYLES.items()]
    legend_above(figure, [*handles, proxy("other layers", **{**INNER, "color": "0.35", "markersize": 3})])
    return figure


def outer_gradient(data: xarray.Dataset) -> xarray.DataArray:
    """ln of the gradient's norm at the outermost layers, or at the steps of a scan."""
    if "log_gradient_by_step" in data:
        return data["log_gradient_by_step"]
    return data["log_gradient"].isel(layer=np.flatnonzero(data["outer"].values))


def _gradients(ax: Axes, one: xarray.Dataset) -> None:
    ends: list[float] = []
    steps = "log_gradient_by_step" in one
    for start, style in STYLES.items():
        data = one.sel(start=start)
        line = _decades(outer_gradient(data))
        ax.plot(data["step"].values if steps else np.flatnonzero(data["outer"].values), line, **style)
        ends += [*line]
        if not steps:
            inner = np.where(data["outer"], np.nan, _decades(data["log_gradient"]))
            ax.plot(inner, color=style["color"], **INNER)
            ends += [*inner]
    finite = [value for value in ends if np.isfinite(value)]
    powers_of_ten(ax, min(finite), max(finite), ticks=4)
    ax.set_xlabel("step" if steps else "layer, in order of execution")
    ax.set_ylabel("gradient")


def _accuracy(ax: Axes, one: xarray.Dataset) -> None:
    for start, style in STYLES.items():
        data = one["accuracy"].sel(start=start).transpose("update", "seed")
        updates = data["update"].values
        ax.plot(updates, data.values, **style, linewidth=0.5, alpha=0.6)
        ax.plot(updates, data.values.mean(1), **style)
    ax.axhline(0.1, color="0.6", linewidth=0.6, zorder=0)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("accuracy")


def _decades(values: xarray.DataArray) -> np.ndarray:
    logs = values.values / math.log(10.0)
    return np.where(np.isfinite(logs), logs, np.nan)
