"""One style for all figures, held apart from a user's own settings, and small things every figure needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from gradsim import arguments
from gradsim.analysis.lost import lost_networks

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: two columns of a journal
# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LETTERS = (*"abcdefghijklmnopqrstuvwxyz", *(f"a{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"))  # of the panels
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
    """An empty figure of this size in inches, which pyplot does not know.

    Raises: ValueError or TypeError for a size that is no positive number.
    """
    from matplotlib.figure import Figure

    sizes = {"width": width, "height": height}
    width, height = (arguments.number(name, size, "inches, a number above 0", 0.0) for name, size in sizes.items())
    return Figure(figsize=(width, height), layout="constrained")


@styled
def save(figure: Figure, stem: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the figure as `stem`.png and so on; returns the files.

    Raises: TypeError for anything but a figure and a path; ValueError for a folder that is missing or cannot be
        written to, and for a format that matplotlib does not write (the known ones are listed).
    """
    from matplotlib.figure import Figure

    if not isinstance(figure, Figure):
        raise TypeError(f"figure: got a {type(figure).__name__}; pass what a function of gradsim.plot returned")
    if not isinstance(stem, str | Path) or not Path(stem).name:
        raise TypeError(f"stem: got {arguments.shown(stem)}; pass a path without its ending, as figures/map")
    stem, known = Path(stem), figure.canvas.get_supported_filetypes()
    endings = (formats,) if isinstance(formats, str) else formats
    if not isinstance(endings, list | tuple):
        raise TypeError(f"formats: {arguments.got(formats)}; pass some of: {', '.join(known)}")
    for ending in endings:
        if not isinstance(ending, str) or ending not in known:
            raise ValueError(f"formats: got {arguments.shown(ending)}; pass some of: {', '.join(known)}")
    if not stem.parent.is_dir():
        raise ValueError(f"stem: there is no folder {stem.parent}; make it, or pass another")
    files = [stem.with_name(f"{stem.name}.{one}") for one in endings]
    engine = figure.get_layout_engine()
    try:
        for file in files:
            figure.savefig(file)
            figure.set_layout_engine("none")  # the layout takes most of the time, and that of the first serves all
    except OSError as error:
        raise ValueError(f"stem: cannot write {file} ({error.strerror}); pass another folder") from error
    finally:
        figure.set_layout_engine(engine)
    return files


def checked_dataset(dataset: Any) -> xarray.Dataset:
    """`dataset`, which must be one. Raises: TypeError for anything else."""
    import xarray

    if not isinstance(dataset, xarray.Dataset):
        raise TypeError(f"dataset: got a {type(dataset).__name__}; pass the Dataset that gradsim.sweep returned")
    return dataset


def point_name(coordinate: xarray.DataArray) -> str:
    """One point of an axis in words: a registry's name, or σ_w = 1.5."""
    value = coordinate.item()
    return words(value) if isinstance(value, str) else f"{label(coordinate).partition(' (')[0]} = {value:g}"


def note_lost(ax: Axes, dataset: xarray.Dataset, statistic: str) -> None:
    """Say in the panel how many networks left the range of floats, where any did."""
    lost = lost_networks(dataset, statistic)
    if lost is not None and bool(lost.any()):
        said = f"{int(lost.sum())} of {lost.size} networks left the floats"
        ax.text(0.02, 0.02, said, transform=ax.transAxes, va="bottom", fontsize=6, color="0.2")


def label(coordinate: xarray.DataArray) -> str:
    """The long name with its unit; σ_w in mathematical type."""
    name = re.sub(r"σ_(\w\w+)", r"$\\sigma_\\mathrm{\1}$", str(coordinate.attrs.get("long_name", coordinate.name)))
    name = re.sub(r"σ_(\w)", r"$\\sigma_\1$", name)
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


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """The edges of a map's cells, halfway between their centres."""
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])


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
        # Room for a marker at the end, a share of the logarithmic part.
        low, high = (1.2 * value * (value / 5) ** 0.1 if value > 5 else value for value in (low, high))
        powers = 10.0 ** np.arange(1, 1 + np.log10(max(low, high)))
        ticks = [*-powers, -2, 0, 2, *powers]
        ax.set_yticks([tick for tick in ticks if -low <= tick <= high])
    ax.set_ylim(-low, high)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "\u2212") if value else "0")


def theory_name(variable: xarray.DataArray, default: str = "infinite width") -> str:
    """Of a legend: the variable's `long_name` and, in brackets, the paper that is its `source`."""
    name, source = variable.attrs.get("long_name", default), variable.attrs.get("source")
    return f"{name} ({source})" if source else str(name)


def step_axis(values: xarray.DataArray) -> str:
    """The axis of the chain, depth or time. Raises: ValueError where there is none, or no axis seed."""
    for name in ("depth", "time"):
        if name in values.dims and "seed" in values.dims:
            return name
    axes = ", ".join(map(str, values.dims)) or "none"
    raise ValueError(f"dataset: {values.name} has the axes {axes}; wanted: seed, and depth or time")


def step_label(values: xarray.DataArray) -> str:
    """Of the horizontal axis: depth (layer), time (step)."""
    axis = step_axis(values)
    return f"{axis} ({values[axis].attrs.get('units', 'layer' if axis == 'depth' else 'step')})"


def held(dataset: xarray.Dataset) -> str:
    """The names of the dataset's variables, for an error message."""
    return ", ".join(map(str, dataset.data_vars))
