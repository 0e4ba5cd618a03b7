"""Where do gradients vanish and explode under every activation, and how does the gradient go with depth at each point?

Measures the exact log gain at every depth over weight and bias gains, for each activation, with the mean field of the
same gains beside it: the edge of chaos, the growth at the fixed point, the depth scale of correlations, and the log
gain of the transient. The figure is a printable atlas of all maps. Beside it, atlas.html is the same to move over: one
file without a server, in which each point shows its profile over depth, its numbers, and the call that measures them.

examples:
  python scripts/atlas.py
  python scripts/atlas.py --activations tanh relu gelu --points-w 40 --points-b 20
  python scripts/atlas.py --preset paper --formats png pdf --out results
  python scripts/atlas.py --data figures/atlas.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli, plot, theory
from gradsim.analysis.growth import growth
from gradsim.cli.atlas import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where the two phases meet lies elsewhere for these.
SIGMA_W = {"sigmoid": (2.0, 18.0), "hard_sigmoid": (2.0, 18.0), "softsign": (0.5, 4.0)}


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the atlas."""

    activations: tuple[str, ...] = tuple(gs.ACTIVATIONS)
    """Activations, one map each."""

    width: int = 64
    """Units a layer. The theory is for infinite width."""

    depth: int = 30
    """Layers."""

    seeds: int = 4
    """The number of independent networks at each point."""

    sigma_b: tuple[float, float] = (0.0, 1.5)
    """Range of the bias gain."""

    points_w: int = 24
    """Points of each map along sigma_w."""

    points_b: int = 12
    """Points of each map along sigma_b."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=128, depth=50, seeds=16, points_w=40, points_b=24),
    "accelerator": Options("accelerator", width=256, depth=50, seeds=32, points_w=48, points_b=32),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """One map for each activation, with the theory of the same gains."""
    networks = {name: gs.feedforward(options.width, name) for name in options.activations}
    bias = cli.axis("sigma_b", options.sigma_b, options.points_b)
    weights = {name: cli.axis("sigma_w", SIGMA_W.get(name, (0.5, 3.0)), options.points_w) for name in networks}
    maps = {
        name: partial(
            gs.sweep, network, depth=options.depth, seeds=options.seeds, key=options.key, sigma_w=weights[name],
            sigma_b=bias,
        )
        for name, network in networks.items()
    }  # fmt: skip
    return {name: _with_theory(name, one) for name, one in cli.perform(maps).items()}


def _with_theory(name: str, one: xarray.Dataset) -> xarray.Dataset:
    weight, bias = one["sigma_w"].values[:, None], one["sigma_b"].values
    point = theory.feedforward(name, weight, bias)
    path = theory.log_gain(name, weight, bias, one.sizes["depth"]).mean
    both = ("sigma_w", "sigma_b")
    return one.assign(
        growth=growth(one, max_lost=1.0).transpose(*both),
        chi=(both, point.chi, {"long_name": "growth of a squared gradient at the fixed point", "units": "1"}),
        xi_c=(both, point.xi_c, {"long_name": "depth scale of correlations", "units": "layer"}),
        theory=((*both, "depth"), path, {"long_name": "log gain of infinite width", "units": "nat"}),
        edge_of_chaos=(
            "sigma_b",
            theory.edge_of_chaos(name, bias),
            {"long_name": "edge of chaos", "units": "1", "source": "Schoenholz et al. 2017"},
        ),
    )


def report(datasets: Mapping[str, xarray.Dataset], folder: Path) -> str:
    """Where each map is level at its smallest bias; and the page, in the folder."""
    file = folder / "atlas.html"
    file.write_text(page(datasets), encoding="utf-8")
    lines = ["the edge of chaos at the smallest bias, measured and of theory:"]
    for name, one in datasets.items():
        levels = (gs.zero_crossing(one["growth"]).values[0], float(one["edge_of_chaos"][0]))
        lines.append(f"  {name:12s} " + "  ".join("none " if np.isnan(x) else f"{x:.3f}" for x in levels))
    return "\n".join([*lines, f"page    {file}"])


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"atlas": plot.phase_diagram(datasets, theory="edge_of_chaos", max_lost=1.0)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("atlas", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
