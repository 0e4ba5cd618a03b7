"""Where does the gradient of a model go, what does rescaling its start cure, and what trains then?

Takes five models as one would write them in flax, with the initial weights that flax gives them: an MLP of 50 sigmoid
layers, an LSTM that reads the 64 pixels of a digit and waits until step 200, transformers of 24 blocks with the norm
before the branch and after the sum (flax.nnx), and a small ResNet (flax.linen). Each is measured with gradsim.inspect,
made critical with gradsim.tune, measured again, and trained both ways on scikit-learn's digits with Adam.

gradsim.tune scales kernels alone. It cannot mend what has no kernel of the right kind: gates in a loop, or a norm that
takes a kernel's scale away again. What it refuses is listed with the reason.

examples:
  python scripts/inspect_models.py
  python scripts/inspect_models.py --models mlp --layers 100 --steps 500 --seeds 4
  python scripts/inspect_models.py --preset paper --formats png pdf --out results
  python scripts/inspect_models.py --data figures/inspect_models.zarr
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray
from jax import Array

import gradsim as gs
from gradsim import cli
from gradsim.cli.flax_models import HEADS, PIXELS, TITLES, Made, Sizes, make, split
from gradsim.digits import digits, labels
from gradsim.inspection.rates import chains
from gradsim.plot.models import models, outer_gradient
from gradsim.sweeps.effort import LEVEL_1

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD_OUT, BATCH = 297, 64  # digits
POINTS = 10  # of a learning curve
STARTS = "before", "after"
SECONDS = {"mlp": 15.0, "lstm": 10.0, "transformer_pre": 40.0, "transformer_post": 40.0, "resnet": 20.0}  # about


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the inspection of models."""

    models: tuple[str, ...] = ("mlp", "lstm", "transformer_pre", "transformer_post", "resnet")
    """Which of mlp, lstm, transformer_pre, transformer_post and resnet."""

    layers: int = 50
    """Sigmoid layers of the MLP."""

    blocks: int = 24
    """Blocks of the transformers."""

    length: int = 200
    """Steps of the LSTM, at least 64."""

    width: int = 32
    """Units of all of them, and four times the channels of the ResNet."""

    shown: int = 8
    """Digits that a model is tuned and inspected with."""

    seeds: int = 2
    """Independent networks of each kind that are trained; the gradient drawn is the first's."""

    steps: int = 100
    """Updates, of 64 digits each."""

    learning_rate: float = 1e-3
    """Of Adam."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=64, shown=16, seeds=8, steps=1000),
    "accelerator": Options(
        "accelerator", layers=200, blocks=96, length=1000, width=128, shown=16, seeds=32, steps=2000
    ),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """Each model, inspected before and after it is tuned, and trained from both starts."""
    check(options)
    works = {name: cli.Work(options.seeds, options.steps, others=SECONDS[name]) for name in options.models}
    with cli.Jobs(works) as jobs:
        return jobs.run({name: partial(one_model, name, options) for name in options.models})


def check(options: Options) -> None:
    """Raises: ValueError for what is no model, or no length or rate."""
    unknown = sorted(set(options.models) - set(TITLES))
    if unknown or not options.models:
        raise ValueError(f"models: got {', '.join(unknown) or 'none'}; pass some of {', '.join(TITLES)}")
    if options.length < PIXELS:
        raise ValueError(f"length: got {options.length}; pass at least {PIXELS}, the pixels of a digit")
    if options.width % HEADS:
        raise ValueError(f"width: got {options.width}; pass a multiple of {HEADS}, the heads of attention")
    if options.shown > len(labels()):
        raise ValueError(f"shown: got {options.shown}; pass at most {len(labels())}, as many digits as there are")
    if not 0 < options.learning_rate < np.inf:
        raise ValueError(f"learning_rate: got {options.learning_rate:g}; pass a finite number above 0")


def one_model(name: str, options: Options) -> xarray.Dataset:
    x, y = jnp.asarray(digits(), jnp.float32), jnp.asarray(labels())
    some = x[: options.shown]
    sizes = Sizes(options.width, options.layers, options.blocks, options.length)
    inspections, starts, refused = [], [], 0
    for seed in range(options.seeds):
        given = make(name, sizes, options.key + seed, some)
        tuned, table = tune(given, some, options)
        starts += [given, tuned]
        if not seed:  # this one is drawn
            inspections = [inspect(one, some, y[: options.shown]) for one in (given, tuned)]
            refused = int((table["status"] == "refused").sum())
    shown = xarray.concat([drawn(one) for one in inspections], "start", coords="minimal", compat="override")
    updates, accuracy = trained(starts, x, y, options)
    shape = (options.seeds, 2, len(updates))
    return (
        shown.assign(accuracy=(("seed", "start", "update"), accuracy.reshape(shape)))
        .assign_coords(start=list(STARTS), seed=np.arange(options.seeds), update=updates)
        .assign_attrs(
            {**inspections[0].attrs, "title": TITLES[name], "kernels": table.sizes["layer"], "refused": refused}
        )
    )


def drawn(found: xarray.Dataset) -> xarray.Dataset:
    """The gradient at each layer, `outer` where it is one of several that are alike; or at each step of a scan."""
    chain = chains(found)[0]
    if chain.by_step:
        return found[["log_gradient_by_step"]].isel(layer=chain.rows[0], drop=True)
    outer = np.isin(np.arange(found.sizes["layer"]), chain.rows)
    return found[["log_gradient"]].assign_coords(outer=("layer", outer))


def tune(given: Made, x: Array, options: Options) -> tuple[Made, xarray.Dataset]:
    """Layers with gain one, branches with less: so a transformer's own gain does not grow with its depth."""
    branches = (2 * options.blocks) ** -0.5
    tuned, table = gs.tune(given.model, x, branch_target=branches, variables=given.variables)
    return (Made(tuned, None) if given.variables is None else Made(given.model, tuned)), table


