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
PLAIN: Any = {"linestyle": "none", "marker": ".", "markersize": 3, "color": "0.15"}


@styled
def models(datasets: Sequence[xarray.Dataset]) -> Figure:
    """A row for each model: the norm of the gradient at each layer's output, and accuracy over training.

    Left, lines are exact, dots what plain floats hold. Right, each model's line, and their mean thicker.

    Args:
        datasets: with the title as attribute; `log_gradient` and `log_float_gradient` (start, layer) and `accuracy`
            (seed, start, update), the starts "before" and "after".
    """
    figure = new_figure(0.75 + 1.15 * len(datasets))
    panels = figure.subplots(len(datasets), 2, squeeze=False, width_ratios=[1.6, 1])
    letters = iter(LETTERS)
    for (left, right), one in zip(panels, datasets, strict=True):
        _gradients(left, one)
        _accuracy(right, one)
        heading(left, next(letters), str(one.attrs["title"]))
        heading(right, next(letters), "")
    panels[-1][0].set_xlabel("layer, in order of execution")
    panels[-1][1].set_xlabel("updates")
    handles = [proxy(f"{start} tuning", **style) for start, style in STYLES.items()]
    legend_above(figure, [*handles, proxy("as float32 holds it", **PLAIN)])
    return figure


def _gradients(ax: Axes, one: xarray.Dataset) -> None:
    ends: list[float] = []
    for start, style in STYLES.items():
        data = one.sel(start=start)
        exact, plain = (_decades(data[name]) for name in ("log_gradient", "log_float_gradient"))
        place = np.arange(exact.size)
        ax.plot(place, exact, **style)
        ax.plot(place, plain, **PLAIN)
        ends += [value for value in exact if np.isfinite(value)]
    powers_of_ten(ax, min(ends), max(ends), ticks=4)
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
