"""Every law at a glance: how far each measurement lies from its prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradsim.plot.style import COLOURS, legend_above, new_figure, proxy, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {  # marker, colour and meaning
    "sampled": ("o", COLOURS[0], "sampled: in {:g} standard errors"),
    "exact": ("D", COLOURS[1], "exact: in tolerances"),
    "bound": ("<", COLOURS[2], "bound: in tolerances, to be below"),
}


@styled
def laws(table: xarray.Dataset) -> Figure:
    """(measured − predicted)/error of each check, a row for each law, on a scale where all must lie inside the band.

    Sampled numbers are in standard errors over 4.5, exact ones and bounds in tolerances: ±1 is the limit of both.

    Args:
        table: over `check`: law, statement, z and kind, as `scripts/laws.py` measures them.
    """
    statements = dict(zip(table["law"].values.tolist(), table["statement"].values.tolist(), strict=True))
    figure = new_figure(0.8 + 0.145 * len(statements))
    _rows(figure.subplots(), table, statements, table.attrs["standard_errors"])
    figure.supxlabel("(measured − predicted) / allowed", fontsize=8)
    handles = [
        proxy(meaning.format(table.attrs["standard_errors"]), marker=marker, color=colour, markersize=3.5, linewidth=0)
        for marker, colour, meaning in KINDS.values()
    ]
    legend_above(figure, handles)
    return figure


def _rows(ax: Axes, table: xarray.Dataset, statements: dict[str, str], limit: float) -> None:
    ax.axvspan(-1, 1, color="0.93", zorder=0)
    ax.axvline(0, color="0.6", linewidth=0.7, zorder=1)
    places = {law: place for place, law in enumerate(statements)}
    rows = np.array([places[law] for law in table["law"].values.tolist()])
    for kind, (marker, colour, _) in KINDS.items():
        chosen = table["kind"].values == kind
        share = table["z"].values[chosen] / (limit if kind == "sampled" else 1)
        ax.plot(np.clip(share, -1.25, 1.25), rows[chosen], marker, color=colour, markersize=3.5, alpha=0.8)
    ax.set_yticks(range(len(places)), [f"{said}   {law}" for law, said in statements.items()], fontsize=5.8)
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.set_xlim(-1.35, 1.35)
    ax.tick_params(axis="y", length=0)
    for spine in ("top", "right", "left"):
        ax.spines[spine].set_visible(False)