def inspect(made: Made, x: Array, y: Array) -> xarray.Dataset:
    return gs.inspect(made.model, x, loss=lambda logits: cross_entropy(logits, y), variables=made.variables)


def cross_entropy(logits: Array, y: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def trained(starts: Sequence[Made], x: Array, y: Array, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Updates, and the accuracy on held-out digits after them [starts, updates]."""
    several = [split(one) for one in starts]
    call, adam = several[0].call, optax.adam(options.learning_rate)
    every = max(1, options.steps // POINTS)
    train_x, train_y, test_x, test_y = x[HELD_OUT:], y[HELD_OUT:], x[:HELD_OUT], y[:HELD_OUT]

    def loss(parameters: Any, state: Any, rows: Array) -> Any:
        logits, state = call(parameters, state, train_x[rows])
        return cross_entropy(logits, train_y[rows]), state

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        parameters, state, inner = carry
        gradient, state = jax.grad(loss, has_aux=True)(
            parameters, state, jax.random.choice(key, len(train_x), (BATCH,))
        )
        updates, inner = adam.update(gradient, inner, parameters)
        return (optax.apply_updates(parameters, updates), state, inner), None

    def some_steps(carry: Any, key: Array) -> tuple[Any, Array]:
        carry, _ = jax.lax.scan(step, carry, jax.random.split(key, every))
        return carry, correct(carry)

    def correct(carry: Any) -> Array:
        return jnp.mean(jnp.argmax(call(carry[0], carry[1], test_x)[0], -1) == test_y)

    @partial(jax.jit, compiler_options=LEVEL_1 if jax.default_backend() == "cpu" else None)
    def run(parameters: Any, state: Any, keys: Array) -> Array:
        return jax.lax.scan(some_steps, (parameters, state, adam.init(parameters)), keys)[1]

    keys = jax.random.split(jax.random.key(options.key), options.steps // every)  # the same batches for all
    with jax.numpy_dtype_promotion("standard"):  # optax and flax mix dtypes
        found = [np.asarray(run(one.parameters, one.state, keys)) for one in several]
    return every * np.arange(1, len(keys) + 1), np.stack(found)


def report(datasets: Mapping[str, xarray.Dataset]) -> str:
    lines = [f"{'':34s}{'gradient, first layer or step / last':>34s}{'held-out accuracy':>34s}"]
    for one in datasets.values():
        for start in STARTS:
            data = one.sel(start=start)
            line = outer_gradient(data).values / np.log(10.0)
            accuracy = ", ".join(f"{value:.2f}" for value in data["accuracy"].isel(update=-1).values)
            lines.append(f"{one.title + ', ' + start:34s}{f'1e{line[0] - line[-1]:+.1f}':>34s}{accuracy:>34s}")
        lines.append(f"  {one.refused} of {one.kernels} kernels refused")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"inspect_models": models(list(datasets.values()))}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("inspect_models", options, measure, report, draw)


if __name__ == "__main__":
    main()
