"""How fast does batch norm make gradients explode?

Measures the growth of the gradient a layer in deep networks with batch norm, against the batch size, for linear
and ReLU networks, and lays the exact theory of infinite width over it (Yang et al. 2019, theorem 8). Batch norm
keeps every activation at unit scale, yet the gradient grows exponentially with depth: faster in small batches,
by the factor pi/(pi - 1) of its square a layer in large batches of ReLU networks, and no weight gain prevents it.
Beneath is how far measurements are from theory, in percent of the square and in standard errors.

The theory is for the mean square of the gradient; the growth of a typical gradient (the mean of logarithms) lies
below it by a share that falls as 1/width. Both are measured. Batches must be small against the width: at an
eighth of it a linear network's squared gradient grows by one percent a layer more than theory says.

examples:
  python scripts/batchnorm_explosion.py
  python scripts/batchnorm_explosion.py --batches 8 32 128 --width 1024 --seeds 4
  python scripts/batchnorm_explosion.py --preset paper --formats png pdf --out results
  python scripts/batchnorm_explosion.py --data figures/batchnorm_explosion.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli
from gradsim.networks.depth.batchnorm import batchnorm
from gradsim.plot.explosion import batchnorm_explosion
from gradsim.theory.normalized import batchnorm_growth

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the explosion under batch norm."""

    activations: tuple[Literal["identity", "relu"], ...] = ("identity", "relu")
    """Those that have a closed form."""

    batches: tuple[int, ...] = (6, 8, 12, 16, 32, 64)
    """Batch sizes. Below 6 a single layer's growth has no variance, and means converge slowly."""

    width: int = 512
    """Units a layer: the theory is for infinite width, and 1000 are within one percent of it."""

    depth: int = 32
    """Layers; the growth is taken over the last three quarters, where the gradient's direction has settled."""

    burn_in: int = 24
    """Layers before those, in which the signal settles."""

    seeds: int = 6
    """Independent networks of each kind; error bars are over them."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", batches=(6, 8, 12, 16, 24, 32, 64, 128), width=1024, depth=48, burn_in=48, seeds=32),
    "accelerator": Options(
        "accelerator", batches=(6, 8, 12, 16, 24, 32, 64, 128, 256), width=4096, depth=64, burn_in=64, seeds=64
    ),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """One sweep of one tangent for each activation and batch size, joined along the axis `batch`."""
    if min(options.batches) < 4:
        raise ValueError(f"batches: got {options.batches}; pass sizes of at least 4")
    if options.depth < 4 or options.seeds < 2:
        raise ValueError(f"depth, seeds: got {options.depth}, {options.seeds}; pass at least 4 layers and 2 seeds")
    batches = sorted(set(options.batches))
    jobs = {
        (name, f"in batches of {batch}"): partial(
            gs.sweep, batchnorm(options.width, batch, name, epsilon=0.0), depth=options.depth, seeds=options.seeds,
            key=options.key, burn_in=options.burn_in, statistics="log_jvp",
        )
        for name in options.activations
        for batch in batches
    }  # fmt: skip
    measured = cli.perform(jobs)
    axis = xarray.DataArray(batches, dims="batch", name="batch", attrs={"long_name": "batch size", "units": "1"})
    return {
        name: xarray.concat([one for (of, _), one in measured.items() if of == name], axis, combine_attrs="override")
        for name in options.activations
    }


def rates(dataset: xarray.Dataset, activation: str) -> xarray.Dataset:
    """Growth a layer over the batch size, in nat, with standard errors over the networks.

    Of the typical gradient, E ln ‖J u‖; of the mean square, ½ ln E‖J u‖²; and what theory says of the latter, at
    the sizes measured and as a `curve` over `size`.
    """
    log_norm = dataset["log_jvp"]
    first, last = log_norm.sizes["depth"] // 4, log_norm.sizes["depth"]
    layers, root = last - first, np.sqrt(log_norm.sizes["seed"])
    ends = log_norm.sel(depth=[first, last])
    slope = (ends.sel(depth=last) - ends.sel(depth=first)) / layers
    largest = ends.max("seed")  # squares relative to it do not overflow
    squares = xarray.ufuncs.exp(2 * (ends - largest))
    log_square = xarray.ufuncs.log(squares.mean("seed")) + 2 * largest
    share = squares / squares.mean("seed")
    found = {
        "typical": slope.mean("seed"),
        "typical_error": slope.std("seed", ddof=1) / root,
        "mean_square": (log_square.sel(depth=last) - log_square.sel(depth=first)) / (2 * layers),
        "mean_square_error": (share.sel(depth=last) - share.sel(depth=first)).std("seed", ddof=1) / (2 * layers * root),
        "theory": ("batch", np.log(batchnorm_growth(activation, dataset["batch"].values)) / 2),
    }
    sizes = np.geomspace(4.5, 1.3 * float(dataset["batch"].max()), 100)
    curve = xarray.DataArray(np.log(batchnorm_growth(activation, sizes)) / 2, {"size": sizes})
    return xarray.Dataset({**found, "curve": curve})


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = [
        "growth a layer (nat), typical and of the mean square, and how far the factor of the latter is from theory:"
    ]
    lines.append(f"  {'':9s}{'batch':>6s}{'typical':>18s}{'mean square':>20s}{'theory':>10s}{'apart':>16s}")
    for name, one in datasets.items():
        found = rates(one, name)
        for batch in found["batch"].values:
            here = found.drop_dims("size").sel(batch=batch)
            row = {str(key): float(value) for key, value in here.data_vars.items()}
            apart, error = np.expm1(2 * (row["mean_square"] - row["theory"])), 2 * row["mean_square_error"]
            lines.append(
                f"  {name:9s}{batch:6d}{row['typical']:10.4f} ± {row['typical_error']:.4f}"
                f"{row['mean_square']:12.4f} ± {row['mean_square_error']:.4f}{row['theory']:10.4f}"
                f"{apart:+12.1%} ± {error:.1%}"
            )
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"batchnorm_explosion": batchnorm_explosion({name: rates(one, name) for name, one in datasets.items()})}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("batchnorm_explosion", options, measure, report, draw)


if __name__ == "__main__":
    main()
