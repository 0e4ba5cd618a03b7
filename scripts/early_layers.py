"""How little do the first layers of a deep network learn?

Measures the exact norm of the gradient of every layer's weights, in random networks of several depths and
initialization schemes, whose loss has a gradient of norm 1 at the output. With sigmoids it falls fourfold or more
a layer on its way back, whatever the scheme: the first of a hundred layers gets 10^-50 and less, which
float32 rounds to zero, and the first of a thousand gets what no float holds. With tanh and ReLU the scheme
decides: that of PyTorch's Linear starves the first layers, Glorot's keeps tanh alive, He's keeps ReLU alive.

examples:
  python scripts/early_layers.py
  python scripts/early_layers.py --activations sigmoid gelu --schemes glorot_normal --depths 10 100 --deepest 0
  python scripts/early_layers.py --inputs digits
  python scripts/early_layers.py --preset paper --formats png pdf --out results
  python scripts/early_layers.py --data figures/early_layers.zarr
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gradsim as gs
from gradsim import cli, initializers
from gradsim.plot.layers import layer_gradients

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the early layers."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "deepest")

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu")
    """Activations, one panel each."""

    schemes: tuple[str, ...] = ("torch_linear", "glorot_normal", "he_normal")
    """Initialization schemes, one row of panels each. Their gains are taken; the weights are Gaussian in all."""

    depths: tuple[int, ...] = (5, 20, 100)
    """Numbers of layers, one line each."""

    deepest: int = 1000
    """Layers of the networks in the last panel; 0 leaves it out."""

    deepest_scheme: str = "torch_linear"
    """Their initialization scheme."""

    width: int = 64
    """Units a layer."""

    seeds: int = 8
    """Independent networks of each kind: the lines are their means, the bands hold 80 % of them."""

    inputs: Literal["gaussian", "digits"] = "gaussian"
    """What goes in: Gaussian noise of unit variance, or scikit-learn's handwritten digits (64 wide)."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", depths=(5, 10, 20, 50, 100), width=256, seeds=32),
    "accelerator": Options("accelerator", depths=(5, 10, 20, 50, 100), width=1024, seeds=64),
}
DEEPEST = "deepest"


def measure(options: Options) -> dict[str, "xarray.Dataset"]:
    """One backward sweep for each depth, with an entry of `network` for each activation."""
    if len(set(options.depths)) < len(options.depths):
        raise ValueError(f"depths: got {options.depths}; pass numbers of layers, each once")
    import xarray

    networks = {activation: gs.feedforward(options.width, activation) for activation in options.activations}
    chosen = {name: initializers.get(name) for name in (*options.schemes, options.deepest_scheme)}
    inputs = cli.samples(options.inputs, options.width)

    depths = {f"{depth} layers": depth for depth in sorted(options.depths)}
    wanted = [(title, name) for title in depths for name in options.schemes]
    if options.deepest:
        depths[DEEPEST] = options.deepest
        wanted.append((DEEPEST, options.deepest_scheme))
    # A scheme is two gains here, and gains do not recompile.
    gains: dict[str, Any] = {
        name: {"sigma_w": one.weight_gain(options.width, options.width), "sigma_b": one.bias_gain(options.width)}
        for name, one in chosen.items()
    }
    jobs = {
        (title, name): partial(
            gs.sweep, networks, depth=depths[title], seeds=options.seeds, key=options.key, inputs=inputs,
            direction="backward", statistics="log_weight_gradient", **gains[name],
        )
        for title, name in wanted
    }  # fmt: skip
    measured: dict[str, list[xarray.Dataset]] = {title: [] for title in depths}
    for (title, name), one in cli.perform(jobs).items():
        labelled = one.drop_vars(gains[name]).assign_coords({"scheme": name, **gains[name]}).expand_dims("scheme")
        measured[title].append(labelled)
    return {
        title: xarray.concat(
            several, "scheme",
            data_vars="all", coords="different", compat="equals", join="exact", combine_attrs="override",
        )
        for title, several in measured.items()
    }  # fmt: skip


def report(datasets: Mapping[str, "xarray.Dataset"]) -> str:
    """A table of the first layer's gradient for each activation, gain and depth."""
    lines = ["norm of the gradient of the first layer's weights, geometric means:"]
    lines.append(f"  {'activation':12s}{'scheme':16s}" + "".join(f"{title:>14s}" for title in datasets))
    first = next(iter(datasets.values()))
    for name in first["network"].values.tolist():
        for scheme in first["scheme"].values.tolist():
            cells = [_first_layer(one, name, scheme) for one in datasets.values()]
            lines.append(f"  {name:12s}{scheme:16s}" + "".join(f"{cell:>14s}" for cell in cells))
    if DEEPEST in datasets:
        lines.append(f"  deepest: {datasets[DEEPEST].sizes['depth']:,} layers")
    return "\n".join(lines)


def _first_layer(one: "xarray.Dataset", name: str, scheme: str) -> str:
    if scheme not in one["scheme"]:
        return ""
    norm = one["log_weight_gradient"].sel(network=name, scheme=scheme, parameter="w").isel(depth=0)
    return power(float(norm.mean("seed")) / math.log(10))


def power(exponent: float) -> str:
    """10 to the exponent, which a float may not hold."""
    whole = math.floor(exponent)
    return f"{10 ** (exponent - whole):.1f}e{whole:+d}" if math.isfinite(exponent) else "0"


def draw(datasets: Mapping[str, "xarray.Dataset"]) -> dict[str, "Figure"]:
    return {"early_layers": layer_gradients(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("early_layers", options, measure, report, draw)


if __name__ == "__main__":
    main()
