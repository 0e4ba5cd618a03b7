"""How alike do two inputs, and their gradients, stay on their way through a deep network?

Measures, from inputs of cosine 0, the cosine c of the two states and g = E tr J(x)ᵀJ(x')/E‖J‖², the correlation of
the two gradients, after each layer: in plain and residual ReLU networks, with layer norm and batch norm, in tanh
networks on the edge of chaos and beyond it, and in a mirrored ReLU network, whose gradient is the same for every
input. Lines are mean-field theory, points are measured, with standard errors over networks. Where the states become
alike the gradients become unlike as a power of depth, L^−3 for ReLU with or without skips and L^−2 for smooth
activations; only where states stay apart, in chaos and under batch norm, do they do so exponentially.

Below, the depth scale ξ_c, over which two inputs forget how alike they were, over sigma_w and sigma_b: measured from
the overlap of two Jacobians, ~ e^(−L/ξ_c), beside that of theory. Near the edge terms of order 1/N in the width N
bound it.

examples:
  python scripts/two_inputs.py
  python scripts/two_inputs.py --networks "ReLU, He" "tanh, edge" --depth 100 --width 256
  python scripts/two_inputs.py --preset paper --formats png pdf --out results
  python scripts/two_inputs.py --data figures/two_inputs.zarr
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray

import gradsim as gs
from gradsim import Network, cli
from gradsim.analysis.correlation_depth import mean_ratio, overlaps
from gradsim.laws.two_inputs import two
from gradsim.plot.two_inputs import two_inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HE, BIAS = math.sqrt(2), math.sqrt(0.05)
EDGE = math.sqrt(1.760954639607)  # of tanh at this bias
BATCH = 8
STATISTICS = ("log_gain", "gradient_correlation", "log_decorrelation")
MAP = "depth scale"
FINER = 8  # points of theory's lines for one that is measured


class Case(NamedTuple):
    """A network of this width, its gains, and the form of its theory, if there is one."""

    network: Network
    gains: dict[str, Any]
    form: str | None


def cases(width: int) -> dict[str, Case]:
    """All that are drawn, by their titles."""
    return {
        "ReLU, He": Case(gs.feedforward(width, "relu"), {"sigma_w": HE}, "plain"),
        "ReLU, skips": Case(gs.residual(width, "relu"), {"sigma_w": 1.0, "sigma_v": HE}, "two_layer"),
        "ReLU, pre-norm": Case(gs.layernorm(width, "relu", form="pre"), {"sigma_w": HE}, "pre_norm"),
        "ReLU, batch norm": Case(gs.batchnorm(max(4, width // 4), BATCH, "relu"), {}, None),
        "tanh, edge": Case(gs.feedforward(width, "tanh"), {"sigma_w": EDGE, "sigma_b": BIAS}, "plain"),
        "tanh, chaos": Case(gs.feedforward(width, "tanh"), {"sigma_w": 2.0, "sigma_b": BIAS}, "plain"),
        "mirrored ReLU": Case(gs.mirrored(width), {}, None),
    }


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of two inputs through one network."""

    networks: tuple[str, ...] = tuple(cases(4))
    """Which networks, by their titles in the figure."""

    width: int = 128
    """Units a layer; a quarter of it, and batches of 8, under batch norm."""

    depth: int = 40
    """Layers."""

    seeds: int = 64
    """Independent networks; means and errors are over them."""

    points: int = 12
    """Values of sigma_w, and two thirds as many of sigma_b, in the map of depth scales."""

    burn_in: int = 30
    """Layers before the overlap of the map starts, in which the two states settle."""

    map_depth: int = 30
    """Layers of the map."""

    map_seeds: int = 16
    """Independent networks of the map."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=512, depth=200, points=24, map_depth=60, burn_in=100, map_seeds=64),
    "accelerator": Options("accelerator", width=1024, depth=400, seeds=128, points=48, map_depth=100, burn_in=200,
                           map_seeds=128),
}  # fmt: skip


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """A sweep for each network and one over both gains, and what is kept of them."""
    for name, value, least in (("seeds", options.seeds, 2), ("map_seeds", options.map_seeds, 2)):
        if value < least:
            raise ValueError(f"{name}: got {value}; pass at least {least}, errors are over them")
    known = cases(options.width)
    if unknown := [name for name in options.networks if name not in known]:
        raise ValueError(f"networks: got {', '.join(unknown)}; pass some of: {', '.join(known)}")
    axes: dict[str, Any] = {
        "sigma_w": cli.axis("sigma_w", (0.5, 3.0), options.points),
        "sigma_b": cli.axis("sigma_b", (0.05, 1.0), max(2, 2 * options.points // 3)),
    }
    jobs: dict[str, Any] = {
        name: partial(
            gs.sweep, gs.pair(known[name].network), depth=options.depth, seeds=options.seeds, key=options.key,
            statistics=STATISTICS, inputs=_inputs(known[name].network), **known[name].gains,
        )
        for name in options.networks
    }  # fmt: skip
    jobs[MAP] = partial(
        gs.sweep, gs.pair(gs.feedforward(options.width, "tanh")), depth=options.map_depth, burn_in=options.burn_in,
        seeds=options.map_seeds, key=options.key, statistics=STATISTICS[:2], input_correlation=0.5, **axes,
    )  # fmt: skip
    swept = cli.perform(jobs)
    scale = gs.correlation_depth(swept.pop(MAP))[["rate", "rate_error", "xi_c", "xi_c_error"]]
    fine = np.linspace(axes["sigma_w"][0], axes["sigma_w"][-1], FINER * (options.points - 1) + 1)
    theory = gs.theory.feedforward("tanh", fine[:, None], axes["sigma_b"])
    scale = scale.assign_coords(line=("line", fine, scale["sigma_w"].attrs)).assign(
        theory=(("line", "sigma_b"), theory.xi_c, {"long_name": "ξ_c of mean-field theory", "units": "layer"}),
        edge=("sigma_b", gs.theory.edge_of_chaos("tanh", axes["sigma_b"]), {"long_name": "edge of chaos"}),
    )
    return {**{name: kept(known[name], one) for name, one in swept.items()}, MAP: scale}


def _inputs(network: Network) -> np.ndarray | None:
    """Two of cosine 0, where the state is one vector; whole batches are Gaussian, nearly so."""
    return two(network.input_shape[0], 0.0) if len(network.input_shape) == 1 else None


def kept(case: Case, swept: xarray.Dataset) -> xarray.Dataset:
    """Means by depth with standard errors: of 1 − c, and of g, the ratio of two means; and theory."""
    seeds = swept.sizes["seed"]
    apart = np.nan_to_num(np.exp(swept["log_decorrelation"].to_numpy()))
    ratio, deviation = mean_ratio(*overlaps(swept))
    found = {
        "decorrelation": apart.mean(0),
        "decorrelation_error": apart.std(0, ddof=1) / math.sqrt(seeds),
        "gradient": ratio,
        "gradient_error": deviation.std(0, ddof=1) / math.sqrt(seeds),
    }
    if case.form is not None:
        gains = {"sigma_b": 0.0, **case.gains}
        path = gs.theory.gradient_correlation(
            case.network.activations[0], depth=swept.sizes["depth"], form=case.form, **gains
        )
        found |= {"decorrelation_theory": path.decorrelation, "gradient_theory": path.gradient_correlation}
    return xarray.Dataset(
        {name: ("depth", values) for name, values in found.items()}, {"depth": swept["depth"]}, attrs=swept.attrs
    )


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    """The two correlations at some depths, and how far the measured depth scales are from theory."""
    lines = ["1 − c of the states and g of the gradients, measured (theory), after"]
    for name, one in datasets.items():
        if name == MAP:
            continue
        last = one.sizes["depth"]
        cells = []
        for layer in sorted({min(last, 10), last}):
            at = one.sel(depth=layer)
            said = [
                f"{float(at[part]):.3g} ± {float(at[f'{part}_error']):.1g}"
                + (f" ({float(at[f'{part}_theory']):.3g})" if f"{part}_theory" in at else "")
                for part in ("decorrelation", "gradient")
            ]
            cells.append(f"{layer} layers: {said[0]}, {said[1]}")
        lines.append(f"  {name:18s}" + "; ".join(cells))
    scale = datasets[MAP]
    rate = -1 / scale["theory"].isel(line=slice(None, None, FINER)).rename(line="sigma_w").assign_coords(
        sigma_w=scale["sigma_w"]
    )
    apart = (scale["rate"] - rate) / scale["rate_error"]
    known = apart.notnull()
    lines.append(
        f"depth scales: {int(known.sum())} of {known.size} measured, {float((abs(apart.where(known)) < 2).sum()):.0f} "
        f"within two standard errors of theory; 1/ξ_c is off by {float((rate - scale['rate']).median()):+.3f} "
        "in the median"
    )
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    profiles = {name: one for name, one in datasets.items() if name != MAP}
    return {"two_inputs": two_inputs(profiles, datasets[MAP])}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("two_inputs", options, measure, report, draw)


if __name__ == "__main__":
    main()
