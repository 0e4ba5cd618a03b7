"""Where do gradients vanish, and where do they explode?

Measures random deep networks over a grid of weight gains sigma_w and bias gains sigma_b, exactly and at
every depth, and draws the growth of the gradient a layer: blue where it vanishes, red where it explodes. The
thick line is where the measurement finds neither, the dashes inside it are the edge of chaos of mean-field
theory at infinite width; dots are the theory of the same layers, where no length is fixed. A second figure
shows the log gain over depth for every activation under every initialization scheme.

examples:
  python scripts/phase_diagram.py
  python scripts/phase_diagram.py --activations tanh erf --sigma-w 0.5 4 --points-w 64
  python scripts/phase_diagram.py --preset paper --formats png pdf --out results
  python scripts/phase_diagram.py --inputs digits
  python scripts/phase_diagram.py --data figures/phase_diagram.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli, plot, theory
from gradsim.analysis.growth import growth, zero_crossing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMES = "schemes"  # the name of the second Dataset; the others bear the names of activations
# Where the two phases of each activation meet lies elsewhere: sigmoids need weights ten times as large.
SIGMA_W = {"sigmoid": (2.0, 18.0), "relu": (0.8, 2.2), "selu": (0.5, 1.6), "gelu": (0.8, 2.4), "sin": (0.5, 2.0)}


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the phase diagram."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "activations", "rows")

    activations: tuple[str, ...] = ("tanh", "sigmoid", "relu", "selu", "gelu", "sin")
    """Activations of the maps, one panel each."""

    width: int = 160
    """Units a layer. The theory is for infinite width; the measured edge nears it as depth/width² falls."""

    depth: int = 30
    """Layers over which the growth is measured."""

    burn_in: int = 30
    """Layers before those, in which the length of the signal settles."""

    seeds: int = 6
    """Independent networks at each point; the map is their mean."""

    sigma_w: tuple[float, float] | None = None
    """Range of the weight gain; by default one that suits each activation."""

    sigma_b: tuple[float, float] = (0.05, 1.5)
    """Range of the bias gain."""

    points_w: int = 20
    """Points of the grid along sigma_w."""

    points_b: int = 10
    """Points of the grid along sigma_b."""

    inputs: Literal["gaussian", "digits"] = "gaussian"
    """What goes in: Gaussian noise of unit variance, or scikit-learn's handwritten digits (64 wide)."""

    rows: tuple[str, ...] = ("identity", "sigmoid", "tanh", "relu", "gelu", "selu")
    """Activations of the second figure; none leaves it out."""

    schemes: tuple[str, ...] = ("lecun_normal", "glorot_uniform", "he_normal", "orthogonal", "torch_linear")
    """Initialization schemes of the second figure."""

    scheme_width: int = 64
    """Units a layer of the networks in the second figure; with digits, 64."""

    scheme_depth: int = 50
    """Layers of the networks in the second figure."""


PRESETS = {
    "quick": Options(),
    "paper": Options(
        "paper", width=256, depth=50, burn_in=50, seeds=16, points_w=64, points_b=48,
        rows=tuple(gs.ACTIVATIONS), scheme_width=128, scheme_depth=100,
        schemes=("lecun_normal", "glorot_uniform", "he_normal", "he_uniform", "orthogonal", "sparse", "torch_linear"),
    ),
    "accelerator": Options(
        "accelerator", width=512, depth=100, burn_in=100, seeds=32, points_w=128, points_b=96,
        rows=tuple(gs.ACTIVATIONS), scheme_width=256, scheme_depth=200,
        schemes=("lecun_normal", "glorot_uniform", "he_normal", "he_uniform", "orthogonal", "sparse", "torch_linear"),
    ),
}  # fmt: skip


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """One map for each activation, with the theory's edge beside it, and the schemes; all checks come first."""
    inputs = cli.samples(options.inputs, options.width, options.scheme_width)
    networks = {name: gs.feedforward(options.width, name) for name in options.activations}
    ranges = {name: options.sigma_w or SIGMA_W.get(name, (0.5, 3.0)) for name in networks}
    weights = {name: cli.axis("sigma_w", limits, options.points_w) for name, limits in ranges.items()}
    bias = cli.axis("sigma_b", options.sigma_b, options.points_b)
    schemes = cli.schemes(
        options.rows, options.schemes, width=options.scheme_width, depth=options.scheme_depth, seeds=options.seeds,
        key=options.key, inputs=inputs,
    )  # fmt: skip
    maps = {
        ("map", name): partial(
            gs.sweep, network, depth=options.depth, seeds=options.seeds, key=options.key, burn_in=options.burn_in,
            inputs=inputs, sigma_w=weights[name], sigma_b=bias,
        )
        for name, network in networks.items()
    }  # fmt: skip
    measured = cli.perform({**(schemes if options.rows else {}), **maps})
    datasets = {name: measured["map", name] for name in networks}
    datasets = {name: one.assign(_theory(name, one, options)) for name, one in datasets.items()}
    return {**datasets, SCHEMES: cli.join_schemes(measured)} if options.rows else datasets


def _theory(name: str, one: xarray.Dataset, options: Options) -> dict[str, xarray.DataArray]:
    """The edge of chaos; and, where no length is fixed, the sigma_w at which the same layers do not grow."""
    weight, bias = one["sigma_w"], one["sigma_b"]
    gain = theory.log_gain(name, weight.values[:, None], bias.values, options.burn_in + options.depth).mean
    grown = gain[..., -1] - (gain[..., options.burn_in - 1] if options.burn_in else 0)
    no_growth = zero_crossing(xarray.DataArray(grown, {"sigma_w": weight, "sigma_b": bias}))
    edge = no_growth.copy(data=theory.edge_of_chaos(name, bias.values))
    edge.attrs = {"long_name": "edge of chaos", "units": "1", "source": "Schoenholz et al. 2017"}
    no_growth.attrs = {"long_name": "no growth, where no length is fixed", "units": "1"}
    return {"edge_of_chaos": edge, "no_growth": no_growth.where(edge.isnull())}


def deviation(one: xarray.Dataset) -> xarray.DataArray:
    """How far the measured edge lies from the theory's in sigma_w, as a share, at each sigma_b that has both."""
    return (zero_crossing(growth(one)) / one["edge_of_chaos"].fillna(one["no_growth"]) - 1).dropna("sigma_b")


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["the measured edge against that of theory, in sigma_w:"]
    for name, one in datasets.items():
        if name == SCHEMES:
            continue
        apart = np.abs(deviation(one).values)
        words = f"{apart.mean():.2%} apart in the mean, {apart.max():.2%} at most" if apart.size else "not on this map"
        lines.append(f"  {name:12s} {words} ({apart.size} of {one.sizes['sigma_b']} values of sigma_b)")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    maps = {name: one for name, one in datasets.items() if name != SCHEMES}
    figures = {"phase_diagram": plot.phase_diagram(maps, theory=("edge_of_chaos", "no_growth"))} if maps else {}
    if SCHEMES in datasets:
        figures["schemes"] = plot.scheme_map(datasets[SCHEMES])
    return figures


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("phase_diagram", options, measure, report, draw)


if __name__ == "__main__":
    main()
