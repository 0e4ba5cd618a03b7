"""A sweep as it is asked for, and how a store is told of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradsim.engine import plan as plans
from gradsim.engine.plan import Plan
from gradsim.engine.statistic import Statistic
from gradsim.engine.statistics import STATISTICS
from gradsim.networks.network import State
from gradsim.scaled import Scaled
from gradsim.sweeps import dataset, flags, grid
from gradsim.sweeps.chunks import padded
from gradsim.sweeps.course import Place, course, result_shape
from gradsim.sweeps.loop import finished, measured_chunks
from gradsim.sweeps.progress import Part as Share
from gradsim.sweeps.progress import Progress
from gradsim.sweeps.stores.sheet import Part, Sheet, Told
from gradsim.sweeps.stores.store import Lost


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is asked for, every argument checked."""

    several: grid.Networks
    planned: Sequence[Plan]
    axes: Mapping[str, np.ndarray]
    seeds: np.ndarray
    key: int
    inputs: Any
    cotangent: State | None
    settings: Mapping[str, Any]  # as the Dataset has them

    @property
    def own(self) -> list[dict[str, np.ndarray]]:
        """The axes and numbers of each network's own gains."""
        return [grid.own(plan, self.axes) for plan in self.planned]

    def sheet(self) -> Sheet:
        """What the store of this sweep would say, before its parts are planned."""
        plan, several = self.planned[0], self.several
        dims, coordinates, attrs = dataset.frame(several, self.axes, plan, self.seeds, self.settings)
        swept = {name: axis for name, axis in self.axes.items() if axis.ndim}
        shared = 1 + plan.pairs  # dimensions: (start,) depth
        return Sheet(
            arguments=self._arguments(plan),
            axis=several.axis,
            networks={str(name): one.describe() for name, one in several.each.items()},
            own=tuple(tuple(name for name in swept if name in one) for one in self.own),
            axes=swept,
            seeds=self.seeds,
            dims=tuple(dims[:-shared]),
            coordinates=coordinates,
            attrs=attrs,
            statistics=self._told(plan, dims[-shared:]),
        )

    def parts(self, network: int, box: Mapping[str, np.ndarray]) -> list[Part]:
        """One part for these cells and seeds, its chunks planned for the memory at hand."""
        axes = {name: points for name, points in box.items() if name != "seed"}
        way = course(self.planned[network], cells=grid.size(axes), seeds=box["seed"].size)
        return [Part(network, axes, box["seed"], way.chunk, way.plan.depth)]

    def steps(self, part: Part) -> int:
        """Those of the program for these cells and seeds."""
        return padded(self.planned[part.network], cells=part.cells, seeds=part.seeds.size).depth

    def chunks(
        self, part: Part, missing: Sequence[int], bar: Progress | Share
    ) -> Generator[tuple[Place, Callable[[], tuple[dict[str, np.ndarray], Lost]]], None, None]:
        plan = part.planned(self.planned[part.network])
        measured = measured_chunks(
            part.course(plan),
            grid.cells(plan, {**self.own[part.network], **part.axes}),
            plans.inputs(plan, self.inputs),
            plans.cotangent(plan, self.cotangent),
            key=self.key,
            seeds=part.seeds,
            bar=bar,
            missing=missing,
        )
        for place, found in measured:
            yield place, partial(_finished, plan, place, found)

    def _told(self, plan: Plan, shared: Sequence[str]) -> tuple[Told, ...]:
        """The variables, whose dimensions end with the `shared` ones and their own."""
        shapes = [result_shape(one) for one in self.planned]
        flagging = flags.flagging(plan.statistics)
        return tuple(
            Told(
                one.name,
                dataset.about(plan, one),
                (*shared, *flags.dims_of(plan, one)),
                plan.at if one.costly else None,
                one.infinite,
                one.undefined,
                flags.dead(one) if one is flagging else "",
                tuple(shape[one.name] for shape in shapes),
            )
            for one in plan.statistics
        )

    def _arguments(self, plan: Plan) -> dict[str, Any]:
        """What must be the same to go on."""
        return {
            "measure": "partial_products" if plan.pairs else "sweep",
            "depth": plan.depth,
            "key": self.key,
            "direction": plan.direction,
            "statistics": [_named(one) for one in plan.statistics],
            "at": sorted(set(plan.at)) if any(one.costly for one in plan.statistics) else None,
            "burn_in": plan.burn_in,
            "inputs": self.settings["inputs"],
            "loss or cotangent": self.settings["gradient_from"],
            "dtype": plan.format or plan.dtype,
            "precision": plan.precision,
            **{name: float(axis) for name, axis in self.axes.items() if not axis.ndim},
        }


def _finished(plan: Plan, place: Place, measured: dict[str, Scaled]) -> tuple[dict[str, np.ndarray], Lost]:
    """The numbers of a chunk, [cells, seeds, …], and what it has lost."""
    cells, seeds = np.unique(place.cells).size, np.unique(place.seeds).size
    values, lost = dict[str, np.ndarray](), dict[str, tuple[int, int, int]]()
    for one in plan.statistics:
        value = measured.pop(one.name)
        whole = np.empty((cells, seeds, *value.mantissa.shape[2:]))
        for some, part in finished(one, value):
            room = whole[some]
            room[:] = part[: len(room), :seeds]
        measured_at = flags.measured_at(plan, one)
        gone = flags.out_of_range(whole, measured_at, infinite=one.infinite, undefined=one.undefined)
        if gone.any():
            inner = tuple(range(2, gone.ndim))
            steps = np.flatnonzero(gone.any(tuple(axis for axis in range(gone.ndim) if axis != 2 + plan.pairs))) + 1
            lost[one.name] = (int(np.count_nonzero(gone.any(inner))), int(steps[0]), int(steps[-1]))
        values[one.name] = whole
    return values, lost


def _named(one: Statistic) -> str:
    """Its name, and of one's own that of its function, by which alone it is known again."""
    if STATISTICS.get(one.name) == one:
        return one.name
    function = one.measure
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{one.name} by {getattr(function, '__module__', '')}.{name}"
