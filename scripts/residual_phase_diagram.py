"""What does a path around each layer change in the phase diagram?

Above, the growth of the gradient a layer over weight and bias gains, in tanh networks without and with the skip:
the phase where gradients vanish is gone, and what is left grows more slowly than any exponential. Below, the log
gain over branch gain and depth in ReLU networks, without and with layer norm before the branch: without it the
gradient grows exponentially in depth once the branch gain is above 1/sqrt(depth), with it as a square root.
Lines show where it does not grow (a), at which rate it grows (b), and where it has grown tenfold and thousandfold
(c, d); dashes show the same in theory, of the mean square with the skip (Yang and Schoenholz 2017).

examples:
  python scripts/residual_phase_diagram.py
  python scripts/residual_phase_diagram.py --max-depth 1000 --branch-gain 0.01 1
  python scripts/residual_phase_diagram.py --preset paper --formats png pdf --out results
  python scripts/residual_phase_diagram.py --data figures/residual_phase_diagram.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli, theory
from gradsim.analysis.growth import growth
from gradsim.networks.depth.normalized import layernorm
from gradsim.networks.depth.residual import residual
from gradsim.plot.remedies import residual_diagram
from gradsim.plot.style import words
from gradsim.theory.normalized import pre_norm_exponent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPS = ("without skip", "with skip")
BRANCHES = ("residual", "pre-norm residual")


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the residual phase diagram."""

    activation: str = "tanh"
    """Activation of the maps over weight and bias gain; below it is the ReLU, whose theory is exact."""

    width: int = 96
    """Units a layer."""

    depth: int = 50
    """Layers of the maps over weight and bias gain; the growth is that of the second half."""

    seeds: int = 6
    """Independent networks at each point; the maps are their means."""

    sigma_w: tuple[float, float] = (0.3, 4.0)
    """Range of the weight gain."""

    sigma_b: tuple[float, float] = (0.0, 2.0)
    """Range of the bias gain."""

    points: int = 20
    """Points of the grid along each gain."""

    branch_gain: tuple[float, float] = (0.02, 4.0)
    """Range of the branch gain, spaced evenly in its logarithm."""

    max_depth: int = 300
    """Blocks of the maps over branch gain and depth."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=160, depth=100, seeds=8, points=40, max_depth=1000),
    "accelerator": Options("accelerator", width=512, depth=200, seeds=16, points=64, max_depth=10_000),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """The two maps over weight and bias gain, then the two over branch gain and depth."""
    weight = cli.axis("sigma_w", options.sigma_w, options.points)
    bias = cli.axis("sigma_b", options.sigma_b, options.points)
    low, high = options.branch_gain
    if not 0 < low < high < np.inf:
        raise ValueError(
            f"branch_gain: got the range {low:g} to {high:g}; pass two positive numbers, the smaller first"
        )
    if options.max_depth < 2:
        raise ValueError(f"max_depth: got {options.max_depth}; pass at least 2")
    branch = np.geomspace(low, high, options.points)
    n, phi = options.width, options.activation
    networks = {MAPS[0]: gs.feedforward(n, phi), MAPS[1]: residual(n, phi, form="post_activation")}
    blocks = {BRANCHES[0]: residual(n, "relu"), BRANCHES[1]: layernorm(n, "relu", form="pre")}

    sweep = partial(gs.sweep, seeds=options.seeds, key=options.key)
    over_gains = partial(sweep, depth=options.depth, sigma_w=weight, sigma_b=bias)
    over_depth = partial(sweep, depth=options.max_depth, branch_gain=branch)
    jobs = {name: partial(over_gains, one) for name, one in networks.items()}
    measured = cli.perform(jobs | {name: partial(over_depth, block) for name, block in blocks.items()})
    for name, edge in zip(MAPS, (theory.edge_of_chaos(phi, bias), np.full(bias.size, np.nan)), strict=True):
        attributes = {"long_name": "edge of chaos", "units": "1"}  # with the skip there is none
        measured[name] = measured[name].assign(edge_of_chaos=("sigma_b", edge, attributes)).assign_attrs(activation=phi)
    measured[MAPS[1]] = measured[MAPS[1]].assign(growth_theory=growth_with_skip(phi, measured[MAPS[1]]))
    return {
        name: one.assign(theory=mean_square(name, one)) if name in blocks else one for name, one in measured.items()
    }


def growth_with_skip(activation: str, one: xarray.Dataset) -> xarray.DataArray:
    """The growth a layer, over the same layers as is measured, of the root mean square gain at infinite width."""
    gains = {"sigma_w": one["sigma_w"], "sigma_b": one["sigma_b"]}
    weight, bias = np.meshgrid(*gains.values(), indexing="ij")
    path = theory.residual(activation, weight, bias, one.sizes["depth"], form="post_activation")
    predicted = xarray.DataArray(path.log_gain, {**gains, "depth": one["depth"]})
    return growth(xarray.Dataset({"log_gain": predicted}, attrs=one.attrs))


def mean_square(name: str, one: xarray.Dataset) -> xarray.DataArray:
    """½ ln of the mean square gain of a ReLU network over branch gain a and depth L, at unit gains.

    (1 + a²/2)^L at every width without the norm, (1 + a² L/2)^ζ with ζ = 1 at infinite width with it.
    """
    share: xarray.DataArray = one["branch_gain"] ** 2 / 2
    if name == BRANCHES[0]:
        square = one["depth"] * xarray.ufuncs.log1p(share)
    else:
        square = float(pre_norm_exponent("relu", 1.0)) * xarray.ufuncs.log1p(share * one["depth"])
    return (square / 2).assign_attrs(long_name="½ ln of the mean square gain", units="nat")


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["growth of the gradient over the map (nat/layer), and the share of the map where it vanishes:"]
    for name in MAPS:
        grown = growth(datasets[name])
        lines.append(
            f"  {name:22s} {float(grown.min()):+.3f} to {float(grown.max()):+.3f}, {float((grown < 0).mean()):.0%}"
        )
    depth = datasets[BRANCHES[0]].sizes["depth"]
    lines.append(f"log gain at depth {depth:,}, measured (theory of the mean square), in nat, by branch gain:")
    for name in BRANCHES:
        one = datasets[name].isel(depth=-1)
        mean = one["log_gain"].mean("seed")
        ends = (0, mean.size // 2, -1)
        numbers = ", ".join(
            f"{float(one['branch_gain'][i]):.2g}: {float(mean[i]):.2f} ({float(one['theory'][i]):.2f})" for i in ends
        )
        lines.append(f"  {name:22s} {numbers}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    maps = {f"{words(datasets[name].attrs['activation'])}, {name}": datasets[name] for name in MAPS}
    branches = {f"ReLU, {name}": datasets[name] for name in BRANCHES}
    return {"residual_phase_diagram": residual_diagram(maps, branches)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("residual_phase_diagram", options, measure, report, draw)


if __name__ == "__main__":
    main()
