"""The phase diagram: growth of the gradient over two gains, its zero contour, and theory's lines of no growth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.activations import ACTIVATIONS
from gradsim.analysis.growth import growth as growth_of
from gradsim.plot.style import (
    LETTERS,
    MAP,
    checked_dataset,
    heading,
    label,
    legend_above,
    new_figure,
    note_lost,
    point_name,
    proxy,
    styled,
    theory_name,
)
from gradsim.sweeps.dataset import described

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# They lie on each other where theory and measurement agree: dashes inside a thicker line show both.
MEASURED: Any = {"color": "black", "linewidth": 2.6}
THEORIES: Any = (
    {"color": "#F0E442", "linewidth": 1.2, "linestyle": (0, (2.8, 1.8))},
    {"color": "#F0E442", "linewidth": 1.4, "linestyle": (0, (1, 1.4))},
)
AUTO = "auto"
SOURCES = {"edge_of_chaos": "Schoenholz et al. 2017"}  # of the functions in gradsim.theory


@styled
def phase_diagram(
    dataset: xarray.Dataset | Mapping[str, xarray.Dataset],
    theory: str | Sequence[str] | None = AUTO,
    *,
    x: str | None = None,
    y: str | None = None,
    statistic: str = "log_gain",
    axes: Sequence[Axes] | None = None,
    max_lost: float = 0.05,
    scale: str = "shared",
) -> Figure:
    """Measured growth of the gradient over two gains, its zero contour, and theory's lines of no growth over it.

    Args:
        dataset: what `gradsim.sweep` returned for arrays of two gains, over depth or time, one panel for each entry of
            its axis `network`; or a mapping of titles to such datasets, for panels with axes of their own.
        theory: the lines to lay over it, one name or several: a variable of the dataset over one of the two gains, or,
            where it holds none, the function of that name in `gradsim.theory` of feed-forward networks over sigma_b;
            None for no line, and "auto" for the edge of chaos where there is one.
        x, y: the gains along the axes; unless given, sigma_w if it was swept and the other one.
        statistic: the log norm whose growth is drawn.
        axes: where to draw, one Axes a panel; a new figure unless given.
        max_lost: the share of the networks at a point that may have left the range of floats.
        scale: of the colours, "shared" by all panels, or each its "own", which its title then names.

    Raises: ValueError or TypeError naming the argument, axis or variable that is missing.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    own = arguments.choice("scale", scale, ("shared", "own")) == "own"
    panels = _panels(dataset)
    given = None if axes is None else _given(axes, len(panels))
    grown = {title: growth_of(one, statistic, max_lost=max_lost) for title, one in panels.items()}
    maps = {title: _over_gains(one, title, x, y) for title, one in grown.items()}
    lines = {title: _lines(panels[title], theory, one) for title, one in maps.items()}
    places = given or _grid(len(panels), max(map(len, lines.values())))
    figure: Any = places[0].figure
    most = {title: float(np.nanquantile(np.abs(one), 0.8)) for title, one in maps.items()}
    limit = _rounded(max(most.values()))
    for letter, ax, (title, one) in zip(LETTERS, places, maps.items(), strict=False):
        mesh = _map(ax, one, (float(f"{most[title]:.1g}") or limit) if own else limit)
        _draw_lines(ax, lines[title], one)
        note_lost(ax, panels[title], statistic)
        said = {"fontsize": 7} if own else {}  # longer titles
        heading(ax, letter if len(maps) > 1 else "", f"{title} (±{mesh.norm.vmax:g})" if own else title, **said)
    slender = 15 * max(2, -(-len(places) // 3))  # of one width, however many rows of panels there are
    if own:
        mesh = ScalarMappable(Normalize(-1, 1), MAP)
    bar = figure.colorbar(mesh, ax=places, extend="both", aspect=slender, extendfrac=1.5 / slender, pad=0.02)
    units = " or ".join(dict.fromkeys(one.attrs["units"] for one in grown.values()))
    of = f"{units}, over the number of its panel" if own else units
    bar.set_label(f"growth of the gradient ({of})")
    handles = [proxy("measured: no growth", **MEASURED)]
    handles += {line.get_label(): line for ax in places for line in ax.get_legend_handles_labels()[0]}.values()
    if axes is None:
        legend_above(figure, handles)
    else:
        places[0].legend(handles=handles)
    return figure


def _draw_lines(ax: Axes, lines: Mapping[str, xarray.DataArray], one: xarray.DataArray) -> None:
    from matplotlib.patheffects import withStroke

    for (name, line), style in zip(lines.items(), THEORIES, strict=False):
        (along,) = line.dims
        points = (line, line[along]) if along == one.dims[0] else (line[along], line)
        outline = [withStroke(linewidth=style["linewidth"] + 1, foreground="0.2")]  # to stand out from white
        ax.plot(*points, label=f"theory: {theory_name(line, name)}", path_effects=outline, **style)


def _given(axes: Any, panels: int) -> list[Axes]:
    from matplotlib.axes import Axes

    places = list(np.ravel(axes)) if isinstance(axes, Sequence | np.ndarray) and not isinstance(axes, str) else [axes]
    wrong = [place for place in places if not isinstance(place, Axes)]
    if wrong:
        raise TypeError(f"axes: got {type(wrong[0]).__name__}; pass matplotlib Axes, one for each panel")
    if len(places) != panels:
        raise ValueError(f"axes: got {len(places)}; pass {panels}, one for each panel")
    return places


def _grid(panels: int, lines: int) -> list[Axes]:
    columns = min(3, panels)
    rows = -(-panels // columns)
    # The legend of a single panel has a row for each line.
    figure = new_figure(0.45 + 2.05 * rows) if columns > 1 else new_figure(3.1 + 0.17 * (1 + lines), 4.4)
    places = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in places[panels:]:
        unused.remove()
    return places[:panels]


def _panels(dataset: Any) -> dict[str, xarray.Dataset]:
    import xarray

    if isinstance(dataset, Mapping) and not isinstance(dataset, xarray.Dataset):
        if not dataset:
            raise ValueError("dataset: got no maps; pass a Dataset, or a mapping of titles to Datasets")
        return {str(title): checked_dataset(one) for title, one in dataset.items()}
    one = checked_dataset(dataset)
    for axis in ("network", "width"):
        if axis in one.dims:
            return {point_name(one[axis].sel({axis: value})): one.sel({axis: value}) for value in one[axis].values}
    return {"": one}


def _over_gains(growth: xarray.DataArray, title: str, x: str | None, y: str | None) -> xarray.DataArray:
    """The growth over (y, x)."""
    where = f" of {title}" if title else ""
    swept = [str(name) for name in growth.dims if growth[name].dtype.kind in "iuf"]
    swept.sort(key=("sigma_w", "sigma_b", *swept).index)  # these two first
    for name, gain in {"x": x, "y": y}.items():
        if gain is not None and not (isinstance(gain, str) and gain in swept):
            raise ValueError(
                f"{name}: the growth{where} has no axis {arguments.shown(gain)}; its axes: {', '.join(swept) or 'none'}"
            )
    others = [name for name in swept if name not in (x, y)]
    across = x or next(iter(others), "")
    up = y or next((name for name in others if name != across), "")
    if across == up or any(growth.sizes.get(name, 0) < 2 for name in (across, up)):
        raise ValueError(
            f"dataset: the growth{where} has no two axes of at least two points; its axes: "
            f"{', '.join(map(str, growth.dims)) or 'none'}; pass arrays of two gains to sweep"
        )
    extra = ", ".join(str(name) for name in growth.dims if name not in (across, up))
    if extra:
        raise ValueError(f"dataset: more axes than {across} and {up}: {extra}; choose a point with .sel")
    if not bool(growth.notnull().any()):
        raise ValueError(f"dataset: the growth{where} is NaN everywhere: every network is dead or left the floats")
    return growth.transpose(up, across)


def _map(ax: Axes, growth: xarray.DataArray, limit: float) -> Any:
    """The map, the measured zero contour, and the names of the two phases."""
    from matplotlib.patheffects import withStroke

    up, across = growth.dims
    x, y = growth[across].values, growth[up].values
    mesh = ax.pcolormesh(x, y, growth.values, cmap=MAP, vmin=-limit, vmax=limit, shading="gouraud", rasterized=True)
    if np.nanmin(growth.values) < 0 < np.nanmax(growth.values):
        ax.contour(x, y, growth.values, levels=[0], colors=MEASURED["color"], linewidths=MEASURED["linewidth"])
    for name, region in {"vanishing": growth.values < 0, "exploding": growth.values > 0}.items():
        place = _widest_place(region)
        if place is not None:
            row, column = place
            ax.text(x[column], y[row], name, ha="center", va="center", fontsize=7.5, style="italic",
                    path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.set_xlabel(label(growth[across]))
    ax.set_ylabel(label(growth[up]))
    return mesh


def _widest_place(region: np.ndarray) -> tuple[int, int] | None:
    """The cell (row, column) with the most room around it for a word; None where there is too little."""
    from scipy import ndimage

    rows, columns = region.shape
    # A word is about four times as wide as high: shrink horizontal distances by that.
    sampling = (1 / rows, 0.25 / columns)
    room = ndimage.distance_transform_edt(np.pad(region, 1), sampling=sampling)[1:-1, 1:-1]
    margin = -(-rows // 12)  # the outermost cells have their centres on the frame
    room[:margin] = room[rows - margin :] = 0
    if room.max() < 0.05:
        return None
    good = np.argwhere(room > 0.9 * room.max())
    row, column = good[np.argmin(np.abs(good[:, 0] - (rows - 1) / 2))]  # of equal ones, that of middle height
    return int(row), int(column)


def _lines(dataset: xarray.Dataset, theory: Any, one: xarray.DataArray) -> dict[str, xarray.DataArray]:
    """Theory's lines over one of the two gains."""
    if theory is None:
        return {}
    if isinstance(theory, str) and theory == AUTO:
        known = "edge_of_chaos" in dataset or (_activation(dataset) and set(one.dims) == {"sigma_w", "sigma_b"})
        theory = ["edge_of_chaos"] if known else []
    names = [theory] if isinstance(theory, str) else theory
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"theory: {arguments.got(theory)}; pass names, or None for no line")
    return {name: _theory_line(dataset, name, one) for name in names}


def _theory_line(dataset: xarray.Dataset, theory: str, one: xarray.DataArray) -> xarray.DataArray:
    """A gain over the other: the dataset's variable of that name, or the theory's function for its activation."""
    import xarray

    if theory in dataset:
        line = dataset[theory]
        if len(line.dims) != 1 or line.dims[0] not in one.dims:
            axes, gains = (", ".join(map(str, dims)) or "none" for dims in (line.dims, one.dims))
            raise ValueError(f"theory: {theory!r} has the axes {axes}; pass a variable over one of {gains}")
        return line
    from gradsim import theory as functions

    if theory not in SOURCES:
        raise ValueError(
            f"theory: {theory!r} is neither a variable of the dataset nor one of: {', '.join(SOURCES)}; or pass None"
        )
    activation = _activation(dataset)
    if activation is None or set(one.dims) != {"sigma_w", "sigma_b"}:
        raise ValueError(
            f"theory: {theory!r} is of feed-forward networks with a built-in activation, over sigma_w and sigma_b; "
            "give the dataset a variable of the theory over one of its gains, or pass theory=None"
        )
    values = getattr(functions, theory)(activation, one["sigma_b"].values)
    attributes = {"long_name": theory.replace("_", " "), "source": SOURCES[theory]}
    return xarray.DataArray(values, {"sigma_b": one["sigma_b"]}, name=theory, attrs=attributes)


def _activation(dataset: xarray.Dataset) -> str | None:
    """The activation of a feed-forward network, out of the description in the attributes; None for any other."""
    try:
        networks = described(dataset)
    except ValueError:
        return None
    name = str(dataset["network"].item()) if "network" in dataset.coords else next(iter(networks))
    one = networks.get(name, {})
    feedforward = one.get("family") == "feedforward" and not one.get("tied")
    return one["activation"] if feedforward and one.get("activation") in ACTIVATIONS else None


def _rounded(value: float) -> float:
    """The next of 0.1, 0.2, 0.3 … at or above the value."""
    return float(np.ceil(value * 10) / 10)
