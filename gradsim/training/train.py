"""Training: thousands of small networks at once, over gains, learning rates and seeds, with what halts it recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.engine import plan as plans
from gradsim.networks.network import Network
from gradsim.sweeps import grid
from gradsim.sweeps.progress import reporting
from gradsim.sweeps.sweep import digest
from gradsim.training import dataset, tasks
from gradsim.training.loop import Job, train_networks
from gradsim.training.model import Model
from gradsim.training.programs import Run
from gradsim.training.tasks import Data, Generated

if TYPE_CHECKING:
    import xarray

BATCH, RECORDS = 32, 10
READ = ("sigma_in", "sigma_out")  # gains of the read-in and of the read-out, which every network has


def train(
    network: Network | Mapping[Any, Network],
    *,
    data: str | Generated | tuple[ArrayLike, ArrayLike] = "digits",
    optimizer: Any,
    learning_rate: ArrayLike | None = None,
    depth: int | None = None,
    seeds: int | range,
    steps: int,
    batch: int | None = None,
    record: int | Sequence[int] | None = None,
    by_layer: bool = True,
    classes: int | None = None,
    held_out: float = 0.2,
    key: int = 0,
    dtype: str = "float32",
    progress: bool | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """Train networks over a grid of gains and learning rates, many seeds each, with any optax optimizer.

    What trains are the weights of `gradsim.sweep`'s networks, W ← W + optimizer(∂loss/∂W) from W = gain · draw:
    seed i here is seed i there. Recurrent networks (`tied`) train one set, the others one for each step. A linear
    read-in maps the data where its size is not the network's, a linear read-out gives logits (cross-entropy) or numbers
    (mean squared error); both train along. Biases of other gains (forget_bias, …) and branch gains stay fixed.

    Args:
        network: one network, or a mapping of names to networks, which adds a leading axis `network`.
        data: over depth "digits"; over time "digits_rows", "digits_pixels", "copy", "adding" or `gradsim.copy_task(…)`,
            whose length is `depth`; or a pair of arrays: inputs [samples, …], or [samples, time, features] over
            time, and targets [samples] or [samples, outputs], whole numbers for labels and real ones for regression.
        optimizer: an optax transformation, or a function of the learning rate that returns one: optax.adam, or
            lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(rate, 500))).
        learning_rate: a positive number, or a 1-d array of them, which becomes an axis; None for a finished optimizer.
        depth: the steps of the chain: layers, or the length of sequences (by default that of the data).
        seeds: the number of independent networks in each cell, or a range of their numbers; a seed has its own
            draw and its own order of the data, which the cells share.
        steps: updates.
        batch: samples a step, 32 unless given; that of the network where it has one (batch norm).
        record: after how many steps to record, each time, or the numbers of the steps; about ten times unless given.
        by_layer: record gradients and updates by layer; a record takes about as long as some steps.
        classes: labels run from 0 to classes − 1; by default to the largest there is.
        held_out: the share of the samples that are held out; of generated data there are 1,000.
        key, dtype, progress: as in `gradsim.sweep`.
        **gains: numbers, or 1-d arrays which become axes: the network's, and sigma_in and sigma_out (1), those of
            read-in and read-out.

    Returns: a Dataset with dimensions (network,) gains…, (learning_rate,) seed, step and, by layer, depth (or time).
        After `step` updates: `loss` of the batch to come, `mean_loss` of those since the last record; `held_out_loss`
        and `accuracy` (batch norm takes the statistics of held-out batches); `diverged` (has a loss not been finite?)
        and, over all steps, `diverged_at`; `log_gradient_norm` of all that is trained. By layer, in nats:
        `log_gradient`, what the optimizer sees, −inf where it underflows; `log_exact_gradient`, which does not; over
        time both are what a step contributes to the one set of weights. `log_update` is ln ‖ΔW‖/‖W‖ of the update to
        come, `log_weight` ln ‖W‖; `log_length` ln of the mean square of the states of a held-out batch, `log_change` of
        what they have changed since the start; `log_output` and `log_output_change` the same of the read-out.
    Raises: ValueError or TypeError before anything is compiled, naming the argument. KeyboardInterrupt with what has
        been recorded in its attribute `partial`, a Dataset that is NaN elsewhere.
    Source: Schoenholz et al. 2017 (trainability); Sohl-Dickstein 2024 (its boundary); Pascanu et al. 2013 (clipping).
    """
    several = grid.networks(network)
    dtype = arguments.choice("dtype", dtype, ("float32", "float64"))
    key, numbers = arguments.key(key), grid.seeds(seeds)
    steps = arguments.whole("steps", steps, maximum=2**31 - 2)
    recorded = _recorded(record, steps)
    rates, make = _optimizer(optimizer, learning_rate)
    by_layer, held_out = arguments.flag("by_layer", by_layer), arguments.share("held_out", held_out)
    axes = _axes(several, gains)
    every = axes if rates is None else {**axes, "learning_rate": rates}
    jobs = []
    for one in several.each.values():
        job, length = _job(
            one, axes, rates, make, data=data, depth=depth, batch=batch, classes=classes, held_out=held_out, key=key,
            dtype=dtype, by_layer=by_layer, seeds=numbers, record=recorded,
        )  # fmt: skip
        jobs.append(job)
    attrs = {
        "key": key, "dtype": dtype, "steps": steps, "batch": jobs[0].run.batch, "optimizer": _named(optimizer),
        "data": jobs[0].data.task.name, "data_digest": digest(jobs[0].data.source),
        "held_out": jobs[0].data.held_out.size,
        "loss": "cross-entropy" if jobs[0].data.task.classes else "squared error",
    }  # fmt: skip

    def found() -> xarray.Dataset:
        arrays = [_on_all_axes(job, several, every, numbers.size) for job in jobs]
        return dataset.build(several, every, arrays, numbers, recorded, length, attrs)

    try:
        with reporting(progress, steps * sum(job.networks for job in jobs)) as bar:
            for job in jobs:
                train_networks(job, bar)
    except KeyboardInterrupt as interrupt:
        interrupt.partial = found()  # type: ignore[attr-defined]
        raise
    return found()


def _recorded(record: Any, steps: int) -> list[int]:
    """The steps that are recorded, in order; the last, unless they are chosen, after all updates."""
    if record is None:
        return sorted({round(float(step)) for step in np.linspace(0, steps, RECORDS + 1)})
    if isinstance(record, str) or not isinstance(record, Iterable):
        return sorted({*range(0, steps, arguments.whole("record", record)), steps})
    chosen = [arguments.whole("record", step, minimum=0) for step in record]
    if not chosen or max(chosen) > steps or len(set(chosen)) < len(chosen):
        raise ValueError(f"record: got {arguments.shown(record)}; pass numbers from 0 to steps={steps}, each once")
    return sorted(chosen)


@dataclass(frozen=True)
class _Finished:
    """An optimizer that knows its learning rate."""

    transformation: Any

    def __call__(self, rate: Any) -> Any:
        return self.transformation


WANTED = "pass an optax transformation, or a function of the learning rate such as optax.adam that returns one"


def _optimizer(optimizer: Any, learning_rate: Any) -> tuple[np.ndarray | None, Callable[[Any], Any]]:
    """The learning rates, and the function of one that makes the optimizer; tried on shapes."""
    import optax

    finished = isinstance(optimizer, optax.GradientTransformation)
    if not finished:
        arguments.function("optimizer", optimizer)
    if finished and learning_rate is not None:
        raise ValueError(
            f"learning_rate: got {arguments.shown(learning_rate)} beside an optimizer that has one already; leave it "
            "out, or pass a function of it, such as optimizer=optax.sgd"
        )
    if not finished and learning_rate is None:
        raise ValueError(
            "learning_rate: got None; the optimizer is a function of it, pass a positive number or several"
        )
    rates = None if finished else _rates(learning_rate)
    make = _Finished(optimizer) if finished else optimizer

    def state(rate: Any) -> Any:
        made = make(rate)
        if not isinstance(made, optax.GradientTransformation):
            raise TypeError(
                f"optimizer: got {arguments.shown(optimizer)}, which returned {type(made).__name__}; {WANTED}"
            )
        return ()

    try:
        jax.eval_shape(state, jax.ShapeDtypeStruct((), "float32"))
    except Exception as error:
        if isinstance(error, TypeError) and str(error).startswith("optimizer:"):
            raise
        raise ValueError(
            f"optimizer: it cannot be made of a learning rate that JAX traces ({arguments.reason(error)}); {WANTED}"
        ) from error
    return rates, make


def _rates(value: Any) -> np.ndarray:
    rates = arguments.gain("learning_rate", value)
    if np.any(rates <= 0):
        raise ValueError(f"learning_rate: got {rates[rates <= 0].flat[0]}; pass positive numbers")
    return rates


def _axes(several: grid.Networks, gains: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The gains given, in their order; those of read-in and read-out belong to every network."""
    axes: dict[str, np.ndarray] = {}
    for name, value in gains.items():
        axes |= {name: arguments.gain(name, value)} if name in READ else grid.axes(several, {name: value}, "train")
    return axes


