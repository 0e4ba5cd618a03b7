"""One style for all figures, held apart from a user's own settings, and small things every figure needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: two columns of a journal
# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # of the panels
MAP = "RdBu_r"  # red explodes, white stands still, blue vanishes
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.3,
    "mathtext.fontset": "dejavusans",
    "savefig.dpi": 250,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """`draw` inside the style, without touching the settings outside it."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


@styled
def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of this size in inches, which pyplot does not know."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@styled
def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the figure as `stem`.png and so on; returns the files."""
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
    for file in files:
        figure.savefig(file)
    return files


def label(coordinate: xarray.DataArray) -> str:
    """The long name with its unit; σ_w in mathematical type."""
    name = re.sub(r"σ_(\w)", r"$\\sigma_\1$", str(coordinate.attrs.get("long_name", coordinate.name)))
    units = coordinate.attrs.get("units", "1")
    return name if units == "1" else f"{name} ({units})"


# As their authors write them; every other name in words of its own.
SPELLINGS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "lecun_normal": "LeCun normal",
    "lecun_uniform": "LeCun uniform",
    "glorot_normal": "Glorot normal",
    "glorot_uniform": "Glorot uniform",
    "he_normal": "He normal",
    "he_uniform": "He uniform",
    "torch_linear": "PyTorch default",
}


def words(name: str) -> str:
    """A registry's name as a reader expects it."""
    return SPELLINGS.get(name, name.replace("_", " "))


def heading(ax: Axes, letter: str, title: str, **style: Any) -> None:
    ax.set_title(words(title), **style)
    if letter:
        ax.set_title(letter, loc="left", fontweight="bold")


def proxy(name: str, **style: Any) -> Any:
    """A legend's entry for a line of this style."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=name, **style)


def legend_above(figure: Figure, handles: Sequence[Any], **options: Any) -> None:
    """A legend over the figure, in as many columns as fit beside each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer: Any = FigureCanvasAgg(figure).get_renderer()
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc="outside upper center", ncols=columns, **options)
        if columns == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            return
        legend.remove()


def powers_of_ten(ax: Axes, low: float, high: float, *, room: float = 0.1, ticks: int = 6) -> None:
    """The vertical axis of exponents from low to high, with room at both ends as a share, and two decades at least."""
    from matplotlib.ticker import MaxNLocator

    middle, half = (low + high) / 2, max((high - low) / 2, 1.0)
    ax.set_ylim(middle - (1 + 2 * room) * half, middle + (1 + 2 * room) * half)
    ax.yaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    ax.yaxis.set_major_formatter(lambda tick, _: power_of_ten(tick))


def power_of_ten(exponent: float) -> str:
    """10 to the exponent in mathematical type, with a mantissa where it is no whole number: 1, 10⁻³, 8.9·10⁻¹⁶."""
    whole = int(np.floor(exponent + 1e-6))
    mantissa = 10 ** (exponent - whole)
    if abs(mantissa - 1) > 1e-3:
        return f"${mantissa:.2g}\\cdot 10^{{{whole}}}$"
    return f"$10^{{{whole}}}$" if whole else "1"


def residual_frame(ax: Axes, lowest: float, highest: float) -> None:
    """The axis of measured minus theory in standard errors: a line at 0, ±2 in grey, logarithmic where it is long."""
    ax.axhspan(-2, 2, color="0.88", linewidth=0, zorder=0)
    ax.axhline(0, color="0.5", linewidth=0.7, zorder=0)
    low, high = (max(4.0, 1.1 * value) for value in (-lowest, highest))
    if max(low, high) > 11:
        ax.set_yscale("symlog", linthresh=5, linscale=1.5)
    ax.set_ylim(-low, high)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "\u2212") if value else "0")


def theory_name(variable: xarray.DataArray, default: str = "infinite width") -> str:
    """Of a legend: the variable's `long_name` and, in brackets, the paper that is its `source`."""
    name, source = variable.attrs.get("long_name", default), variable.attrs.get("source")
    return f"{name} ({source})" if source else str(name)


def mean_over_seeds(dataset: xarray.Dataset, statistic: str, *axes: str) -> xarray.DataArray:
    if statistic not in dataset:
        raise ValueError(f"statistic: the dataset holds no {statistic!r}; it holds: {held(dataset)}")
    values = dataset[statistic]
    wanted = {*axes, "seed", "depth"}
    if set(values.dims) != wanted:
        raise ValueError(
            f"dataset: {statistic} has the axes {', '.join(map(str, values.dims))}; wanted: {', '.join(sorted(wanted))}"
        )
    return values.mean("seed")


def held(dataset: xarray.Dataset) -> str:
    """The names of the dataset's variables, for an error message."""
    return ", ".join(map(str, dataset.data_vars))
