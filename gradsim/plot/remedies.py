"""The cures: lines and a table of them all, and residual phase diagrams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.growth import growth
from gradsim.plot.maps import MEASURED, THEORIES, phase_diagram
from gradsim.plot.memory import with_error
from gradsim.plot.style import (
    COLOURS,
    LETTERS,
    MAP,
    heading,
    label,
    legend_above,
    new_figure,
    powers_of_ten,
    proxy,
    styled,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = math.log(10)
AXES = {"depth": ("over depth", "depth (layer)"), "time": ("over time", "sequence length (step)")}
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.3)), (0, (1.2, 1.1)), (0, (4, 1.2, 1, 1.2)))
# Right edges of the table's columns of numbers, as shares of its width, under these heads.
HEADS = {"growth (nat/{})": 0.635, "horizon ({}s)": 0.925, "dead": 1.02}
ARROWS = {"falls": "\u2193", "grows": "\u2191"}
LEFT = -0.1  # the table begins beneath the labels of the axis above


@styled
def remedies(datasets: Mapping[str, xarray.Dataset], table: xarray.Dataset) -> Figure:
    """The gradient through networks of each depth and length, and beneath each panel its table.

    Lines are geometric means over networks, bands hold 80 % of them; the names in the table have their colours.

    Args:
        datasets: titles to forward sweeps of `log_gain`, with the axes seed and depth or time and the attribute
            `kind`: each kind has one colour, with other dashes for each member.
        table: over `network`, the titles: growth, horizon and dead, as `scripts/remedies.py` finds them.
    """
    groups = {axis: [name for name, one in datasets.items() if axis in one.dims] for axis in AXES}
    groups = {axis: names for axis, names in groups.items() if names}
    if not groups:
        raise ValueError("datasets: none has an axis depth or time; pass forward sweeps, one for each network")
    rows = max(map(len, groups.values()))
    kinds = {name: str(one.attrs.get("kind", name)) for name, one in datasets.items()}
    drawn = dict.fromkeys(kinds.values())
    colours = {"baseline": "black"} if "baseline" in drawn else {}
    colours |= dict(zip([kind for kind in drawn if kind != "baseline"], COLOURS, strict=False))
    figure = new_figure(3.2 + 0.15 * (rows + 4.5), 3.5 * len(groups))
    above, below = ("lines", "names"), ("table", "table")
    layout: Any = [[f"{place} {axis}" for axis in groups for place in row] for row in (above, below)]
    places: Any = figure.subplot_mosaic(
        layout, width_ratios=[1.3, 1] * len(groups), height_ratios=[2.9, 0.15 * (rows + 3.5)]
    )
    for letter, (axis, names) in zip(LETTERS, groups.items(), strict=False):
        styles = _styles({name: kinds[name] for name in names}, colours)
        lines = places[f"lines {axis}"]
        _curves(lines, {name: datasets[name]["log_gain"] / LN10 for name in names}, axis, styles)
        heading(lines, letter, AXES[axis][0])
        places[f"names {axis}"].set_axis_off()  # room for the names of the lines
        _table(places[f"table {axis}"], table.sel(network=names), rows, styles)
    notes = (
        f"horizon: where it has fallen \u2193 or grown \u2191 {table.attrs['factor']:g}-fold",
        "dead: gradient exactly 0; growth: of the second half",
        "lines: geometric means; bands: 80 % of networks",
    )
    for line, note in enumerate(notes):
        places[f"table {next(iter(groups))}"].text(LEFT, rows + 1.15 + 0.75 * line, note, fontsize=6, color="0.35",
                                                   va="center", in_layout=False)  # fmt: skip
    places[layout[0][0]].set_ylabel(r"gradient $\|\partial h_L\,/\,\partial h_0\|\;/\,\sqrt{n}$")
    handles = [proxy(kind, color=colour, linewidth=2) for kind, colour in colours.items()]
    legend_above(figure, handles)
    return figure


def _styles(kinds: Mapping[str, str], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The colour of its kind for each network, and dashes for the members of a kind."""
    seen: dict[str, int] = {}
    styles = {}
    for name, kind in kinds.items():
        member = seen[kind] = seen.get(kind, -1) + 1
        thick = 2.2 if kind == "baseline" else 1.3
        styles[name] = {"color": colours[kind], "linestyle": DASHES[member % 4], "linewidth": thick}
    return styles


