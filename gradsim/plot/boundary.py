"""The boundary of trainability, enlarged window by window, and how its boxes are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, MAP, label, new_figure, power_of_ten, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^Dv<>ph*"
LIMIT = 5.0  # nat: beyond, colours do not change
COLUMNS = 3


@styled
def trainability_boundary(
    datasets: Mapping[str, xarray.Dataset], counts: Mapping[str, xarray.Dataset | None]
) -> Figure:
    """A map for each window, with the outline of the next, and beneath them the box counts and the dimensions.

    Args:
        datasets: by name, from the largest window to the smallest, `log_ratio` over the second and the first
            hyper-parameter: ln of the loss in the end over that at the start, NaN where it is not known; attributes
            `zoom` and `center`.
        counts: by the same names what `gradsim.analysis.dimension.box_dimension` found, or None.
    """
    rows = -(-len(datasets) // COLUMNS)
    columns = min(COLUMNS, len(datasets))
    figure = new_figure(2.45 * rows + 2.2)
    halves: Any = figure.subfigures(2, 1, height_ratios=[2.45 * rows, 2.2])
    panels = halves[0].subplots(rows, columns, squeeze=False).ravel()
    windows = list(datasets.values())
    for place, (ax, one) in enumerate(zip(panels, windows, strict=False)):
        drawn = _map(ax, one, windows[place + 1] if place + 1 < len(windows) else None)
        ax.set_title(_times(one))
        ax.set_title(LETTERS[place], loc="left", fontweight="bold")
    for ax in panels[len(windows) :]:
        ax.remove()
    bar = halves[0].colorbar(drawn, ax=list(panels[: len(windows)]), extend="both", shrink=0.8, aspect=25)
    bar.set_label("ln(loss in the end / at the start) (nat)")
    left, right = halves[1].subplots(1, 2)
    _counts(left, right, windows, [counts[name] for name in datasets])
    for place, ax in enumerate((left, right)):
        ax.set_title(LETTERS[len(windows) + place], loc="left", fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _times(one: xarray.Dataset) -> str:
    zoom = one.attrs["zoom"]
    return f"× {zoom:,g}" if zoom < 1e5 else f"× {power_of_ten(np.log10(zoom))}"


def _decades(one: xarray.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Both axes as decimal logarithms, from the middle."""
    y, x = one["log_ratio"].dims
    return tuple(np.log10(one[axis].values / middle) for axis, middle in zip((x, y), one.attrs["center"], strict=True))


def _map(ax: Axes, one: xarray.Dataset, inner: xarray.Dataset | None) -> Any:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    x, y = _decades(one)
    half_x, half_y = (float(axis[-1] - axis[0]) / (2 * (axis.size - 1)) for axis in (x, y))
    colours = colormaps[MAP].with_extremes(bad="0.6")  # where it is not known
    values = np.ma.masked_invalid(np.clip(one["log_ratio"].values, -2 * LIMIT, 2 * LIMIT))
    extent = (x[0] - half_x, x[-1] + half_x, y[0] - half_y, y[-1] + half_y)
    drawn = ax.imshow(values, origin="lower", extent=extent, aspect="auto", cmap=colours, vmin=-LIMIT, vmax=LIMIT,
                      interpolation="nearest")  # fmt: skip
    for axis, side in ((ax.xaxis, x), (ax.yaxis, y)):
        reach = float(f"{0.8 * side[-1]:.0e}")
        said = f"{reach:g}" if reach > 1e-3 else power_of_ten(np.log10(reach))
        axis.set_ticks([-reach, 0, reach], [f"\u2212{said}", "0", said])
    second, first = one["log_ratio"].dims
    middle = one.attrs["center"]
    ax.set_xlabel(f"log$_{{10}}$({label(one[first])} / {middle[0]:g})", fontsize=6.5)
    ax.set_ylabel(f"log$_{{10}}$({label(one[second])} / {middle[1]:g})", fontsize=6.5)
    if inner is not None:
        a, b = _decades(inner)
        ax.add_patch(Rectangle((a[0], b[0]), np.ptp(a), np.ptp(b), fill=False, edgecolor="black", linewidth=0.8))
    return drawn


def _counts(left: Axes, right: Axes, windows: list[xarray.Dataset], counts: list[xarray.Dataset | None]) -> None:
    """Shares of mixed boxes with the fitted laws, and the dimensions with their errors."""
    from matplotlib.ticker import NullFormatter, NullLocator

    for place, (one, found) in enumerate(zip(windows, counts, strict=True)):
        if found is None or np.isnan(found["dimension"]):
            continue
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        size = found["size"].values
        left.loglog(size, found["mixed"], marker, color=colour, markersize=3.5, fillstyle="none",
                    label=_times(one))  # fmt: skip
        left.loglog(size, found["fitted"], color=colour, linewidth=1)
        right.errorbar(one.attrs["zoom"], found["dimension"], found["error"], fmt=marker, color=colour, markersize=4,
                       capsize=2, elinewidth=0.9)  # fmt: skip
    left.set(xlabel="side of a box, s (cells)", ylabel="share of mixed boxes")
    left.set_title("box counts; lines: fitted, $s^{2 - D}$")
    shown = [2**k for k in range(12) if 2**k <= left.get_xlim()[1]]
    left.set_xticks(shown, [str(size) for size in shown])
    left.xaxis.set_minor_locator(NullLocator())
    left.yaxis.set_minor_formatter(NullFormatter())
    if left.get_legend_handles_labels()[0]:
        lowest = min(float(found["mixed"].min()) for found in counts if found is not None and found["mixed"].all())
        left.set_ylim(10 ** (np.floor(np.log10(lowest * 0.999)) - 0.7), 1.5)  # the legend is beneath the counts
        left.legend(ncols=3, loc="lower center", columnspacing=1)
    right.set(xlabel="magnification", ylabel="dimension D", ylim=(0.9, 2.15))
    if len(windows) > 1:
        right.set_xscale("log")
    right.set_title("box-counting dimension")
    for value, name in ((1, "smooth line"), (2, "fills the plane")):
        right.axhline(value, color="0.5", linewidth=0.7, zorder=0)
        right.text(0.98, value, name, transform=right.get_yaxis_transform(), ha="right", va="bottom", fontsize=6.5,
                   color="0.3")  # fmt: skip
