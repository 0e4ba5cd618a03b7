"""What is forgotten: the gradient against the lag in time, and each network's horizon beneath it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.horizon import by_lag, horizon
from gradsim.plot.style import COLOURS, legend_above, new_figure, power_of_ten, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = math.log(10)
FLOOR, CEILING = -8.0, 2.0  # decades: beyond eight, float32 rounds the oldest step's share away
COLUMNS = (1.02, 1.21)  # of numbers, right of the bars, as shares of their axes' width
THEORY: Any = {"color": "black", "linewidth": 0.9, "linestyle": (0, (2.5, 1.5))}
DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.3)), (0, (1.2, 1.1)))


@styled
def memory(
    datasets: Mapping[str, xarray.Dataset],
    fraction: float = 1 / math.e,
    *,
    statistic: str = "log_gain",
    max_lost: float = 0.05,
) -> Figure:
    """The gradient against the lag, on axes of powers of ten, and below it the horizon of each network.

    Lines are geometric means over networks, bands hold 80 % of them. Beneath, on the same axis of steps, a bar
    reaches to the lag at which the mean has fallen to `fraction`, with its standard error, and a diamond
    marks the horizon by fit; beside it stand the horizon and the gradient that is left at the longest lag.

    Args:
        datasets: titles to sweeps of one network each, with the axes seed and time. A title's first word is
            its family: one colour, with other dashes for each member. A variable `theory` over time, the log gain
            that is predicted, is drawn too.
        max_lost: the share of the networks of a point that may have left the range of floats.

    Raises: ValueError naming what a dataset lacks.
    """
    falls = {name: by_lag(one, statistic) / LN10 for name, one in datasets.items()}
    horizons = {name: horizon(one, fraction, statistic=statistic, max_lost=max_lost) for name, one in datasets.items()}
    styles = _styles(list(datasets))
    longest = max(int(one["lag"][-1]) for one in falls.values())
    # The nearest horizon first; a gradient that has not fallen comes last, the one that fell least at the end.
    order = sorted(falls, key=lambda name: (_sortable(horizons[name]["horizon_crossing"]), _left(falls[name])))
    figure = new_figure(3.2 + 0.2 * len(order))
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 0.985, 1))  # the layout does not count the numbers' last column to its end
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.7, 0.3 + 0.2 * len(order)])
    for name, fall in falls.items():
        _curve(above, fall, **styles[name])
    _theories(above, datasets)
    _frame(above, fraction)
    _end_labels(above, falls, styles)
    below.set_ylim(len(order) - 0.4, -0.6)
    left = min([0.7, *(float(one["horizon_crossing"]) for one in horizons.values())]) / 1.4
    for row, name in enumerate(order):
        _bar(below, row, horizons[name], (left, longest), **styles[name])
        _numbers(below, row, horizons[name], falls[name], styles[name]["color"])
    below.set_xscale("log")
    below.set_xlim(left, longest * 1.25)
    below.set_yticks(range(len(order)), order)
    for tick, name in zip(below.get_yticklabels(), order, strict=True):
        tick.set_color(styles[name]["color"])
    below.tick_params(left=False)
    below.spines[["top", "right"]].set_visible(False)
    below.set_xlabel("lag, or horizon (step)")
    for place, text in zip(COLUMNS, (f"steps to {_share(fraction)}", f"left at {longest:,}"), strict=True):
        below.text(place, 1.0, text, transform=below.transAxes, fontsize=7, va="bottom")
    marks: Any = {"color": "0.3", "linewidth": 0, "markersize": 4}
    handles = [
        proxy(f"horizon, steps to {_share(fraction)}: by crossing", marker="o", **marks),
        proxy("by fit", marker="D", markerfacecolor="none", **marks),
    ]
    if any("theory" in one for one in datasets.values()):
        said = "theory: $e^{\\lambda_1\\,\\mathrm{lag}}$ (Sompolinsky et al. 1988)"
        handles.append(proxy(said, **THEORY))
    legend_above(figure, handles)
    for letter, ax in zip("ab", (above, below), strict=True):
        ax.annotate(letter, (-0.02, 1), (0, 6), xycoords="axes fraction", textcoords="offset points",
                    fontweight="bold", ha="right", va="bottom", fontsize=8.5)  # fmt: skip
    return figure


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """A colour for each family, dashes for each of its members."""
    first_words = [re.split(r"\W", name)[0] for name in names]
    families = list(dict.fromkeys(first_words))
    seen: dict[str, int] = {}
    styles = {}
    for name, family in zip(names, first_words, strict=True):
        member = seen[family] = seen.get(family, -1) + 1
        styles[name] = {
            "color": COLOURS[families.index(family) % len(COLOURS)],
            "linestyle": DASHES[member % len(DASHES)],
        }
    return styles


def _curve(ax: Axes, fall: xarray.DataArray, **style: Any) -> None:
    fall = fall.dropna("lag", how="all")  # where every network is dead there is no power of ten
    lag = fall["lag"].values
    low, high = (fall.quantile(share, "seed").values for share in (0.1, 0.9))
    ax.fill_between(lag, low, high, color=style["color"], alpha=0.18, linewidth=0)
    ax.plot(lag, fall.mean("seed").values, **style)


def _theories(ax: Axes, datasets: Mapping[str, xarray.Dataset]) -> None:
    predicted = [by_lag(one, "theory") / LN10 for one in datasets.values() if "theory" in one]
    for line in predicted:
        ax.plot(line["lag"], line, **THEORY)


def _frame(ax: Axes, fraction: float) -> None:
    ax.set_ylim(FLOOR, CEILING)
    ticks = np.arange(FLOOR, CEILING + 1, 2).astype(int)
    ax.set_yticks(ticks, [power_of_ten(float(tick)) for tick in ticks])
    ax.axhline(math.log10(fraction), color="0.45", linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=0)
    ax.text(0.01, math.log10(fraction) - 0.12, _share(fraction), transform=ax.get_yaxis_transform(), va="top",
            fontsize=7, color="0.35")  # fmt: skip
    ax.set_ylabel(r"gradient $\|\partial h_T\,/\,\partial h_{T-\mathrm{lag}}\|\;/\,\sqrt{n}$")
    note = "line: geometric mean\nof the living networks\nband: 80 % of them"
    ax.text(0.01, 0.03, note, transform=ax.transAxes, va="bottom", fontsize=7, color="0.35")
    ax.spines[["top", "right"]].set_visible(False)


def _end_labels(ax: Axes, falls: Mapping[str, xarray.DataArray], styles: Mapping[str, dict[str, Any]]) -> None:
    """The names of the lines that end in the panel, pushed apart where they would overlap, or that leave it above."""
    ends = {name: _left(fall) for name, fall in falls.items()}
    lowest = -math.inf
    for name in sorted((name for name in ends if FLOOR < ends[name] < CEILING), key=ends.__getitem__):
        lowest = max(ends[name], lowest + 0.055 * (CEILING - FLOOR))
        ax.text(COLUMNS[0] - 0.01, lowest, name, transform=ax.get_yaxis_transform(), fontsize=7, va="center",
                color=styles[name]["color"])  # fmt: skip
    leaving = {name: np.flatnonzero(falls[name].mean("seed").values > CEILING) for name in ends}
    lags = {name: int(falls[name]["lag"].values[above[0]]) for name, above in leaving.items() if above.size}
    level, before = 0, 0.0
    for name in sorted(lags, key=lags.__getitem__):
        level = level + 1 if lags[name] < 8 * before else 0  # names closer than a name is wide go over each other
        before = lags[name]
        ax.annotate(name, (lags[name], CEILING), (0, 1 + 9 * level), textcoords="offset points", fontsize=7,
                    ha="center", va="bottom", color=styles[name]["color"])  # fmt: skip


def _bar(ax: Axes, row: int, one: xarray.Dataset, ends: tuple[float, int], **style: Any) -> None:
    """The horizon by crossing as a bar with its error, or an arrow beyond the longest lag; by fit a diamond."""
    first, longest = ends
    crossing, error = float(one["horizon_crossing"]), float(one["horizon_crossing_error"])
    end = crossing if np.isfinite(crossing) else longest
    ax.plot([first, end], [row, row], linewidth=1.6, **style)
    if np.isfinite(crossing):
        ax.errorbar(crossing, row, xerr=error if np.isfinite(error) else 0, color=style["color"], marker="o",
                    markersize=4, elinewidth=1, capsize=2)  # fmt: skip
    else:
        ax.plot(longest, row, marker=">", color=style["color"], markersize=5)
    fit = float(one["horizon_fit"])
    if fit < longest:
        ax.plot(fit, row, marker="D", markersize=4.5, markerfacecolor="none", color=style["color"], linewidth=0)


def _numbers(ax: Axes, row: int, one: xarray.Dataset, fall: xarray.DataArray, colour: str) -> None:
    crossing, error = float(one["horizon_crossing"]), float(one["horizon_crossing_error"])
    words = with_error(crossing, error) if np.isfinite(crossing) else f"> {int(fall['lag'][-1]):,}"
    words = "< 0.01" if crossing < 0.01 else words
    for place, text in zip(COLUMNS, (words, power(_left(fall))), strict=True):
        ax.text(place, row, text, transform=ax.get_yaxis_transform(), fontsize=7, va="center", color=colour)


def _left(fall: xarray.DataArray) -> float:
    """The exponent of what is left at the longest lag, −inf where every network is dead."""
    left = float(fall.isel(lag=-1).mean("seed"))
    return -math.inf if math.isnan(left) else left


def with_error(value: float, error: float) -> str:
    """A number with its standard error to one digit: 2.13 ± 0.03."""
    if not error > 0:
        return f"{value:.3g}"
    digits = max(0, -math.floor(math.log10(error)))
    if digits > 6:
        return f"{value:.0e} ± {error:.0e}"
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def power(exponent: float) -> str:
    """10 to the exponent: as a plain number near 1, as a power of ten far from it."""
    if not np.isfinite(exponent):
        return "0"
    return f"{10**exponent:.1g}" if -3.5 < exponent < 1 else f"$10^{{{exponent:.0f}}}$"


def _share(fraction: float) -> str:
    return "1/e" if math.isclose(fraction, 1 / math.e) else f"{fraction:.3g}"


def _sortable(crossing: xarray.DataArray) -> float:
    return float(crossing) if np.isfinite(crossing) else math.inf
