"""How little the first layers learn: the gradient of each layer's weights, down to magnitudes that no float holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.plot.style import COLOURS, LETTERS, heading, held, new_figure, powers_of_ten, styled, words

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATISTIC = "log_weight_gradient"
QUANTITY = r"weight gradient $\|\partial L\,/\,\partial W\|$"
NAMES = {"torch_linear": "PyTorch's Linear", "glorot_normal": "Glorot", "lecun_normal": "LeCun", "he_normal": "He"}
# The smallest normal numbers, and the smallest at all, which has one bit left of its precision.
FLOATS = {
    name: tuple(math.log10(float(number)) for number in (info.smallest_normal, info.smallest_subnormal))
    for name, info in (("float32", np.finfo(np.float32)), ("float64", np.finfo(np.float64)))
}


@styled
def layer_gradients(datasets: Mapping[str, xarray.Dataset], parameter: str = "w", deepest: str = "deepest") -> Figure:
    """The norm of ∂loss/∂W by layer on axes of powers of ten: columns are activations, rows are schemes.

    Lines are geometric means over networks, one for each depth, and bands hold 80 % of them. The entry
    `deepest` has a panel of its own, where all activations meet the smallest numbers of float32 and float64.

    Args:
        datasets: titles to backward sweeps of `log_weight_gradient`, one for each depth, with the axes seed, depth and
            parameter, and network (an entry for each activation) and scheme where there are several; of the deepest,
            the first scheme is drawn.
        parameter: whose gradient.

    Raises: ValueError naming what a dataset lacks.
    """
    norms = {title: _norms(one, parameter) for title, one in datasets.items()}
    last = norms.pop(deepest, None)
    lines = sorted(norms.values(), key=lambda one: one.sizes["depth"])
    if not lines:
        raise ValueError(f"datasets: got none beside {deepest!r}; pass one backward sweep for each depth")
    names, schemes = lines[0]["network"].values.tolist(), lines[0]["scheme"].values.tolist()
    figure = new_figure(0.5 + 1.35 * len(schemes) + (2.1 if last is not None else 0))
    upper: Any = figure
    if last is not None:
        halves: Any = figure.subfigures(2, 1, height_ratios=[0.5 + 1.35 * len(schemes), 2.1])
        upper, lower = halves
        _deepest(lower.subplots(), last.isel(scheme=0), LETTERS[len(names)])
    grid = upper.subplots(len(schemes), len(names), squeeze=False, sharex=True, sharey=True)
    low, high = min(float(one.min()) for one in lines), max(float(one.max()) for one in lines)
    for row, scheme in zip(grid, schemes, strict=True):
        for ax, name in zip(row, names, strict=True):
            _depths(ax, [one.sel(network=name, scheme=scheme) for one in lines], low, high)
            _floats(ax, low, named=name == names[-1])
        row[-1].annotate(_gains(lines[0].sel(scheme=scheme)), (1, 0.5), (6, 0), xycoords="axes fraction",
                         textcoords="offset points", va="center")  # fmt: skip
    for letter, ax, name in zip(LETTERS, grid[0], names, strict=False):
        heading(ax, letter, name) if len(names) < 5 else ax.set_title(f"{letter}  {words(name)}", fontsize=7)
    for ax in grid[-1]:
        ax.set_xlabel("layer")
    upper.supylabel(QUANTITY, fontsize=8)
    return figure


def _gains(norms: xarray.DataArray, gap: str = "\n") -> str:
    """The scheme's name, and the gains recorded beside it that are not zero."""
    name = str(norms["scheme"].item())
    squares = {gain: float(norms[gain]) ** 2 for gain in ("sigma_w", "sigma_b")
               if gain in norms.coords and not norms[gain].ndim}  # fmt: skip
    lines = [rf"$\{gain[:-1]}{gain[-1]}^2$ = {square:.2g}" for gain, square in squares.items() if square]
    return gap.join([NAMES.get(name, words(name)), *lines])


