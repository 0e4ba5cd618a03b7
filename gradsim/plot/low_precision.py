"""What narrow formats lose: maps of a gradient that is rounded at every layer, half-loss depths, and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.style import COLOURS, LETTERS, MAP, cell_edges, heading, label, new_figure, power_of_ten, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", (0, (2, 1)))  # without loss scaling, and with it
FAR = 1000.0  # layers: beyond it a horizon is not drawn


@styled
def low_precision(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """Maps of what one format loses, half-loss depths of all, and what training then reaches.

    Args:
        datasets: `lost`, a backward sweep in a narrow dtype over loss_scale and one gain; `horizons`, what
            `gradsim.precision_horizon` finds, over format, scale and the gain; perhaps `training`, the accuracy over
            gradient, the gain and seed.
    """
    lost, horizons, training = datasets["lost"], datasets["horizons"], datasets.get("training")
    figure = new_figure(4.8)
    axes = figure.subplots(2, 2).ravel()
    for letter, ax, place in zip(LETTERS, axes, range(2), strict=False):
        mesh = _map(ax, lost.isel(loss_scale=place), horizons.sel(format=lost.attrs["dtype"]).isel(scale=place))
        heading(ax, letter, f"{lost.attrs['dtype']}, {_scaling(lost['loss_scale'].values[place])}")
    axes[0].legend(loc="lower right")
    bar = figure.colorbar(mesh, ax=list(axes[:2]), aspect=30, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.ax.set_yticklabels(["all 0", "half 0", "kept", "half inf", "all inf"])
    bar.set_label("entries of the gradient")
    _horizons(axes[2], horizons)
    heading(axes[2], LETTERS[2], "half of the exact gradient lost")
    if training is None:
        axes[3].set_axis_off()
    else:
        _training(axes[3], training)
        heading(axes[3], LETTERS[3], f"{training.attrs['layers']} layers trained, gradient held in")
    return figure


def _gain(values: xarray.DataArray, *others: str) -> str:
    (gain,) = (str(name) for name in values.dims if name not in ("seed", "depth", "time", *others))
    return gain


def _scaling(scale: float) -> str:
    exponent = np.log2(scale)
    size = f"$2^{{{exponent:.0f}}}$" if exponent == np.round(exponent) else power_of_ten(float(np.log10(scale)))
    return "loss as it is" if scale == 1 else rf"loss $\times$ {size}"


def _map(ax: Axes, lost: xarray.Dataset, horizons: xarray.Dataset) -> Any:
    """Overflow (red) less zeros (blue) over the gain and the layers from the end, and the exact half-loss depth."""
    gain = _gain(lost["zeros"])
    share = (lost["overflow"] - lost["zeros"].where(lost["overflow"] == 0, 0)).mean("seed").transpose("depth", gain)
    depth = int(lost.attrs["depth"])
    x, y = lost[gain].values, depth + 1 - lost["depth"].values
    mesh = ax.pcolormesh(cell_edges(x), cell_edges(y), share, cmap=MAP, vmin=-1, vmax=1, rasterized=True)
    line, error = horizons["horizon_crossing"].values, horizons["horizon_crossing_error"].fillna(0).values
    ax.errorbar(x, line, yerr=error, color="black", linewidth=1.2, elinewidth=0.8, label="exact gradient, half lost")
    ax.set(xlabel=label(lost[gain]), ylabel="layers from the loss", ylim=(0.5, depth + 0.5))
    return mesh


def _horizons(ax: Axes, horizons: xarray.Dataset) -> None:
    gain = _gain(horizons["horizon_fit"], "format", "scale")
    x = horizons[gain].values
    for name, colour in zip(horizons["format"].values.tolist(), COLOURS, strict=False):
        for place, dash in enumerate(DASHES):
            one = horizons.sel(format=name).isel(scale=place)
            at, error = one["horizon_fit"].values, one["horizon_fit_error"].values
            at = np.where((at > 0) & (at < FAR), at, np.nan)
            ax.plot(x, at, color=colour, linestyle=dash, label=None if place else name.replace("_", " "))
            ax.fill_between(x, np.maximum(at - error, 0.1), at + error, color=colour, alpha=0.25, linewidth=0)
    ax.plot([], [], color="0.4", linestyle=DASHES[1], label=_scaling(float(horizons["scale"][1])))
    inside = np.flatnonzero((horizons["horizon_fit"] < FAR).any(["format", "scale"]).values)  # NaN and inf are not
    last = x[min(x.size - 1, inside.max() + 1)] if inside.size else x.max()
    ax.set(yscale="log", ylim=(1, FAR), xlim=(x.min(), last), xlabel=label(horizons[gain]), ylabel="depth (layer)")
    ax.legend(loc="lower right")


def _training(ax: Axes, training: xarray.Dataset) -> None:
    gain = _gain(training["accuracy"], "gradient")
    x = training[gain].values
    styles = (("black", "-", "o"), (COLOURS[3], "-", "s"), (COLOURS[3], DASHES[1], "^"))
    for name, (colour, dash, marker) in zip(training["gradient"].values.tolist(), styles, strict=False):
        one = training["accuracy"].sel(gradient=name)
        mean, count = one.mean("seed").values, one.sizes["seed"]
        error = one.std("seed", ddof=1).values / np.sqrt(count) if count > 1 else np.full(mean.shape, np.nan)
        ax.errorbar(x, mean, yerr=error, color=colour, linestyle=dash, marker=marker, markersize=3, elinewidth=0.8,
                    label=name.replace("_", " "))  # fmt: skip
    ax.set(ylim=(0, 1), xlabel=label(training[gain]), ylabel="accuracy on held-out data")
    ax.legend(loc="lower right")
