"""How are all singular values of the Jacobian distributed, and what do orthogonal weights do to them?

Measures every singular value of ∂h_l/∂h_0 in random networks on the edge of chaos, with Gaussian and orthogonal
weights, at growing depth. Points are densities of ln σ, with standard errors over networks; lines are free probability
at infinite width (Pennington, Schoenholz & Ganguli 2017, 2018). Of orthogonal linear networks every σ is 1. ReLU and
hard-tanh lose directions, whose σ is exactly 0: their share is written in the panel.
At finite width it grows with depth, as the layer with the fewest live units decides; in theory it does not.

Inputs have the length at which the theory's fixed point begins. An activation whose edge has no bias, as the ReLU's, is
measured without.

examples:
  python scripts/singular_values.py
  python scripts/singular_values.py --activations erf --depths 4 16 64 --sigma-b 0.05
  python scripts/singular_values.py --preset paper --formats png pdf --out results
  python scripts/singular_values.py --data figures/singular_values.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli, theory
from gradsim.plot.spectra import singular_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAWS = ("gaussian", "orthogonal")
_BELOW = 0.03  # the share under which singular values are too few for a density
_SAME = 1e-3  # nats, within which one is where all of its kind are in theory


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the densities of singular values."""

    activations: tuple[str, ...] = ("identity", "relu", "hard_tanh", "tanh")
    """Activations, one column each (4 at most)."""

    depths: tuple[int, ...] = (2, 8, 32)
    """Depths, one colour each (7 at most)."""

    width: int = 64
    """Units a layer; the theory is for infinite width."""

    seeds: int = 32
    """Independent networks of each kind; the error bars are over them."""

    sigma_b: float = 0.3
    """Bias gain; the weight gain is the critical one."""

    bins: int = 24
    """Bins of a measured density."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=256, seeds=64, depths=(2, 8, 32, 128), bins=40),
    "accelerator": Options("accelerator", width=512, seeds=64, depths=(2, 8, 32, 128, 512), bins=60),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """By activation and law, the densities measured and in theory."""
    for name, most in (("activations", 4), ("depths", len(gs.plot.COLOURS))):
        if len(getattr(options, name)) > most:
            raise ValueError(f"{name}: got {len(getattr(options, name))}; pass at most {most}")
    if min(options.depths) < 2:
        raise ValueError(f"depths: got {min(options.depths)}; pass depths of at least 2, whose products have a density")
    depths = tuple(sorted(options.depths))
    gains = {name: critical(name, options.sigma_b) for name in options.activations}
    shared: Any = {"depth": depths[-1], "at": depths, "seeds": options.seeds, "key": options.key}
    jobs = {
        f"{name}, {law}": partial(
            gs.sweep, gs.feedforward(options.width, name, law), statistics=("log_singular_values",),
            inputs=start(name, options, **gains[name]), **gains[name], **shared,
        )
        for law in LAWS for name in options.activations
    }  # fmt: skip
    measured = cli.perform(jobs)
    found = {}
    for title, one in measured.items():
        name, _, law = title.partition(", ")
        expected = theory.singular_values(name, **gains[name], depth=np.array(depths), orthogonal=law == "orthogonal")
        found[title] = densities(one.sel(depth=list(depths)), expected, options.bins)
    return found


def critical(name: str, sigma_b: float) -> dict[str, Any]:
    """Gains on the edge of chaos, without a bias where there is no edge with it."""
    for bias in (sigma_b, 0.0):
        weight = float(theory.edge_of_chaos(name, bias))
        if np.isfinite(weight):
            return {"sigma_w": weight, "sigma_b": bias}
    raise ValueError(f"activations: {name} has no edge of chaos at sigma_b = {sigma_b:g} or 0; pass others")


def start(name: str, options: Options, sigma_w: float, sigma_b: float) -> np.ndarray:
    """An input for each network, of exactly the length that makes the first layer's the fixed one."""
    length = (float(theory.feedforward(name, sigma_w, sigma_b).q) - sigma_b**2) / sigma_w**2
    random = np.random.default_rng(options.key).standard_normal((options.seeds, options.width))
    return random * np.sqrt(length / np.mean(random**2, axis=1, keepdims=True))


def densities(one: xarray.Dataset, expected: theory.SingularValues, bins: int) -> xarray.Dataset:
    """Measured densities in bins between the theory's edge and where it has 3 % left, with the theory beside them.

    What lies at one value has no density, and is left out. Where that is all, `spread` says how far off any is.
    """
    values = one["log_singular_values"].transpose("depth", "seed", "singular_value").values
    seeds, width = values.shape[1:]
    lone = expected.isometric == 1
    below = 1 - expected.zero[:, None] - expected.above
    lowest = [float(np.interp(_BELOW, *pair)) for pair in zip(below, expected.log_sigma, strict=True)]
    edges = np.linspace(lowest, expected.log_max, bins + 1, axis=1)
    off = np.abs(values - expected.log_isometric[:, None, None])
    density = np.zeros((len(values), seeds, bins))
    for depth, seed in np.ndindex(density.shape[:2]):
        spread_out = values[depth, seed][~(off[depth, seed] < _SAME)]
        density[depth, seed] = np.histogram(spread_out, edges[depth])[0] / (width * np.diff(edges[depth]))
    where = np.where(np.isfinite(expected.log_sigma), expected.log_sigma, 0.0)
    share = np.mean(values[..., None, :] > where[:, None, :, None], axis=(1, 3))
    variables: Any = {
        "density": (("depth", "bin"), density.mean(1), {"long_name": "density of ln σ", "units": "1/nat"}),
        "density_error": (("depth", "bin"), density.std(1, ddof=1) / np.sqrt(seeds) if seeds > 1 else density[:, 0]),
        "log_sigma": (("depth", "bin"), (edges[:, 1:] + edges[:, :-1]) / 2, {"long_name": "ln σ", "units": "nat"}),
        "zero": ("depth", np.isneginf(values).mean((1, 2)), {"long_name": "share that is 0", "units": "1"}),
        "distance": ("depth", np.where(lone, np.nan, np.abs(share - expected.above).max(1))),
        "spread": ("depth", np.where(lone, off.max((1, 2)), np.nan)),
        "theory": (("depth", "point"), expected.density, {"source": "Pennington et al. 2018"}),
        "theory_log_sigma": (("depth", "point"), expected.log_sigma),
        "theory_zero": ("depth", expected.zero),
        "theory_isometric": ("depth", expected.isometric),
        "theory_log_isometric": ("depth", expected.log_isometric),
    }
    coordinates = {"depth": one["depth"], "sigma_w": one["sigma_w"], "sigma_b": one["sigma_b"]}
    return xarray.Dataset(variables, coordinates, one.attrs)


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["largest distance of the shares beyond σ from theory, and the share that is 0 (theory), by depth:"]
    for title, one in datasets.items():
        said = []
        for depth in one["depth"].values.tolist():
            names = ("theory_isometric", "spread", "distance", "zero", "theory_zero")
            isometric, spread, distance, zero, theory_zero = (float(one[name].sel(depth=depth)) for name in names)
            if isometric == 1:
                said.append(f"{depth}: all at one σ, within {spread:.0e} nat")
            else:
                said.append(f"{depth}: {distance:.3f}, {zero:.3f} ({theory_zero:.3f})")
        lines.append(f"  {title:22s} {'; '.join(said)}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"singular_values": singular_values(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("singular_values", options, measure, report, draw)


if __name__ == "__main__":
    main()
