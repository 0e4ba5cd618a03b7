"""How the log gain scatters over finite networks: histograms, and moments of all widths on one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.critical import MARKERS
from gradsim.plot.style import COLOURS, LETTERS, legend_above, new_figure, proxy, styled, words

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"relu": "ReLU, He", "identity": "linear, Gaussian"}
PREDICTED: Any = {"linewidth": 1.0, "color": "black"}
EXACT: Any = {"linewidth": 0.7, "linestyle": (0, (4, 1.5)), "zorder": 1}
POINT: Any = {"linestyle": "none", "markersize": 3, "elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8}
LOG_NORM = r"$\ln\,\|J u\|$ (nat)"


@styled
def finite_width(summaries: Sequence[xarray.Dataset]) -> Figure:
    """Histograms of ln ‖J u‖ at several depths over width, and its mean, variance and residuals against L/N.

    Args:
        summaries: one Dataset for each activation and width, named by its attributes `activation` and `width`;
            over seed and depth `log_jvp`, and over depth `mean` and `variance` with `_error`, `exact_mean` and
            `exact_variance`, and `hanin_nica`, the variance that they predict, which is minus their mean.
    """
    kinds = list(dict.fromkeys(str(one.attrs["activation"]) for one in summaries))
    widths = sorted({one.attrs["width"] for one in summaries})
    colours = {kind: COLOURS[place % len(COLOURS)] for place, kind in enumerate(kinds)}
    markers = {width: MARKERS[place % len(MARKERS)] for place, width in enumerate(widths)}
    figure = new_figure(4.4)
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    above, below = halves
    widest = [one for one in summaries if one.attrs["width"] == widths[-1]]
    last = widest[0].sizes["depth"]
    depths = [depth for depth in (last // 8, last // 4, last // 2, last) if depth]
    row = above.subplots(1, len(depths), sharex=True, squeeze=False)[0]
    for letter, ax, depth in zip(LETTERS, row, depths, strict=False):
        for one in widest:
            _histogram(ax, one.sel(depth=depth), colours[one.attrs["activation"]])
        _title(ax, letter, f"L/N = {depth / widths[-1]:g}")
    row[0].locator_params(axis="x", nbins=4)  # of all, which share it
    row[0].set_ylabel(f"density, N = {widths[-1]}")
    row[0].text(0.03, 0.97, "line at 0:\n" + r"E $\|J u\|^2$ = 1", transform=row[0].transAxes, va="top", fontsize=6.5,
                color="0.35")  # fmt: skip
    above.supxlabel(LOG_NORM, fontsize=8)
    panels = below.subplots(1, 3)
    for one in summaries:
        style = {"color": colours[one.attrs["activation"]], "fmt": markers[one.attrs["width"]]}
        _moments(panels, one, style)
    _finish(panels, LETTERS[len(depths) :])
    handles = [
        proxy(NAMES.get(kind, words(kind)), color=colour, linewidth=4, alpha=0.6) for kind, colour in colours.items()
    ]
    handles += [proxy(f"N = {width}", color="0.35", marker=marker, linestyle="none", markersize=4)
                for width, marker in markers.items()]  # fmt: skip
    handles.append(proxy("Hanin and Nica 2018", **PREDICTED))
    legend_above(figure, handles, columnspacing=1.2)
    return figure


def _title(ax: Axes, letter: str, title: str) -> None:
    ax.set_title(title)
    ax.set_title(letter, loc="left", fontweight="bold")


def _histogram(ax: Axes, one: xarray.Dataset, colour: str) -> None:
    """The living networks, and the normal density that is predicted for them."""
    values = one["log_jvp"].values
    ax.hist(values[np.isfinite(values)], bins=40, density=True, color=colour, alpha=0.45, linewidth=0)
    v = float(one["hanin_nica"])
    x = -v + np.sqrt(v) * np.linspace(-4, 4, 161)
    ax.plot(x, np.exp(-((x + v) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v), **PREDICTED)
    ax.axvline(0, color="0.6", linewidth=0.6, zorder=0)
    ax.spines[["top", "right"]].set_visible(False)


def _moments(panels: Sequence[Axes], one: xarray.Dataset, style: dict[str, Any]) -> None:
    """Eight depths of one width: moments with error bars on the predicted line, and residuals from the exact law."""
    layers = one["depth"].values
    few = one.sel(depth=np.unique(np.linspace(max(1, layers[-1] / 8), layers[-1], 8).round().astype(int)))
    ratio = few["depth"].values / one.attrs["width"]
    whole = np.append(0, layers / one.attrs["width"])
    for ax, name, sign in ((panels[0], "mean", -1), (panels[1], "variance", 1)):
        ax.plot(whole, sign * np.append(0, one["hanin_nica"].values), zorder=1, **PREDICTED)
        ax.plot(whole, np.append(0, one[f"exact_{name}"].values), color=style["color"], **EXACT)
        ax.errorbar(ratio, few[name], few[f"{name}_error"], **style, **POINT)
        residual = (few[name] - few[f"exact_{name}"]) / few[f"{name}_error"]
        hollow = "full" if name == "mean" else "none"
        panels[2].plot(ratio, residual, style["fmt"], color=style["color"], fillstyle=hollow, markersize=3,
                       markeredgewidth=0.7)  # fmt: skip


def _finish(panels: Sequence[Axes], letters: Sequence[str]) -> None:
    labels = (f"mean of {LOG_NORM}", r"variance of $\ln\,\|J u\|$ (nat²)", "residual (standard errors)")
    titles = ("mean", "variance", "measured − exact")
    for ax, letter, label, title in zip(panels, letters, labels, titles, strict=False):
        _title(ax, letter, title)
        ax.set(xlabel="depth over width, L/N", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    panels[1].legend(handles=[proxy("exact, each N", color="0.35", **EXACT)], loc="upper left")
    panels[2].axhspan(-2, 2, color="0.9", linewidth=0, zorder=0)
    panels[2].axhline(0, color="0.5", linewidth=0.7, zorder=0)
    limit = max(4.5, 1.1 * float(np.abs(panels[2].get_ylim()).max()))
    panels[2].set_ylim(-limit, limit)
    handles = [proxy(name, color="0.35", marker="o", fillstyle=fill, linestyle="none", markersize=4)
               for name, fill in (("mean", "full"), ("variance", "none"))]  # fmt: skip
    panels[2].legend(handles=handles, loc="lower left", ncols=2)
