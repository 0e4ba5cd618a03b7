"""How does the gradient's size change with depth, under each initialization scheme?

Measures the log gain ½ ln(‖∂h_l/∂h_0‖²/n) of random networks at every depth l, for several activations and
the schemes that people use. A line is the mean over networks, its band holds 80 % of them, and the black
dashes are mean-field theory at infinite width from the same inputs (Schoenholz et al. 2017).

Beneath are the residuals, measured minus theory in standard errors. Those of the log gain from infinite width grow
with depth over width. To first order in 1/N theory is for another statistic, ln ‖J u‖ of one random direction
(Hanin and Nica 2018), which is measured too. Its expansion fails where its small numbers grow exponentially with
depth, as in GELU networks under the He scheme.

examples:
  python scripts/depth_profile.py
  python scripts/depth_profile.py --activations sigmoid tanh relu --depth 100 --seeds 64
  python scripts/depth_profile.py --preset paper --formats png pdf --out results
  python scripts/depth_profile.py --inputs digits
  python scripts/depth_profile.py --data figures/depth_profile.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray

from gradsim import cli, plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the depth profile."""

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "gelu", "selu", "sin")
    """Activations, one panel each."""

    schemes: tuple[str, ...] = ("lecun_normal", "glorot_uniform", "orthogonal", "he_normal", "torch_linear")
    """Initialization schemes, one line each (7 at most)."""

    width: int = 64
    """Units a layer; the theory is for infinite width."""

    depth: int = 50
    """Layers."""

    seeds: int = 32
    """Independent networks of each kind; the bands are over them."""

    inputs: Literal["gaussian", "digits"] = "gaussian"
    """What goes in: Gaussian noise of unit variance, or scikit-learn's handwritten digits (64 wide)."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=128, depth=100, seeds=128),
    "accelerator": Options("accelerator", width=1024, depth=200, seeds=512),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """The schemes, with the theory's log gain beside them."""
    if len(options.schemes) > len(plot.COLOURS):
        raise ValueError(f"schemes: got {len(options.schemes)}; pass at most {len(plot.COLOURS)}, one colour each")
    inputs = cli.samples(options.inputs, options.width)
    jobs = cli.schemes(
        options.activations, options.schemes, width=options.width, depth=options.depth, seeds=options.seeds,
        key=options.key, inputs=inputs, statistics=("log_gain", "log_jvp"),
    )  # fmt: skip
    measured = cli.join_schemes(cli.perform(jobs))
    return {"schemes": measured.assign(predicted(measured, options))}


def predicted(measured: xarray.Dataset, options: Options) -> dict[str, xarray.DataArray]:
    """`theory`, the log gain at infinite width, and `log_jvp_theory`, ln ‖J u‖ to first order in 1/N."""
    template = measured["log_gain"].isel(seed=0, drop=True).transpose("activation", "initializer", "depth")
    weight, bias = (measured[gain].broadcast_like(template.isel(depth=0)) for gain in ("sigma_w", "sigma_b"))
    schemes = np.array(options.schemes)
    orthogonal = schemes == "orthogonal"
    dense = ~orthogonal & ~np.isin(schemes, ("identity", "sparse"))  # those two have no such theory
    infinite, finite = np.full((2, *template.shape), np.nan)
    for row, name in enumerate(options.activations):
        w, b = weight.sel(activation=name).values, bias.sel(activation=name).values
        infinite[row] = theory.log_gain(name, w, b, options.depth).mean
        for of in filter(np.any, (dense, orthogonal)):
            finite[row, of] = theory.log_gain(
                name, w[of], b[of], options.depth, width=options.width, orthogonal=of is orthogonal
            ).mean
    template.attrs = {"long_name": "infinite width", "source": "Schoenholz et al. 2017", "units": "nat"}
    attributes = {"long_name": "first order in 1/N", "source": "after Hanin & Nica 2018"}
    return {
        "theory": template.copy(data=infinite),
        "log_jvp_theory": template.copy(data=finite).assign_attrs(attributes),
    }


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    one = datasets["schemes"]
    last = one["log_gain"].isel(depth=-1).mean("seed")
    lines = [f"log gain at depth {one.sizes['depth']}, measured (theory), in nat:"]
    for name in one["activation"].values.tolist():
        for scheme in one["initializer"].values.tolist():
            where = {"activation": name, "initializer": scheme}
            predicted = float(one["theory"].isel(depth=-1).sel(where))
            lines.append(f"  {name:12s} {scheme:15s} {float(last.sel(where)):8.2f} ({predicted:.2f})")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"depth_profile": plot.depth_profile(datasets["schemes"])}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("depth_profile", options, measure, report, draw)


if __name__ == "__main__":
    main()
