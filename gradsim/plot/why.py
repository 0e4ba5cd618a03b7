"""Why gradients vanish: the slopes of activations, their product over layers, and what is left of it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.plot.style import COLOURS, held, new_figure, power_of_ten, styled, words

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LN10 = float(np.log(10.0))
SMALLEST = float(np.log10(np.finfo(np.float32).smallest_subnormal))  # −44.85


@styled
def derivatives(datasets: Mapping[str, xarray.Dataset]) -> Figure:
    """Activations and slopes above, a product of slopes in and out of floats, and the whisper down the line.

    Args:
        datasets: `activations` with `value` and `slope` over (activation, z); `chain`, a sweep of chains of
            scalars over sigma_w and depth, with `float32_product` beside its `log_gain`.

    Raises: ValueError naming the dataset or variable that is missing.
    """
    import xarray

    if not isinstance(datasets, Mapping):
        raise TypeError(f"datasets: {arguments.got(datasets)}; pass a mapping of activations and chain to Datasets")
    for name, variables in {"activations": ("value", "slope"), "chain": ("log_gain", "float32_product")}.items():
        if name not in datasets:
            raise ValueError(f"datasets: there is no {name!r}; there are: {', '.join(datasets)}")
        if not isinstance(datasets[name], xarray.Dataset):
            raise TypeError(f"datasets: {name} is a {type(datasets[name]).__name__}; pass a Dataset")
        missing = [variable for variable in variables if variable not in datasets[name]]
        if missing:
            raise ValueError(f"datasets: {name} holds no {missing[0]!r}; it holds: {held(datasets[name])}")
    figure = new_figure(5.3)
    panels: Any = figure.subplot_mosaic([["a", "b", "c"], ["d", "d", "d"]], height_ratios=[1.25, 1])
    _values(panels["a"], datasets["activations"])
    _slopes(panels["b"], datasets["activations"])
    _underflow(panels["c"], datasets["chain"])
    _whisper(panels["d"], datasets["chain"])
    for letter, ax in panels.items():
        ax.set_title(letter, loc="left", fontweight="bold")
    return figure


def _values(ax: Axes, dataset: xarray.Dataset) -> None:
    for name, colour in zip(dataset["activation"].values.tolist(), COLOURS, strict=False):
        ax.plot(dataset["z"], dataset["value"].sel(activation=name), color=colour, label=words(name))
    ax.set_ylim(-1.3, 2.3)
    ax.set_xlabel("pre-activation $z$")
    ax.set_ylabel(r"$\varphi(z)$")
    ax.set_title("activations")
    ax.legend(loc="upper left", handlelength=1.4)


def _slopes(ax: Axes, dataset: xarray.Dataset) -> None:
    z = dataset["z"].values
    places: dict[str, tuple[float, Any]] = {"sigmoid": (z[-1], "right"), "tanh": (z[0], "left")}
    for name, colour in zip(dataset["activation"].values.tolist(), COLOURS, strict=False):
        slope = dataset["slope"].sel(activation=name)
        ax.plot(z, slope, color=colour)
        if name in places:
            top = float(slope.max())
            x, side = places[name]
            ax.plot([0, x], [top, top], color=colour, linewidth=0.7, linestyle=":")
            ax.text(x, top + 0.02, f"{name}\n\u2264 {top:g}", color=colour, fontsize=7, va="bottom", ha=side)
    ax.set_ylim(-0.17, 1.32)
    ax.set_xlabel("pre-activation $z$")
    ax.set_ylabel(r"$\varphi'(z)$")
    ax.set_title("their slopes")


def _underflow(ax: Axes, dataset: xarray.Dataset) -> None:
    """The smallest factor: its exact product over layers, and what float32 makes of it."""
    one = dataset.sel(sigma_w=float(dataset["sigma_w"].min())).isel(seed=0)
    depth = one["depth"].values
    exact = one["log_gain"].values / LN10
    product = one["float32_product"].values
    alive = product > 0
    floor = np.floor(exact.min() / 10) * 10 - 5
    if floor < SMALLEST:
        ax.axhspan(floor, SMALLEST, color="0.9", linewidth=0)
        ax.text(depth[0], (floor + SMALLEST) / 2, "below float32", va="center", fontsize=7, color="0.35")
    ax.plot(depth, exact, color=COLOURS[0], label="gradsim, exact")
    drawn = np.where(alive, np.log10(np.where(alive, product, 1)), floor)
    ax.plot(depth, drawn, "o", color=COLOURS[1], markersize=2.6, clip_on=False, label="float32 product")
    if not alive.all():
        first = depth[~alive][0]
        late = first > depth[-1] / 2
        ax.annotate(
            f"0 from layer {first}", (first, floor), (-4 if late else 4, 3), textcoords="offset points",
            ha="right" if late else "left", fontsize=7, color=COLOURS[1],
        )  # fmt: skip
    apart = 10 * int(np.ceil(-floor / 80))
    ticks = list(range(0, int(floor + 0.4 * apart), -apart))  # the last leaves room for the 0
    ax.set_yticks([*ticks, floor], [*map(power_of_ten, map(float, ticks)), "0"])
    ax.set_ylim(floor, 3)
    ax.set_xlabel("layer")
    ax.set_ylabel("gradient")
    ax.set_title(f"{float(one['sigma_w']):g} per layer")
    ax.legend(loc="upper right", handlelength=1.4)


def _whisper(ax: Axes, dataset: xarray.Dataset) -> None:
    """A row for each factor, a dot for each layer: filled as far as the signal is still there."""
    from matplotlib.colors import to_rgba

    factors = np.sort(dataset["sigma_w"].values)[::-1]
    depth = dataset["depth"].values
    end = 1.024 * depth[-1]
    for row, factor in enumerate(factors.tolist()):
        log_left = dataset["log_gain"].sel(sigma_w=factor).isel(seed=0).values
        left = np.exp(log_left)
        ax.scatter(depth, np.full(depth.shape, row), s=30, linewidths=0.4, edgecolors="0.6",
                   facecolors=[to_rgba(COLOURS[0], min(1.0, share)) for share in left])  # fmt: skip
        ax.text(end, row, _power(log_left[-1] / LN10), va="center", fontsize=7.5)
    ax.text(end, -1, f"after {depth[-1]}", va="center", fontsize=7.5, color="0.35")
    ax.set_yticks(range(len(factors)), [f"{factor:g}" for factor in factors])
    ax.set_ylim(len(factors) - 0.4, -0.6)
    ax.set_xlim(0.2, 1.12 * depth[-1])
    apart = 10 * -(-int(depth[-1]) // 150)
    ax.set_xticks([1, *range(apart, int(depth[-1]) + 1, apart)])
    ax.set_xlabel("layer, or place in the line")
    ax.set_ylabel("share passed on")
    ax.set_title("a whisper down the line: what is left of it")
    ax.tick_params(left=False)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _power(exponent: float) -> str:
    """10**exponent for a reader: 1, 0.0052, 8.9 · 10⁻¹⁶."""
    if exponent > -4:
        return f"{10**exponent:.2g}"
    whole = int(np.floor(exponent + 1e-6))
    mantissa = 10 ** (exponent - whole)
    return f"$10^{{{whole}}}$" if abs(mantissa - 1) < 0.05 else f"${mantissa:.1f}\\cdot 10^{{{whole}}}$"
