"""A model's parameters over training: how large their gradients are, and how far an update moves them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import cell_edges, heading, legend_above, new_figure, power_of_ten, styled
from gradsim.tracking.records import checked

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = math.log(10)
PANELS = (("log_gradient", r"gradient $\|g\|$"), ("log_ratio", r"relative update $\|\Delta w\|\,/\,\|w\|$"))
COLOUR_MAP = "viridis"
ZERO, LOST, NONE = "exactly zero", "not finite", "no value (the parameter is zero)"
COLOURS = {ZERO: "black", LOST: "#D55E00", NONE: "0.88"}
ROUNDING = "white line: updates below are lost in rounding"
MOST_NAMES, LONGEST = 36, 30


@styled
def gradient_records(records: xarray.Dataset) -> Figure:
    """Two maps of what `gradsim.gradient_records` returned, parameter over updates taken: gradient and relative update.

    Colours are powers of ten of geometric means over members; black is exactly zero, orange an entry that is not
    finite. Below the white line on the colour bar an update is lost in the rounding of its parameter. Parameters stand
    in the order of the model's tree; choose some with `records.sel(parameter=[…])`.

    Raises: TypeError or ValueError for anything else.
    """
    records = checked(records)
    every = records.transpose(..., "parameter", "step")
    count, names = every.sizes["parameter"], [*map(short, every["parameter"].values.tolist())]
    shown = len(names) if count <= MOST_NAMES else MOST_NAMES
    figure = new_figure(1.1 + 0.13 * max(shown, 6))
    left, right = figure.subplots(1, 2, sharey=True)
    lost = every["non_finite"] + every["non_finite_update"] > 0
    seen: set[str] = set()
    roundings = np.unique(every["log_rounding"].values) / LN10
    for ax, letter, (name, title) in zip((left, right), "ab", PANELS, strict=True):
        marks = roundings if name == "log_ratio" else ()
        seen |= _map(ax, _mean(every[name]), _any(lost), every["step"].values, marks)
        heading(ax, letter, title)
        ax.set_xlabel("updates taken")
    places = np.unique(np.linspace(0, count - 1, shown).round().astype(int))
    left.set_yticks(places, [names[place] for place in places], fontsize=6.5 if shown <= 20 else 5.5)
    left.invert_yaxis()
    _legend(figure, seen)
    return figure


def short(name: str) -> str:
    """A path whose middle is left out where it is long: its ends tell parameters apart."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def _mean(values: xarray.DataArray) -> np.ndarray:
    logs = values.values / LN10
    return np.asarray(logs.mean(0) if logs.ndim == 3 else logs)


def _any(values: xarray.DataArray) -> np.ndarray:
    flags = values.values
    return np.asarray(flags.any(0) if flags.ndim == 3 else flags)


def _map(ax: Axes, logs: np.ndarray, lost: np.ndarray, step: np.ndarray, marks: Any) -> set[str]:
    """Parameters over updates, with its colour bar; returns what the legend has to say."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    finite = logs[np.isfinite(logs) & ~lost]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    middle, half = (low + high) / 2, max((high - low) / 2, 0.5)
    edges = cell_edges(step), np.arange(logs.shape[0] + 1) - 0.5
    colours = colormaps[COLOUR_MAP].with_extremes(bad=COLOURS[NONE])
    mesh = ax.pcolormesh(*edges, np.ma.masked_invalid(logs), cmap=colours, vmin=middle - half, vmax=middle + half,
                         rasterized=True)  # fmt: skip
    said = set()
    zero, none = np.isneginf(logs) & ~lost, ~np.isfinite(logs) & ~np.isneginf(logs) & ~lost
    for name, hit in ((ZERO, zero), (LOST, lost), (NONE, none)):
        if hit.any():
            said.add(name)
            over = np.ma.masked_where(~hit, np.ones(logs.shape))
            ax.pcolormesh(*edges, over, cmap=ListedColormap([COLOURS[name]]), rasterized=True)
    ax.set_xticks(_ends(step), [f"{place:,}" for place in _ends(step)])
    bar: Any = ax.figure.colorbar(mesh, ax=ax, pad=0.03, aspect=25)
    ticks = _ticks(middle - half, middle + half)
    bar.set_ticks(ticks, labels=[power_of_ten(float(tick)) for tick in ticks])
    for mark in marks:
        if middle - half < mark < middle + half:
            bar.ax.axhline(mark, color="white", linewidth=1.5)
            said.add(ROUNDING)
    return said


def _ends(step: np.ndarray) -> Sequence[int]:
    return sorted({int(step[0]), int(step[-1])})


def _ticks(low: float, high: float) -> np.ndarray:
    """Whole exponents, at most six."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    between = max(1, math.ceil((last - first) / 5))
    return np.arange(first, last + 1, between)


def _legend(figure: Figure, seen: set[str]) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in seen]
    if ROUNDING in seen:
        outlined: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.5", "linewidth": 0.5}
        handles.append(Patch(label=ROUNDING, **outlined))
    if handles:
        legend_above(figure, handles)
