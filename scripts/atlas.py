"""Where do gradients vanish and explode under every activation and in every family, and how do they go at each point?

Measures the exact log gain at every depth over weight and bias gains, for each activation, with the mean field of the
same gains beside it: the edge of chaos, the growth at the fixed point, the depth scale of correlations, and the log
gain of the transient. Then the same, on a coarser grid, over the two main gains of other families: residual networks
and transformers over depth, recurrent networks and today's recurrences over time, with theory where there is one (that
of gated cells has weights drawn anew at each step, that of transformers is on every third point, and closed forms of a
recurrence may hold on one side of its map alone; they are root mean squares, and lie above what is measured where fewer
units carry them than there are). The figures are a printable atlas of all maps. Beside them,
atlas.html is the same to move over: one file without a server, in which each point shows its profile over depth or
time, its numbers, and the call that measures them.

examples:
  python scripts/atlas.py
  python scripts/atlas.py --activations tanh relu gelu --points-w 40 --points-b 20
  python scripts/atlas.py --families LSTM minGRU Mamba --length 1000
  python scripts/atlas.py --preset paper --formats png pdf --out results
  python scripts/atlas.py --data figures/atlas.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli, plot, theory
from gradsim.analysis.growth import growth
from gradsim.cli.atlas import page
from gradsim.cli.families import FAMILIES, OVER_DEPTH, predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where the two phases meet lies elsewhere for these.
SIGMA_W = {"sigmoid": (2.0, 18.0), "hard_sigmoid": (2.0, 18.0), "softsign": (0.5, 4.0)}


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the atlas."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "activations", "families")

    activations: tuple[str, ...] = tuple(gs.ACTIVATIONS)
    """Activations, one map each; or none."""

    families: tuple[str, ...] = tuple(FAMILIES)
    """Other families, one map each, by their titles in the figure; or none."""

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

    family_width: int = 32
    """Numbers of the state of a family; a multiple of 16."""

    length: int = 100
    """Steps of a family over time."""

    points_x: int = 10
    """Points of a family's map along its first gain."""

    points_y: int = 7
    """Points of a family's map along its second gain."""


