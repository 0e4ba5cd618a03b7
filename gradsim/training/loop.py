"""Chunk by chunk through the training: every core, or device, takes networks of its own."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import random

from gradsim import arguments, scaled
from gradsim.cores import cores
from gradsim.engine.tiling import Tiling, draw_bytes
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.calls import DeviceError
from gradsim.sweeps.chunks import Chunk
from gradsim.sweeps.compiling import Compiling
from gradsim.sweeps.course import Course, Place
from gradsim.sweeps.hashed import hashed_ahead
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.progress import Part, Progress
from gradsim.training.pieces import Filled, Size, split
from gradsim.training.programs import NEVER, Programs, Run, programs
from gradsim.training.records import OF_OUTPUT, PROBED
from gradsim.training.tasks import Data, Sample, coupled

# Steps, networks and seconds of one call on a CPU: a network's way into the cache is paid by the first, and Ctrl-C
# waits for the last. A step's seconds are its arithmetic over half of a core's rate, and what a loop takes a turn.
STEPS, NETWORKS, SECONDS = 64, 64, 0.5
RATE, TURN = 3e10, 1e-5
SCALARS = ("loss", "mean_loss", "held_out_loss", "accuracy", "log_gradient_norm", "diverged_at")
Records = dict[str, np.ndarray]  # [cells, seeds, records], or [cells, seeds, records, depth] by layer


@dataclass
class Job:
    """Networks of one family and size: every seed in each cell of gains and learning rates, [cells]."""

    run: Run
    data: Data
    gains: Mapping[str, np.ndarray]
    rates: np.ndarray
    seeds: np.ndarray
    key: int
    record: Sequence[int]
    by_layer: tuple[str, ...]  # what is recorded by layer

    def course(self, chunk: Chunk) -> Course:
        """The way of all networks through chunks of this size."""
        plan = self.run.model.plan
        return Course(plan, plan.depth, chunk, self.rates.size, self.seeds.size)

    def room(self, cells: int, seeds: int) -> Records:
        """Where what is recorded of so many goes: NaN as yet."""
        shape = (cells, seeds, len(self.record))
        found = {name: np.full(shape, np.nan) for name in SCALARS}
        for name in self.by_layer:
            found[name] = np.full(shape if name in OF_OUTPUT else (*shape, self.run.depth), np.nan)
        return found


class Batches:
    """The numbers of the samples of each step's batch, seed by seed."""

    def __init__(self, job: Job, seeds: np.ndarray) -> None:
        distinct, self._of = np.unique(seeds, return_inverse=True)
        self._streams = [order(job.data, job.run.batch, job.key, int(seed)) for seed in distinct]
        self._next = self._draw()

    def _draw(self) -> np.ndarray:
        return np.stack([next(stream) for stream in self._streams])

    def peek(self) -> np.ndarray:
        """Those of the step to come, [networks, batch]."""
        return self._next[self._of]

    def take(self, count: int, room: int) -> np.ndarray:
        """Those of the next `count` steps, [networks, room, batch], padded."""
        steps = []
        for _ in range(count):
            steps.append(self._next)
            self._next = self._draw()
        return np.stack(steps + steps[:1] * (room - count), axis=1)[self._of]


def order(data: Data, batch: int, key: int, seed: int) -> Iterator[np.ndarray]:
    """The numbers of the samples of each step's batch, without end.

    A given data set is gone through in a new random order each time, as often as it takes, and a batch may reach from
    one time into the next; a generated one has new samples for each batch.
    """
    generator = np.random.default_rng([key, seed])
    left = np.zeros(0, np.int64)
    while not isinstance(data.source, Sample):
        yield generator.integers(0, data.training, batch, dtype=np.int32)
    while True:
        while left.size < batch:
            left = np.concatenate([left, generator.permutation(data.training)])
        yield left[:batch].astype(np.int32)
        left = left[batch:]


