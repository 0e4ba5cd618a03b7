"""Critical lines of finite networks over the theory of infinite ones, and how they approach it with width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, heading, new_figure, proxy, styled, words
from gradsim.theory.edge import EXISTS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"
# Lines are theory, points are measured.
INFINITE: Any = {"color": "black", "linewidth": 1.1}
NO_EDGE: Any = {"color": "black", "linewidth": 1.3, "linestyle": (0, (1, 1.3))}
FIRST_ORDER: Any = {"linewidth": 0.9, "linestyle": (0, (4, 1.5)), "zorder": 1}
POINT: Any = {"linestyle": "none", "markersize": 3.2, "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9}


def look(place: int) -> dict[str, Any]:
    """Colour and marker of the lines or points at this place; no two of the first 64 are alike."""
    colours = (*COLOURS, "0.5")
    return {"color": colours[place % 8], "marker": MARKERS[(place + place // 8) % 8]}


def spaced(axis: Axis, ticks: Sequence[float], room: float) -> list[float]:
    """The ticks in sight that lie at least `room`, a share of the axis, from those before them in the list."""
    low, high = sorted(axis.get_view_interval())
    start, end = axis.get_transform().transform(np.array([low, high]))
    seen = [tick for tick in ticks if low <= tick <= high]
    places = (axis.get_transform().transform(np.array(seen, float)) - start) / (end - start)
    kept: dict[float, float] = {}
    for tick, place in zip(seen, places.tolist(), strict=True):
        if all(abs(place - other) >= room for other in kept.values()):
            kept[tick] = place
    return sorted(kept)


@styled
def critical_lines(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """Measured critical sigma_w against sigma_b, a panel each activation and a colour each width, over theory.

    Args:
        datasets: names of activations to Datasets with `sigma_w` and `standard_error` over width and sigma_b; and
            over `line`, finer values of sigma_b, `edge_of_chaos`, the `reason` where there is none, `no_growth`
            to draw there instead, and over width too `first_order`.
    """
    columns = min(4, len(datasets))
    rows = -(-len(datasets) // columns)
    figure = new_figure(0.9 + 1.6 * rows)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for letter, ax, (name, one) in zip(LETTERS, grid, datasets.items(), strict=False):
        _lines(ax, one)
        _explain(ax, one)
        heading(ax, letter, name)
    for unused in grid[len(datasets) :]:
        unused.remove()
    for lowest in grid[max(0, len(datasets) - columns) : len(datasets)]:
        lowest.tick_params(labelbottom=True)
    figure.supxlabel(r"bias gain $\sigma_b$", fontsize=8)
    figure.supylabel(r"critical weight gain $\sigma_w$", fontsize=8)
    widths = next(iter(datasets.values()))["width"].values.tolist()
    handles = [proxy(f"measured, N = {width}", linestyle="none", markersize=4, **look(place))
               for place, width in enumerate(widths)]  # fmt: skip
    handles += [
        proxy("theory: edge of chaos, N → ∞ (Schoenholz et al. 2017)", **INFINITE),
        proxy("N → ∞, same layers, no edge", **NO_EDGE),
        proxy("theory to first order in 1/N (after Hanin & Nica 2018)", color="0.35", **FIRST_ORDER),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)  # points first, then lines
    return figure


def _lines(ax: Axes, one: xarray.Dataset) -> None:
    line = one["line"].values
    ax.plot(line, one["edge_of_chaos"], **INFINITE)
    ax.plot(line, one["no_growth"].where(one["reason"] != EXISTS), **NO_EDGE)
    for place in range(one.sizes["width"]):
        here, style = one.isel(width=place), look(place)
        ax.plot(line, here["first_order"], color=style["color"], **FIRST_ORDER)
        ax.errorbar(one["sigma_b"], here["sigma_w"], here["standard_error"], **style, **POINT)
    low, high = ax.get_ylim()
    if high - low < 0.1 * high:  # a flat line is flat: do not blow its noise up
        ax.set_ylim(low - 0.05 * high, high + 0.05 * high)


def _explain(ax: Axes, one: xarray.Dataset) -> None:
    """In words why theory has no edge, and where."""
    reasons = one["reason"].values
    missing = one["line"].values[reasons != EXISTS]
    if not missing.size:
        return
    whole = missing.size == reasons.size
    where = "no edge" if whole else f"no edge for $\\sigma_b$ < {missing.max():.1f}"
    said = "; ".join(dict.fromkeys(reasons[reasons != EXISTS].tolist()))
    why = textwrap.fill(said.replace("chi = 1", "χ\u00a0=\u00a01"), 28)
    ax.text(0.97, 0.96, f"{where}:\n{why}", transform=ax.transAxes, ha="right", va="top", fontsize=6, color="0.3")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.16 * (2 + why.count("\n")) * (high - low))  # room for the words


@styled
def finite_width_scaling(distances: Mapping[str, xarray.Dataset]) -> Figure:
    """How far the measured lines lie above infinite width, against 1/N, and the residuals of both theories.

    Args:
        distances: names of activations to Datasets over width and sigma_b with `distance`, a share of sigma_w, its
            `distance_error`, `expected` to first order in 1/N; and in standard errors `residual`, from infinite
            width, and `residual_first_order`. The first panel shows the largest sigma_b, the second all.
    """
    figure = new_figure(3.5)
    left, right = figure.subplots(1, 2)
    styles = {name: look(place) for place, name in enumerate(distances)}
    spread = np.linspace(-1, 1, len(distances)) if len(distances) > 1 else np.zeros(1)
    for offset, (name, one) in zip(spread, distances.items(), strict=True):
        _distance(left, one.isel(sigma_b=-1), 1.13**offset, styles[name])
        _residuals(right, one, 0.09 * offset, styles[name])
    first = next(iter(distances.values()))
    _finish_distances(left, first)
    _finish_residuals(right, first)
    handles = [proxy(words(name), linestyle="none", markersize=4, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside right center", title="activation", title_fontsize=7)
    return figure


def _distance(ax: Axes, one: xarray.Dataset, factor: float, style: dict[str, Any]) -> None:
    """Points in percent, side by side around their 1/N; one within two errors of zero becomes a limit."""
    x = factor / one["width"].values
    share, error = 100 * one["distance"].values, 100 * one["distance_error"].values
    clear = share > 2 * error
    ax.plot(x, 100 * one["expected"].values, color=style["color"], linewidth=0.8, zorder=1)
    ax.errorbar(x[clear], share[clear], error[clear], **style, **POINT)
    limit = (share + 2 * error)[~clear]
    ax.errorbar(x[~clear], limit, 0.3 * limit, uplims=True, fillstyle="none", **style, **POINT)  # fmt: skip


def _finish_distances(ax: Axes, one: xarray.Dataset) -> None:
    x = 1 / one["width"].values
    if x.size > 1:  # one width has no slope
        ax.plot(x, 100 * 0.4 * x, color="0.6", linewidth=1.2, linestyle=(0, (3, 2)))
        middle = np.sqrt(x[0] * x[-1])
        ax.annotate("∝ 1/N", (middle, 100 * 0.4 * middle), (4, -9), textcoords="offset points", color="0.35")
    ax.set(xscale="log", yscale="log", xlabel="1/N", ylabel=r"critical $\sigma_w$ above that of N → ∞ (%)")
    _width_ticks(ax, x, one["width"].values)
    low, high = ax.get_ylim()
    if high < 100 * low:  # two decades at least, so that there are powers of ten to read
        ax.set_ylim(0.1 * np.sqrt(low * high), 10 * np.sqrt(low * high))
    _headroom(ax)
    handles = [
        proxy("theory to first order in 1/N\n(after Hanin & Nica 2018)", color="0.35", linewidth=0.8),
        proxy("within two errors of zero: limit", color="0.35", marker="o", fillstyle="none", linestyle="none",
              markersize=4),
    ]  # fmt: skip
    ax.legend(handles=handles, loc="upper left")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.set_title(f"$\\sigma_b$ = {float(one['sigma_b'][-1]):g}")
    ax.set_title("a", loc="left", fontweight="bold")


def _width_ticks(ax: Axes, places: np.ndarray, widths: np.ndarray) -> None:
    """A tick for each width, with its name where there is room."""
    named = spaced(ax.xaxis, places.astype(float).tolist(), 0.19)
    ax.set_xticks(places, [f"1/{width}" if place in named else "" for place, width in zip(places, widths, strict=True)])
    ax.set_xticks([], minor=True)


def _headroom(ax: Axes) -> None:
    """Room above the data for a legend of three lines."""
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    ax.set_ylim(top=float(scale.inverted().transform(np.array([high + 0.27 * (high - low)]))[0]))


def _residuals(ax: Axes, one: xarray.Dataset, offset: float, style: dict[str, Any]) -> None:
    for side, name, fill in ((0.2, "residual", "none"), (-0.2, "residual_first_order", "full")):
        values = one[name].transpose("width", "sigma_b").values
        x = np.repeat(np.arange(len(values))[:, None] + side - offset, values.shape[1], axis=1)
        ax.plot(x.ravel(), values.ravel(), fillstyle=fill, linestyle="none", markersize=3, markeredgewidth=0.7, **style)


def _finish_residuals(ax: Axes, one: xarray.Dataset) -> None:
    widths = one["width"].values
    ax.axhspan(-2, 2, color="0.88", linewidth=0, zorder=0)
    ax.axhline(0, color="0.5", linewidth=0.7, zorder=0)
    ax.set_yscale("symlog", linthresh=5, linscale=1.5)
    ax.set_xlim(widths.size - 0.5, -0.5)  # 1/N rises to the right, as beside it
    _width_ticks(ax, np.arange(widths.size), widths)
    ax.set(xlabel="1/N", ylabel="measured − theory (standard errors)")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    low, high = ax.get_ylim()
    _headroom(ax)
    powers = [10.0**k for k in range(1, 300) if 10.0**k <= max(-low, high)]
    sizes = [*powers, 2.0, 5.0, 20.0, 50.0]  # where there is no room for all, whole powers of ten stay
    ticks = spaced(ax.yaxis, [0.0, *(sign * size for size in sizes for sign in (-1, 1))], 0.05)
    ax.set_yticks([tick for tick in ticks if low <= tick <= high])
    ax.set_yticks([], minor=True)
    ax.text(0.01, 1.95, "±2", transform=ax.get_yaxis_transform(), va="top", fontsize=6.5, color="0.35")
    handles = [proxy(name, color="0.35", marker="o", fillstyle=fill, linestyle="none", markersize=4)
               for name, fill in (("from N → ∞", "none"), ("from first order in 1/N", "full"))]  # fmt: skip
    ax.legend(handles=handles, loc="upper left")
    ax.set_title(r"every $\sigma_b$")
    ax.set_title("b", loc="left", fontweight="bold")
