"""Log gain against depth: under every activation and scheme as a map, and as lines with the theory."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, MAP, heading, held, mean_over_seeds, new_figure, proxy, styled, words

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

THEORY: Any = {"color": "black", "linewidth": 0.8, "linestyle": (0, (3, 2))}


@styled
def scheme_map(
    dataset: xarray.Dataset,
    rows: str = "activation",
    columns: str = "initializer",
    *,
    statistic: str = "log_gain",
) -> Figure:
    """Log gain (colour) over depth for every pair of a row and a column, its last value written out.

    Raises: ValueError naming the axis or variable that is missing.
    """
    from matplotlib.colors import SymLogNorm

    values = mean_over_seeds(dataset, statistic, rows, columns)
    values = values.transpose(rows, columns, "depth")
    names, schemes, depth = values[rows].values.tolist(), values[columns].values.tolist(), values["depth"].values
    figure = new_figure(0.9 + 0.26 * len(names))
    norm = SymLogNorm(linthresh=1, vmin=-100, vmax=100)
    panels = figure.subplots(1, len(schemes), sharey=True, squeeze=False)[0]
    edges = (np.append(depth[0] - 1, depth), np.arange(len(names) + 1) - 0.5)
    for ax, scheme in zip(panels, schemes, strict=True):
        block = values.sel({columns: scheme}).values
        mesh = ax.pcolormesh(*edges, block, norm=norm, cmap=MAP, rasterized=True)
        for row, last in enumerate(block[:, -1].tolist()):
            ax.text(0.97, row, _number(last), transform=ax.get_yaxis_transform(), ha="right", va="center",
                    fontsize=6.5, color=_readable_on(mesh.to_rgba(last)))  # fmt: skip
        ax.hlines(edges[1][1:-1], *edges[0][[0, -1]], color="white", linewidth=2)
        title = words(scheme) if len(schemes) < 6 else words(scheme).replace(" ", "\n", 1)
        ax.set_title(title, fontsize=7.5)
        ax.set_xticks([0, int(depth[-1]) // 2, int(depth[-1])])
        ax.tick_params(left=False)
        ax.spines[:].set_visible(False)
    panels[0].set_yticks(range(len(names)), [words(name) for name in names])
    panels[0].invert_yaxis()
    figure.supxlabel("depth (layer)", fontsize=8)
    bar = figure.colorbar(mesh, ax=panels, extend="both", pad=0.015, aspect=25)
    ticks = [-100.0, -10.0, -1.0, 0.0, 1.0, 10.0, 100.0]
    bar.set_ticks(ticks, labels=[_number(tick, ".0f") for tick in ticks])
    bar.set_label("log gain (nat)")
    return figure


@styled
def depth_profile(
    dataset: xarray.Dataset,
    theory: str | None = "theory",
    *,
    panels: str = "activation",
    lines: str = "initializer",
    statistic: str = "log_gain",
) -> Figure:
    """Log gain against depth: the mean over seeds, a band that holds 80 % of them, and the theory dashed.

    Args:
        dataset: a sweep with the axes `panels` and `lines`.
        theory: the dataset's variable with the theory over panels, lines and depth; None for none.

    Raises: ValueError naming the axis or variable that is missing.
    """
    mean = mean_over_seeds(dataset, statistic, panels, lines)
    if theory is not None and theory not in dataset:
        raise ValueError(f"theory: the dataset holds no {theory!r}; pass theory=None, or one of: {held(dataset)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")  # all networks of a kind are dead: no line
        low, high = (dataset[statistic].quantile(share, "seed") for share in (0.1, 0.9))
    titles, schemes = mean[panels].values.tolist(), mean[lines].values.tolist()
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    figure = new_figure(0.6 + 1.75 * rows)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    depth = mean["depth"].values
    for letter, ax, title in zip(LETTERS, grid, titles, strict=False):
        for place, (scheme, colour) in enumerate(zip(schemes, COLOURS, strict=False)):
            one = {panels: title, lines: scheme}
            ax.fill_between(depth, low.sel(one), high.sel(one), color=colour, alpha=0.25, linewidth=0)
            # Schemes of one gain coincide: the later line is thinner, so that the earlier shows on both sides.
            width = max(4.2 - 1.5 * place, 1.2)
            ax.plot(depth, mean.sel(one), color=colour, linewidth=width, solid_capstyle="butt", label=words(scheme))
            if theory is not None:
                ax.plot(depth, dataset[theory].sel(one), **THEORY)
        ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
        heading(ax, letter, words(title))
    for unused in grid[len(titles) :]:
        unused.remove()
    figure.supxlabel("depth (layer)", fontsize=8)
    figure.supylabel("log gain (nat)", fontsize=8)
    handles = list(grid[0].get_legend_handles_labels()[0])[: len(schemes)]
    if theory is not None:
        handles.append(proxy("theory, infinite width", **THEORY))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(6, len(handles)))
    return figure


def _number(value: float, form: str = ".1f") -> str:
    """The signed number, 0 where it rounds to that, in the typographer's minus."""
    if np.isnan(value):
        return "dead"
    text = f"{value:+{form}}".replace("-", "\u2212")
    return text if float(f"{value:{form}}") else "0"


def _readable_on(colour: Any) -> str:
    """Black or white, whichever stands out more from this colour."""
    red, green, blue, _ = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