def train_chunks(
    job: Job, course: Course, missing: Sequence[int], room: Callable[[Place], Records], bar: Progress | Part
) -> Generator[tuple[Place, Records], None, None]:
    """Each of the missing chunks, as they are done, with what is recorded of it, which is written into its `room`.

    Raises: DeviceError where a device fails; KeyboardInterrupt with what has been recorded in the rooms.
    """
    machine = at_hand()
    devices = None if machine.plain else machine.devices
    at_once = 1 if devices is None else len(devices)
    threads = cores() if devices is None and machine.platform == "cpu" else 1
    turns = [[course.place(number) for number in missing[i : i + at_once]] for i in range(0, len(missing), at_once)]
    calling = Compiling(bar, "training", job.run.model.network.family)
    calls = Calls(calling, programs(devices), at_once, Event(), Size(course.chunk))
    with ThreadPoolExecutor(max(1, min(threads, len(turns)))) as pool:
        try:
            for done in as_completed([pool.submit(_train, job, course, turn, room, calls) for turn in turns]):
                yield from done.result()
        except jax.errors.JaxRuntimeError as error:
            raise DeviceError(f"device: it failed in training ({arguments.reason(error)})") from error
        finally:
            calls.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def plan_chunk(job: Job) -> Chunk:
    """The networks of a call, as cells and seeds, and the most steps of one; such that no core or device is idle."""
    run, longest, networks = job.run, max(job.record), job.rates.size * job.seeds.size
    plan, machine = run.model.plan, at_hand()
    weights = draw_bytes(plan.network, plan.dtype) * (1 if plan.network.tied else plan.depth)
    flops = 6 * run.batch * plan.depth * draw_bytes(plan.network, plan.dtype) / np.dtype(plan.dtype).itemsize
    states = jax.tree.leaves(plan.state_shape())
    positions = math.prod(states[0].shape[:-1]) // (states[0].shape[0] if coupled(plan.network) else 1)
    seconds = flops * positions / RATE + TURN * plan.depth
    on_cpu = machine.platform == "cpu"
    kept = 8 * weights if on_cpu else 12 * weights + 8 * run.batch * plan.depth * sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in states
    )  # fmt: skip
    apart = cores() if on_cpu and machine.plain else len(machine.devices)
    fit = max(1, chunks.allowed() // (kept * (apart if machine.plain else 1)))
    size, steps = min(math.ceil(networks / apart), fit), min(longest, STEPS)
    if on_cpu:
        size = max(1, min(size, NETWORKS, int(SECONDS / (8 * seconds))))
        steps = min(steps, int(SECONDS / (size * seconds)))
    seeds = _even(job.seeds.size, size)
    cells = _even(job.rates.size, max(1, size // seeds))
    return Chunk(cells, seeds, Tiling(cells * seeds, max(1, steps)))


def _even(total: int, most: int) -> int:
    """The size of parts of at most so many that are as even as can be."""
    return math.ceil(total / math.ceil(total / most))


class Calls(NamedTuple):
    """Which programs are called, how, on how many devices, whether to stop, and how many networks go at once."""

    call: Compiling
    programs: Programs
    devices: int
    stop: Event
    size: Size


def _train(
    job: Job, course: Course, places: Sequence[Place], room: Callable[[Place], Records], calls: Calls
) -> list[tuple[Place, Records]]:
    """The networks of these places through all steps, one place for each device; nothing where it was stopped.

    Where they are too many for the device's memory, some after the others.
    """
    if calls.stop.is_set():
        return []
    found = [(place, room(place)) for place in places]
    try:
        left = [found]
        while left:
            some, size = left.pop(0), calls.size.now
            if (some[0][0].cells.size, some[0][0].seeds.size) != size:
                left = [*split(some, size), *left]
                continue
            counted = 0.0
            try:
                with jax.enable_x64(job.run.model.plan.dtype == "float64"):
                    for share in _trained(job, some, course.chunk.tiling.steps, calls):
                        counted += share
                        calls.call.update(share)
                        if calls.stop.is_set():
                            return []
            except jax.errors.JaxRuntimeError as error:
                calls.size.halve(size, error)
                calls.call.update(-counted)
                left = [some, *left]
        return found
    except BaseException:  # before another thread begins the next
        calls.stop.set()
        raise


def _trained(job: Job, found: Sequence[Filled], most: int, calls: Calls) -> Iterator[float]:
    """These networks, as many for each device, through all steps, at most so many in a call; after each its share.

    Where places are fewer than devices the last is trained again.
    """
    run, call, (begin, advance, measure) = job.run, calls.call, calls.programs
    places = [place for place, _ in found]
    networks = sum(place.networks for place in places)
    every = [*places, *[places[-1]] * (calls.devices - len(places))]
    cell = np.concatenate([np.repeat(place.cells, place.seeds.size) for place in every])
    seeds = job.seeds[np.concatenate([np.tile(place.seeds, place.cells.size) for place in every])]
    drawn = jax.tree.map(np.asarray, hashed_ahead(run.model.plan, job.key, seeds, given=True))
    blocks, source = _blocks(job), job.data.source
    gains = {name: values[cell] for name, values in job.gains.items()}
    trained, settings, start = call(
        begin, run, not PROBED.isdisjoint(job.by_layer), drawn, random.key(job.key), seeds.astype(np.uint32), gains,
        job.rates[cell], source, blocks,
    )  # fmt: skip
    batches, step = Batches(job, seeds), 0
    for turn, at in enumerate(job.record):
        before = step
        while step < at:
            count = min(most, at - step)
            trained = call(advance, run, trained, settings, source, batches.take(count, most), np.int32(count))
            trained.step.block_until_ready()
            step += count
            yield count / max(job.record) * networks
        trained, values = call(measure, run, job.by_layer, trained, settings, start, source, batches.peek(), blocks)
        _keep(found, turn, _in_float64(jax.tree.map(np.asarray, values), at - before))


def _keep(found: Sequence[Filled], turn: int, values: Mapping[str, np.ndarray]) -> None:
    """Put what was recorded of networks [devices · cells · seeds, …] into the rooms of their places."""
    shape = (-1, found[0][0].cells.size, found[0][0].seeds.size)
    for name in found[0][1]:
        whole = values[name].reshape(*shape, *values[name].shape[1:])
        for (_, records), value in zip(found, whole, strict=False):
            room = records[name][:, :, turn]
            value = value[: room.shape[0], : room.shape[1]]
            room[:] = value[..., None] if value.ndim < room.ndim else value


def _blocks(job: Job) -> np.ndarray:
    """The numbers of the samples held out, [blocks, batch]: whole batches where a network takes no other."""
    numbers = job.data.held_out.astype(np.int32)
    if not coupled(job.run.model.network):
        return numbers[None]
    batch = job.run.batch
    return numbers[: numbers.size // batch * batch].reshape(-1, batch)


def _in_float64(found: dict[str, Any], steps: int) -> dict[str, np.ndarray]:
    """What was recorded of each network, after so many steps since the last record."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {name: value for name, value in found.items() if not isinstance(value, Scaled | dict)}
        values |= {name: scaled.log(value) for name, value in found.items() if isinstance(value, Scaled)}
        losses = np.asarray(values.pop("losses"), np.float64)
        values["mean_loss"] = losses / steps if steps else np.full(losses.shape, np.nan)
        values["diverged_at"] = np.where(values["diverged_at"] == NEVER, np.nan, values["diverged_at"])
        if "log_exact_gradient" in found:
            fields = np.stack([scaled.log(value) for value in found["log_exact_gradient"].values()])
            values["log_exact_gradient"] = np.logaddexp.reduce(2 * fields) / 2
        if "update" in found:
            values["log_update"] = values.pop("update") - values["log_weight"]
        for name in PROBED.intersection(values):  # of mean squares
            values[name] = 2 * values[name]
    return {name: np.asarray(value, np.float64) for name, value in values.items()}
