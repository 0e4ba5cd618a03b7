"""Training: thousands of small networks at once, over gains, learning rates and seeds, with what halts it recorded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.engine import plan as plans
from gradsim.lapack import in_one_thread
from gradsim.networks.network import Network
from gradsim.sweeps import grid
from gradsim.sweeps.calls import DeviceError
from gradsim.sweeps.machine import used
from gradsim.sweeps.progress import Part, Progress, reporting
from gradsim.sweeps.stores import stored
from gradsim.sweeps.stores.opening import open_store
from gradsim.sweeps.sweep import digest
from gradsim.training import dataset, optimizers, tasks
from gradsim.training.asked import Family, Training
from gradsim.training.model import READ, Model
from gradsim.training.optimizers import Optimizers
from gradsim.training.programs import Run, check_optimizer
from gradsim.training.records import BY_LAYER, OF_OUTPUT
from gradsim.training.tasks import Data, Generated

if TYPE_CHECKING:
    import xarray

BATCH, RECORDS = 32, 10


def train(
    network: Network | Mapping[Any, Network],
    *,
    data: str | Generated | Sequence[Any] = "digits",
    optimizer: Any,
    learning_rate: ArrayLike | Sequence[float | int] | None = None,
    depth: int | None = None,
    seeds: int | range,
    steps: int,
    batch: int | None = None,
    record: int | Sequence[int] | None = None,
    by_layer: bool | str | Sequence[str] = True,
    classes: int | None = None,
    held_out: float = 0.2,
    key: int = 0,
    dtype: str = "float32",
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    devices: int | Sequence[jax.Device] | None = None,
    max_memory: int | str | None = None,
    process: int | None = None,
    processes: int | None = None,
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
        by_layer: record all that is named "by layer" below, or nothing of it (False), or one or more of the names:
            a record of all takes as long as some steps and several times as long to compile as one of `log_gradient`
            and `log_update`.
        classes: labels run from 0 to classes − 1; by default to the largest there is.
        held_out: the share of the samples that are held out; of generated data there are 1,000.
        key, dtype, store, progress, devices, max_memory, process, processes: as in `gradsim.sweep`; a chunk of a store
            is what one call trains, and an optimizer is compared by what it does.
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
    With `store` it is what `gradsim.open(store)` gives, also meanwhile, and the same call goes on where another was
        ended; more seeds, gains, learning rates and networks extend it.
    Where a device runs out of memory half as many networks go on at once, which a warning says once.
    Raises: ValueError or TypeError before anything is compiled, naming the argument; OSError where the store can no
        longer be written; KeyboardInterrupt, and RuntimeError where the device fails, with what has been recorded as
        the Dataset `dataset` of the error, NaN elsewhere, whose attribute `done` is the share of networks that are.
    Source: Schoenholz et al. 2017 (trainability); Sohl-Dickstein 2024 (its boundary); Pascanu et al. 2013 (clipping).
    """
    several = grid.of_one_input(grid.networks(network), "train")
    dtype = arguments.choice("dtype", dtype, ("float32", "float64"))
    key, numbers = arguments.key(key), grid.seeds(seeds)
    steps = arguments.whole("steps", steps, maximum=2**31 - 2)
    recorded = _recorded(record, steps)
    chosen = optimizers.get(optimizer, learning_rate)
    wanted, held_out = _by_layer(by_layer), arguments.share("held_out", held_out)
    axes = _axes(several, gains)
    every = axes if chosen.rates is None else {**axes, dataset.RATE: chosen.rates}
    families = [
        _family(
            one, axes, chosen, data=data, depth=depth, batch=batch, classes=classes, held_out=held_out, key=key,
            dtype=dtype,
        )
        for one in several.each.values()
    ]  # fmt: skip
    first = families[0].data
    settings = {
        "key": key, "dtype": dtype, "steps": steps, "batch": families[0].runs[0][0].batch,
        "optimizer": optimizers.named(optimizer), "data": first.task.name, "data_digest": digest(first.source),
        "held_out": first.held_out.size, "loss": "cross-entropy" if first.task.classes else "squared error",
    }  # fmt: skip
    asked = Training(several, families, every, numbers, key, recorded, wanted, optimizer, settings)
    with used(devices, max_memory, process, processes), in_one_thread():
        path = stored.folder_of(store)
        with reporting(progress, asked.networks) as bar, jax.enable_x64(dtype == "float64"):
            if path is None:
                return _in_memory(asked, bar)
            stored.keep(path, asked, bar)
            return open_store(path)


def _in_memory(asked: Training, bar: Progress | Part) -> xarray.Dataset:
    """The Dataset of a run that the memory holds."""
    results = asked.in_memory()

    def found(*, whole: bool) -> xarray.Dataset:
        arrays = [asked.on_all_axes(number, some) for number, some in enumerate(results)]
        for one in arrays if whole else ():
            del one["done"]
        return dataset.build(asked.several, asked.frame(), arrays)

    try:
        for one in itertools.chain(*results):
            one.train(bar)
    except (KeyboardInterrupt, DeviceError) as error:
        stored.attach(error, found(whole=False))
        raise
    return found(whole=True)


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


def _by_layer(value: Any) -> tuple[str, ...]:
    """The names of what is recorded by layer, in one order."""
    names = (*BY_LAYER, *OF_OUTPUT)
    if isinstance(value, bool | np.bool_):
        return names if value else ()
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not several or not all(isinstance(one, str) for one in several):
        raise TypeError(f"by_layer: {arguments.got(value)}; pass True, False, or one or more of: {', '.join(names)}")
    for one in several:
        arguments.choice("by_layer", one, names)
    return tuple(name for name in names if name in several)


def _axes(several: grid.Networks, gains: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The gains given, in their order; those of read-in and read-out belong to every network."""
    axes: dict[str, np.ndarray] = {}
    for name, value in gains.items():
        axes |= {name: arguments.gain(name, value)} if name in READ else grid.axes(several, {name: value}, "train")
    return axes


def _family(
    network: Network, axes: Mapping[str, np.ndarray], chosen: Optimizers, *, data: Any, depth: Any, batch: Any,
    classes: Any, held_out: float, key: int, dtype: str,
) -> Family:  # fmt: skip
    """What trains all networks of one name, checked."""
    if not network.parameters:
        raise ValueError(
            f"network: {network.family} names no weights in its `parameters`; pass one that can be trained"
        )
    samples, depth = tasks.get(data, network, depth=depth, classes=classes, held_out=held_out, key=key, dtype=dtype)
    plan = plans.planned(network, depth=depth, statistics="length", dtype=dtype)
    model, size = Model(plan, samples.task), _batch(batch, network, samples)
    for name, axis in axes.items():
        arguments.in_dtype(name, axis, dtype)
    runs = []
    for make, rates in chosen.programs:
        arguments.in_dtype("learning_rate", rates, dtype)
        runs.append((Run(model, make, size), rates))
        check_optimizer(runs[-1][0])
    return Family(network, samples, runs)


def _batch(batch: Any, network: Network, data: Data) -> int:
    """The samples of a step, of which there must be so many."""
    own = network.input_shape[0] if tasks.coupled(network) else None
    size = arguments.size("batch", batch) if batch is not None else own or min(BATCH, data.training)
    if own is not None and size != own:
        raise ValueError(f"batch: got {size}; a state of {network.family} is a batch of {own}, leave it out")
    most = data.training if own is None else min(data.training, data.held_out.size)
    if size > most:
        raise ValueError(f"batch: got {size}; pass at most {most}, the samples that there are")
    return size
