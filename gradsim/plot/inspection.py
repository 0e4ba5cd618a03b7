"""A model of one's own: gradients and outputs layer by layer, before and after, against the limits of floats."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradsim.inspection.formats import FORMATS, limits
from gradsim.inspection.rates import chains
from gradsim.inspection.report import checked
from gradsim.inspection.words import shortened
from gradsim.plot.remedies import names_at_ends
from gradsim.plot.style import COLOURS, LETTERS, legend_above, new_figure, powers_of_ten, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TICKS = 14  # names of layers along the axis
PLAIN: Any = {"color": "0.15", "linestyle": "none", "marker": ".", "markersize": 2.5}
ZERO: Any = {"color": "0.15", "linestyle": "none", "marker": "v", "markersize": 3}
SUBNORMAL: Any = {"color": "0.5", "alpha": 0.15, "linewidth": 0, "zorder": 0}
MARKED = 80  # layers that have a marker each
STROKES: Any = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))  # of several layers over steps
DECADES = 1 / math.log(10.0)


class Drawn(NamedTuple):
    """One inspection in its colour, with its name where there are two."""

    data: xarray.Dataset
    colour: str
    name: str


@styled
def inspection(inspection: xarray.Dataset, after: xarray.Dataset | None = None) -> Figure:
    """The norm of the gradient at every layer and in its parameters, and the size of its output, on powers of ten.

    Lines are the exact norms, dots what plain floats hold, triangles where those are zero. The limits of formats are
    drawn where they fall within the figure: from the smallest normal number, below which precision is lost, to the
    smallest of all, and the largest; they hold for single entries, of which a norm is many. Where layers run in a
    scan, the last panel has the outermost of them step by step.

    Args:
        inspection: what `gradsim.inspect` returned.
        after: of the same model, as after a cure; drawn beside it.

    Raises: TypeError or ValueError for anything else, two models whose layers differ, or no finite gradient at all.
    """
    before = checked(inspection)
    drawn = [Drawn(before, COLOURS[0], "")]
    if after is not None:
        _same_model(before, checked(after, "after"))
        drawn = [Drawn(before, COLOURS[1], "before"), Drawn(after, COLOURS[0], "after")]
    if not any(np.isfinite(one.data["log_gradient"]).any() for one in drawn):
        raise ValueError("inspection: no layer has a finite gradient; there is nothing to draw")
    stepped = _stepped(before)
    rows, names, axis = _ticks(before)
    is_long = max(map(len, names)) > 3
    figure = new_figure(3.8 + 1.9 * bool(stepped) + 0.05 * max(map(len, names)) * is_long)
    panels = figure.subplots(3 if stepped else 2, 1, height_ratios=[1.7, 1, *[1.2] * bool(stepped)])
    lowest = _gradients(panels[0], drawn)
    _outputs(panels[1], drawn)
    panels[1].set_xticks(rows, names, rotation=90 if is_long else 0)
    panels[1].set_xlim(-0.6, before.sizes["layer"] - 0.4)
    panels[1].set_xlabel(axis)
    panels[0].sharex(panels[1])
    panels[0].tick_params(labelbottom=False)
    if stepped:
        lowest = min(lowest, _steps(panels[2], drawn, stepped))
    for letter, ax in zip(LETTERS, panels, strict=False):
        ax.set_title(letter, loc="left", fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    legend_above(figure, _legend(drawn, lowest))
    return figure


def _same_model(before: xarray.Dataset, after: xarray.Dataset) -> None:
    for name in ("layer", "parameter"):
        one, two = ([str(x) for x in data[name].values] for data in (before, after))
        if one != two:
            odd = [f"{b!r} for {a!r}" for a, b in zip(one, two, strict=False) if a != b]
            said = odd[0] if odd else f"{len(two)} for {len(one)}"
            raise ValueError(f"after: its {name}s are not those of inspection ({said}); pass one of the same model")


def _legend(drawn: list[Drawn], lowest: float) -> list[Any]:
    from matplotlib.patches import Patch

    dtype = drawn[0].data.attrs.get("dtype", "plain floats")
    named = [proxy(one.name, color=one.colour) for one in drawn if one.name]
    grey = "0.35" if named else drawn[0].colour
    named.append(proxy("gradient of a layer's output", color=grey, marker="o", markersize=2.5))
    named.append(proxy("of its parameters", color=grey, linestyle="none", marker="+", markersize=4))
    named.append(proxy(f"as {dtype} holds it", **PLAIN))
    if any(_underflows(one.data).any() for one in drawn):
        named.append(proxy(f"zero in {dtype}", **ZERO))
    if lowest < max(limits(name).normal for name in FORMATS) * math.log10(2.0):
        named.append(Patch(label="subnormal", **SUBNORMAL))
    return named


def _underflows(data: xarray.Dataset) -> np.ndarray:
    return np.isfinite(data["log_gradient"].values) & (data["log_float_gradient"].values == -np.inf)


def _gradients(ax: Axes, drawn: list[Drawn]) -> float:
    """Returns the lowest exponent drawn."""
    ends: list[float] = []
    for one in drawn:
        exact, plain = (_decades(one.data[name]) for name in ("log_gradient", "log_float_gradient"))
        own = _of_parameters(one.data)
        place = np.arange(exact.size)
        few = exact.size <= MARKED
        ax.plot(place, exact, color=one.colour, linewidth=1, marker="o" if few else "", markersize=2.5)
        ax.plot(place, own, color=one.colour, linestyle="none", marker="+", markersize=4 if few else 2.5,
                markeredgewidth=0.8 if few else 0.5)  # fmt: skip
        ax.plot(place, plain, **{**PLAIN, "markersize": 2.5 if few else 1})
        ends += [x for x in (*exact, *own) if np.isfinite(x)]
    powers_of_ten(ax, min(ends), max(ends))
    for one in drawn:
        zero = np.flatnonzero(_underflows(one.data))
        ax.plot(zero, np.full(zero.size, 0.02), transform=ax.get_xaxis_transform(), **ZERO)
    _limits(ax, min(ends), max(ends), 0.09)
    ax.set_ylabel("norm of the gradient")
    return min(ends)


def _outputs(ax: Axes, drawn: list[Drawn]) -> None:
    ends: list[float] = []
    for one in drawn:
        sizes = _decades(one.data["log_activation"])
        ax.plot(sizes, color=one.colour, linewidth=1, marker="o" if sizes.size <= MARKED else "", markersize=2.5)
        ends += [x for x in sizes if np.isfinite(x)]
    powers_of_ten(ax, min(ends, default=0.0), max(ends, default=0.0), ticks=4)
    ax.set_ylabel("output (RMS)")


def _decades(values: xarray.DataArray) -> np.ndarray:
    """log10, NaN where there is nothing to draw."""
    logs = values.values * DECADES
    return np.where(np.isfinite(logs), logs, np.nan)


def _of_parameters(data: xarray.Dataset) -> np.ndarray:
    """log10 of the norm of the gradients of each layer's own parameters, at its first call."""
    rows = {str(label): row for row, label in reversed(list(enumerate(data["layer"].values)))}
    squares = np.full(len(rows), -np.inf)
    for name, log in zip(data["parameter"].values, data["log_parameter_gradient"].values, strict=True):
        row = rows.get(str(name).rpartition(".")[0])
        if row is not None and not np.isnan(log):
            squares[row] = np.logaddexp(squares[row], 2 * log)
    return np.where(np.isfinite(squares), squares / 2 * DECADES, np.nan)