def _norms(dataset: xarray.Dataset, parameter: str) -> xarray.DataArray:
    """log10 of the norm, over network, scheme, seed and depth."""
    if STATISTIC not in dataset:
        raise ValueError(
            f"dataset: it holds no {STATISTIC}; it holds: {held(dataset)}; sweep with direction='backward'"
        )
    values = dataset[STATISTIC]
    for name in ("network", "scheme"):
        if name not in values.dims:  # one alone
            values = values.drop_vars(name, errors="ignore").expand_dims({name: [""]})
    wanted = {"network", "scheme", "seed", "depth", "parameter"}
    if set(values.dims) != wanted:
        axes = ", ".join(map(str, values.dims))
        raise ValueError(f"dataset: {STATISTIC} has the axes {axes}; wanted: {', '.join(sorted(wanted))}")
    if parameter not in values["parameter"]:
        known = ", ".join(values["parameter"].values.tolist())
        raise ValueError(f"parameter: got {arguments.shown(parameter)}; the dataset holds: {known}")
    return values.sel(parameter=parameter, drop=True) / math.log(10)


def _line(ax: Axes, norms: xarray.DataArray, **style: Any) -> np.ndarray:
    layer, mean = norms["depth"].values, norms.mean("seed").values
    low, high = (norms.quantile(share, "seed").values for share in (0.1, 0.9))
    ax.fill_between(layer, low, high, color=style["color"], alpha=0.2, linewidth=0)
    ax.plot(layer, mean, **style)
    return np.asarray(mean)


def _depths(ax: Axes, norms: list[xarray.DataArray], low: float, high: float) -> None:
    """One line for each depth, from its first layer to its last, which the gradient meets first."""
    for norm, colour in zip(norms, _shades(len(norms)), strict=True):
        _line(ax, norm, color=colour)
        ax.plot(norm.sizes["depth"], float(norm.isel(depth=-1).mean("seed")), "o", color=colour, markersize=2.5)
    deepest = norms[-1].sizes["depth"]
    ax.set_xlim(-0.02 * deepest, 1.05 * deepest)
    ax.spines[["top", "right"]].set_visible(False)
    powers_of_ten(ax, low, high)


def _shades(count: int) -> list[str]:
    """From light to dark: a depth is a size, not a kind."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis_r"](place)) for place in np.linspace(0.15, 0.95, count)]


def _deepest(ax: Axes, norms: xarray.DataArray, letter: str) -> None:
    low, high = float(norms.min()), float(norms.max())
    few = norms.sizes["network"] < 5  # names beside more lines would lie on others
    for name, colour in zip(norms["network"].values.tolist(), COLOURS, strict=False):
        mean = _line(ax, norms.sel(network=name), color=colour, label=words(name))
        at = mean.size // 4
        if few:
            ax.annotate(words(name), (at, mean[at]), (3, -4), textcoords="offset points", va="top", color=colour)
    if not few:
        ax.legend(loc="best", ncols=2)
    ax.set_xlim(0, norms.sizes["depth"] * 1.01)
    ax.spines[["top", "right"]].set_visible(False)
    powers_of_ten(ax, low, high, room=0.05)
    _floats(ax, low, outside=True)
    ax.set_title(f"{norms.sizes['depth']:,} layers, {_gains(norms, ', ')}")
    ax.set_title(letter, loc="left", fontweight="bold")
    ax.set_xlabel("layer (1 is the first; the gradient comes from the last)")
    ax.set_ylabel(QUANTITY)


def _floats(ax: Axes, low: float, *, outside: bool = False, named: bool = True) -> None:
    """Grey where float32 and float64 lose precision; below it they hold nothing but zero."""
    near = FLOATS["float32"][1] - FLOATS["float64"][1] < 0.08 * np.ptp(ax.get_ylim())
    for name, (normal, smallest) in FLOATS.items():
        if low > normal:
            continue
        ax.axhspan(smallest, normal, color="0.8", linewidth=0, zorder=0)
        ax.axhline(smallest, color="0.35", linewidth=0.8, zorder=0)
        if named and not (near and name == "float64"):  # one name for both where they lie on each other
            place, side = (1.01, "left") if outside else (0.99, "right")
            said = "floats are 0 below" if near else f"{name} is 0 below"
            ax.text(place, smallest, said, transform=ax.get_yaxis_transform(), ha=side, va="top",
                    fontsize=6.5, color="0.3")  # fmt: skip
