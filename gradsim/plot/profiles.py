"""Log gain against depth: under every activation and scheme as a map, and as lines with the theory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.analysis.horizon import logarithm
from gradsim.analysis.lost import checked
from gradsim.plot.style import (
    COLOURS,
    LETTERS,
    MAP,
    checked_dataset,
    heading,
    held,
    new_figure,
    note_lost,
    point_name,
    proxy,
    residual_frame,
    step_axis,
    step_label,
    styled,
    theory_name,
)

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AUTO = "auto"
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
    max_lost: float = 0.05,
) -> Figure:
    """Log gain (colour) over depth or time for every pair of a row and a column, its last value written out.

    Args:
        dataset: a sweep with the axes `rows` and `columns`: activations, initializers, networks, gains, …
        max_lost: the share of the networks of a pair that may have left the range of floats.

    Raises: ValueError or TypeError naming the axis or variable that is missing.
    """
    from matplotlib.colors import SymLogNorm

    axis, values = _values(dataset, statistic, {"rows": rows, "columns": columns}, max_lost)
    values = values.mean("seed").transpose(rows, columns, axis)
    names, depth = [point_name(one) for one in values[rows]], values[axis].values
    schemes = {point_name(one): one.item() for one in values[columns]}
    figure = new_figure(max(1.9, 0.9 + 0.26 * len(names)))
    norm = SymLogNorm(linthresh=1, vmin=-100, vmax=100)
    panels = figure.subplots(1, len(schemes), sharey=True, squeeze=False)[0]
    edges = (np.append(depth[0] - 1, depth), np.arange(len(names) + 1) - 0.5)
    for ax, (title, scheme) in zip(panels, schemes.items(), strict=True):
        block = values.sel({columns: scheme}).values
        mesh = ax.pcolormesh(*edges, block, norm=norm, cmap=MAP, rasterized=True)
        for row, last in enumerate(block[:, -1].tolist()):
            ax.text(0.97, row, _number(last), transform=ax.get_yaxis_transform(), ha="right", va="center",
                    fontsize=6.5, color=_readable_on(mesh.to_rgba(last)))  # fmt: skip
        ax.hlines(edges[1][1:-1], *edges[0][[0, -1]], color="white", linewidth=2)
        ax.set_title(title if len(schemes) < 6 else title.replace(" ", "\n", 1), fontsize=7.5)
        ax.set_xticks(sorted({0, int(depth[-1]) // 2, int(depth[-1])}))
        ax.tick_params(left=False)
        ax.spines[:].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.supxlabel(step_label(dataset[statistic]), fontsize=8)
    note_lost(panels[0], dataset, statistic)
    bar = figure.colorbar(mesh, ax=panels, extend="both", pad=0.015, aspect=25)
    ticks = [-100.0, -1.0, 0.0, 1.0, 100.0] if len(names) < 4 else [-100.0, -10.0, -1.0, 0.0, 1.0, 10.0, 100.0]
    bar.set_ticks(ticks, labels=[_number(tick, ".0f") for tick in ticks])
    bar.set_label("log gain (nat)")
    return figure


@styled
def depth_profile(
    dataset: xarray.Dataset,
    theory: str | None = AUTO,
    *,
    panels: str | None = None,
    lines: str | None = None,
    statistic: str = "log_gain",
    max_lost: float = 0.05,
) -> Figure:
    """Log gain against depth or time: the mean over seeds, a band that holds 80 % of them, and the theory dashed.

    Beneath each panel, measured minus theory in standard errors of the mean: the statistic's from `theory` and,
    where the dataset holds `log_jvp` and `log_jvp_theory`, the one's from the other.

    Args:
        dataset: what `gradsim.sweep` returned, with at most two axes beside seed and depth (or time).
        theory: the dataset's variable with the theory over panels, lines and depth; None for none, and no
            residuals; unless given, the variable "theory" where there is one. The attribute `source` of a theory
            names its paper.
        panels, lines: the axes; unless given, of two the first has the panels, and one alone has the lines.
        max_lost: the share of the networks of a line that may have left the range of floats.

    Raises: ValueError or TypeError naming the axis or variable that is missing.
    """
    panels, lines = _panels_and_lines(dataset, statistic, panels, lines)
    dataset = _with_axes(dataset, panels, lines)
    axis, values = _values(dataset, statistic, {"panels": panels, "lines": lines}, max_lost)
    mean = values.mean("seed")
    if isinstance(theory, str) and theory == AUTO:
        theory = "theory" if "theory" in dataset else None
    if theory is not None and not (isinstance(theory, str) and theory in dataset.data_vars):
        raise ValueError(
            f"theory: the dataset holds no {arguments.shown(theory)}; pass theory=None, or one of: {held(dataset)}"
        )
    if theory is not None and set(dataset[theory].dims) != {panels, lines, axis}:
        held_axes = ", ".join(map(str, dataset[theory].dims)) or "none"
        raise ValueError(f"theory: {theory!r} has the axes {held_axes}; pass a variable over {panels}, {lines}, {axis}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")  # all networks of a kind are dead: no line
        low, high = (dataset[statistic].quantile(share, "seed") for share in (0.1, 0.9))
    titles, schemes = mean[panels].values.tolist(), mean[lines].values.tolist()
    if len(schemes) > len(COLOURS):
        raise ValueError(f"lines: {lines} has {len(schemes)} points; pass at most {len(COLOURS)}, one colour each")
    figure, grid, beneath = _grid(len(titles), step_label(values), residuals=theory is not None)
    depth = mean[axis].values
    for letter, ax, title in zip(LETTERS, grid, titles, strict=False):
        for place, (scheme, colour) in enumerate(zip(schemes, COLOURS, strict=False)):
            one = {panels: title, lines: scheme}
            ax.fill_between(depth, low.sel(one), high.sel(one), color=colour, alpha=0.25, linewidth=0)
            # Schemes of one gain coincide: the later line is thinner, so that the earlier shows on both sides.
            width = max(4.2 - 1.5 * place, 1.2)
            said = point_name(mean[lines].sel({lines: scheme}))
            ax.plot(depth, mean.sel(one), color=colour, linewidth=width, solid_capstyle="butt", label=said)
            if theory is not None:
                ax.plot(depth, dataset[theory].sel(one), **THEORY)
        ax.axhline(0, color="0.6", linewidth=0.6, zorder=0)
        heading(ax, letter if len(titles) > 1 else "", point_name(mean[panels].sel({panels: title})))
        note_lost(ax, dataset.sel({panels: title}), statistic)
    handles = list(grid[0].get_legend_handles_labels()[0])[: len(schemes)]
    if theory is not None:
        pairs = {statistic: theory}
        pairs.setdefault("log_jvp", "log_jvp_theory")
        residuals = _residuals(dataset, pairs)
        span = _span(list(residuals.values()))
        for ax, title in zip(beneath, titles, strict=True):
            for residual, style in zip(residuals.values(), RESIDUALS, strict=False):
                for scheme, colour in zip(schemes, COLOURS, strict=False):
                    ax.plot(depth, residual.sel({panels: title, lines: scheme}), color=colour, **style)
            residual_frame(ax, *span)
        handles.append(proxy(f"theory, {theory_name(dataset[theory])}", **THEORY))
        named = [proxy(name, color="0.35", **style) for name, style in zip(residuals, RESIDUALS, strict=False)]
        figure.legend(handles=named, loc="outside lower center", title=RESIDUAL, title_fontsize=7, alignment="left")
    if theory is not None or len(schemes) > 1:
        figure.legend(handles=handles, loc="outside upper center", ncols=max(1, -(-len(handles) // 2)))
    return figure


def _panels_and_lines(dataset: Any, statistic: str, panels: Any, lines: Any) -> tuple[str, str]:
    """The axes' names; one that the dataset lacks is made of one point."""
    values = logarithm(checked_dataset(dataset), statistic)
    others = [str(name) for name in values.dims if name not in ("seed", step_axis(values))]
    for name, given in {"panels": panels, "lines": lines}.items():
        if given is not None and not (isinstance(given, str) and given in others):
            raise ValueError(
                f"{name}: {statistic} has no axis {arguments.shown(given)}; its axes: {', '.join(others) or 'none'}"
            )
    if panels is not None and panels == lines:
        raise ValueError(f"lines: got {lines!r}, which has the panels; pass another axis")
    free = [name for name in others if name not in (panels, lines)]
    if panels is None and len(free) > (lines is None):
        panels = free.pop(0)
    if lines is None and free:
        lines = free.pop(0)
    return panels or "panel", lines or "line"


