"""Critical lines of finite networks over the theory of infinite ones, and how they approach it with width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, heading, new_figure, proxy, styled, words
from gradsim.theory.edge import EXISTS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"
# Lines are theory, points are measured.
INFINITE: Any = {"color": "black", "linewidth": 1.1}
NO_EDGE: Any = {"color": "black", "linewidth": 1.3, "linestyle": (0, (1, 1.3))}
FIRST_ORDER: Any = {"linewidth": 0.9, "linestyle": (0, (4, 1.5)), "zorder": 1}
POINT: Any = {"linestyle": "none", "markersize": 3.2, "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9}


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
    figure.supxlabel(r"bias gain $\sigma_b$", fontsize=8)
    figure.supylabel(r"critical weight gain $\sigma_w$", fontsize=8)
    widths = next(iter(datasets.values()))["width"].values.tolist()
    handles = [proxy(f"measured, N = {width}", color=colour, marker=marker, linestyle="none", markersize=4)
               for width, colour, marker in zip(widths, COLOURS, MARKERS, strict=False)]  # fmt: skip
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
    for width, colour, marker in zip(one["width"].values, COLOURS, MARKERS, strict=False):
        here = one.sel(width=width)
        ax.plot(line, here["first_order"], color=colour, **FIRST_ORDER)
        ax.errorbar(one["sigma_b"], here["sigma_w"], here["standard_error"], color=colour, fmt=marker, **POINT)
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
    ax.set_ylim(low, high + 0.35 * (high - low))


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
    styles = {
        name: {"color": (*COLOURS, "0.5")[place % 8], "marker": MARKERS[place % 8]}
        for place, name in enumerate(distances)
    }
    spread = np.linspace(-1, 1, len(distances)) if len(distances) > 1 else np.zeros(1)
    for offset, (name, one) in zip(spread, distances.items(), strict=True):
        _distance(left, one.isel(sigma_b=-1), 1.13**offset, styles[name])
        _residuals(right, one, 0.09 * offset, styles[name])
    last = next(iter(distances.values()))
    _finish_distances(left, last)
    _finish_residuals(right, last)
    handles = [proxy(words(name), linestyle="none", markersize=4, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside right center", title="activation", title_fontsize=7)
    return figure


def _distance(ax: Axes, one: xarray.Dataset, factor: float, style: dict[str, Any]) -> None:
    """Points in percent, side by side around their 1/N; one within two errors of zero becomes a limit."""
    x = factor / one["width"].values
    share, error = 100 * one["distance"].values, 100 * one["distance_error"].values
    clear = share > 2 * error
    ax.plot(x, 100 * one["expected"].values, color=style["color"], linewidth=0.8, zorder=1)
    ax.errorbar(x[clear], share[clear], error[clear], color=style["color"], fmt=style["marker"], **POINT)
    limit = (share + 2 * error)[~clear]
    ax.errorbar(x[~clear], limit, 0.3 * limit, uplims=True, color=style["color"], fmt=style["marker"],
                fillstyle="none", **POINT)  # fmt: skip


def _finish_distances(ax: Axes, one: xarray.Dataset) -> None:
    x = 1 / one["width"].values
    bottom = 100 * 0.4 * x
    ax.plot(x, bottom, color="0.6", linewidth=1.2, linestyle=(0, (3, 2)))
    ax.annotate("∝ 1/N", (x[x.size // 2], bottom[x.size // 2]), (4, -9), textcoords="offset points", color="0.35")
    ax.set(xscale="log", yscale="log", xlabel="1/N", ylabel=r"critical $\sigma_w$ above that of N → ∞ (%)")
    small = 7 if x.size < 5 else 5.5
    ax.set_xticks(x, [f"1/{width}" for width in one["width"].values], fontsize=small)
    ax.set_xticks([], minor=True)
    handles = [
        proxy("theory to first order in 1/N\n(after Hanin & Nica 2018)", color="0.35", linewidth=0.8),
        proxy("within two errors of zero: limit", color="0.35", marker="o", fillstyle="none", linestyle="none",
              markersize=4),
    ]  # fmt: skip
    ax.legend(handles=handles, loc="upper left")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * max(4.0, (high / low) ** 0.4))  # room for the legend
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_title(f"$\\sigma_b$ = {float(one['sigma_b'][-1]):g}")
    ax.set_title("a", loc="left", fontweight="bold")


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
    ax.set_xticks(range(widths.size), [f"1/{width}" for width in widths], fontsize=7 if widths.size < 5 else 5.5)
    ax.set_xlim(widths.size - 0.5, -0.5)  # 1/N rises to the right, as beside it
    ax.set(xlabel="1/N", ylabel="measured − theory (standard errors)")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    low, high = ax.get_ylim()
    ends: tuple[float, ...] = (-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50, 100)
    if max(-low, high) > 100:  # then whole powers of ten, five on a side at most
        apart = -(-int(np.log10(max(-low, high))) // 5)
        sizes = [10.0 ** (1 + apart * k) for k in range(5)]
        ends = (*(-size for size in sizes), 0, *sizes)
    ax.set_yticks([tick for tick in ends if low <= tick <= high])
    ax.set_yticks([], minor=True)
    ax.set_ylim(low, 4 * high)  # room for the legend
    ax.text(0.01, 1.95, "±2", transform=ax.get_yaxis_transform(), va="top", fontsize=6.5, color="0.35")
    handles = [proxy(name, color="0.35", marker="o", fillstyle=fill, linestyle="none", markersize=4)
               for name, fill in (("from N → ∞", "none"), ("from first order in 1/N", "full"))]  # fmt: skip
    ax.legend(handles=handles, loc="upper left")
    ax.set_title(r"every $\sigma_b$")
    ax.set_title("b", loc="left", fontweight="bold")
