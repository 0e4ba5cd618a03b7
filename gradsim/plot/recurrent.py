"""Phase diagrams of recurrent networks: growth a step over two gains, at several sequence lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.growth import growth
from gradsim.plot.style import COLOURS, LETTERS, MAP, label, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# They lie on each other where theory and measurement agree: dashes inside a thicker line show both.
MEASURED: Any = {"color": "black", "linewidth": 2.0}
# Variables of theory -> how they are drawn and named.
THEORIES: Any = {
    "edge_of_chaos": (
        {"color": COLOURS[2], "linewidth": 1.3, "linestyle": (0, (2.5, 1.5))},
        "theory, long sequences (Sompolinsky et al. 1988)",
    ),
    "untied_edge": (
        {"color": COLOURS[2], "linewidth": 1.5, "linestyle": (0, (1, 1))},
        "theory for weights drawn anew at each step (Chen et al. 2018, Gilboa et al. 2019)",
    ),
}
TENFOLD: Any = {"color": "black", "linewidth": 0.6}


@styled
def recurrent_diagram(
    datasets: Mapping[str, xarray.Dataset],
    lengths: Sequence[int],
    *,
    statistic: str = "log_gain",
    limit: float = 0.5,
    max_lost: float = 0.05,
) -> Figure:
    """Growth of the gradient a step and its zero contour over each family's two gains (rows) and lengths (columns).

    The growth at length T is the log gain of the first T steps over T, averaged over the seeds: it includes
    how the state settles, as a sequence of that length does.

    Args:
        datasets: titles to sweeps with two gains as axes, seed, and at least `lengths` steps of time. Theory's lines
            of no growth are variables over one gain, named as in `THEORIES`.
        lengths: sequence lengths, one column each.
        limit: the growth at which the colours end, in nat per step.
        max_lost: the share of the networks of a point that may have left the range of floats.

    Raises: ValueError naming the axis or the length that is missing.
    """
    from matplotlib.ticker import MaxNLocator

    maps = {
        title: [_map(one, length, statistic, title, max_lost) for length in lengths] for title, one in datasets.items()
    }
    columns = len(lengths)
    crowded = columns > 4 or max(map(len, maps)) > 66 / columns - 14  # no room for a name beside its lengths
    figure = new_figure(0.75 + (1.65 if crowded else 1.5) * len(maps))
    axes = figure.subplots(len(maps), len(lengths), squeeze=False, sharex="row", sharey="row")
    for row, (letter, (title, grown)) in enumerate(zip(LETTERS, maps.items(), strict=False)):
        for ax, one, length in zip(axes[row], grown, lengths, strict=True):
            mesh = _panel(ax, one, limit, math.log(10) / length)
            _edges(ax, datasets[title], upright=str(one.dims[0]))
        for ax in axes[row] if columns < 4 else axes[row, [(columns - 1) // 2]]:
            ax.set_xlabel(label(grown[0][grown[0].dims[1]]))
        axes[row, 0].set_ylabel(label(grown[0][grown[0].dims[0]]))
        for said in (f"{letter}   {title}", " "):  # the layout keeps the height of a line free, not its width
            line = axes[row, 0].annotate(said, (0, 1), (0, 16 if crowded else 5), xycoords="axes fraction",
                                         textcoords="offset points", fontweight="bold", fontsize=8.5)  # fmt: skip
            line.set_in_layout(said == " ")
        for ax, length in zip(axes[row], lengths, strict=True):
            ax.set_title(f"{length:,} steps", loc="right", fontsize=8.5 if columns < 5 else 7)
            ax.xaxis.set_major_locator(MaxNLocator(max(3, 14 // columns)))
    bar = figure.colorbar(mesh, ax=axes, extend="both", aspect=45, pad=0.02)
    sides = "vanishing < 0 < exploding"
    bar.set_label(f"growth (nat/step):\n{sides}" if len(maps) == 1 else f"growth of the gradient (nat/step): {sides}")
    handles = [proxy("measured: no growth", **MEASURED), proxy("a factor of 10 over the sequence", **TENFOLD)]
    drawn = {name for one in datasets.values() for name in one.data_vars}
    handles += [proxy(said, **style) for name, (style, said) in THEORIES.items() if name in drawn]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _edges(ax: Axes, dataset: xarray.Dataset, upright: str) -> None:
    """Theory's lines of no growth, on a map whose vertical axis is the gain `upright`."""
    for name, (style, _) in THEORIES.items():
        if name in dataset:
            edge = dataset[name]
            (along,) = edge.dims
            ax.plot(*((edge, edge[along]) if along == upright else (edge[along], edge)), **style)


def _map(dataset: xarray.Dataset, length: int, statistic: str, title: str, max_lost: float) -> xarray.DataArray:
    """Growth a step over a sequence of this length, over (the second gain, the first)."""
    if "time" not in dataset.dims or dataset.sizes["time"] < length:
        measured = dataset.sizes.get("time", 0)
        raise ValueError(f"lengths: {title} was measured over {measured} steps; pass lengths up to that, not {length}")
    grown = growth(dataset.sel(time=slice(1, length)), statistic, since=0, max_lost=max_lost)
    if grown.ndim != 2 or min(grown.shape) < 2:
        raise ValueError(
            f"dataset: the growth of {title} has the axes {', '.join(map(str, grown.dims)) or 'none'}; "
            "pass arrays of two gains to sweep"
        )
    return grown.transpose(*grown.dims[::-1])


def _panel(ax: Axes, grown: xarray.DataArray, limit: float, tenfold: float) -> Any:
    """The map, and its contours at no growth and where the gradient rises or falls tenfold."""
    x, y = (grown[name].values for name in grown.dims[::-1])
    mesh = ax.pcolormesh(x, y, grown.values, cmap=MAP, vmin=-limit, vmax=limit, shading="gouraud", rasterized=True)
    for level, style in ((-tenfold, TENFOLD), (0, MEASURED), (tenfold, TENFOLD)):
        if np.nanmin(grown.values) < level < np.nanmax(grown.values):
            ax.contour(x, y, grown.values, levels=[level], colors=style["color"], linewidths=style["linewidth"],
                       linestyles="solid")  # fmt: skip
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    return mesh
