"""Lyapunov spectra, the largest exponent against its theory, and maps of it and of the dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, MAP, heading, label, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THEORY: Any = {"color": "black", "linewidth": 1.0, "linestyle": (0, (2.5, 1.5))}
DIMENSIONS = "viridis"


@styled
def lyapunov_figure(
    spectra: Mapping[str, xarray.Dataset],
    largest: Mapping[str, xarray.Dataset],
    maps: xarray.Dataset,
    *,
    lowest: float = -4.0,
) -> Figure:
    """All exponents of some networks (a), the largest against the gain (b), maps of it (c) and of the dimension (d).

    Lines are means over networks; bands and bars are their standard errors.

    Args:
        spectra: titles to what `gradsim.lyapunov_exponents` measured at one point of the gains.
        largest: titles to the largest exponent over sigma_w, with a variable `theory` over it.
        maps: all exponents over two gains; a variable `edge_of_chaos` over the second is drawn as a line.
        lowest: where the axis of (a) ends, in nat.
    """
    figure = new_figure(5.6)
    axes = figure.subplots(2, 2)
    for colour, (title, one) in zip(COLOURS, spectra.items(), strict=False):
        _spectrum(axes[0, 0], title, one, colour)
    axes[0, 0].axhline(0, color="0.7", linewidth=0.7, zorder=0)
    axes[0, 0].set(
        ylim=(lowest, -lowest / 2.6), xlim=(0, 1), xlabel="share of the exponents, i/n", ylabel="λ (nat/step)"
    )
    axes[0, 0].legend(fontsize=6, loc="upper right", ncols=2, handlelength=1.2, columnspacing=1)
    heading(axes[0, 0], "a", "whole spectra, no input")
    for colour, (title, one) in zip(COLOURS, largest.items(), strict=False):
        first = one.lyapunov.isel(exponent=0)
        error = first.std("seed", ddof=1) / np.sqrt(one.sizes["seed"])
        axes[0, 1].errorbar(one.sigma_w, first.mean("seed"), error, fmt="o", color=colour, markersize=3, label=title)
    axes[0, 1].plot(one.sigma_w, one.theory, **THEORY, label="theory, N → ∞ (Sompolinsky et al. 1988)")
    axes[0, 1].axhline(0, color="0.7", linewidth=0.7, zorder=0)
    axes[0, 1].set(xlabel=label(one.sigma_w), ylabel="largest exponent λ₁ (nat/step)")
    axes[0, 1].legend(fontsize=6.5, loc="upper left")
    axes[0, 1].margins(y=0.25)
    heading(axes[0, 1], "b", "tanh RNN, no input")
    first, dimension = maps.lyapunov.isel(exponent=0).mean("seed"), maps.kaplan_yorke.mean("seed")
    limit = float(np.abs(first.quantile([0.05, 0.95])).max())
    _map(axes[1, 0], first, maps, {"cmap": MAP, "vmin": -limit, "vmax": limit}, "λ₁ (nat/step)", extend="both")
    _map(axes[1, 1], dimension, maps, {"cmap": DIMENSIONS, "vmin": 0.0}, "Kaplan–Yorke dimension")
    heading(axes[1, 0], "c", f"tanh RNN with input, n = {maps.sizes['exponent']}")
    heading(axes[1, 1], "d", "the same networks")
    handles = [proxy("measured: λ₁ = 0", color="black", linewidth=1.4), proxy("theory: λ₁ = 0, N → ∞", **_EDGE)]
    axes[1, 0].legend(handles=handles, fontsize=6.5, loc="lower right", framealpha=0.9, frameon=True)
    return figure


_EDGE: Any = {"color": COLOURS[2], "linewidth": 1.4, "linestyle": (0, (2.5, 1.5))}


def _spectrum(ax: Axes, title: str, dataset: xarray.Dataset, colour: str) -> None:
    values = dataset.lyapunov.where(np.isfinite(dataset.lyapunov))
    mean, count = values.mean("seed"), values.sizes["seed"]
    error = values.std("seed", ddof=1) / np.sqrt(count)
    share = (dataset.exponent - 0.5) / dataset.sizes["exponent"]
    ax.fill_between(share, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)
    ax.plot(share, mean, color=colour, linewidth=1.2, label=title.replace("σ_w", r"$\sigma_w$"))


def _map(ax: Axes, values: xarray.DataArray, maps: xarray.Dataset, colours: Any, said: str, **bar: Any) -> None:
    """A map over (the first gain, upwards; the second), with its zero of λ₁ measured and by theory."""
    up, along = (maps[name] for name in values.dims)
    mesh = ax.pcolormesh(along, up, values, shading="nearest", rasterized=True, **colours)
    first = maps.lyapunov.isel(exponent=0).mean("seed")
    if float(first.min()) < 0 < float(first.max()):
        ax.contour(along, up, first, levels=[0], colors="black", linewidths=1.4)
    if "edge_of_chaos" in maps:
        ax.plot(along, maps.edge_of_chaos, **_EDGE)
    ax.set(xlabel=label(along), ylabel=label(up), ylim=(float(up[0]), float(up[-1])))
    ax.figure.colorbar(mesh, ax=ax, **bar).set_label(said)