def _curves(ax: Axes, gains: Mapping[str, xarray.DataArray], axis: str, styles: Mapping[str, dict[str, Any]]) -> None:
    lowest, highest = 0.0, 0.0
    for name, gain in gains.items():
        living = gain.dropna(axis, how="all")  # a line ends where the last network dies
        steps = np.append(0, living[axis].values)
        low, high = (np.append(0, living.quantile(share, "seed").values) for share in (0.1, 0.9))
        ax.fill_between(steps, low, high, color=styles[name]["color"], alpha=0.15, linewidth=0)
        ax.plot(steps, np.append(0, living.mean("seed").values), **styles[name])
        lowest, highest = min(lowest, float(low.min())), max(highest, float(high.max()))
    ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    for word, height, side in (("explodes", 0.97, "top"), ("vanishes", 0.03, "bottom")):
        ax.text(0.03, height, word, transform=ax.transAxes, va=side, style="italic", color="0.35")
    ax.set_xlim(0, gain.sizes[axis])
    ax.set_xlabel(AXES[axis][1])
    powers_of_ten(ax, lowest, highest, room=0.13, ticks=7)  # the words lie above and below all lines
    ax.spines[["top", "right"]].set_visible(False)
    _end_labels(ax, {name: float(gain.isel({axis: -1}).mean("seed")) for name, gain in gains.items()}, styles)


