"""Two inputs through one network: how alike states and gradients stay by depth, and the depth scale over two gains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.critical import look
from gradsim.plot.style import cell_edges, heading, label, legend_above, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINT: Any = {"linestyle": "none", "markersize": 3, "elinewidth": 0.8}
LEVELS = (1, 2, 3, 5, 10, 20, 50)
LOWEST = 3e-4  # of a correlation that is drawn: below it noise is left
CUTS = 3


@styled
def two_inputs(profiles: Mapping[str, xarray.Dataset], scale: xarray.Dataset) -> Figure:
    """1 − c of two states and the correlation g of two gradients against depth, and the map and cuts of ξ_c.

    Args:
        profiles: titles to Datasets over depth with `decorrelation` and `gradient`, each with `_error` and, where there
            is one, `_theory`.
        scale: over sigma_w and sigma_b `xi_c` and `xi_c_error`; over `line`, finer values of sigma_w, and sigma_b
            `theory`; over sigma_b `edge`.
    """
    figure = new_figure(5.6)
    axes = figure.subplots(2, 2)
    for place, one in enumerate(profiles.values()):
        for ax, part in zip(axes[0], ("decorrelation", "gradient"), strict=True):
            _profile(ax, one, part, look(place))
    titles = ("states", "gradients")
    labels = (r"$1-c$ of the states", r"correlation $g$ of the gradients")
    for ax, letter, title, name in zip(axes[0], "ab", titles, labels, strict=True):
        heading(ax, letter, title)
        ax.set(xscale="log", yscale="log", xlabel="depth (layer)", ylabel=name)
        ax.spines[["top", "right"]].set_visible(False)
        _whole_ticks(ax, max(int(one["depth"][-1]) for one in profiles.values()))
    for ax, part in zip(axes[0], ("decorrelation", "gradient"), strict=True):
        ax.set_ylim(max(LOWEST, min(_lowest(one, part) for one in profiles.values()) / 2), 1.6)
    _powers(axes[0, 1])
    _map(figure, axes[1, 0], scale)
    _cuts(axes[1, 1], scale)
    handles = [proxy(name, markersize=4, linewidth=0, **look(place)) for place, name in enumerate(profiles)]
    handles.append(proxy("mean-field theory", color="0.3", linewidth=1.1))
    legend_above(figure, handles, columnspacing=1.2)
    return figure


def _lowest(one: xarray.Dataset, part: str) -> float:
    """The smallest value that is known to a half."""
    values = one[part].where(one[part] > 2 * one[f"{part}_error"])
    return float(values.min()) if bool(values.notnull().any()) else 1.0


def _profile(ax: Axes, one: xarray.Dataset, part: str, style: dict[str, Any]) -> None:
    """Points where the mean is known to a half, as many in every octave, and theory as a line."""
    depth = one["depth"].values
    few = np.unique(np.geomspace(1, depth[-1], 14).round().astype(int)) - 1
    values, errors = one[part].values[few], one[f"{part}_error"].values[few]
    seen = values > 2 * errors
    ax.errorbar(depth[few][seen], values[seen], errors[seen], fmt=style["marker"], color=style["color"], **POINT)
    if f"{part}_theory" in one:
        ax.plot(depth, one[f"{part}_theory"].values, color=style["color"], linewidth=1.1)


def _powers(ax: Axes) -> None:
    """Slopes to compare with."""
    bottom, _ = ax.get_ylim()
    at = np.array([1.25, 2.6])
    for power, start, name in ((-3, 36, "$L^{-3}$"), (-2, 9, "$L^{-2}$")):
        values = start * bottom * (at / at[0]) ** power
        ax.plot(at, values, color="0.45", linewidth=0.8, linestyle=(0, (2, 1.5)))
        ax.annotate(name, (at[0], values[0]), xytext=(-2, 0), textcoords="offset points", ha="right", va="center",
                    fontsize=7, color="0.3")  # fmt: skip


def _whole_ticks(ax: Axes, last: int) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick <= last]
    ax.set_xlim(0.9, last * 1.15)
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def _map(figure: Figure, ax: Axes, scale: xarray.Dataset) -> None:
    """Colour is measured, white where no lags are resolved; black lines and numbers are theory's."""
    from matplotlib.colors import LogNorm

    one = scale.transpose("sigma_w", "line", "sigma_b")
    w, b = one["sigma_w"].values, one["sigma_b"].values
    measured = np.where(np.isfinite(one["xi_c"].values), one["xi_c"].values, np.nan)
    norm = LogNorm(LEVELS[0], LEVELS[-1])
    mesh = ax.pcolormesh(cell_edges(w), cell_edges(b), measured.T, cmap="viridis", norm=norm, rasterized=True)
    theory = np.log(np.minimum(one["theory"].transpose("line", "sigma_b").values, 1e6))
    if np.nanmin(theory) < np.log(LEVELS[4]) and np.nanmax(theory) > np.log(LEVELS[1]):
        lines = ax.contour(one["line"].values, b, theory.T, np.log(LEVELS[1:5]), colors="white", linewidths=0.8)
        ax.clabel(lines, fmt=lambda level: f"{np.exp(level):.0f}", fontsize=6.5)
    ax.plot(one["edge"].values, b, color="black", linewidth=1.3)
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, extend="max")
    bar.set_label(r"measured $\xi_c$ (layer)")
    bar.set_ticks(LEVELS, labels=[str(level) for level in LEVELS])
    bar.ax.minorticks_off()
    heading(ax, "c", "depth scale")
    ax.set(xlabel=label(one["sigma_w"]), ylabel=label(one["sigma_b"]), xlim=cell_edges(w)[[0, -1]],
           ylim=cell_edges(b)[[0, -1]])  # fmt: skip


def _cuts(ax: Axes, scale: xarray.Dataset) -> None:
    """ξ_c against sigma_w at some sigma_b: points measured, lines theory."""
    places = np.unique(np.linspace(0, scale.sizes["sigma_b"] - 1, CUTS).round().astype(int))
    for place, row in enumerate(places):
        one, style = scale.isel(sigma_b=row).sortby("sigma_w"), look(place)
        seen = np.isfinite(one["xi_c"].values) & (one["xi_c_error"].values < one["xi_c"].values)
        points = one.isel(sigma_w=seen)
        ax.errorbar(points["sigma_w"], points["xi_c"], points["xi_c_error"], fmt=style["marker"], color=style["color"],
                    label=f"$\\sigma_b$ = {float(one['sigma_b']):.2g}", **POINT)  # fmt: skip
        ax.plot(one["line"], one["theory"], color=style["color"], linewidth=1.1)
    heading(ax, "d", "measured and theory")
    ax.set(yscale="log", xlabel=label(scale["sigma_w"]), ylabel=r"depth scale $\xi_c$ (layer)", ylim=(0.3, 200))
    ax.set_yticks([1, 10, 100], ["1", "10", "100"])
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False, loc="upper right")
