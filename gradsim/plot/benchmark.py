"""What scripts/benchmark.py measured: shares of the matrix-product rate, time ratios, memory, compiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, heading, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASES = (("trace", "lower", "compile"), ("trace", "lower"))  # all of them, and those before the compiler
BESIDE: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "handlelength": 1.2, "borderaxespad": 0.3}


@styled
def benchmark(results: Mapping[str, Any]) -> Figure:
    """One panel for each part of the results that is there: rates, baselines, memory, compile.

    Raises: ValueError where none is.
    """
    panels = {part: draw for part, draw in PANELS.items() if part in results}
    if not panels:
        raise ValueError(f"results: none of the parts {', '.join(PANELS)} to draw; measure one of them")
    rest = [part for part in panels if part != "rates"]
    ways = len(results.get("baselines", {}).get("ratio", ()))
    families = len({row["name"] for row in results.get("compile", ())})
    grown = {"baselines": 0.7 + 0.26 * ways, "compile": 0.6 + 0.17 * families}
    heights = [max(1.6, grown.get(part, 0)) for part in rest]
    figure = new_figure(max(4.8, sum(heights), 0.6 + 0.17 * len(results.get("rates", ()))))
    columns = ("rates" in panels) + bool(rest)
    fields: Any = figure.subfigures(1, columns, squeeze=False, width_ratios=[1, 1.1][-columns:])[0]
    axes: dict[str, Axes] = {}
    if "rates" in panels:
        axes["rates"] = fields[0].subplots()
    if rest:
        column = fields[-1].subplots(len(rest), 1, squeeze=False, height_ratios=heights)[:, 0]
        axes |= dict(zip(rest, column, strict=True))
    for letter, (part, ax) in zip("abcde", axes.items(), strict=False):
        heading(ax, letter if len(axes) > 1 else "", "")
        panels[part](ax, results[part])
    figure.suptitle(f"{results['device']}; jax {results['jax_version']}", fontsize=7.5)
    return figure


def _rates(ax: Axes, table: list[dict[str, Any]]) -> None:
    """Shares of the matrix-product rate."""
    ax.barh([f"{row['name']} × {row['cells']}" for row in table], [row["share"] for row in table], color=COLOURS[0])
    for place, row in enumerate(table):
        inside = row["share"] > 0.12  # else beside the bar
        style: Any = {"ha": "right", "color": "white"} if inside else {"ha": "left", "color": "black"}
        ax.text(
            row["share"] + (-0.01 if inside else 0.01), place, f"{row['share']:.2f}", va="center", fontsize=6, **style
        )
    ax.set(xlim=(0, 1), xlabel="share of the dense matrix-product rate", ylabel="family and width × cells")
    ax.tick_params(axis="y", labelsize=6.5)
    ax.set_ylim(max(len(table), 5) - 0.5, -0.5)


def _baselines(ax: Axes, found: dict[str, Any]) -> None:
    """Time of each other way over that of gradsim."""
    ratios = {name: ratio for name, ratio in found["ratio"].items() if name != "gradsim"}
    bars = ax.barh([name.replace("(", "\n(", 1) for name in ratios], list(ratios.values()), color=COLOURS[1])
    said = [f"{ratio:.1f}×" if ratio < 1000 else f"{ratio:.1e}×" for ratio in ratios.values()]
    ax.locator_params(axis="x", nbins=5)
    ax.bar_label(bars, labels=said, fontsize=7, padding=2)
    ax.invert_yaxis()
    ax.set(xlim=(0, (1.08 + 0.042 * max(map(len, said))) * max(ratios.values())), xlabel="time over that of gradsim")
    ax.set_title(f"{found['networks']} × width {found['width']}, {found['depth']} layers", fontsize=7, loc="right")
    ax.tick_params(axis="y", labelsize=6.5)


def _memory(ax: Axes, table: list[dict[str, Any]]) -> None:
    """Peak memory of a process, and the part of it that is the result itself, one grid beside the other."""
    grids = list(dict.fromkeys(row["cells"] for row in table))
    places = [k + 0.7 * grids.index(row["cells"]) for k, row in enumerate(table)]
    peak, result = (np.array([row[name] for row in table]) / 2**20 for name in ("peak_bytes", "result_bytes"))
    ax.bar(places, peak - result, width=0.75, color=COLOURS[5], label="libraries,\nprogram,\ntangents")
    ax.bar(places, result, width=0.75, bottom=peak - result, color=COLOURS[0], label="the result")
    ticks = [f"{row['depth']}\n{row['seeds']}\n{row['cells']}".replace("000\n", "k\n", 1) for row in table]
    ax.set_xticks(places, ticks, fontsize=7 if len(table) < 7 else 6)
    ax.set(ylabel="peak (MiB)", xlabel="layers, seeds and cells, one below the other", ylim=(0, 1.05 * peak.max()))
    ax.legend(**BESIDE)


def _compile(ax: Axes, table: list[dict[str, Any]]) -> None:
    """Seconds by the clock until a family's program is there, forward above backward."""
    names = list(dict.fromkeys(row["name"] for row in table))
    for place, direction in enumerate(dict.fromkeys(row["direction"] for row in table)):
        of = {row["name"]: row["seconds"] for row in table if row["direction"] == direction}
        at = [names.index(name) + 0.4 * place - 0.2 for name in of]
        total, before = (np.array([sum(one[phase] for phase in phases) for one in of.values()]) for phases in PHASES)
        ax.barh(at, total, height=0.36, color=COLOURS[place], label=direction)
        ax.barh(at, before, height=0.36, color="black", alpha=0.35, label="" if place else "tracing,\nlowering")
    ax.set_yticks(range(len(names)), names, fontsize=6.5)
    ax.set(xlabel="seconds until a program is compiled", ylim=(max(len(names), 3) - 0.5, -0.5))
    if table:
        ax.legend(**BESIDE)


PANELS: dict[str, Callable[[Axes, Any], None]] = {
    "rates": _rates,
    "baselines": _baselines,
    "memory": _memory,
    "compile": _compile,
}
