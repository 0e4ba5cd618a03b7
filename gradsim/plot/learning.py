"""What learns and what does not: updates by layer over training, and the learning curves beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, cell_edges, new_figure, power_of_ten, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = math.log(10)
UPDATE = ("relative update ‖ΔW‖ / ‖W‖", -10.0, 0.0)
GRADIENT = ("gradient that a step gives", -10.0, 6.0)
COLOUR_MAP = "cividis"
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.3)), (0, (1.2, 1.1)), (0, (4, 1.2, 1, 1.2)))


@styled
def learning(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """A row for each group of networks: a map of each, layer over updates taken, then their learning curves.

    Maps are geometric means over networks, of the relative update over depth, and over time of the gradient that a step
    gives to the weights that all share. Curves are means, bands their standard error.

    Args:
        datasets: titles to what `gradsim.train` returns by layer for one network each, over seed and step, with the
            attribute `group`.
    """
    groups: dict[str, list[str]] = {}
    for name, one in datasets.items():
        groups.setdefault(str(one.attrs.get("group", "")), []).append(name)
    figure = new_figure(0.3 + 1.95 * len(groups))
    rows: Any = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    letters = iter(LETTERS)
    for row, (group, names) in zip(rows, groups.items(), strict=True):
        maps = len(names)
        axes = row.subplots(1, maps + 2, width_ratios=[4 / maps] * maps + [0.12, 1.9])
        over_depth = "depth" in datasets[names[0]].dims
        title, low, high = UPDATE if over_depth else GRADIENT
        for ax, name in zip(axes, names, strict=False):
            mesh = _map(ax, datasets[name], low, high)
            said = f"{next(letters)}  {name}".replace(", ", ",\n")
            ax.set_title(said, fontsize=7 if maps < 5 else 5)  # a name may be wider than a map
            if ax is not axes[0]:
                ax.set_yticklabels([])
        axes[0].set_ylabel("layer" if over_depth else "time (step)")
        bar = row.colorbar(mesh, cax=axes[maps], extend="both")
        bar.set_ticks(ticks := np.linspace(low, high, 3 if over_depth else 5), labels=[*map(power_of_ten, ticks)])
        bar.set_label(title, fontsize=7)
        _curves(axes[-1], {name: datasets[name] for name in names})
        axes[-1].set_title(f"{next(letters)}  {group}" if group else next(letters), fontsize=7)
    return figure


def _map(ax: Axes, one: xarray.Dataset, low: float, high: float) -> Any:
    """Layers over the updates taken; grey where all networks have diverged."""
    from matplotlib import colormaps

    axis = "depth" if "depth" in one.dims else "time"
    values = one["log_update"] if axis == "depth" else one["log_exact_gradient"]
    shown = values.transpose(axis, "step", "seed").values / LN10
    lost = np.isnan(shown)
    mean = np.ma.masked_array(np.maximum(shown, low - 1), lost).mean(-1)  # of those that have not diverged
    colours = colormaps[COLOUR_MAP].with_extremes(bad="0.75")
    step, layer = one["step"].values, one[axis].values
    mesh = ax.pcolormesh(cell_edges(step), cell_edges(layer), mean, cmap=colours, vmin=low, vmax=high,
                         rasterized=True)  # fmt: skip
    if lost.any():
        said, white = (
            f"{lost.any((0, 1)).mean():.0%} of networks\ndiverged",
            {"facecolor": "white", "edgecolor": "none"},
        )
        ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", va="center", fontsize=6.5, bbox=white)
    ax.set_xlabel("updates")
    ax.set_xticks([step[0], step[-1]])
    ax.set_yticks([layer[0], layer[-1]])
    return mesh


def _curves(ax: Axes, datasets: Mapping[str, xarray.Dataset]) -> None:
    """Accuracy over the updates taken, with its standard error over networks."""
    for place, (name, one) in enumerate(datasets.items()):
        accuracy, step = one["accuracy"].transpose("seed", "step").values, one["step"].values
        mean, error = accuracy.mean(0), np.zeros(step.size)
        if len(accuracy) > 1:
            error = accuracy.std(0, ddof=1) / math.sqrt(len(accuracy))
        colour = COLOURS[place % len(COLOURS)]
        ax.fill_between(step, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)
        ax.plot(step, mean, color=colour, linestyle=DASHES[place % len(DASHES)], label=name)
    ax.set(ylim=(-0.03, 1.03), xlabel="updates", ylabel="accuracy")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6)
