"""What sweeps cost: time and memory as they grow, what bounds them on other machines, and what maps take there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, heading, legend_above, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^Dv"
WAYS = ("solid", (0, (4, 1.5)), (0, (1, 1.2)))


@styled
def scaling(
    grows: Mapping[str, xarray.Dataset],
    share: xarray.DataArray,
    roof: xarray.DataArray,
    table: Sequence[Mapping[str, Any]],
    as_compiled: str,
) -> Figure:
    """Four panels: time and memory as one sweep grows; the share of the product rate over the width; times of maps.

    What was measured is filled, what was computed is a line or open.

    Args:
        grows: by axis, seconds over (axis, turn) and, where it was measured, memory over axis.
        share: measured, over width.
        roof: computed, over (machine, way, width).
        table: a row for each map and machine, with the seconds under `as_compiled` and the label.
    """
    figure = new_figure(5.6)
    (time, memory), (rate, maps) = figure.subplots(2, 2)
    _growth(time, memory, grows)
    _roof(rate, share, roof)
    _maps(maps, table, as_compiled)
    for letter, ax in zip("abcd", (time, memory, rate, maps), strict=True):
        ax.spines[["top", "right"]].set_visible(False)
        heading(ax, letter, "")
    dark: Any = {"color": "0.3"}
    legend_above(
        figure,
        [
            proxy("measured on this machine", **dark, marker="o", markersize=4, linewidth=0),
            proxy("computed", **dark, marker="o", markersize=4, markerfacecolor="white", linewidth=0),
            *(
                proxy(f"computed: {way}", **dark, linestyle=style)
                for way, style in zip(roof["way"].values, WAYS, strict=True)
            ),
        ],
    )
    return figure


def _growth(time: Axes, memory: Axes, grows: Mapping[str, xarray.Dataset]) -> None:
    """Times relative to the first, of the fastest turns, with bars to the slowest; and the memory of a device."""
    most = 1.0
    for (axis, one), colour, marker in zip(grows.items(), COLOURS, MARKERS, strict=False):
        sizes = one[axis].values / one[axis].values[0]
        seconds = one["seconds"].values
        fastest = seconds.min(axis=1)
        slower = np.stack([np.zeros(fastest.size), seconds.max(axis=1) - fastest]) / fastest[0]
        style: Any = {"color": colour, "marker": marker, "markersize": 4}
        time.errorbar(sizes, fastest / fastest[0], yerr=slower, elinewidth=0.8, **style, label=axis)
        most = max(most, float(sizes[-1]))
        if "memory" in one:
            memory.plot(sizes, one["memory"].values / 2**20, markerfacecolor="white", **style)
    ends = np.array([1.0, most])
    for power, words in ((1, "∝ n"), (3, "∝ n³")):
        reach = ends if power == 1 else np.array([1.0, most ** (2 / 3)])
        time.plot(reach, reach**power, color="0.6", linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=0)
        end: Any = (reach[-1], reach[-1] ** power)
        time.annotate(words, end, (-2, 2), textcoords="offset points", ha="right", fontsize=6, color="0.4")
    for ax, words in ((time, "time, of the first"), (memory, "memory of a device (MiB)")):
        ax.set_xscale("log", base=2)
        ax.set(xlabel="times as many, n", ylabel=words)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    time.set_yscale("log")
    memory.set_yscale("log", base=2)
    memory.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    time.legend(loc="upper left", handlelength=1.2)


def _roof(ax: Axes, share: xarray.DataArray, roof: xarray.DataArray) -> None:
    """Shares of the product rate over the width: lines computed for machines, points measured here."""
    names = roof["machine"].values.tolist()
    for name, colour in zip(names, COLOURS, strict=False):
        for way, style in zip(roof["way"].values, WAYS, strict=True):
            ax.plot(roof["width"], roof.sel(machine=name, way=way), color=colour, linestyle=style, linewidth=1.1)
    ax.plot(share["width"], share, color="black", marker="o", markersize=3.5, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(xlabel="width (units)", ylabel="share of the product rate")
    ax.set_ylim(0, 1.05 * max(1.0, float(share.max())))
    handles = [proxy(name, color=colour) for name, colour in zip(names, COLOURS, strict=False)]
    handles.append(proxy("this machine", color="black", marker="o", markersize=3.5, linewidth=0))
    ax.legend(handles=handles, loc="lower right", handlelength=1.2, fontsize=6.5)


def _maps(ax: Axes, table: Sequence[Mapping[str, Any]], as_compiled: str) -> None:
    """The time of each map on each machine, as compiled."""
    machines = list(dict.fromkeys(row["machine"] for row in table))
    maps = list(dict.fromkeys(row["map"] for row in table))
    for name, colour, marker in zip(maps, COLOURS, MARKERS, strict=False):
        for row in table:
            if row["map"] == name:
                face = colour if row["label"] == "measured" else "white"
                place = machines.index(row["machine"])
                ax.plot(row[as_compiled], place, marker, color=colour, markerfacecolor=face, markersize=4.5)
    ax.set_xscale("log")
    ax.set_yticks(range(len(machines)), machines)
    ax.invert_yaxis()
    ax.set_xlabel("time of a map, as compiled (s)")
    ax.grid(axis="y", color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)
    first = {row["map"]: row for row in reversed(table)}
    style: Any = {"markersize": 4.5, "markerfacecolor": "white", "linewidth": 0}
    kinds = zip(maps, COLOURS, MARKERS, strict=False)
    handles = [proxy(_map_words(first[name]), color=colour, marker=mark, **style) for name, colour, mark in kinds]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1.06), handlelength=0.8, fontsize=6)


def _map_words(row: Mapping[str, Any]) -> str:
    return (
        f"{row['cells']:,} cells × {row['seeds']} seeds, width {row['width']}, depth {row['depth']}: "
        f"{row['tflop']:{'.2g' if row['tflop'] < 100 else ',.0f'}} TFLOP"
    )
