"""The cures: lines and a table of them all, and residual phase diagrams."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.growth import growth
from gradsim.plot.maps import MEASURED, THEORIES, phase_diagram
from gradsim.plot.memory import with_error
from gradsim.plot.style import COLOURS, LETTERS, MAP, heading, label, legend_above, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = math.log(10)
AXES = {"depth": ("over depth", "depth (layer)"), "time": ("over time", "sequence length (step)")}
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.3)), (0, (1.2, 1.1)), (0, (4, 1.2, 1, 1.2)))
# Right edges of the table's columns of numbers, as shares of its width, under these heads.
HEADS = {"growth (nat/{})": 0.65, "horizon ({}s)": 0.92, "dead": 1.0}
ARROWS = {"falls": "\u2193", "grows": "\u2191"}
ROW = 0.15  # inches
LONGEST = 27  # letters of a name; of a longer one the beginning


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
    colours = _colours(kinds)
    # Lines as high as their names need, then the tables and their two notes, which two tables share.
    heights = [max(3.2, 0.8 + 0.17 * rows), ROW * (rows + 3 if len(groups) == 2 else rows + 4)]
    figure = new_figure(sum(heights), 3.5 * len(groups))
    halves: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = halves
    room = min(2.0, max(1.3, 0.055 * max(map(len, map(_short, kinds)))))  # inches of the 3 for the names of the lines
    places = above.subplots(1, 2 * len(groups), width_ratios=[3 - room, room] * len(groups))
    tables = below.subplots(1, len(groups), squeeze=False)[0]
    for k, (axis, names) in enumerate(groups.items()):
        styles = _styles({name: kinds[name] for name in names}, colours)
        _curves(places[2 * k], {name: datasets[name]["log_gain"] / LN10 for name in names}, axis, styles)
        names_at_ends(places[2 * k], _ends(datasets, names, axis), styles, room=0.16 / heights[0])
        heading(places[2 * k], LETTERS[k] if len(groups) > 1 else "", AXES[axis][0])
        places[2 * k + 1].set_axis_off()
        _table(tables[k], table.sel(network=names), heights[1] / ROW, styles)
    _notes(tables, rows, float(table.attrs["factor"]))
    places[0].set_ylabel(r"gradient $\|\partial h_L\,/\,\partial h_0\|\;/\,\sqrt{n}$")
    legend_above(figure, [proxy(kind, color=colour, linewidth=2) for kind, colour in colours.items()])
    return figure


def _colours(kinds: Mapping[str, str]) -> dict[str, str]:
    """Of the kinds that are drawn: black the baseline, which comes first, and six for the others in turn."""
    drawn = list(dict.fromkeys(kinds.values()))
    others = [kind for kind in drawn if kind != "baseline"]
    first = {"baseline": "black"} if "baseline" in drawn else {}
    return first | {kind: COLOURS[place % 6] for place, kind in enumerate(others)}


def _short(name: str) -> str:
    return textwrap.shorten(name, LONGEST, placeholder=" \u2026") if len(name) > LONGEST else name


def _ends(datasets: Mapping[str, xarray.Dataset], names: list[str], axis: str) -> dict[str, float]:
    """The last power of ten of each line, NaN where every network is dead."""
    return {name: float(datasets[name]["log_gain"].isel({axis: -1}).mean("seed")) / LN10 for name in names}


def _styles(kinds: Mapping[str, str], colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The colour of its kind for each network, and dashes for the members of a colour."""
    seen: dict[str, int] = {}
    styles = {}
    for name, kind in kinds.items():
        member = seen[colours[kind]] = seen.get(colours[kind], -1) + 1
        thick = 2.2 if kind == "baseline" else 1.3
        styles[name] = {"color": colours[kind], "linestyle": DASHES[member % 4], "linewidth": thick}
    return styles


def _curves(ax: Axes, gains: Mapping[str, xarray.DataArray], axis: str, styles: Mapping[str, dict[str, Any]]) -> None:
    for name, gain in gains.items():
        living = gain.dropna(axis, how="all")  # a line ends where the last network dies
        steps = np.append(0, living[axis].values)
        bands = living.quantile([0.1, 0.9], "seed")
        low, high = (np.append(0, bands.sel(quantile=share).values) for share in (0.1, 0.9))
        ax.fill_between(steps, low, high, color=styles[name]["color"], alpha=0.15, linewidth=0)
        ax.plot(steps, np.append(0, living.mean("seed").values), **styles[name])
    ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    for word, height, side in (("explodes", 0.97, "top"), ("vanishes", 0.03, "bottom")):
        ax.text(0.03, height, word, transform=ax.transAxes, va=side, style="italic", color="0.35")
    ax.set_xlim(0, gain.sizes[axis])
    ax.set_xlabel(AXES[axis][1])
    _powers(ax, *ax.dataLim.intervaly)


