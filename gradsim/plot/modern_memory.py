"""What is left of a gradient against the lag, in groups of networks: measured, and by closed forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.memory import mean_square
from gradsim.plot.style import COLOURS, heading, legend_above, new_figure, power_of_ten, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = math.log(10)
FLOOR, CEILING = -8.0, 0.7  # decades: beyond eight, float32 rounds the oldest step's share away
GROUPS = {
    "gates": ("LSTM", "GRU", "minLSTM", "minGRU", "sLSTM"),
    "state spaces": ("LRU", "S4D", "Mamba", "Mamba-2"),
    "linear attention": ("RetNet", "RWKV-6", "RWKV-7", "mLSTM", "delta rule"),
    "isometries and others": ("IndRNN", "unitary", "antisymmetric", "coRNN"),
}
MARKERS = "osD^v"


@styled
def modern_memory(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """The root mean square of what is left against the lag: points measured, with standard errors, lines closed forms.

    Args:
        datasets: titles to sweeps over seed and time, with the variable `theory` over time where there is one; those of
            one group share a panel.
    """
    groups = {name: [one for one in members if one in datasets] for name, members in GROUPS.items()}
    others = [name for name in datasets if not any(name in members for members in groups.values())]
    groups = {name: members for name, members in {**groups, "others": others}.items() if members}
    columns = min(2, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = new_figure(0.9 + 2.5 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for place, (ax, (title, members)) in enumerate(zip(axes, groups.items(), strict=False)):
        heading(ax, "abcde"[place], title)
        for one, name in enumerate(members):
            _network(ax, mean_square(datasets[name]), COLOURS[one], MARKERS[one], name)
        ax.legend(loc="lower left", fontsize=7, frameon=False, handlelength=1.2)
    _frame(figure, axes[: len(groups)], max(int(one["time"][-1]) for one in datasets.values()))
    for ax in axes[len(groups) :]:
        ax.remove()
    dot: Any = {"color": "0.3", "marker": "o", "markersize": 3.5, "linewidth": 0}
    handles = [proxy("measured, root mean square ± s.e.", **dot)]
    hollow: Any = {**dot, "markerfacecolor": "white"}
    handles.append(proxy("carried by few of the networks", **hollow))
    handles.append(proxy("closed form", color="0.3", linewidth=1.1))
    legend_above(figure, handles)
    return figure


def _network(ax: Axes, one: xarray.Dataset, colour: str, marker: str, name: str) -> None:
    points: Any = {"marker": marker, "markersize": 3, "linewidth": 0, "elinewidth": 0.8, "color": colour}
    for few, style in ((False, {"label": name}), (True, {"markerfacecolor": "white", "markeredgewidth": 0.7})):
        some = one.isel(time=(one["carried_by_few"] == few).values)
        error = 0 if few else some["error"].values / LN10
        ax.errorbar(some["time"].values, some["log_root"].values / LN10, yerr=error, **points, **style)
    if "theory" in one:
        ax.plot(one["time"].values, one["theory"].values / LN10, color=colour, linewidth=1.1)


def _frame(figure: Figure, axes: Any, longest: int) -> None:
    ticks = np.arange(FLOOR, CEILING, 2).astype(int)
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlim(0.8, longest * 1.3)
        ax.set_ylim(FLOOR, CEILING)
        ax.set_yticks(ticks, [power_of_ten(float(tick)) for tick in ticks])
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelbottom=True)
    figure.supxlabel("lag (step)", fontsize=8.5)
    figure.supylabel(r"left of the gradient $(\mathrm{E}\|J\|_F^2/n)^{1/2}$", fontsize=8.5)