PRESETS = {
    "quick": Options(),
    "paper": Options(
        "paper", width=128, depth=50, seeds=16, points_w=40, points_b=24, length=1000, points_x=19, points_y=13
    ),
    "accelerator": Options(
        "accelerator",
        width=256,
        depth=50,
        seeds=32,
        points_w=48,
        points_b=32,
        family_width=64,
        length=1000,
        points_x=28,
        points_y=19,
    ),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """One map for each activation and each family, with the theory of the same gains."""
    if not options.activations and not options.families:
        raise ValueError("activations: got none, and no families; pass one or more of either")
    if unknown := [name for name in options.families if name not in FAMILIES]:
        raise ValueError(f"families: got {', '.join(unknown)}; pass some of: {', '.join(FAMILIES)}")
    if options.seeds < 2:
        raise ValueError(f"seeds: got {options.seeds}; pass at least 2, errors are over them")
    if options.families and options.family_width % 16:
        raise ValueError(f"family_width: got {options.family_width}; pass a multiple of 16")
    bias = cli.axis("sigma_b", options.sigma_b, options.points_b)
    jobs = {}
    for name in options.activations:
        weights = cli.axis("sigma_w", SIGMA_W.get(name, (0.5, 3.0)), options.points_w)
        jobs[name] = _sweep(gs.feedforward(options.width, name), options.depth, options, sigma_w=weights, sigma_b=bias)
    for name in options.families:
        family, depth = FAMILIES[name], _depth(name, options)
        axes = _axes(name, options)
        jobs[name] = _sweep(family.build(options.family_width), depth, options, **axes, **family.others)
    return cli.perform(jobs, partial(_finished, options))


def _finished(options: Options, name: str, one: xarray.Dataset) -> xarray.Dataset:
    return (_with_theory if name in options.activations else _of_family)(name, one, options)


def _sweep(network: gs.Network, depth: int, options: Options, **gains: Any) -> partial[xarray.Dataset]:
    return partial(gs.sweep, network, depth=depth, seeds=options.seeds, key=options.key, **gains)


def _depth(name: str, options: Options) -> int:
    return options.depth if name in OVER_DEPTH else options.length


def _axes(name: str, options: Options) -> dict[str, np.ndarray]:
    points = (options.points_x, options.points_y)
    ranges = zip(FAMILIES[name].gains.items(), points, strict=True)
    return {gain: cli.axis(gain, ends, count) for (gain, ends), count in ranges}


def _said(group: str, network: str, depth: int, options: Options, others: Mapping[str, float]) -> dict[str, str]:
    """What the page says of a map: the beginning of the call that measures a point, its two gains left out."""
    given = "".join(f", {name}={value}" for name, value in others.items())
    call = f"gs.sweep({network}, depth={depth}, seeds={options.seeds}, key={options.key}{given}"
    return {"group": group, "call": call}


def _of_family(name: str, one: xarray.Dataset, options: Options) -> xarray.Dataset:
    family, depth, axes = FAMILIES[name], _depth(name, options), _axes(name, options)
    network = family.build(options.family_width)
    found = one.assign(growth=growth(one, max_lost=1.0).transpose(*axes), **predicted(family, network, axes, depth))
    group = "over depth" if name in OVER_DEPTH else "over time"
    return found.assign_attrs(_said(group, family.call(options.family_width), depth, options, family.others))


def _with_theory(name: str, one: xarray.Dataset, options: Options) -> xarray.Dataset:
    weight, bias = one["sigma_w"].values[:, None], one["sigma_b"].values
    point = theory.feedforward(name, weight, bias)
    path = theory.log_gain(name, weight, bias, one.sizes["depth"]).mean
    both = ("sigma_w", "sigma_b")
    said = _said("activations", f'gs.feedforward({options.width}, "{name}")', options.depth, options, {})
    return one.assign_attrs(said).assign(
        growth=growth(one, max_lost=1.0).transpose(*both),
        chi=(both, point.chi, {"long_name": "growth of a squared gradient at the fixed point", "units": "1"}),
        xi_c=(both, point.xi_c, {"long_name": "depth scale of correlations", "units": "layer"}),
        theory=((*both, "depth"), path, {"long_name": "infinite width", "units": "nat"}),
        edge_of_chaos=(
            "sigma_b",
            theory.edge_of_chaos(name, bias),
            {"long_name": "edge of chaos", "units": "1", "source": "Schoenholz et al. 2017"},
        ),
    )


def report(datasets: Mapping[str, xarray.Dataset], folder: Path) -> str:
    """Where each map is level at the smallest of its second gain; and the page, in the folder."""
    file = folder / "atlas.html"
    file.write_text(page(datasets), encoding="utf-8")
    lines = [
        "gain without growth at the smallest other gain, measured and of theory; growth from and to, in nat a step:"
    ]
    for name, one in datasets.items():
        across = str(one["growth"].dims[0])
        edge = float(one["edge_of_chaos"][0]) if "edge_of_chaos" in one else np.nan
        levels = (gs.zero_crossing(one["growth"], across).values[0], edge)
        found = "  ".join("none " if np.isnan(x) else f"{x:.3f}" for x in levels)
        ends = f"{float(one['growth'].min()):+.3f} to {float(one['growth'].max()):+.3f}"
        lines.append(f"  {name:22s} {across:12s} {found}  {ends}")
    return "\n".join([*lines, f"page    {file}"])


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    """The maps of all activations, and those of all families."""
    parts = {"atlas": ("activations",), "atlas_families": ("over depth", "over time")}
    chosen = {
        title: {name: one for name, one in datasets.items() if one.attrs["group"] in groups}
        for title, groups in parts.items()
    }
    return {
        title: plot.phase_diagram(maps, max_lost=1.0, scale="shared" if title == "atlas" else "own")
        for title, maps in chosen.items()
        if maps
    }


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("atlas", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