def _end_labels(ax: Axes, ends: Mapping[str, float], styles: Mapping[str, dict[str, Any]]) -> None:
    """The names at the ends of their lines, pushed apart where they would overlap, with a leader to the line."""
    order = sorted((name for name in ends if np.isfinite(ends[name])), key=ends.__getitem__)
    places = _apart(np.array([ends[name] for name in order]), 0.055 * float(np.ptp(ax.get_ylim())))
    for name, place in zip(order, places, strict=True):
        colour = styles[name]["color"]
        written = ax.annotate(
            name, (1.0, ends[name]), (1.07, place), xycoords=ax.get_yaxis_transform(), fontsize=6.5, va="center",
            color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
        written.set_in_layout(False)


def _apart(values: np.ndarray, room: float) -> np.ndarray:
    """The rising values moved as little as possible so that neighbours are at least `room` apart."""
    from scipy.optimize import isotonic_regression

    offset = room * np.arange(len(values))
    return np.asarray(isotonic_regression(values - offset).x + offset) if values.size else values


def _table(ax: Axes, table: xarray.Dataset, rows: int, styles: Mapping[str, dict[str, Any]]) -> None:
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(rows + 3, -0.8)
    unit = "layer" if table["axis"].values[0] == "depth" else "step"
    for head, place in HEADS.items():
        ax.text(place, -0.3, head.format(unit), ha="right", va="center", fontsize=6.3, color="0.3")
    ax.plot([LEFT, 1.02], [0.25, 0.25], color="0.6", linewidth=0.5, clip_on=False)
    for row, name in enumerate(table["network"].values.tolist(), start=1):
        one = {str(key): value.item() for key, value in table.sel(network=name).data_vars.items()}
        style = styles[name]
        ax.plot([LEFT, LEFT + 0.06], [row - 0.02] * 2, clip_on=False, **style)
        ax.text(LEFT + 0.075, row, name, va="center", fontsize=6.3, color=style["color"])
        cells = (with_error(one["growth"], one["growth_error"]), _horizon(one), f"{one['dead']:.0%}")
        for text, place in zip(cells, HEADS.values(), strict=True):
            ax.text(
                place, row, text.replace("-", "\u2212").replace("nan", "\u2013"), ha="right", va="center", fontsize=6.3
            )


def _horizon(one: Mapping[str, Any]) -> str:
    if one["change"] == "holds":
        return f"> {one['steps']:,}"
    return f"{with_error(one['horizon'], one['horizon_error'])} {ARROWS[one['change']]}"


@styled
def residual_diagram(maps: Mapping[str, xarray.Dataset], branches: Mapping[str, xarray.Dataset]) -> Figure:
    """Growth over weight and bias gain without and with the skip, above log gain over branch gain and depth.

    Lines are where the gradient does not grow (above) or, where `growth_theory` is given, grows as fast as is written
    on them; and where it has grown by a factor of 10 and of 1,000 (below).

    Args:
        maps: two sweeps for `phase_diagram`, with `edge_of_chaos` over sigma_b (NaN for none), and `growth_theory`
            over both gains or none.
        branches: two sweeps over branch_gain, with `theory` over branch_gain and depth, the predicted log gain.
    """
    figure = new_figure(5.4)
    axes = figure.subplots(2, 2)
    phase_diagram(maps, axes=list(axes[0]))
    axes[0, 0].get_legend().remove()
    for ax, one in zip(axes[0], maps.values(), strict=True):
        if "growth_theory" in one:
            _growth_lines(ax, one)
    for letter, ax, (title, one) in zip("cd", axes[1], branches.items(), strict=True):
        mesh = _branch_map(ax, one)
        heading(ax, letter, title)
    bar = figure.colorbar(mesh, ax=axes[1], extend="both", aspect=30, pad=0.02, ticks=[-100, -10, -1, 0, 1, 10, 100])
    bar.ax.set_yticklabels([f"{tick:+.0f}".replace("-", "\u2212") if tick else "0" for tick in bar.get_ticks()])
    bar.set_label("log gain (nat)")
    papers = "a Schoenholz et al. 2017; b, c, d Yang & Schoenholz 2017"
    handles = [proxy("measured", **MEASURED), proxy(f"theory, infinite width ({papers})", **THEORIES[0])]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _growth_lines(ax: Axes, dataset: xarray.Dataset) -> None:
    """Where the gradient grows at a few rates, measured and in theory, with the rate on the theory's line."""
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    measured, predicted = (one.transpose("sigma_b", "sigma_w") for one in (growth(dataset), dataset["growth_theory"]))
    x, y = measured["sigma_w"].values, measured["sigma_b"].values
    low, high = float(predicted.min()), float(predicted.max())
    # Close to the largest, where the map is flat, the measured line is all noise.
    for level in [tick for tick in MaxNLocator(3).tick_values(low, high) if low < tick < 0.8 * high]:
        lines = _both(ax, x, y, measured.values, predicted.values, level)
        lowest = min(lines.allsegs[0][0], key=lambda point: point[1])
        ax.annotate(f"{level:.2g} nat/layer", lowest, (7, 6), textcoords="offset points", fontsize=6.5,
                    path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


def _both(ax: Axes, x: np.ndarray, y: np.ndarray, measured: np.ndarray, theory: np.ndarray, level: float) -> Any:
    """Both contours at this level; returns the theory's."""
    for field, style in ((measured, MEASURED), (theory, THEORIES[0])):
        lines = ax.contour(
            x, y, field, levels=[level], colors=style["color"], linewidths=style["linewidth"],
            linestyles=[style.get("linestyle", "solid")],
        )  # fmt: skip
    return lines


def _branch_map(ax: Axes, dataset: xarray.Dataset) -> Any:
    """Log gain over branch gain and depth, and where it has grown tenfold and thousandfold: measured, and in theory."""
    from matplotlib.colors import SymLogNorm

    last = dataset.sizes["depth"]
    shown = np.unique(np.geomspace(1, last, 60).round().astype(int))  # evenly on the logarithmic axis
    one = dataset.sel(depth=shown).transpose(..., "depth", "branch_gain")
    x, y, values = one["branch_gain"].values, one["depth"].values, one["log_gain"].mean("seed").values
    norm = SymLogNorm(linthresh=1, vmin=-100, vmax=100)
    mesh = ax.pcolormesh(x, y, values, norm=norm, cmap=MAP, shading="gouraud", rasterized=True)
    ax.set(xscale="log", yscale="log", xlabel=label(one["branch_gain"]), ylabel="depth (layer)")
    for factor in (1, 3):
        lines = _both(ax, x, y, values, one["theory"].values, factor * LN10)
        for segment in [part for part in lines.allsegs[0] if len(part)][:1]:
            place = segment[len(segment) // 2]
            left = factor == 1 and place[0] > (x[0] ** 3 * x[-1]) ** 0.25  # of its line, but not on the frame
            ax.annotate(f"\u00d7{10**factor}", place, (-4 if left else 4, 0), textcoords="offset points",
                        ha="right" if left else "left", va="center", fontsize=6.5)  # fmt: skip
    return mesh
