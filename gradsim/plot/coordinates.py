"""The coordinate check: sizes against width and depth, and the powers with which they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, new_figure, powers_of_ten, proxy, residual_frame, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^Dv<>"
TITLES = {
    "activation": "activations h",
    "activation_change": "change Δh",
    "output": "outputs y",
    "output_change": "change Δy",
    "update": "update ΔW",
}
LABELS = {"width": "width n (units)", "depth": "depth L (blocks)"}
DERIVED: Any = {"linewidth": 0.9, "linestyle": (0, (4, 1.5))}


@styled
def coordinate_check(sizes: Mapping[str, xarray.Dataset], powers: Mapping[str, xarray.Dataset]) -> Figure:
    """A row of panels over width and one over depth, and beneath each the fitted powers beside the derived ones.

    Points are geometric means over networks with error bars of one standard error; dashed lines have the derived slope
    and the mean height of the points.

    Args:
        sizes: "width" and "depth", or one of them: natural logarithms of sizes over seed, that axis, and a kind
            ("parametrization" or "scaling"), one variable for each quantity.
        powers: by the same names `power`, `error` and `derived` over quantity and kind.
    """
    axes = list(sizes)
    figure = new_figure(3.35 * len(axes))
    halves: Any = figure.subfigures(len(axes), 1, squeeze=False)[:, 0]
    letters = iter(LETTERS)
    for part, axis in zip(halves, axes, strict=True):
        one, fits = sizes[axis], powers[axis]
        kind = str(fits["power"].dims[1])
        quantities = [str(name) for name in fits["quantity"].values]
        kinds = [str(name) for name in fits[kind].values]
        grid = part.add_gridspec(2, len(quantities), height_ratios=[1.25, 1])
        for place, quantity in enumerate(quantities):
            ax = part.add_subplot(grid[0, place])
            _lines(ax, one[quantity], fits.sel(quantity=quantity), axis, kind)
            ax.set_title(rf"$\mathbf{{{next(letters)}}}$  {TITLES[quantity]}", fontsize=7.5, loc="left")
            if not place:
                ax.set_ylabel("root mean square")
            elif quantity == "update":
                ax.set_ylabel(r"$\|\Delta W\|\,/\,\|W\|$", labelpad=1)
        ax = part.add_subplot(grid[1, :3])
        _powers(ax, fits, quantities, kinds, kind)
        ax.set_title(rf"$\mathbf{{{next(letters)}}}$  fitted powers, derived ones dashed", fontsize=7.5, loc="left")
        ax.set_ylabel(f"power of {axis}")
        ax = part.add_subplot(grid[1, 3:])
        _residuals(ax, fits, quantities, kinds, kind)
        ax.set_title(rf"$\mathbf{{{next(letters)}}}$  fitted − derived (standard errors)", fontsize=7.5, loc="left")
        name = {"width": "", "depth": "branch × "}[axis]
        handles = [proxy(f"{name}{one}", color=COLOURS[k], marker=MARKERS[k], linewidth=0, markersize=4)
                   for k, one in enumerate(kinds)]  # fmt: skip
        handles.append(proxy("derived", color="0.35", **DERIVED))
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _lines(ax: Axes, values: xarray.DataArray, fits: xarray.Dataset, axis: str, kind: str) -> None:
    """Geometric means with error bars, as decimal logarithms, and lines of the derived slopes."""
    low, high = np.inf, -np.inf
    for place, name in enumerate(fits[kind].values):
        one = values.sel({kind: name}) / np.log(10)
        x, mean = np.log10(one[axis].values), one.mean("seed").values
        error = one.std("seed", ddof=1).values / np.sqrt(one.sizes["seed"])
        ax.errorbar(x, mean, error, fmt=MARKERS[place], color=COLOURS[place], markersize=3, elinewidth=0.8, capsize=1.5)
        slope = float(fits["derived"].sel({kind: name}))
        ends = np.array([x[0], x[-1]])
        line = mean.mean() + slope * (ends - x.mean())
        ax.plot(ends, line, color=COLOURS[place], zorder=0, **DERIVED)
        low, high = min(low, *mean, *line), max(high, *mean, *line)
    powers_of_ten(ax, low, high, ticks=4)
    shown = one[axis].values
    shown = shown[:: max(1, len(shown) // 2)]
    ax.set_xticks(np.log10(shown), [f"{value:g}" for value in shown])
    ax.set_xlabel(LABELS[axis], labelpad=1, fontsize=7)
    ax.spines[["top", "right"]].set_visible(False)


def _places(count: int, kinds: list[str]) -> list[np.ndarray]:
    """Where the points of each kind lie, beside each other at each quantity."""
    apart = 0.8 / len(kinds)
    return [np.arange(count) + (place - (len(kinds) - 1) / 2) * apart for place in range(len(kinds))]


def _powers(ax: Axes, fits: xarray.Dataset, quantities: list[str], kinds: list[str], kind: str) -> None:
    """Each fitted power with its error, and the derived one as a dash beneath it."""
    for place, (name, at) in enumerate(zip(kinds, _places(len(quantities), kinds), strict=True)):
        one = fits.sel({kind: name})
        ax.errorbar(at, one["power"], one["error"], fmt=MARKERS[place], color=COLOURS[place], markersize=3,
                    elinewidth=0.9, capsize=2)  # fmt: skip
        ax.hlines(one["derived"], at - 0.32 / len(kinds), at + 0.32 / len(kinds), color=COLOURS[place], **DERIVED)
    ax.axhline(0, color="0.8", linewidth=0.7, zorder=0)
    _named(ax, quantities)


def _residuals(ax: Axes, fits: xarray.Dataset, quantities: list[str], kinds: list[str], kind: str) -> None:
    residual = (fits["power"] - fits["derived"]) / fits["error"]
    for place, (name, at) in enumerate(zip(kinds, _places(len(quantities), kinds), strict=True)):
        ax.plot(at, residual.sel({kind: name}), MARKERS[place], color=COLOURS[place], markersize=3)
    residual_frame(ax, float(residual.min()), float(residual.max()))
    _named(ax, quantities)


def _named(ax: Axes, quantities: list[str]) -> None:
    """A symbol beneath the points of each quantity."""
    ax.set_xlim(-0.5, len(quantities) - 0.5)
    ax.set_xticks(range(len(quantities)), [TITLES[quantity].split()[-1] for quantity in quantities])
    ax.tick_params(axis="x", length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
