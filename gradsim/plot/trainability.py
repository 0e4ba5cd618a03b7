"""What trains: accuracy over a gain and depth or length, where it is half its best, and theory's depth scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.trainability import inside, size_axis, typical
from gradsim.plot.style import COLOURS, LETTERS, label, legend_above, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Red-yellow-white of the theory and black of the measurement are seen on every colour of the map.
HALF: Any = {"color": "black", "marker": "o", "markersize": 3, "linewidth": 1.3}
THEORY: Any = {"color": "white", "linewidth": 1.5}
DASHES = ((0, (3, 1.5)), (0, (1, 1)))
MARKERS = "osD^vP*Xh<>p"
ACCURACY = "cividis"


@styled
def trainability(cases: Mapping[str, xarray.Dataset], multiple: int = 6) -> Figure:
    """Maps of accuracy, and where there are theories the trainable depth of all cases against ξ_c.

    Args:
        cases: titles to what `gradsim.analysis.trainability.summary` finds: `accuracy` and `half` over a gain and
            seed, and depth or length; `log_gradient` at the start, and `xi_c` over the gain where theory has it.
        multiple: of ξ_c, drawn beside ξ_c itself.
    """
    theories = {name: one for name, one in cases.items() if "xi_c" in one}
    count = len(cases) + bool(theories)
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = new_figure(0.6 + 1.95 * rows, 7.0 if columns == 3 else 2.6 * columns + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    maps = list(axes[: len(cases)])
    for letter, ax, (name, one) in zip(LETTERS, maps, cases.items(), strict=False):
        mesh = _map(ax, one, multiple)
        _title(ax, letter, name)
    if theories:
        _against_theory(axes[len(cases)], theories, multiple)
        _title(axes[len(cases)], LETTERS[len(cases)], "trainable depth")
    bar = figure.colorbar(mesh, ax=list(axes), aspect=45, pad=0.02)
    bar.set_label("accuracy on held-out data")
    handles = [proxy("accuracy half its best (± standard error)", **HALF)]
    if theories:
        grey: Any = {**THEORY, "color": "0.5"}
        handles += [
            proxy(said, **grey, linestyle=dash)
            for said, dash in zip((r"theory: $\xi_c$", rf"${multiple}\,\xi_c$"), DASHES, strict=True)
        ]
    lost: Any = {"color": "0.3", "marker": "x", "linewidth": 0, "markersize": 4}
    handles.append(proxy("gradient 0 in float32 at the start", **lost))
    legend_above(figure, handles)
    return figure


def _title(ax: Axes, letter: str, name: str) -> None:
    ax.set_title(f"{letter}  ", loc="left", fontweight="bold")
    ax.set_title(name, fontsize=8)


def _map(ax: Axes, one: xarray.Dataset, multiple: int) -> Any:
    """Accuracy by cell, the half-way line with its errors, theory's multiples, and crosses where nothing comes back."""
    axis = size_axis(one)
    (gain,) = (name for name in one["accuracy"].dims if name not in (axis, "seed"))
    accuracy = one["accuracy"].mean("seed").transpose(axis, gain)
    x, y = one[gain].values, one[axis].values
    edges = _edges(np.log(y))
    mesh = ax.pcolormesh(_edges(x), np.exp(edges), accuracy, cmap=ACCURACY, vmin=0, vmax=1, rasterized=True)
    lost = (one["log_gradient"] == -np.inf).mean("seed").transpose(axis, gain).values > 0.5
    rows, columns = np.nonzero(lost)
    ax.plot(x[columns], y[rows], "x", color="white", markersize=3.5, markeredgewidth=0.8)
    if "xi_c" in one:
        for factor, dash in zip((1, multiple), DASHES, strict=True):
            ax.plot(one["line"], factor * one["xi_c_line"], **THEORY, linestyle=dash)
    mean, error, known = _line(one)
    ax.plot(x, mean, color=HALF["color"], linewidth=HALF["linewidth"])
    ax.errorbar(x[known], mean[known], yerr=error[:, known], linestyle="none", elinewidth=1,
                **{key: HALF[key] for key in ("color", "marker", "markersize")})  # fmt: skip
    ax.set_yscale("log")
    _plain(ax.yaxis, y)
    ax.set(xlim=_edges(x)[[0, -1]], ylim=np.exp(edges[[0, -1]]), xlabel=label(one[gain]), ylabel=label(one[axis]))
    return mesh


def _line(one: xarray.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trainable size over the gain, the reach of its error below and above, [2, gain], and where it is no bound."""
    mean, error, _ = typical(one["half"])
    return mean, np.stack([mean - mean * np.exp(-error), mean * np.exp(error) - mean]), inside(one)


def _edges(centres: np.ndarray) -> np.ndarray:
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])


def _plain(axis: Any, values: np.ndarray) -> None:
    """Ticks at these values on a logarithmic axis, no others."""
    from matplotlib.ticker import NullFormatter, NullLocator

    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _against_theory(ax: Axes, theories: Mapping[str, xarray.Dataset], multiple: int) -> None:
    """Trainable depth against ξ_c: hollow where it is but a bound."""
    scales, depths = [], []
    for place, (name, one) in enumerate(theories.items()):
        xi, depth = one["xi_c"].values, one["depth"].values
        mean, error, within = _line(one)
        known, bound = np.isfinite(xi) & np.isfinite(mean), ~within
        style: Any = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 3.5,
        }
        ax.errorbar(xi[known & ~bound], mean[known & ~bound], yerr=error[:, known & ~bound], linestyle="none",
                    elinewidth=0.8, label=name, **style)  # fmt: skip
        ax.plot(xi[known & bound], mean[known & bound], linestyle="none", markerfacecolor="none", alpha=0.6, **style)
        scales += xi[known].tolist()
        depths += depth.tolist()
    ax.set(xscale="log", yscale="log", xlabel=r"theory: $\xi_c$ (layer)", ylabel="trainable depth (layer)")
    low, high = min(scales, default=1.0), max(scales, default=10.0)
    line = np.array([low / 1.3, high * 1.3])
    for factor, dash in zip((1, multiple), DASHES, strict=True):
        ax.plot(line, factor * line, color="0.5", linewidth=1.2, linestyle=dash, zorder=0)
    ax.set(xlim=line, ylim=(min(depths) / 1.3, max(depths) * 1.3))
    _plain(ax.yaxis, np.unique(depths))
    ax.legend(loc="upper left", fontsize=5.5, handletextpad=0.2, labelspacing=0.25, borderaxespad=0.1)