def _own(network: Network, axes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: axis for name, axis in axes.items() if name in network.gains or name in READ}


def _job(
    network: Network, axes: Mapping[str, np.ndarray], rates: np.ndarray | None, make: Any, *, data: Any, depth: Any,
    batch: Any, classes: Any, held_out: float, key: int, dtype: str, by_layer: bool, seeds: np.ndarray,
    record: list[int],
) -> tuple[Job, int]:  # fmt: skip
    """All networks of one family, checked: cells, learning rates and seeds, the last running fastest."""
    if not network.parameters:
        raise ValueError(
            f"network: {network.family} names no weights in its `parameters`; pass one that can be trained"
        )
    samples, depth = tasks.get(data, network, depth=depth, classes=classes, held_out=held_out, key=key, dtype=dtype)
    if depth is None:
        raise ValueError("depth: got None; pass the number of layers")
    plan = plans.planned(network, depth=depth, statistics="length", dtype=dtype)
    run = Run(Model(plan, samples.task), make, _batch(batch, network, samples), by_layer)
    cells = grid.cells(plan, _own(network, axes))
    rate = arguments.in_dtype("learning_rate", np.ravel(1.0 if rates is None else rates), dtype)
    shape = (next(iter(cells.values())).size, rate.size, seeds.size)
    cell, which, seed = (index.ravel() for index in np.indices(shape))
    gains = {name: values[cell] for name, values in cells.items()}
    gains |= {name: np.ones(cell.size, dtype) for name in READ if name not in gains}
    return Job(run, samples, gains, rate[which], seeds[seed], key, record), plan.depth


def _batch(batch: Any, network: Network, data: Data) -> int:
    """The samples of a step, of which there must be so many."""
    own = network.input_shape[0] if tasks.coupled(network) else None
    size = arguments.size("batch", BATCH if batch is None else batch) if own is None or batch is not None else own
    if own is not None and size != own:
        raise ValueError(f"batch: got {size}; a state of {network.family} is a batch of {own}, leave it out")
    most = data.training if own is None else min(data.training, data.held_out.size)
    if size > most:
        raise ValueError(f"batch: got {size}; pass at most {most}, the samples there are")
    return size


def _on_all_axes(job: Job, several: grid.Networks, axes: Mapping[str, np.ndarray], seeds: int) -> dict[str, np.ndarray]:
    """Arrays [networks, …] as [gains…, (learning_rate,) seed, …]."""
    own = {**_own(job.run.model.network, axes)}
    own |= {name: axis for name, axis in axes.items() if name == "learning_rate"}
    split = {name: array.reshape(-1, seeds, *array.shape[1:]) for name, array in job.results.items()}
    return grid.on_all_axes(split, own, axes)


def _named(optimizer: Any) -> str:
    return str(getattr(optimizer, "__qualname__", type(optimizer).__name__))
