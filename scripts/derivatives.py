"""Why do gradients vanish?

Every layer multiplies the gradient by the slope of its activation: at most 1/4 for the sigmoid, at most 1 for
tanh. The figure shows activations and slopes; how a factor of 0.1 becomes 1e-50 over 50 layers, where a
product kept in float32 shows 0 and gradsim keeps every digit; and what is left of a whisper passed down a
line, place by place, when each passes on a share of what reached them.

examples:
  python scripts/derivatives.py
  python scripts/derivatives.py --activations sigmoid tanh softsign --factors 0.3 0.8 1
  python scripts/derivatives.py --formats pdf --out results
  python scripts/derivatives.py --data figures/derivatives.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import xarray

import gradsim as gs
from gradsim import activations, cli, plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the derivatives."""

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "gelu")
    """Activations to draw (7 at most)."""

    factors: tuple[float, ...] = (0.1, 0.25, 0.5, 0.9, 1.0)
    """Slopes of the chains, each from 0 to 1; the smallest is the one followed out of the range of floats."""

    depth: int = 50
    """Layers of the chains, or places in the line."""

    points: int = 401
    """Points of each curve, from z = -6 to 6."""


PRESETS = {"quick": Options(), "paper": Options("paper", points=1601), "accelerator": Options("accelerator")}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """The curves, and chains of scalars, one unit wide and linear, by gradsim and by a float32 product."""
    if len(options.activations) > len(plot.COLOURS):
        raise ValueError(f"activations: got {len(options.activations)}; pass at most {len(plot.COLOURS)}")
    if not all(0 < factor <= 1 for factor in options.factors):
        raise ValueError(f"factors: got {options.factors}; pass numbers above 0 and up to 1")
    if len(set(options.factors)) < len(options.factors):
        raise ValueError(f"factors: got {options.factors}; pass numbers each once")
    functions = {name: activations.get(name) for name in options.activations}
    z = np.linspace(-6, 6, options.points)
    arrays = {
        "value": [np.asarray(function(jnp.asarray(z, jnp.float32))) for function in functions.values()],
        "slope": [np.asarray(function.derivative(jnp.asarray(z, jnp.float32))) for function in functions.values()],
    }
    curves = xarray.Dataset(
        {name: (("activation", "z"), np.stack(rows)) for name, rows in arrays.items()},
        {"activation": list(functions), "z": ("z", z, {"long_name": "pre-activation", "units": "1"})},
    )
    # The scalar chain h' = sigma_w h: its Jacobian is sigma_w^depth.
    chain = cli.perform({"chain": partial(
        gs.sweep, gs.feedforward(1, "identity", "identity"), depth=options.depth, seeds=1, key=options.key,
        sigma_w=np.asarray(options.factors), sigma_b=0.0,
    )})["chain"]  # fmt: skip
    factor = np.broadcast_to(chain["sigma_w"].values.astype(np.float32)[:, None], (len(options.factors), options.depth))
    attributes = {"long_name": "the same product in float32", "units": "1"}
    product = (("sigma_w", "depth"), np.multiply.accumulate(factor, axis=1, dtype=np.float32), attributes)
    return {"activations": curves, "chain": chain.assign(float32_product=product)}


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    curves, chain = datasets["activations"], datasets["chain"]
    lines = ["slopes:"]
    for name in curves["activation"].values.tolist():
        slope = curves["slope"].sel(activation=name)
        lines.append(f"  {name:12s} from {float(slope.min()):.4g} to {float(slope.max()):.4g}")
    lines.append(f"products of {chain.sizes['depth']} factors, as log gain in nat and as float32:")
    for factor in chain["sigma_w"].values.tolist():
        last = chain.sel(sigma_w=factor).isel(depth=-1, seed=0)
        lines.append(f"  {factor:<12g} {float(last['log_gain']):.5f}  {float(last['float32_product']):g}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"derivatives": plot.derivatives(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("derivatives", options, measure, report, draw)


if __name__ == "__main__":
    main()
