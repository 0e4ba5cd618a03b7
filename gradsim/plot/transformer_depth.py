"""Transformers over depth: gain, gradient and likeness of tokens block by block, and a map over temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.memory import root_mean_square
from gradsim.plot.style import COLOURS, cell_edges, heading, legend_above, new_figure, power_of_ten, proxy, styled
from gradsim.plot.style import MAP as COLOUR_MAP

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP = "map"  # the Dataset of the map, among those of networks
LN10 = math.log(10)
MARKERS = "osD^vPX"
POINTS = 9  # of a line that are marked
PANELS = {
    "gain": ("gain of all before", r"gain $(\mathrm{E}\|\partial X_l/\partial X_0\|_F^2/nd)^{1/2}$"),
    "back": ("gradient on its way back", r"gradient $(\mathrm{E}\|\partial X_L/\partial X_{l-1}\|_F^2/nd)^{1/2}$"),
    "correlation": ("tokens become alike", "correlation of two tokens"),
}


def summary(one: xarray.Dataset) -> xarray.Dataset:
    """Of a network's Dataset over seed and depth: gain and back, in nat, and correlation; means, errors and theory."""
    fields = ("log_gain", "log_back", "correlation")
    one = one[[*fields, *(f"{field}_theory" for field in fields)]]
    found: dict[str, Any] = {}
    for name, variable in (("gain", "log_gain"), ("back", "log_back")):
        logs = 2 * one[variable].transpose("seed", "depth").to_numpy()
        found[name], found[f"{name}_error"] = root_mean_square(np.ascontiguousarray(logs))
        found[f"{name}_theory"] = one[f"{variable}_theory"].to_numpy()
    likeness = one["correlation"].transpose("seed", "depth").to_numpy()
    found["correlation"] = likeness.mean(axis=0)
    found["correlation_error"] = likeness.std(axis=0, ddof=1) / math.sqrt(len(likeness))
    found["correlation_theory"] = one["correlation_theory"].to_numpy()
    return one[["depth"]].assign({name: ("depth", values) for name, values in found.items()})


@styled
def transformer_depth(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """Points measured, root mean squares with standard errors, over the lines of theory; the map with its contours.

    Args:
        datasets: titles to what `scripts/transformer_depth.py` measures of each network; "map" is the Dataset over
            temperature, seed and depth.
    """
    figure = new_figure(5.6)
    axes = figure.subplots(2, 2).ravel()
    networks = {name: summary(one) for name, one in datasets.items() if name != MAP}
    for letter, ax, (field, (title, label)) in zip("abc", axes, PANELS.items(), strict=False):
        heading(ax, letter, title)
        for place, one in enumerate(networks.values()):
            _line(ax, one, field, place)
        ax.set_xlabel("depth (block)")
        ax.set_ylabel(label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(0, None)
        if field == "correlation":
            ax.set_ylim(-0.02, 1.04)
        else:
            ax.axhline(0, color="0.75", linewidth=0.6, zorder=0)
            _powers(ax)
    _map(figure, axes[3], datasets[MAP])
    handles = [
        proxy(name, color=COLOURS[place % 7], marker=MARKERS[place % 7], markersize=3, linewidth=1.1)
        for place, name in enumerate(networks)
    ]
    handles.append(proxy("measured ± s.e.", color="0.3", marker="o", markersize=3, linewidth=0))
    handles.append(proxy("theory, infinite width", color="0.3", linewidth=1.1))
    legend_above(figure, handles)
    return figure


def _line(ax: Axes, one: xarray.Dataset, field: str, place: int) -> None:
    colour, scale = COLOURS[place % 7], 1.0 if field == "correlation" else 1 / LN10
    depth = one["depth"].to_numpy()
    ax.plot(depth, scale * one[f"{field}_theory"].to_numpy(), color=colour, linewidth=1.1)
    # Each network's points at other blocks, so that they do not hide each other.
    marked = np.unique(np.linspace(0, depth.size - 1, POINTS).round().astype(int))
    shift = round(place * (depth.size - 1) / POINTS / 8)
    marked = np.unique(np.minimum(marked + shift, depth.size - 1))
    some = one.isel(depth=marked)
    ax.errorbar(
        some["depth"], scale * some[field], yerr=scale * some[f"{field}_error"], color=colour,
        marker=MARKERS[place % 7], markersize=3, linewidth=0, elinewidth=0.8,
    )  # fmt: skip


def _powers(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda tick, _: f"{10**tick:.2g}" if abs(tick) < 2 else power_of_ten(tick))
    )


def _map(figure: Figure, ax: Axes, one: xarray.Dataset) -> None:
    values = 2 * one["log_gain"].transpose("seed", "temperature", "depth").to_numpy()
    gain = root_mean_square(np.ascontiguousarray(values))[0].T / LN10
    temperature, depth = one["temperature"].to_numpy(), one["depth"].to_numpy()
    limit = max(float(np.nanquantile(np.abs(gain), 0.98)), 1e-3)
    mesh = ax.pcolormesh(
        cell_edges(temperature), cell_edges(depth), gain, cmap=COLOUR_MAP, vmin=-limit, vmax=limit, rasterized=True
    )
    theory = one["theory"].transpose("depth", "temperature").to_numpy() / LN10
    levels = np.round(np.linspace(-limit, limit, 11), 2)[1:-1]
    if min(theory.shape) > 1 and np.isfinite(theory).any():
        for field, style in ((gain, "solid"), (theory, "dashed")):
            ax.contour(temperature, depth, field, levels=levels, colors="0.15", linewidths=0.8, linestyles=style)
    heading(ax, "d", f"gain, {one.attrs['network']} (dashed: theory)")
    ax.set_xlabel(r"temperature $\tau$ (standard deviation of a logit)")
    ax.set_ylabel("depth (block)")
    bar = figure.colorbar(mesh, ax=ax, extend="both", pad=0.02)
    bar.set_label(r"$\log_{10}$ gain")