def _with_axes(dataset: xarray.Dataset, *names: str) -> xarray.Dataset:
    for name in names:
        if name not in dataset.dims:
            dataset = dataset.drop_vars(name, errors="ignore").expand_dims({name: [""]})
    return dataset


def _values(
    dataset: xarray.Dataset, statistic: str, axes: Mapping[str, str], max_lost: float
) -> tuple[str, xarray.DataArray]:
    """The axis of the chain and the statistic, which must have these axes, seed, and no others."""
    values = logarithm(checked_dataset(dataset), statistic)
    axis = step_axis(values)
    others = [str(name) for name in values.dims if name not in ("seed", axis)]
    for name, wanted in axes.items():
        if not (isinstance(wanted, str) and wanted in others):
            raise ValueError(
                f"{name}: {statistic} has no axis {arguments.shown(wanted)}; its axes: {', '.join(others) or 'none'}"
            )
    empty = [str(name) for name, size in values.sizes.items() if not size]
    if empty:
        raise ValueError(f"dataset: its axis {empty[0]} is empty; pass what gradsim.sweep returned")
    extra = [name for name in others if name not in axes.values()]
    if extra:
        raise ValueError(f"dataset: {statistic} has one more axis: {', '.join(extra)}; choose a point with .sel")
    checked(dataset, statistic, max_lost, "the figure")
    return axis, values


def _grid(panels: int, steps: str, *, residuals: bool) -> tuple[Figure, list[Axes], list[Axes]]:
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
        ax.set_xlabel(steps)
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
