"""Chunk by chunk through the training: every core takes networks of its own, and what is recorded is kept at once."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

import jax
import numpy as np
from jax import random

from gradsim import scaled
from gradsim.engine.tiling import draw_bytes
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.loop import hashed_ahead
from gradsim.sweeps.progress import Part, Progress
from gradsim.training import programs
from gradsim.training.programs import NEVER, Run
from gradsim.training.records import OF_OUTPUT, PROBED
from gradsim.training.tasks import Data, Sample, coupled

# Steps, networks and seconds of one call on a CPU: a network's way into the cache is paid by the first, and Ctrl-C
# waits for the last. A step's seconds are its arithmetic over a modest rate, and what a loop takes a turn.
STEPS, NETWORKS, SECONDS = 64, 64, 0.5
RATE, TURN = 1e10, 1e-5
SCALARS = ("loss", "mean_loss", "held_out_loss", "accuracy", "log_gradient_norm", "diverged_at")


@dataclass
class Job:
    """All networks of one family and size, [networks] each; what is recorded of them is written into `results`."""

    run: Run
    data: Data
    gains: Mapping[str, np.ndarray]
    rates: np.ndarray
    seeds: np.ndarray
    key: int
    record: Sequence[int]
    by_layer: tuple[str, ...]  # what is recorded by layer
    results: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (self.networks, len(self.record))
        self.results = {name: np.full(shape, np.nan) for name in SCALARS}
        for name in self.by_layer:
            self.results[name] = np.full(shape if name in OF_OUTPUT else (*shape, self.run.depth), np.nan)

    @property
    def networks(self) -> int:
        return self.seeds.size


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


class Compiling:
    """Calls of programs by several threads, of which one compiles while the others wait."""

    def __init__(self, bar: Progress | Part, family: str) -> None:
        self._lock, self._known, self._bar, self._family = Lock(), set[Any](), bar, family

    def __call__(self, program: Any, *args: Any) -> Any:
        if program in self._known:
            return program(*args)
        with self._lock:
            if program not in self._known:
                self._bar.phase(f"compiling {self._family}")
            done = program(*args)
            self._known.add(program)
            self._bar.phase(f"training {self._family}")
            return done

    def update(self, amount: int) -> None:
        """So many more steps of networks are done."""
        with self._lock:
            self._bar.update(amount)


def train_networks(job: Job, bar: Progress | Part) -> None:
    """Train all networks of a job; on Ctrl-C what has been recorded stays in its results."""
    size, room = _sizes(job)
    places = chunks.slices(job.networks, size)
    call, stop = Compiling(bar, job.run.model.network.family), Event()
    threads = cores() if jax.default_backend() == "cpu" else 1
    with ThreadPoolExecutor(min(threads, len(places))) as pool:
        futures = [pool.submit(_train_chunk, job, chunk, room, call, stop) for chunk in places]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sizes(job: Job) -> tuple[int, int]:
    """The networks of a chunk, and the most steps of a call."""
    run, longest = job.run, max(job.record)
    plan = run.model.plan
    weights = draw_bytes(plan.network, plan.dtype) * (1 if plan.network.tied else plan.depth)
    flops = 6 * run.batch * plan.depth * draw_bytes(plan.network, plan.dtype) / np.dtype(plan.dtype).itemsize
    states = jax.tree.leaves(plan.state_shape())
    positions = math.prod(states[0].shape[:-1]) // (states[0].shape[0] if coupled(plan.network) else 1)
    seconds = flops * positions / RATE + TURN * plan.depth
    on_cpu = jax.default_backend() == "cpu"
    kept = 8 * weights if on_cpu else 12 * weights + 8 * run.batch * plan.depth * sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in states
    )  # fmt: skip
    fit = max(1, chunks.memory_at_hand() // (2 * kept * (cores() if on_cpu else 1)))
    if not on_cpu:
        return min(job.networks, fit), min(longest, STEPS) or 1
    share = math.ceil(job.networks / cores())
    size = max(1, min(share, fit, NETWORKS, int(SECONDS / (8 * seconds))))
    return size, max(1, min(longest, STEPS, int(SECONDS / (size * seconds))))


def _train_chunk(job: Job, places: np.ndarray, room: int, call: Compiling, stop: Event) -> None:
    """The networks of these places through all steps."""
    run, seeds = job.run, job.seeds[places]
    with jax.enable_x64(run.model.plan.dtype == "float64"):
        drawn = hashed_ahead(run.model.plan, job.key, seeds, given=True)
        blocks = _blocks(job)
        gains = {name: values[places] for name, values in job.gains.items()}
        trained, settings, start = call(
            programs.begin, run, not PROBED.isdisjoint(job.by_layer), drawn, random.key(job.key),
            seeds.astype(np.uint32), gains, job.rates[places], job.data.source, blocks,
        )  # fmt: skip
        batches, step = Batches(job, seeds), 0
        for turn, at in enumerate(job.record):
            before = step
            while step < at:
                if stop.is_set():
                    return
                count = min(room, at - step)
                numbers = batches.take(count, room)
                trained = call(programs.advance, run, trained, settings, job.data.source, numbers, np.int32(count))
                trained.step.block_until_ready()
                step += count
                call.update(count * np.unique(places).size)
            trained, found = call(
                programs.measure, run, job.by_layer, trained, settings, start, job.data.source, batches.peek(), blocks
            )
            _store(job, places, turn, jax.tree.map(np.asarray, found), at - before)


def _blocks(job: Job) -> np.ndarray:
    """The numbers of the samples held out, [blocks, batch]: whole batches where a network takes no other."""
    numbers = job.data.held_out.astype(np.int32)
    if not coupled(job.run.model.network):
        return numbers[None]
    batch = job.run.batch
    return numbers[: numbers.size // batch * batch].reshape(-1, batch)


def _store(job: Job, places: np.ndarray, turn: int, found: dict[str, Any], steps: int) -> None:
    """What was recorded of a chunk, in float64."""
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
    for name, result in job.results.items():
        value = np.asarray(values[name], np.float64)
        result[places, turn] = value[:, None] if value.ndim < result.ndim - 1 else value
