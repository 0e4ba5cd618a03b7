"""Every law at a glance: how far each measurement lies from its prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradsim.plot.style import COLOURS, new_figure, styled

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

KINDS = {  # marker, colour and meaning
    "sampled": ("o", COLOURS[0], "sampled: in standard errors"),
    "exact": ("D", COLOURS[1], "exact: in tolerances"),
    "bound": ("<", COLOURS[2], "bound: in tolerances, to be below"),
}


@styled
def laws(table: xarray.Dataset) -> Figure:
    """(measured − predicted)/error of each check, law by law, on a scale where all must lie inside the band.

    Sampled numbers are in standard errors over 4.5, exact ones and bounds in tolerances: ±1 is the limit of both.

    Args:
        table: over `check`: law, quantity, z, kind and holds, as `scripts/laws.py` measures them.
    """
    count = table.sizes["check"]
    figure = new_figure(0.6 + 0.145 * count)
    ax = figure.subplots()
    limit = table.attrs["standard_errors"]
    ax.axvspan(-1, 1, color="0.93", zorder=0)
    ax.axvline(0, color="0.6", linewidth=0.7, zorder=1)
    rows = np.arange(count)
    for kind, (marker, colour, meaning) in KINDS.items():
        chosen = table["kind"].values == kind
        share = table["z"].values[chosen] / (limit if kind == "sampled" else 1)
        meaning = meaning.replace("in standard errors", f"in {limit:g} standard errors")
        ax.plot(np.clip(share, -1.25, 1.25), rows[chosen], marker, color=colour, markersize=3.5, label=meaning)
    names = zip(table["law"].values.tolist(), table["quantity"].values.tolist(), strict=True)
    ax.set_yticks(rows, [f"{quantity}   {law}" for law, quantity in names], fontsize=5.8)
    ax.set(ylim=(count - 0.4, -0.6), xlim=(-1.35, 1.35), xlabel="(measured − predicted) / allowed")
    ax.tick_params(axis="y", length=0)
    for spine in ("top", "right", "left"):
        ax.spines[spine].set_visible(False)
    figure.legend(loc="outside upper right", ncols=3, fontsize=6)
    return figure
