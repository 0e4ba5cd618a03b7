"""A training run as it is asked for: its networks chunk by chunk, and what a store says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gradsim.networks.network import Network
from gradsim.sweeps import grid
from gradsim.sweeps.course import Place
from gradsim.sweeps.dataset import Frame
from gradsim.sweeps.progress import Part as Share
from gradsim.sweeps.progress import Progress
from gradsim.sweeps.stores.sheet import Part, Sheet, Told
from gradsim.sweeps.stores.store import Lost
from gradsim.sweeps.sweep import digest
from gradsim.training import dataset, loop
from gradsim.training.dataset import RATE
from gradsim.training.loop import SCALARS, Job, Records
from gradsim.training.model import READ
from gradsim.training.optimizers import named
from gradsim.training.programs import Run, optimizer_program
from gradsim.training.records import OF_OUTPUT
from gradsim.training.tasks import Data, coupled


class Family(NamedTuple):
    """What trains the networks of one name: a run for some learning rates each, whose places those are."""

    network: Network
    data: Data
    runs: Sequence[tuple[Run, np.ndarray]]


@dataclass(frozen=True)
class Training:
    """A training run as it is asked for, every argument checked."""

    several: grid.Networks
    families: Sequence[Family]
    axes: Mapping[str, np.ndarray]  # gains, and the learning rates where the optimizer is a function of them
    seeds: np.ndarray
    key: int
    record: Sequence[int]
    by_layer: tuple[str, ...]
    optimizer: Any
    settings: Mapping[str, Any]  # as the Dataset has them

    def own(self, network: int) -> dict[str, np.ndarray]:
        """The axes and numbers that a network has."""
        known = {*self.families[network].network.gains, *READ, RATE}
        return {name: axis for name, axis in self.axes.items() if name in known}

    @property
    def networks(self) -> int:
        """How many are trained."""
        return sum(grid.size(self.own(number)) * self.seeds.size for number in range(len(self.families)))

    @property
    def depth(self) -> int:
        return self.families[0].runs[0][0].depth

    def parts(self, network: int, box: Mapping[str, np.ndarray]) -> list[Part]:
        """One for each program that trains some of these cells, its chunks planned for the memory at hand."""
        found = []
        for _, rates in self.families[network].runs:
            axes = {name: points for name, points in box.items() if name != "seed"}
            if RATE in axes:
                axes[RATE] = axes[RATE][np.isin(axes[RATE], rates)]
            if all(points.size for points in axes.values()):
                chunk = loop.plan_chunk(self.job(network, axes, box["seed"]))
                found.append(Part(network, axes, box["seed"], chunk, self.depth))
        return found

    def steps(self, _: Part) -> int:
        """The depth: nothing is beyond it."""
        return self.depth

    def job(self, network: int, axes: Mapping[str, np.ndarray], seeds: np.ndarray) -> Job:
        """The networks in these cells, whose learning rates all belong to one run."""
        data, runs = self.families[network].data, self.families[network].runs
        run = next(run for run, rates in runs if RATE not in axes or axes[RATE][0] in rates)
        plan = run.model.plan
        gains = grid.cells(plan, {**self.own(network), **axes})
        one = np.ones(next(iter(gains.values())).size, plan.dtype)
        rates = gains.pop(RATE, one)
        gains = {**dict.fromkeys(READ, one), **gains}
        return Job(run, data, gains, rates, seeds, self.key, self.record, self.by_layer)

    def chunks(
        self, part: Part, missing: Sequence[int], bar: Progress | Share
    ) -> Generator[tuple[Place, Callable[[], tuple[Records, Lost]]], None, None]:
        """Those of a part that a store has not yet."""
        job = self.job(part.network, part.axes, part.seeds)

        def room(place: Place) -> Records:
            return job.room(np.unique(place.cells).size, np.unique(place.seeds).size)

        for place, records in loop.train_chunks(job, job.course(part.chunk), missing, room, bar):
            yield place, partial(_finished, records)

    def in_memory(self) -> list[list[Results]]:
        """Room for all networks, one for each part of each family."""
        found = []
        for number in range(len(self.families)):
            swept = {name: axis for name, axis in self.own(number).items() if axis.ndim}
            parts = self.parts(number, {**swept, "seed": self.seeds})
            found.append([Results(part, self.job(number, part.axes, part.seeds)) for part in parts])
        return found

    def on_all_axes(self, network: int, results: Sequence[Results]) -> Records:
        """What all parts of a network hold, as arrays [gains…, (learning_rate,) seed, …], and `done` [gains…, seed]."""
        joined = {}
        for name in ("done", *results[0].records):  # the learning rates run fastest among the cells
            by_rate = [one.by_rate(name) for one in results]
            whole = np.concatenate(by_rate, axis=1)
            joined[name] = whole.reshape(-1, *whole.shape[2:])
        return grid.on_all_axes(joined, self.own(network), self.axes)

    def sheet(self) -> Sheet:
        """What the store of this run would say, before its parts are planned."""
        frame = self.frame()
        swept = {name: axis for name, axis in self.axes.items() if axis.ndim}
        return Sheet(
            arguments=self._arguments(),
            axis=self.several.axis,
            networks={str(name): one.describe() for name, one in self.several.each.items()},
            own=tuple(tuple(name for name in swept if name in self.own(i)) for i in range(len(self.families))),
            axes=swept,
            seeds=self.seeds,
            dims=tuple(frame.dims),
            coordinates=frame.coordinates,
            attrs=frame.attrs,
            statistics=tuple(map(self._told, dataset.order([*SCALARS, *self.by_layer]))),
        )

    def frame(self) -> Frame:
        """The Dataset before its numbers."""
        by_depth = any(name not in OF_OUTPUT for name in self.by_layer)
        attrs = {**self.settings, "depth": self.depth}
        return dataset.frame(self.several, self.axes, self.seeds, self.record, self.depth, by_depth, attrs)

    def _told(self, name: str) -> Told:
        axis, records = next(iter(self.several.each.values())).axis, len(self.record)
        by_depth = name in self.by_layer and name not in OF_OUTPUT
        dims = () if name == "diverged_at" else ("step", axis) if by_depth else ("step",)
        shape = {"step": records, axis: self.depth}
        shapes = (tuple(shape[dim] for dim in dims),) * len(self.families)
        about = dataset.about(name, self.settings["loss"])
        return Told(name, about, dims, None, True, True, "", shapes, "flag" if name == "diverged" else "record")

    def _arguments(self) -> dict[str, Any]:
        """What must be the same to go on: of functions their names, of an optimizer its program, of data a digest."""
        first, settings = self.families[0].data, self.settings
        alone = [run.batch for network, _, ((run, _), *_) in self.families if not coupled(network)]
        make = getattr(first.task.take, "draw", None)
        return {
            "measure": "train",
            "depth": self.depth,
            "dtype": settings["dtype"],
            "key": self.key,
            "steps": settings["steps"],
            "batch": alone[0] if alone else None,
            "record": list(self.record),
            "by_layer": list(self.by_layer),
            "data": f"{settings['data']}, {settings['data_digest']}" + (f", {_without_address(make)}" if make else ""),
            "classes": first.task.classes,
            "held_out": int(first.held_out.size),
            **{name: float(axis) for name, axis in self.axes.items() if not axis.ndim},
            # Last: its program depends on what comes before.
            "optimizer": f"{named(self.optimizer)}, program {self._program()}",
        }

    def _program(self) -> str:
        """The same text for optimizers that do the same: functions of one name may differ in what they hold."""
        run = self.families[0].runs[0][0]
        text, constants = optimizer_program(run, self.optimizer)
        return digest([np.frombuffer(_without_address(text).encode(), np.uint8), *constants])


def _without_address(thing: object) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", str(thing))


class Results:
    """What is recorded of a part in memory, [cells, seeds, …], and which of its networks are done."""

    def __init__(self, part: Part, job: Job) -> None:
        self._part, self._job = part, job
        self.records = job.room(job.rates.size, job.seeds.size)
        self.done = np.zeros((job.rates.size, job.seeds.size), bool)

    def train(self, bar: Progress | Share) -> None:
        """Train all of it; what has been recorded where that is ended stays."""
        course = self._job.course(self._part.chunk)

        def room(place: Place) -> Records:
            return {name: array[_at(place)] for name, array in self.records.items()}

        for place, _ in loop.train_chunks(self._job, course, range(course.size), room, bar):
            self.done[_at(place)] = True

    def by_rate(self, name: str) -> np.ndarray:
        """The array of this name, or `done`, as [gains, learning rates, seeds, …]."""
        array = self.done if name == "done" else self.records[name]
        return array.reshape(-1, self._part.axes[RATE].size if RATE in self._part.axes else 1, *array.shape[1:])


def _at(place: Place) -> tuple[slice, slice]:
    """Where a chunk stands among all cells and seeds."""
    return slice(place.cells[0], place.cells[-1] + 1), slice(place.seeds[0], place.seeds[-1] + 1)


def _finished(records: Records) -> tuple[Records, Lost]:
    """What a store holds of a chunk; nothing is lost in training, where a loss that is no number is a result."""
    return {name: np.asarray(values, np.float64) for name, values in dataset.with_flags(records).items()}, {}
