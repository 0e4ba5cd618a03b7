"""Where does training converge, where does it diverge, and what lies between?

Trains one small network, h = φ(x W), y = h V, from one start on one random data set, for every pair of two
hyper-parameters, in float64, and shows by how much its squared error has risen (red) or fallen (blue): ln of the mean
over the last 20 steps over that before the first. It has converged where it fell. The boundary is a fractal
(Sohl-Dickstein 2024, arXiv:2402.06184); each window enlarges the one before around its middle. Its box-counting
dimension D is 1 for a smooth line and 2 where it fills the plane. The error of D adds two parts in squares: of the
sample, a jackknife over 16 parts of the image; of the law, half the difference between D of small and of large boxes.

examples:
  python scripts/trainability_boundary.py
  python scripts/trainability_boundary.py --activation relu --center 1 1 --span 2 2 --zooms 1
  python scripts/trainability_boundary.py --vertical sigma_w --center 1 1 --span 2 1 --points 96
  python scripts/trainability_boundary.py --preset paper --formats png pdf --out results
  python scripts/trainability_boundary.py --data figures/trainability_boundary.zarr
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np
import optax
import xarray

import gradsim as gs
from gradsim import cli
from gradsim.analysis.dimension import FEWEST, box_dimension
from gradsim.plot.boundary import trainability_boundary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERRORS = ("dimension", "error", "sampling_error", "scale_error")
LAST = 20  # steps over which the loss in the end is averaged
LONG = {
    "hidden_rate": "learning rate of W",
    "read_out_rate": "learning rate of V",
    "learning_rate": "learning rate",
    "sigma_w": "weight gain σ_w",
    "sigma_out": "read-out gain σ_v",
}


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the boundary of trainability."""

    activation: str = "tanh"
    """The activation φ."""

    vertical: Literal["read_out_rate", "sigma_w", "sigma_out"] = "read_out_rate"
    """The second hyper-parameter: the learning rate of the read-out V, and the first is that of W; or the gain of W or
    of V at the start, and the first is the learning rate of both."""

    center: tuple[float, float] = (50.0, 0.25)
    """The first and the second hyper-parameter in the middle of every window."""

    span: tuple[float, float] = (5.0, 4.0)
    """Width and height of the first window, in factors of ten."""

    zooms: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3)
    """So many times smaller in both directions is each window."""

    points: int = 96
    """Points along each side of a window; each is a network."""

    width: int = 16
    """Inputs, and hidden units."""

    samples: int = 32
    """Samples of the data."""

    batch: int = 32
    """Samples a step: all, or fewer for stochastic gradients, whose order is the same in every network."""

    steps: int = 200
    """Updates."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", points=400, steps=500),
    "accelerator": Options("accelerator", points=1024, steps=1000),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """A training run for each window."""
    check(options)
    generator = np.random.default_rng(options.key)
    count = options.samples + 1  # one is held out
    inputs, targets = generator.standard_normal((count, options.width)), generator.standard_normal(count)
    shared: dict[str, Any] = {
        "data": (inputs, targets), "held_out": 1 / count, "batch": options.batch, "depth": 1,
        "seeds": 1, "steps": options.steps, "record": [0, options.steps - LAST, options.steps], "by_layer": False,
        "key": options.key, "dtype": "float64", "sigma_b": 0.0,
    }  # fmt: skip
    network = gs.feedforward(options.width, options.activation)
    jobs = {}
    for zoom in sorted(options.zooms):
        x, y = window(options, zoom)
        if options.vertical == "read_out_rate":  # gs.train has one axis of rates: it numbers the pairs
            pairs = np.stack([each.ravel() for each in np.meshgrid(x, y, indexing="ij")], axis=1)
            rates: dict[str, Any] = {"optimizer": two_rates(pairs), "learning_rate": np.arange(1.0, 1 + len(pairs))}
        else:
            rates = {"optimizer": one_rate, "learning_rate": x, options.vertical: y}
        jobs[f"zoom {zoom:g}"] = partial(gs.train, network, **shared, **rates)
    return cli.perform_training(jobs, partial(image, options))


def check(options: Options) -> None:
    """Raises: ValueError for what no window can be made of."""
    for name in ("center", "span", "zooms"):
        for value in getattr(options, name):
            if not 0 < value < np.inf:
                raise ValueError(f"{name}: got {value:g}; pass finite numbers above 0")
    if options.points < FEWEST:
        raise ValueError(f"points: got {options.points}; pass at least {FEWEST}, boxes of several sizes need them")
    if options.steps <= LAST:
        raise ValueError(f"steps: got {options.steps}; pass more than {LAST}, over which the loss is averaged")
    if options.batch > options.samples:
        raise ValueError(f"batch: got {options.batch}; pass at most samples={options.samples}")


def window(options: Options, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """The values along both sides, evenly spaced in their logarithms."""
    middle, half = np.log10(options.center), np.array(options.span) / (2 * zoom)
    steps = np.linspace(-1, 1, options.points)
    x, y = (10.0 ** (one + reach * steps) for one, reach in zip(middle, half, strict=True))
    return x, y


def descent(hidden: Any, read_out: Any) -> optax.GradientTransformation:
    """Gradient descent of W and V with these rates; biases stay zero."""
    transforms = {"hidden": optax.sgd(hidden), "read_out": optax.sgd(read_out), "biases": optax.set_to_zero()}
    labels = {"layers": {"w": "hidden", "b": "biases"}, "read_out": {"w": "read_out", "b": "biases"}}
    return optax.multi_transform(transforms, labels)


def one_rate(rate: Any) -> optax.GradientTransformation:
    """The same rate for both."""
    return descent(rate, rate)


def two_rates(pairs: np.ndarray) -> Callable[[Any], optax.GradientTransformation]:
    """Those of the pair of this number, counted from 1; pairs [numbers, 2]."""

    def optimizer(number: Any) -> optax.GradientTransformation:
        number = jnp.asarray(number)
        return descent(*jnp.asarray(pairs, number.dtype)[number.astype(int) - 1])

    return optimizer


def image(options: Options, name: str, trained: xarray.Dataset) -> xarray.Dataset:
    """The log ratio of losses over both hyper-parameters, ∞ where they left the floats, NaN where nothing is known."""
    zoom, one, two = float(name.removeprefix("zoom ")), trained.isel(seed=0), options.vertical == "read_out_rate"
    axes = (options.vertical, "hidden_rate" if two else "learning_rate")
    x, y = window(options, zoom)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(one["mean_loss"].isel(step=-1).values / one["loss"].sel(step=0).values)
    ratio = np.where(one["diverged_at"].isnull(), ratio, np.inf)
    ratio = ratio.reshape(x.size, y.size).T if two else ratio
    coordinates = {axis: (axis, values, {"long_name": LONG[axis]}) for axis, values in zip(axes, (y, x), strict=True)}
    variables = {"log_ratio": (axes, ratio, {"long_name": "ln(loss in the end / at the start)", "units": "nat"})}
    about = {"zoom": zoom, "center": list(options.center), "activation": options.activation}
    return xarray.Dataset(variables, coordinates, {**trained.attrs, **about})


def dimensions(datasets: Mapping[str, xarray.Dataset]) -> dict[str, xarray.Dataset | None]:
    """What box counting finds in each window that is whole."""
    ratios = {name: one["log_ratio"] for name, one in datasets.items()}
    return {name: None if one.isnull().any() else box_dimension(one.values < 0) for name, one in ratios.items()}


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = ["dimension of the boundary between converging and diverging training, and the share that converges:"]
    for name, found in dimensions(datasets).items():
        words = "not finished" if found is None else "no boundary in this window"
        if found is not None and found["dimension"].notnull():
            d, error, sample, law = (float(found[one]) for one in ERRORS)
            words = f"D = {d:.3f} ± {error:.3f} (sample {sample:.3f}, law {law:.3f})"
        lines.append(f"  {name:12s} {words:50s} {float((datasets[name]['log_ratio'] < 0).mean()):6.1%}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"trainability_boundary": trainability_boundary(datasets, dimensions(datasets))}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("trainability_boundary", options, measure, report, draw)


if __name__ == "__main__":
    main()
