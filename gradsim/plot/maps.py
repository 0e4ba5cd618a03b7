"""The phase diagram: growth a layer over the gains, its zero contour, and the theory's edge of chaos."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.activations import ACTIVATIONS
from gradsim.analysis.growth import growth as growth_of
from gradsim.plot.style import LETTERS, MAP, heading, label, legend_above, new_figure, proxy, styled, theory_name

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
SOURCES = {"edge_of_chaos": "Schoenholz et al. 2017"}  # of the functions in gradsim.theory


@styled
def phase_diagram(
    dataset: xarray.Dataset | Mapping[str, xarray.Dataset],
    theory: str | Sequence[str] | None = "edge_of_chaos",
    *,
    statistic: str = "log_gain",
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Measured growth a layer over (sigma_w, sigma_b), its zero contour, and the edge of chaos over it.

    Args:
        dataset: what `gradsim.sweep` returned, one panel for each entry of its axis `network`; or a mapping
            of titles to such datasets, for panels with axes of their own.
        theory: the lines to lay over it, one name or several: a variable of the dataset over sigma_b, or, where
            it holds none, the function of that name in `gradsim.theory`; None for no line.
        statistic: the log norm whose growth is drawn.
        axes: where to draw, one Axes a panel; a new figure unless given.

    Raises: ValueError naming the axis or variable that is missing.
    """
    from matplotlib.patheffects import withStroke

    panels = _panels(dataset)
    maps = {title: _over_gains(growth_of(one, statistic), title) for title, one in panels.items()}
    places = _grid(len(panels)) if axes is None else list(axes)
    if len(places) != len(panels):
        raise ValueError(f"axes: got {len(places)}; pass {len(panels)}, one for each panel")
    lines = dict(zip([theory] if isinstance(theory, str) else theory or (), THEORIES, strict=False))
    figure: Any = places[0].figure
    limit = _rounded(max(float(np.nanquantile(np.abs(one), 0.8)) for one in maps.values()))
    for letter, ax, (title, one) in zip(LETTERS, places, maps.items(), strict=False):
        mesh = _map(ax, one, limit)
        for name, style in lines.items():
            edge = _theory_line(panels[title], name)
            title_of_line = f"theory: {theory_name(edge, name)}"
            outline = [withStroke(linewidth=style["linewidth"] + 1, foreground="0.2")]  # to stand out from white
            ax.plot(edge, edge["sigma_b"], label=title_of_line, path_effects=outline, **style)
        heading(ax, letter if len(maps) > 1 else "", title)
    bar = figure.colorbar(mesh, ax=places, extend="both", aspect=30, pad=0.02)
    bar.set_label("growth of the gradient (nat/layer)")
    handles = [proxy("measured: no growth", **MEASURED)]
    handles += places[0].get_legend_handles_labels()[0]
    if axes is None:
        legend_above(figure, handles)
    else:
        places[0].legend(handles=handles)
    return figure


def _grid(panels: int) -> list[Axes]:
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(0.45 + 2.05 * rows) if columns > 1 else new_figure(3.4, 4.4)
    places = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in places[panels:]:
        unused.remove()
    return places[:panels]


def _panels(dataset: xarray.Dataset | Mapping[str, xarray.Dataset]) -> dict[str, xarray.Dataset]:
    import xarray

    if not isinstance(dataset, xarray.Dataset):
        if not dataset:
            raise ValueError("dataset: got no maps; pass a Dataset, or a mapping of titles to Datasets")
        return dict(dataset)
    if "network" in dataset.dims:
        return {name: dataset.sel(network=name) for name in dataset["network"].values.tolist()}
    return {"": dataset}


def _over_gains(growth: xarray.DataArray, title: str) -> xarray.DataArray:
    for gain in ("sigma_w", "sigma_b"):
        if gain not in growth.dims or growth.sizes[gain] < 2:
            where = f" of {title}" if title else ""
            raise ValueError(
                f"dataset: the growth{where} has no axis {gain!r} of at least two points; its axes: "
                f"{', '.join(map(str, growth.dims)) or 'none'}; pass arrays of sigma_w and sigma_b to sweep"
            )
    if growth.ndim > 2:
        extra = ", ".join(str(name) for name in growth.dims if name not in ("sigma_w", "sigma_b"))
        raise ValueError(f"dataset: more axes than sigma_w and sigma_b: {extra}; choose a point with .sel")
    return growth.transpose("sigma_b", "sigma_w")


def _map(ax: Axes, growth: xarray.DataArray, limit: float) -> Any:
    """The map, the measured zero contour, and the names of the two phases."""
    from matplotlib.patheffects import withStroke

    x, y = growth["sigma_w"].values, growth["sigma_b"].values
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
    ax.set_xlabel(label(growth["sigma_w"]))
    ax.set_ylabel(label(growth["sigma_b"]))
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


def _theory_line(dataset: xarray.Dataset, theory: str) -> xarray.DataArray:
    """sigma_w over sigma_b: the dataset's variable of that name, or the theory's function for its activation."""
    import xarray

    if theory in dataset:
        return dataset[theory]
    from gradsim import theory as functions

    function = getattr(functions, theory, None)
    if function is None:
        raise ValueError(f"theory: neither a variable of the dataset nor a function of gradsim.theory: {theory!r}")
    values = function(_activation(dataset), dataset["sigma_b"].values)
    attributes = {"long_name": theory.replace("_", " "), "source": SOURCES.get(theory, "")}
    return xarray.DataArray(values, {"sigma_b": dataset["sigma_b"]}, name=theory, attrs=attributes)


def _activation(dataset: xarray.Dataset) -> str:
    """The activation's name, out of the network's description in the attributes."""
    name = str(dataset["network"].item()) if "network" in dataset.coords else "network"
    described = re.search(r"Activation\(name='(\w+)'", str(dataset.attrs.get(name, "")))
    if described is None or described[1] not in ACTIVATIONS:
        raise ValueError(
            f"theory: the attribute {name!r} of the dataset names no built-in activation; give the dataset a "
            "variable of the theory over sigma_b, or pass theory=None"
        )
    return described[1]


def _rounded(value: float) -> float:
    """The next of 0.1, 0.2, 0.3 … at or above the value."""
    return float(np.ceil(value * 10) / 10)