def _ticks(data: xarray.Dataset) -> tuple[list[int], list[str], str]:
    """Rows and their names, and what is said of all: of layers that are alike the numbers, else paths."""
    labels = [str(one) for one in data["layer"].values]
    alike = [chain.rows for chain in chains(data) if not chain.by_step]
    if len(alike) == 1:
        parts = [re.split(r"(\d+)", labels[row]) for row in alike[0]]
        differ = [len(set(column)) > 1 for column in zip(*parts, strict=False)]
        place = differ.index(True) if sum(differ) == 1 and len(set(map(len, parts))) == 1 else 0
        if place % 2:  # a number
            rows, names = list(alike[0]), [one[place] for one in parts]
            pattern = "".join("n" if i == place else part for i, part in enumerate(parts[0]))
            every = -(-len(rows) // TICKS)
            return rows[::every], names[::every], f"layer, in order of execution: n of {shortened(pattern, 40)}"
    several = sorted(row for rows in alike for row in rows) if len(labels) > TICKS else []
    rows = several or list(range(len(labels)))
    rows = rows[:: -(-len(rows) // TICKS)]
    return rows, [shortened(labels[row], 20) for row in rows], "layer, in order of execution"


def _stepped(data: xarray.Dataset) -> list[int]:
    """The rows of the outermost layers in scans, as many as can be told apart."""
    return [chain.rows[0] for chain in chains(data) if chain.by_step][: len(STROKES)]


def _steps(ax: Axes, drawn: list[Drawn], rows: list[int]) -> float:
    ends: list[float] = []
    for one in drawn:
        steps = one.data["step"].values
        for row, stroke in zip(rows, STROKES, strict=False):
            values = _decades(one.data["log_gradient_by_step"].isel(layer=row))
            ax.plot(steps, values, color=one.colour, linestyle=stroke)
            ends += [x for x in values if np.isfinite(x)]
    powers_of_ten(ax, min(ends), max(ends))
    _limits(ax, min(ends), max(ends), 0.13)
    names = [str(drawn[0].data["layer"].values[row]) for row in rows]
    if len(rows) > 1:
        handles = [proxy(shortened(n, 24), color="0.35", linestyle=s) for n, s in zip(names, STROKES, strict=False)]
        ax.legend(handles=handles, loc="best")
    ax.set_xlabel(f"step of the scan ({names[0]})" if len(rows) == 1 else "step of the scan")
    ax.set_ylabel("norm of the gradient")
    return min(ends)


def _limits(ax: Axes, lowest: float, highest: float, room: float = 0.07) -> None:
    """The limits of formats that lie within the data, named at the right."""
    low, high = ax.get_ylim()
    named: dict[str, float] = {}
    for name in FORMATS:
        normal, smallest, largest = (one * math.log10(2.0) for one in limits(name))
        said = name.replace("_", " ")
        if lowest < normal:
            ax.axhspan(max(smallest, low), min(normal, high), **SUBNORMAL)
        if lowest < smallest < highest:
            ax.axhline(smallest, color="0.45", linewidth=0.7, zorder=0)
            named[f"{said}: least"] = smallest
        if lowest < largest < highest:
            ax.axhline(largest, color="0.45", linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0)
            named[f"{said}: largest"] = largest
    names_at_ends(ax, named, {name: {"color": "0.35"} for name in named}, room, {name: name for name in named})
