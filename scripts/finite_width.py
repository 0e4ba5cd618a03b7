"""How do the gradients of finite networks scatter as depth over width grows?

Measures ln |J u|, the log gain of a random direction, in thousands of ReLU networks of He's scale and of Gaussian
linear ones, for all depths up to a multiple of the width. Hanin and Nica (2018, arXiv:1812.05994) predict a normal
distribution of mean -v and variance v, with v = 5L/4N for ReLU and L/2N for linear networks: the mean square is 1 at
every depth L, yet once L exceeds the width N nearly every network is far below it. Beneath the histograms the means
and variances of all widths near one line against L/N as N grows; dashes, and the residuals beside them, are from the
exact law of every finite width, a sum over layers. A ReLU layer is dead, all its units off, with probability 2^-N:
such networks do not count, and their share is reported. Depths of one width share networks, hence err together.

examples:
  python scripts/finite_width.py
  python scripts/finite_width.py --widths 4 8 16 --ratio 4 --seeds 10000
  python scripts/finite_width.py --preset paper --formats png pdf --out results
  python scripts/finite_width.py --data figures/finite_width.zarr
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray
from scipy import special, stats

import gradsim as gs
from gradsim import cli
from gradsim.plot.finite_width import finite_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGMA_W = {"relu": math.sqrt(2), "identity": 1.0}  # the mean square of the gain is 1
# Hanin and Nica's v for L = N: a quarter of their sum over layers of 5/n, which is 2/n without the ReLU.
RATE = {"relu": 5 / 4, "identity": 1 / 2}


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the distributions at finite width."""

    activations: tuple[Literal["relu", "identity"], ...] = ("relu", "identity")
    """Those that have an exact law at every width."""

    widths: tuple[int, ...] = (8, 16, 32, 64)
    """Units a layer; the histograms are of the widest."""

    ratio: int = 2
    """Layers over units: the depth of each network is so many times its width."""

    seeds: int = 2000
    """Independent networks of each kind; error bars and histograms are over them."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", widths=(8, 16, 32, 64, 128), ratio=4, seeds=10_000),
    "accelerator": Options("accelerator", widths=(8, 16, 32, 64, 128, 256), ratio=8, seeds=100_000),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """One sweep of one tangent for each activation and width."""
    if options.seeds < 10:
        raise ValueError(f"seeds: got {options.seeds}; pass at least 10, a variance needs them")
    widths = sorted(set(options.widths))
    if widths[0] < 2:
        raise ValueError(f"widths: got {widths[0]}; pass 2 units or more")
    jobs = {
        (name, width): partial(
            gs.sweep, gs.feedforward(width, name), depth=options.ratio * width, seeds=options.seeds, key=options.key,
            sigma_w=SIGMA_W[name], statistics="log_jvp",
        )
        for name in options.activations
        for width in widths
    }  # fmt: skip
    return {
        f"{name} {width}": one.assign_attrs(activation=name, width=width)
        for (name, width), one in cli.perform(jobs).items()
    }


def layer_law(activation: str, width: int) -> tuple[float, float]:
    """Exact mean and variance of what one living layer adds to ln ‖J u‖, at the gains of `SIGMA_W`.

    A layer multiplies ‖J u‖² by σ_w² χ²_B / N, with B the number of its active units: N of N, or for a ReLU
    B ~ Bin(N, ½) given B > 0. And E ln χ²_B = ln 2 + ψ(B/2), Var ln χ²_B = ψ₁(B/2).
    """
    active = np.arange(1, width + 1)
    weight = stats.binom.pmf(active, width, 0.5) if activation == "relu" else (active == width).astype(float)
    weight = weight / weight.sum()
    log_norm = math.log(2 * SIGMA_W[activation] ** 2 / width) + special.digamma(active / 2)
    mean = float(weight @ log_norm)
    variance = float(weight @ (special.polygamma(1, active / 2) + (log_norm - mean) ** 2))
    return mean / 2, variance / 4


def summary(one: xarray.Dataset) -> xarray.Dataset:
    """Mean and variance over the living networks at every depth, with standard errors, and what theory says."""
    name, width = one.attrs["activation"], one.attrs["width"]
    values = one["log_jvp"]
    count = values.notnull().sum("seed")
    apart = values - values.mean("seed")
    variance = values.var("seed", ddof=1)
    fourth = (apart**4).mean("seed")
    law = layer_law(name, width)
    layers = one["depth"].astype(float)
    found = {
        "log_jvp": values,
        "mean": values.mean("seed"),
        "mean_error": np.sqrt(variance / count),
        "variance": variance,
        "variance_error": np.sqrt((fourth - variance**2) / count),
        "exact_mean": law[0] * layers,
        "exact_variance": law[1] * layers,
        "hanin_nica": RATE[name] * layers / width,  # the variance, and minus the mean
        "dead": one["dead"].mean("seed"),
        "exact_dead": 1 - (1 - (2.0**-width if name == "relu" else 0.0)) ** layers,
    }
    return xarray.Dataset(found, attrs=one.attrs)


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["ln |J u| at the last depth (nat), measured (exact) [Hanin and Nica], and the share of dead networks:"]
    for one in map(summary, datasets.values()):
        row = {str(name): float(value) for name, value in one.drop_vars("log_jvp").isel(depth=-1).data_vars.items()}
        lines.append(
            f"  {one.attrs['activation']:9s} N = {one.attrs['width']:<4d} L = {one.sizes['depth']:<5d}"
            f"mean {row['mean']:7.3f} ± {row['mean_error']:.3f} ({row['exact_mean']:.3f}) [{-row['hanin_nica']:.3f}]  "
            f"variance {row['variance']:6.3f} ± {row['variance_error']:.3f} ({row['exact_variance']:.3f}) "
            f"[{row['hanin_nica']:.3f}]  dead {row['dead']:.2%} ({row['exact_dead']:.2%})"
        )
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"finite_width": finite_width([summary(one) for one in datasets.values()])}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("finite_width", options, measure, report, draw)


if __name__ == "__main__":
    main()
