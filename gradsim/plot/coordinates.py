"""The coordinate check: sizes against width and depth, and the powers with which they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, legend_above, new_figure, powers_of_ten, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^Dv<>"
TITLES = {
    "activation": "activations",
    "activation_change": "their change",
    "output": "outputs",
    "output_change": "their change",
    "update": "relative update",
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
            ax.set_title(f"  {next(letters)}", loc="left", fontweight="bold", fontsize=7.5)
            ax.set_title(TITLES[quantity], fontsize=7.5)
            if not place:
                ax.set_ylabel("root mean square")
            elif quantity == "update":
                ax.set_ylabel(r"$\|\Delta W\|\,/\,\|W\|$", labelpad=1)
        ax = part.add_subplot(grid[1, :])
        _powers(ax, fits, quantities, kinds, kind)
        ax.set_title(next(letters), loc="left", fontweight="bold", fontsize=7.5)
        ax.set_ylabel(f"power of {axis}")
        name = {"width": "", "depth": "branch × "}[axis]
        handles = [proxy(f"{name}{one}", color=COLOURS[k], marker=MARKERS[k], linewidth=0, markersize=4)
                   for k, one in enumerate(kinds)]  # fmt: skip
        handles += [proxy("derived", color="0.35", **DERIVED)]
        legend_above(part, handles) if len(axes) == 1 else part.legend(
            handles=handles, loc="outside upper center", ncols=len(handles)
        )
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


def _powers(ax: Axes, fits: xarray.Dataset, quantities: list[str], kinds: list[str], kind: str) -> None:
    """Each fitted power with its error, and the derived one as a dash beside its kind."""
    apart = 0.8 / len(kinds)
    for place, name in enumerate(kinds):
        one = fits.sel({kind: name})
        at = np.arange(len(quantities)) + (place - (len(kinds) - 1) / 2) * apart
        ax.errorbar(at, one["power"], one["error"], fmt=MARKERS[place], color=COLOURS[place], markersize=3.5,
                    elinewidth=0.9, capsize=2)  # fmt: skip
        ax.hlines(one["derived"], at - 0.4 * apart, at + 0.4 * apart, color=COLOURS[place], **DERIVED)
    ax.axhline(0, color="0.8", linewidth=0.7, zorder=0)
    ax.set_xlim(-0.5, len(quantities) - 0.5)
    words = ["activations", "change of\nactivations", "outputs", "change of\noutputs", "relative\nupdate"]
    ax.set_xticks(range(len(quantities)), words)
    ax.tick_params(axis="x", length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
