"""Which parametrization keeps activations, and what training changes in them, level in width and in depth?

Takes a few steps of gradient descent on scikit-learn's digits, in float64, at several widths and depths, and fits
the powers with which sizes go: root mean squares of the last hidden layer and of the read-out, of what training has
changed in them, and the relative update |dW|/|W| of the last hidden matrix. Beside each stands the derived power.

Width n, of x -> x V -> L layers φ(h W) -> h U without biases (Yang and Hu 2021, arXiv:2011.14522):

                   variance of W, U    rates of V, W, U    derived powers of n: h, dh, y, dy, |dW|/|W|
  standard         1/n,   1/n          η,   η, η           0, 1/2, 0, 1, 0
  mean-field       1/n²,  1/n²         η n, η, η/n         -L/2, 1-L, -(L+1)/2, 1-L, (1-L)/2
  maximal update   1/n,   1/n²         η n, η, η/n         0, 0, -1/2, 0, -1/2

Under the standard parametrization a step that is right for one width is too long for a larger one, under maximal
update what is learned is level, and a deep mean-field network stalls. Depth L, of x + s φ(norm x) W with s = 1, 1/√L
or 1/L: derived at infinite width for these depths. See gradsim/theory/parametrization.py for both derivations.

examples:
  python scripts/coordinate_check.py
  python scripts/coordinate_check.py --widths 64 128 256 512 --layers 2 --seeds 16 --depths
  python scripts/coordinate_check.py --widths 128 512 2048 --depths --preset paper
  python scripts/coordinate_check.py --preset paper --formats png pdf --out results
  python scripts/coordinate_check.py --data figures/coordinate_check.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax
import xarray

import gradsim as gs
from gradsim import cli
from gradsim.analysis.powers import QUANTITIES, RECORDED, fitted_power, last_layers, sizes_of
from gradsim.digits import labels
from gradsim.plot.coordinates import coordinate_check
from gradsim.theory.parametrization import PARAMETRIZATIONS, residual_sizes, width_powers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHAS = {"1": 0.0, "1/√L": 0.5, "1/L": 1.0}  # scalings of a residual branch
SMALL = 0.01  # of the read-out and the rate of residual networks: so the output moves by U's own change, and U little
KINDS = {"width": "parametrization", "depth": "scaling"}


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the coordinate check."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "widths", "depths")

    widths: tuple[int, ...] = (128, 256, 512, 1024)
    """Units a layer; none leaves them out."""

    layers: int = 3
    """Hidden layers of the networks of several widths."""

    depths: tuple[int, ...] = (8, 16, 32, 64)
    """Blocks of the residual networks; none leaves them out."""

    depth_width: int = 128
    """Their units."""

    activation: str = "relu"
    """The activation; powers in width hold of one that is homogeneous, ReLU, at all widths, else at large ones."""

    seeds: int = 12
    """Independent networks of each kind; errors are over them."""

    steps: int = 3
    """Updates before sizes are taken."""

    learning_rate: float = 1e-4
    """η. Powers hold while changes are small; at large rates saturation ends them."""

    batch: int = 8
    """Samples a step."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", widths=(128, 256, 512, 1024, 2048), depths=(16, 32, 64, 128, 256, 512), seeds=32),
    "accelerator": Options(
        "accelerator", widths=(128, 256, 512, 1024, 2048, 4096, 8192), depths=(16, 32, 64, 128, 256, 512, 1024),
        depth_width=256, seeds=64,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class GroupRates:
    """Gradient descent of V, W and U with these multiples of the rate, row by row; equal ones compile once."""

    factors: tuple[tuple[float, float, float], ...]
    rate: float

    def __call__(self, row: Any) -> optax.GradientTransformation:
        """The optimizer of this row, counted from 1."""
        row = jnp.asarray(row)
        rates = jnp.asarray(self.factors, row.dtype)[row.astype(int) - 1] * self.rate
        groups = {group: optax.sgd(rates[place]) for place, group in enumerate(("read_in", "layers", "read_out"))}
        labels = {group: {"w": group, "b": "zero"} for group in groups}
        return optax.multi_transform({**groups, "zero": optax.set_to_zero()}, labels)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Digits of unit norm, without the pixels that are always blank: so every width has a read-in."""
    pixels: Any = cli.samples("digits", 64)
    pixels = pixels[:, np.ptp(pixels, axis=0) > 0]
    return pixels / np.linalg.norm(pixels, axis=1, keepdims=True), labels()


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """A training run for each width and parametrization, and for each depth."""
    check(options)
    inputs, targets = data()
    gain = 2.0**0.5 if options.activation == "relu" else 1.0
    shared: dict[str, Any] = {
        "data": (inputs, targets), "seeds": options.seeds, "steps": options.steps, "batch": options.batch,
        "record": [options.steps], "by_layer": RECORDED, "key": options.key, "dtype": "float64",
        "sigma_in": inputs.shape[1] ** 0.5, "sigma_b": 0.0,
    }  # fmt: skip
    jobs = {}
    for n in sorted(options.widths):
        network = gs.feedforward(n, options.activation)
        optimizer = GroupRates(((1, 1, 1), (n, 1, 1 / n), (n, 1, 1 / n)), options.learning_rate)
        for row, name in enumerate(PARAMETRIZATIONS, 1):
            jobs[f"width {n} {name}"] = partial(
                gs.train, network, depth=options.layers, **shared, optimizer=optimizer, learning_rate=[row],
                sigma_w=gain / (n**0.5 if name == "mean-field" else 1), sigma_out=1 if name == "standard" else n**-0.5,
            )  # fmt: skip
    blocks = gs.layernorm(options.depth_width, options.activation, form="pre")
    for depth in sorted(options.depths):
        jobs[f"depth {depth}"] = partial(
            gs.train, blocks, depth=depth, **shared, optimizer=GroupRates(((0, 1, 1),), SMALL * options.learning_rate),
            learning_rate=[1.0], sigma_w=gain, branch_gain=[depth**-alpha for alpha in ALPHAS.values()],
            sigma_out=SMALL,
        )  # fmt: skip
    return cli.perform_training(jobs, labelled, at_once=2)


def check(options: Options) -> None:
    """Raises: ValueError for what no power can be fitted to."""
    for name, values in (("widths", options.widths), ("depths", options.depths)):
        if values and len(set(values)) < max(2, len(values)):
            raise ValueError(f"{name}: got {values}; pass two or more, each once")
    if not options.widths and not options.depths:
        raise ValueError("widths: got none, and depths neither; pass two or more of either")
    if options.seeds < 2:
        raise ValueError(f"seeds: got {options.seeds}; pass at least 2, errors are over them")
    if not 0 < options.learning_rate < np.inf:
        raise ValueError(f"learning_rate: got {options.learning_rate:g}; pass a finite number above 0")


def labelled(name: str, trained: xarray.Dataset) -> xarray.Dataset:
    """Sizes after the last step, over the axis of their kind: parametrization or scaling."""
    found = sizes_of(trained.isel(learning_rate=0))
    axis, value, *kind = name.split(" ", 2)
    if axis == "width":
        found = found.expand_dims(parametrization=kind)
    else:
        found = found.rename(branch_gain="scaling").assign_coords(scaling=list(ALPHAS))
    return found.assign_attrs({**trained.attrs, "axis": axis, "value": int(value)})


def joined(datasets: Mapping[str, xarray.Dataset]) -> dict[str, xarray.Dataset]:
    """Last layers by "width" and by "depth", where two have been measured whole."""
    kinds = {"width": PARAMETRIZATIONS, "depth": tuple(ALPHAS)}
    found = {axis: last_layers(datasets.values(), axis, KINDS[axis], names) for axis, names in kinds.items()}
    return {axis: one for axis, one in found.items() if one is not None}


def derived(axis: str, kind: str, one: xarray.Dataset) -> list[float]:
    """The power of each quantity; over depth that of the derived sizes, at the depths that were measured."""
    if axis == "width":
        return list(width_powers(kind, one.attrs["layers"]).values())
    blocks = one["depth"].values
    laws = residual_sizes(blocks, blocks ** -ALPHAS[kind])
    return [float(np.polyfit(np.log(blocks), np.log(laws[quantity]), 1)[0]) for quantity in QUANTITIES]


def powers(sizes: Mapping[str, xarray.Dataset]) -> dict[str, xarray.Dataset]:
    """Fitted `power`, its `error` and the `derived` one over quantity and kind, of what `joined` has joined."""
    found = {}
    for axis, one in sizes.items():
        expected = [derived(axis, kind, one) for kind in one[KINDS[axis]].values]
        fits = fitted_power(one[list(QUANTITIES)].to_dataarray("quantity"), axis)
        fits = fits.assign(derived=((KINDS[axis], "quantity"), expected))
        found[axis] = fits.transpose("quantity", KINDS[axis])
    return found


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = []
    for axis, fits in powers(joined(datasets)).items():
        lines.append(f"powers of {axis}: fitted ± standard error (derived)")
        lines.append(f"  {KINDS[axis]:17s}" + "".join(f"{name.replace('_', ' '):>25s}" for name in QUANTITIES))
        for kind in fits[KINDS[axis]].values:
            one = fits.sel({KINDS[axis]: kind})
            rows = zip(*(one[name].values for name in ("power", "error", "derived")), strict=True)
            cells = [f"{power:+.3f} ± {error:.3f} ({law:+.2f})" for power, error, law in rows]
            lines.append(f"  {kind:17s}" + "".join(f"{cell:>25s}" for cell in cells))
    return "\n".join(lines) or "not finished: a power needs two widths or depths"


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    sizes = joined(datasets)
    return {"coordinate_check": coordinate_check(sizes, powers(sizes))} if sizes else {}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("coordinate_check", options, measure, report, draw)


if __name__ == "__main__":
    main()