def _powers(ax: Axes, low: float, high: float) -> None:
    """Whole powers of ten: a decade at each side of a flat line, and room above and below 1 for the words."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if high - low < 2:
        low, high = min(low, -1.0), max(high, 1.0)
    span = high - low
    ax.set_ylim(min(low - 0.05 * span, -0.13 * span), max(high + 0.05 * span, 0.13 * span))
    ax.yaxis.set_major_locator(MaxNLocator(7, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"$10^{{{tick:.0f}}}$" if tick else "1"))
    ax.spines[["top", "right"]].set_visible(False)


def names_at_ends(
    ax: Axes,
    ends: Mapping[str, float],
    styles: Mapping[str, dict[str, Any]],
    room: float,
    titles: Mapping[str, str] | None = None,
) -> None:
    """The names at the ends of their lines, `room` of the axis apart, with a leader to the line.

    Names that are given titles take part in the layout; the others have a place kept for them.
    """
    order = sorted((name for name in ends if np.isfinite(ends[name])), key=ends.__getitem__)
    low, high = ax.get_ylim()
    places = _apart(np.array([ends[name] for name in order]), room * (high - low), low, high)
    for name, place in zip(order, places, strict=True):
        colour = styles[name]["color"]
        written = ax.annotate(
            titles[name] if titles else _short(name), (1.0, ends[name]), (1.07, place), color=colour, fontsize=6.5,
            xycoords=ax.get_yaxis_transform(), va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
        written.set_in_layout(titles is not None)


def _apart(values: np.ndarray, room: float, low: float = -math.inf, high: float = math.inf) -> np.ndarray:
    """The rising values moved as little as possible so that neighbours are at least `room` apart, within the bounds."""
    from scipy.optimize import isotonic_regression

    if not values.size:
        return values
    offset = min(room, (high - low) / values.size) * np.arange(len(values))
    return np.asarray(np.clip(isotonic_regression(values - offset).x, low, high - offset[-1]) + offset)


def _notes(tables: Any, rows: int, factor: float) -> None:
    """What the words mean, beneath two tables or in two lines beneath one."""
    notes = (
        f"horizon: where it has fallen \u2193 or grown \u2191 {factor:g}-fold; dead: gradient exactly 0",
        "growth: of the second half; lines: geometric means; bands: 80 % of networks",
    )
    for line, note in enumerate(notes):
        ax, row = (tables[line], 1.15) if len(tables) == 2 else (tables[0], 1.15 + 0.8 * line)
        ax.text(0, rows + row, note, fontsize=6, color="0.35", va="center", in_layout=False)


def _table(ax: Axes, table: xarray.Dataset, height: float, styles: Mapping[str, dict[str, Any]]) -> None:
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(height - 1, -0.9)  # a row is one high
    unit = "layer" if table["axis"].values[0] == "depth" else "step"
    for head, place in HEADS.items():
        ax.text(place, -0.3, head.format(unit), ha="right", va="center", fontsize=6.3, color="0.3")
    ax.plot([0, 1], [0.25, 0.25], color="0.6", linewidth=0.5, clip_on=False)
    for row, name in enumerate(table["network"].values.tolist(), start=1):
        one = {str(key): value.item() for key, value in table.sel(network=name).data_vars.items()}
        style = styles[name]
        ax.plot([0, 0.055], [row - 0.02] * 2, clip_on=False, **style)
        ax.text(0.07, row, _short(name), va="center", fontsize=6.3, color=style["color"])
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
    from matplotlib.ticker import MaxNLocator

    measured, predicted = (one.transpose("sigma_b", "sigma_w") for one in (growth(dataset), dataset["growth_theory"]))
    x, y = measured["sigma_w"].values, measured["sigma_b"].values
    low, high = float(predicted.min()), float(predicted.max())
    # Close to the largest, where the map is flat, the measured line is all noise.
    for level in [tick for tick in MaxNLocator(3).tick_values(low, high) if low < tick < 0.8 * high]:
        line = _both(ax, x, y, measured.values, predicted.values, level)
        if len(line):
            _say(ax, f"{level:.2g} nat/layer", line[line[:, 1].argmin()], right=True)


def _both(ax: Axes, x: np.ndarray, y: np.ndarray, measured: np.ndarray, theory: np.ndarray, level: float) -> Any:
    """Both contours at this level; returns the theory's points [point, 2], none where it has no such level."""
    for field, style in ((measured, MEASURED), (theory, THEORIES[0])):
        lines = ax.contour(
            x, y, field, levels=[level], colors=style["color"], linewidths=style["linewidth"],
            linestyles=[style.get("linestyle", "solid")],
        )  # fmt: skip
    return max(lines.allsegs[0], key=len, default=np.empty((0, 2)))


def _say(ax: Axes, words: str, point: np.ndarray, *, right: bool) -> None:
    """The words beside a line's point, above right or below left of it, inside the map and clear of other words."""
    from matplotlib.patheffects import withStroke

    def share(place: Any) -> np.ndarray:
        return np.asarray(ax.transAxes.inverted().transform(ax.transData.transform(place)))

    wide, high = 0.024 * len(words) + 0.02, 0.085  # shares of the map that they take
    centre = share(point) + (1 if right else -1) * np.array([0.5 * wide + 0.01, 0.05])
    x, y = np.clip(centre, (0.5 * wide, 0.06), (1 - 0.5 * wide, 0.94))
    taken = [(*share(text.get_position()), 0.024 * len(text.get_text()) + 0.02) for text in ax.texts]
    while y < 0.9 and any(abs(x - a) < (wide + width) / 2 and abs(y - b) < high for a, b, width in taken):
        y += 0.5 * high
    at, up = ax.transData.inverted().transform(ax.transAxes.transform((x, y))).tolist()
    ax.text(at, up, words, fontsize=6.5, ha="center", va="center",
            path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


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
        line = _both(ax, x, y, values, one["theory"].values, factor * LN10)
        if len(line):  # the words in the middle of the line, so that they lie in the map
            _say(ax, f"\u00d7{10**factor}", line[len(line) // 2], right=factor > 1)
    return mesh
