"""Log gain against depth: under every activation and scheme as a map, and as lines with the theory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import (
    COLOURS,
    LETTERS,
    MAP,
    heading,
    held,
    mean_over_seeds,
    new_figure,
    proxy,
    residual_frame,
    styled,
    theory_name,
    words,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THEORY: Any = {"color": "black", "linewidth": 0.8, "linestyle": (0, (3, 2))}
RESIDUALS: Any = ({"linewidth": 0.8, "linestyle": (0, (1, 1))}, {"linewidth": 1.0})
RESIDUAL = "residual: measured − theory, in standard errors of the mean over networks; grey: ±2"
STATISTICS = {"log_gain": "log gain", "log_jvp": r"$\ln\,\|J u\|$ of a random direction $u$"}


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
    figure = new_figure(max(1.3, 0.9 + 0.26 * len(names)))
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
    ticks = ticks[:: 3 if len(names) == 1 else 1]  # a low bar has no room for more
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

    Beneath each panel, measured minus theory in standard errors of the mean: the statistic's from `theory` and,
    where the dataset holds `log_jvp` and `log_jvp_theory`, the one's from the other.

    Args:
        dataset: a sweep with the axes `panels` and `lines`.
        theory: the dataset's variable with the theory over panels, lines and depth; None for none, and no
            residuals. The attribute `source` of a theory names its paper.

    Raises: ValueError naming the axis or variable that is missing.
    """
    mean = mean_over_seeds(dataset, statistic, panels, lines)
    if theory is not None and theory not in dataset:
        raise ValueError(f"theory: the dataset holds no {theory!r}; pass theory=None, or one of: {held(dataset)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")  # all networks of a kind are dead: no line
        low, high = (dataset[statistic].quantile(share, "seed") for share in (0.1, 0.9))
    titles, schemes = mean[panels].values.tolist(), mean[lines].values.tolist()
    figure, grid, beneath = _grid(len(titles), residuals=theory is not None)
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
    handles = list(grid[0].get_legend_handles_labels()[0])[: len(schemes)]
    if theory is not None:
        residuals = _residuals(dataset, {statistic: theory, "log_jvp": "log_jvp_theory"})
        span = _span(list(residuals.values()))
        for ax, title in zip(beneath, titles, strict=True):
            for residual, style in zip(residuals.values(), RESIDUALS, strict=False):
                for scheme, colour in zip(schemes, COLOURS, strict=False):
                    ax.plot(depth, residual.sel({panels: title, lines: scheme}), color=colour, **style)
            residual_frame(ax, *span)
        handles.append(proxy(f"theory, {theory_name(dataset[theory])}", **THEORY))
        named = [proxy(name, color="0.35", **style) for name, style in zip(residuals, RESIDUALS, strict=False)]
        figure.legend(handles=named, loc="outside lower center", title=RESIDUAL, title_fontsize=7, alignment="left")
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, -(-len(handles) // 2)))
    return figure


def _grid(panels: int, *, residuals: bool) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure, its panels in rows of three, and the flat panels beneath them if there are residuals."""
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(1.1 + 2.5 * rows if residuals else 0.75 + 1.75 * rows)
    heights = [2.1, 1] if residuals else [1]
    axes = figure.subplots(rows * len(heights), columns, sharex=True, squeeze=False, height_ratios=heights * rows)
    above, beneath = (list(axes[start :: len(heights)].ravel()) for start in (0, len(heights) - 1))
    for row, ax in enumerate(axes[:, 0]):
        ax.set_ylabel("residual" if row % len(heights) else "log gain (nat)")
    for ax in axes[-1]:
        ax.set_xlabel("depth (layer)")
    for unused in {*above[panels:], *beneath[panels:]}:
        unused.remove()
    return figure, above[:panels], beneath[:panels]


def _residuals(dataset: xarray.Dataset, pairs: Mapping[str, str]) -> dict[str, xarray.DataArray]:
    """What the legend says -> (mean over living networks − theory) / standard error, of the pairs that are held."""
    found = {}
    for statistic, theory in pairs.items():
        if statistic in dataset and theory in dataset:
            values = dataset[statistic]
            count = values.count("seed")
            variance = ((values - values.mean("seed")) ** 2).sum("seed") / (count - 1).where(count > 1)
            error = (variance / count) ** 0.5
            name = f"{STATISTICS.get(statistic, statistic)} from {theory_name(dataset[theory])}"
            found[name] = (values.mean("seed") - dataset[theory]) / error.where(error > 0)
    return found


def _span(residuals: Sequence[xarray.DataArray]) -> tuple[float, float]:
    """The smallest and the largest residual: all panels have one scale."""
    values = np.concatenate([np.ravel(one) for one in residuals])
    values = values[np.isfinite(values)]
    return float(values.min(initial=0)), float(values.max(initial=0))


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
