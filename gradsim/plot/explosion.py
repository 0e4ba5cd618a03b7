"""How fast gradients explode under batch norm, against the batch size, and how far theory is from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.plot.remedies import names_at_ends
from gradsim.plot.style import COLOURS, heading, legend_above, new_figure, proxy, residual_frame, styled, words

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def batchnorm_explosion(rates: Mapping[str, xarray.Dataset]) -> Figure:
    """Growth a layer against the batch size: points measured, lines theory; below, how far they are apart.

    In percent of the squared gradient, and in standard errors.

    Args:
        rates: activations to growths over `batch`, as `scripts/batchnorm_explosion.py` finds them: typical,
            mean_square (with their errors) and theory.
    """
    figure = new_figure(5.4, 4.6)
    above, below, last = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
    residuals: list[float] = []
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(rates)}
    for place, (name, one) in enumerate(rates.items()):
        colour, batch = colours[name], one["batch"].values
        above.plot(one["size"], one["curve"], color=colour, linewidth=1.2)
        for kind, style in (("mean_square", {"markerfacecolor": colour}), ("typical", {"markerfacecolor": "white"})):
            error = one[f"{kind}_error"]
            points: Any = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 0, **style}
            above.errorbar(batch, one[kind], yerr=error, elinewidth=1, **points)
            apart = 100 * np.expm1(2 * (one[kind] - one["theory"]))
            shifted = batch * (1 + 0.05 * (place - 0.5 * (len(rates) - 1)))
            below.errorbar(shifted, apart, yerr=200 * error, elinewidth=1, **points)
            residual = (one[kind] - one["theory"]) / error
            last.plot(shifted, residual, **points)
            residuals += residual.values.tolist()
    limit = math.log(math.pi / (math.pi - 1)) / 2
    if "relu" in rates:
        above.axhline(limit, color=colours["relu"], linewidth=0.7, linestyle=(0, (1, 1.5)))
    residual_frame(last, min(residuals), max(residuals))
    _explosion_frame(figure, above, below, last)
    # The names stand beside the panel, where their lines end.
    last.set_xlim(right=max(float(one["size"].max()) for one in rates.values()))
    ends = {name: float(one["curve"].isel(size=-1)) for name, one in rates.items()}
    styles = {name: {"color": colour} for name, colour in colours.items()}
    titles = {name: {"identity": "linear"}.get(name, words(name)) for name in rates}
    names_at_ends(above, ends, styles, room=0.1, titles=titles)
    return figure


def _explosion_frame(figure: Figure, above: Axes, below: Axes, last: Axes) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    above.set(ylim=(0, None), ylabel="growth of the gradient (nat/layer)")
    below.axhline(0, color="0.4", linewidth=0.8)
    below.set_ylabel("squares against\ntheory (% a layer)")
    last.set_xscale("log", base=2)
    last.xaxis.set_major_formatter(ScalarFormatter())
    last.xaxis.set_minor_formatter(NullFormatter())
    last.set(xlabel="batch size", ylabel="measured − theory\n(standard errors)")
    for letter, ax in zip("abc", (above, below, last), strict=True):
        ax.spines[["top", "right"]].set_visible(False)
        heading(ax, letter, "")
    dots: Any = {"color": "0.3", "marker": "o", "markersize": 4, "linewidth": 0}
    handles = [
        proxy("theory, infinite width (Yang et al. 2019)", color="0.3", linewidth=1.2),
        proxy("measured: mean square", **dots),
        proxy("measured: typical (mean of logarithms)", **dots, markerfacecolor="white"),
    ]
    legend_above(figure, handles)
