"""At which depth do float16, bfloat16 and the 8-bit floats lose a gradient, and what does training then do?

A chain that is rounded at every layer, weights, states and gradient, beside the exact one with the same draws. Blue in
the maps is the share of the gradient's entries that float16 has rounded to zero on their way back, red the share that
is infinite or NaN; the line is where half of the exact gradient lies below its smallest number. Multiplying the loss
(loss scaling, Micikevicius et al. 2018) moves both by the same factor: it buys layers where gradients vanish, and
costs them where they explode. Beside them are the depths at which each format loses half of the gradient, and the
accuracy of deep networks whose gradient is held in an 8-bit float before Adam takes it.

examples:
  python scripts/low_precision.py
  python scripts/low_precision.py --map-format bfloat16 --loss-scale 1024 --train-points 0
  python scripts/low_precision.py --preset paper --formats png pdf --out results
  python scripts/low_precision.py --data figures/low_precision.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray

import gradsim as gs
from gradsim import cli
from gradsim.engine.formats import FORMATS, rounded
from gradsim.plot.low_precision import low_precision
from gradsim.scaled import Scaled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of low precision."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "train_points")

    activation: str = "tanh"
    """Activation."""

    width: int = 64
    """Units a layer."""

    depth: int = 80
    """Layers."""

    seeds: int = 8
    """Independent networks; errors are over them."""

    sigma_w: tuple[float, float] = (0.5, 3.0)
    """From here to there."""

    points: int = 26
    """Values of sigma_w."""

    map_format: Literal["bfloat16", "float16", "float8_e4m3", "float8_e5m2"] = "float16"
    """The format of the maps."""

    loss_scale: float = 2.0**15
    """By which the loss is multiplied in one half of the figure."""

    train_format: Literal["bfloat16", "float16", "float8_e4m3", "float8_e5m2"] = "float8_e4m3"
    """The format that holds the gradient of those."""

    train_scale: float = 2.0**10
    """By which the loss of those is multiplied."""

    train_depth: int = 20
    """Their layers."""

    train_width: int = 32
    """Their units a layer."""

    train_points: int = 5
    """Values of sigma_w at which they train, from 0.7 to 1.5; 0 leaves training out."""

    train_seeds: int = 4
    """Networks that train at each."""

    steps: int = 200
    """Updates."""


PRESETS = {
    "quick": Options(),
    "paper": Options(
        "paper", width=256, depth=200, seeds=32, points=51, train_width=64, train_points=11, train_seeds=8, steps=1000
    ),
    "accelerator": Options(
        "accelerator", width=1024, depth=400, seeds=64, points=101, train_width=64, train_points=21, train_seeds=16,
        steps=2000,
    ),
}  # fmt: skip


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """The rounded chain over loss scales and gains; where half of the exact gradient is lost; what training reaches."""
    scales = np.array([1.0, options.loss_scale])
    for name, scale in (("loss_scale", options.loss_scale), ("train_scale", options.train_scale)):
        if not 0 < scale < np.inf or scale == 1:
            raise ValueError(f"{name}: got {scale:g}; pass a positive finite number other than 1")
    job = partial(
        gs.sweep, gs.feedforward(options.width, options.activation), depth=options.depth, seeds=options.seeds,
        key=options.key, direction="backward", dtype=options.map_format, statistics="log_median", loss_scale=scales,
        sigma_w=cli.axis("sigma_w", options.sigma_w, options.points),
    )  # fmt: skip
    measured = cli.perform({"lost": job})
    measured["horizons"] = horizons(measured["lost"], scales)
    if options.train_points:
        measured["training"] = trained(options)
    return measured


def horizons(data: xarray.Dataset, scales: np.ndarray) -> xarray.Dataset:
    """Half-loss depths of every format with each loss scale; the exact gradient is the same in all."""
    exact = data.isel(loss_scale=0, drop=True)
    by_format = [
        xarray.concat(
            [gs.precision_horizon(exact, name, float(scale)) for scale in scales], "scale", combine_attrs="override"
        )
        for name in FORMATS
    ]
    found = xarray.concat(by_format, "format", combine_attrs="override")
    return found.assign_coords(format=list(FORMATS), scale=scales)


def held_in(name: str, scale: float) -> Any:
    """An optax transformation: the gradient of a scaled loss as the format holds it, the scale off again.

    A step whose gradient is not finite there is skipped, as in practice.
    """
    import optax

    def hold(gradient: Any, _: Any = None) -> Any:
        larger = jax.tree.map(lambda leaf: leaf * jnp.asarray(scale, leaf.dtype), gradient)
        kept = rounded(Scaled(larger, jnp.int32(0)), FORMATS[name]).mantissa
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(kept)]))
        return jax.tree.map(lambda leaf: jnp.where(finite, leaf / jnp.asarray(scale, leaf.dtype), 0), kept)

    return optax.stateless(hold)


def trained(options: Options) -> xarray.Dataset:
    """Held-out accuracy with the exact gradient and with that of the format, with and without loss scaling."""
    import optax

    # Adam's ε far below what vanishes: the size of a gradient then does not matter, as long as it is not lost.
    adam = partial(optax.adam, 0.002, eps=1e-30)
    name = options.train_format
    kinds = {
        "float32": adam(),
        name: optax.chain(held_in(name, 1.0), adam()),
        f"{name}, loss times {options.train_scale:g}": optax.chain(held_in(name, options.train_scale), adam()),
    }
    jobs = {
        kind: partial(
            gs.train, gs.feedforward(options.train_width, options.activation), data="digits", optimizer=optimizer,
            depth=options.train_depth, seeds=options.train_seeds, steps=options.steps, record=[options.steps],
            by_layer=False, key=options.key, sigma_w=np.linspace(0.7, 1.5, options.train_points),
        )
        for kind, optimizer in kinds.items()
    }  # fmt: skip
    runs = cli.perform_training(jobs, at_once=2)
    found = [one[["accuracy"]].isel(step=-1, drop=True) for one in runs.values()]
    joined = xarray.concat(found, "gradient", combine_attrs="override").assign_coords(gradient=list(runs))
    return joined.assign_attrs(layers=options.train_depth)


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    """Half-loss depths at some gains, and the accuracies."""
    found = datasets["horizons"]
    scaled = float(found["scale"][1])
    lines = [f"layers until half of the gradient is lost (with the loss times {scaled:g}), by fit:"]
    some = found["sigma_w"].values[:: max(1, found.sizes["sigma_w"] // 5)]
    lines.append(f"  {'sigma_w':12s}" + "".join(f"{gain:>16.2f}" for gain in some))
    for name in found["format"].values.tolist():
        pairs = [found["horizon_fit"].sel(format=name, sigma_w=gain).values for gain in some]
        cells = [f"{shown(without)} ({shown(within)})" for without, within in pairs]
        lines.append(f"  {name:12s}" + "".join(f"{cell:>16s}" for cell in cells))
    if "training" in datasets:
        accuracy = datasets["training"]["accuracy"].mean("seed")
        lines.append(f"held-out accuracy after training {datasets['training'].attrs['layers']} layers, best sigma_w:")
        for kind in accuracy["gradient"].values.tolist():
            best = accuracy.sel(gradient=kind)
            lines.append(f"  {kind:26s}{float(best.max()):6.2f} at {float(best.idxmax('sigma_w')):.2f}")
    return "\n".join(lines)


def shown(layers: float) -> str:
    """A number of layers, of which there are no negative ones."""
    return "never" if layers == np.inf else f"{max(layers, 0.0):.0f}"


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"low_precision": low_precision(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("low_precision", options, measure, report, draw)


if __name__ == "__main__":
    main()
