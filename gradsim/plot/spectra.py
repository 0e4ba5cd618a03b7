"""All singular values: their densities over the theory's, and condition numbers over gain, depth and families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, heading, legend_above, new_figure, proxy, styled, words

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOWEST = 1e-3  # of a density that is drawn
_LEFT = -24.0  # ln σ, beyond which only a tail goes on


@styled
def singular_values(densities: Mapping[str, xarray.Dataset]) -> Figure:
    """Densities of ln σ, a row each law of weights, a column each activation and a colour each depth.

    Points are measured, with standard errors; lines are theory.

    Args:
        densities: "activation, law" to Datasets as `scripts/singular_values.py` finds them: over depth and bin
            log_sigma, density and density_error; over depth and point theory_log_sigma and theory; over depth zero,
            spread, theory_zero, theory_isometric and theory_log_isometric.
    """
    laws = list(dict.fromkeys(title.rpartition(", ")[2] for title in densities))
    names = list(dict.fromkeys(title.rpartition(", ")[0] for title in densities))
    figure = new_figure(0.8 + 1.75 * len(laws))
    grid = figure.subplots(len(laws), len(names), squeeze=False, sharey=True)
    for letter, ax, title in zip(LETTERS, grid.ravel(), (f"{n}, {w}" for w in laws for n in names), strict=False):
        _densities(ax, densities[title])
        name = title.rpartition(", ")[0]
        heading(ax, letter, {"identity": "linear"}.get(name, words(name)))
    for row, law in zip(grid, laws, strict=True):
        row[0].set_ylabel(f"{law.capitalize()} weights")
    top = max(float(one["density"].max()) for one in densities.values())
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_ylim(_LOWEST, 3 * max(top, 10 * _LOWEST))  # a theory may be infinite at its edge
    figure.supxlabel(r"log singular value $\ln\,\sigma$ (nat)", fontsize=8)
    figure.supylabel(r"density of $\ln\,\sigma$ (1/nat)", fontsize=8)
    depths = next(iter(densities.values()))["depth"].values.tolist()
    handles = [proxy(f"depth {depth}", color=COLOURS[place], linewidth=3) for place, depth in enumerate(depths)]
    handles += [
        proxy("measured", color="0.3", marker="o", markersize=2.5, linestyle="none"),
        proxy("theory, infinite width (Pennington et al. 2018)", color="0.3", linewidth=1.0),
    ]
    legend_above(figure, handles)
    return figure


def _densities(ax: Axes, one: xarray.Dataset) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = 0.0, 0.0
    for colour, depth in zip(COLOURS, one["depth"].values, strict=False):
        here = one.sel(depth=depth)
        if float(here["theory_isometric"]) < 1:
            theory = here["theory"].where(here["theory"] > 0)
            ax.plot(here["theory_log_sigma"], theory, color=colour, linewidth=1.0)
            there = here["density"].values > 0
            points: Any = {"color": colour, "marker": "o", "markersize": 1.9, "linestyle": "none", "elinewidth": 0.6}
            error = np.minimum(here["density_error"].values, 0.99 * here["density"].values)  # of a logarithmic axis
            ax.errorbar(here["log_sigma"][there], here["density"][there], error[there], **points)
            low = min(low, float(here["theory_log_sigma"][0]))
            high = max(high, float(here["theory_log_sigma"][-1]))
        if float(here["theory_isometric"]) > 0:
            ax.axvline(float(here["theory_log_isometric"]), color=colour, linewidth=1.0, linestyle=(0, (4, 1.5)))
    low = max(low, _LEFT)
    room = 0.06 * (high - low) or 1.0
    ax.set_xlim(low - room, high + room)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    _words(ax, one)


def _words(ax: Axes, one: xarray.Dataset) -> None:
    """In the panel: what a density does not show."""
    said = []
    if bool((one["theory_isometric"] == 1).all()):
        said.append(f"every σ\nthe same,\nto {float(one['spread'].max()):.0e} nat")
    elif float(one["theory_zero"].max()) > 0:
        zeros = one["zero"].values
        shares = f"{zeros.min():.2f}" + (f" to {zeros.max():.2f}" if np.ptp(zeros) >= 0.005 else "")
        said.append(f"σ = 0: {shares}\n(theory {float(one['theory_zero'].max()):.2f})")
    ax.text(0.04, 0.96, "\n".join(said), transform=ax.transAxes, va="top", fontsize=6, color="0.3")


@styled
def conditions(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """ln(σ_max/σ_min): maps over weight gain and depth with theory's contours, then lines against depth or time.

    Medians over networks; of the lines, bands hold 80 % of them.

    Args:
        datasets: titles to sweeps with `log_condition`; those with the axis sigma_w and `theory` over theory_sigma_w
            and theory_depth are maps.
    """
    maps = {title: one for title, one in datasets.items() if "sigma_w" in one["log_condition"].dims}
    lines = {title: one for title, one in datasets.items() if title not in maps}
    figure = new_figure(3.3)
    *left, right = figure.subplots(1, len(maps) + 1, width_ratios=[1] * len(maps) + [1.25])
    levels = _levels(maps)
    mesh: Any = None
    for letter, ax, (title, one) in zip(LETTERS, left, maps.items(), strict=False):
        mesh = _map(ax, one, levels)
        heading(ax, letter, title)
    if mesh is not None:
        bar = figure.colorbar(mesh, ax=left, pad=0.02, aspect=30, ticks=levels)
        bar.set_label(r"$\ln\,(\sigma_{max}/\sigma_{min})$ (nat)")
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.minorticks_off()
        left[0].set_ylabel("depth (layer)")
    _lines(right, lines)
    heading(right, LETTERS[len(maps)], "families")
    if maps:
        theory = proxy("same levels in theory, infinite width (Pennington et al. 2018)", color="black", linewidth=1.0,
                       linestyle=(0, (3, 2)))  # fmt: skip
        legend_above(figure, [proxy("levels measured (white in the maps)", color="0.65", linewidth=0.9), theory])
    return figure


def _levels(maps: Mapping[str, xarray.Dataset]) -> np.ndarray:
    """Powers of √10, the decades among them, around what is measured."""
    values = np.concatenate([one["log_condition"].values.ravel() for one in maps.values()] or [np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (np.quantile(values, (0.02, 0.98))) if values.size else (1.0, 10.0)
    steps = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    return np.unique(np.concatenate([10**steps, 3 * 10 ** steps[:-1]])) if steps.size > 1 else 10.0 ** np.array([0, 1])


def _map(ax: Axes, one: xarray.Dataset, levels: np.ndarray) -> Any:
    from matplotlib.colors import LogNorm

    middle = one["log_condition"].median("seed").transpose("depth", "sigma_w")
    x, y, values = middle["sigma_w"].values, middle["depth"].values, np.maximum(middle.values, levels[0])
    values = np.where(np.isfinite(values), values, np.nan)
    mesh = ax.pcolormesh(x, y, values, norm=LogNorm(levels[0], levels[-1]), cmap="viridis", shading="gouraud",
                         rasterized=True)  # fmt: skip
    inner = levels[1:-1]
    if inner.size and min(values.shape) > 1:
        drawn = ax.contour(x, y, values, levels=inner, colors="white", linewidths=0.9)
        ax.clabel(drawn, fmt="{:g}".format, fontsize=5.5, inline_spacing=1)
    theory = one["theory"].transpose("theory_depth", "theory_sigma_w")
    if inner.size and min(theory.shape) > 1:
        style: Any = {"colors": "black", "linewidths": 1.0, "linestyles": [(0, (3, 2))]}
        ax.contour(theory["theory_sigma_w"], theory["theory_depth"], theory, levels=inner, **style)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel(r"weight gain $\sigma_w$")
    return mesh


def _lines(ax: Axes, lines: Mapping[str, xarray.Dataset]) -> None:
    for place, (title, one) in enumerate(lines.items()):
        axis = "time" if "time" in one.dims else "depth"
        values = one["log_condition"]
        values = values.where(np.isfinite(values))
        low, middle, high = (values.quantile(share, "seed") for share in (0.1, 0.5, 0.9))
        style: Any = {"color": COLOURS[place % len(COLOURS)]}
        ax.plot(one[axis], middle, label=title, **style, marker="osD^vP*X"[place % 8], markersize=2.5)
        ax.fill_between(one[axis].values, low.values, high.values, alpha=0.2, linewidth=0, **style)
    ax.set(yscale="log", xlabel="depth (layer) or time (step)", ylabel=r"$\ln\,(\sigma_{max}/\sigma_{min})$ (nat)")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.spines[["top", "right"]].set_visible(False)
    if lines:
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=-(-len(lines) // 2))
