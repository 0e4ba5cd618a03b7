"""The course of a measurement: which cells and seeds go through the device together, and in which order."""

from typing import NamedTuple

import numpy as np

from gradsim.engine.plan import Plan
from gradsim.sweeps import chunks
from gradsim.sweeps.effort import effort


class Place(NamedTuple):
    """Which cells and seeds a chunk holds; at the ends of the grid the last one repeats, to keep one compilation."""

    number: int
    cells: np.ndarray
    seeds: np.ndarray

    @property
    def networks(self) -> int:
        return int(np.unique(self.cells).size * np.unique(self.seeds).size)


class Course(NamedTuple):
    """How all cells and seeds of one network go through the device: all that the last bit of a result depends on."""

    plan: Plan  # with the steps that `chunks.padded` has added
    depth: int  # of which so many are kept
    chunk: chunks.Chunk
    cells: int
    seeds: int

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks along the seeds, and along the cells, which come first: they share the seeds' draws."""
        return -(-self.seeds // self.chunk.seeds), -(-self.cells // self.chunk.cells)

    @property
    def size(self) -> int:
        """The number of chunks."""
        return self.grid[0] * self.grid[1]

    def place(self, number: int) -> Place:
        """That of chunk `number`."""
        seed, cell = divmod(number, self.grid[1])
        counted = (
            np.minimum(np.arange(first, first + size), total - 1)
            for first, size, total in (
                (cell * self.chunk.cells, self.chunk.cells, self.cells),
                (seed * self.chunk.seeds, self.chunk.seeds, self.seeds),
            )
        )
        return Place(number, *counted)


def course(plan: Plan, *, cells: int, seeds: int) -> Course:
    """The course for the memory at hand. Raises: ValueError where one network alone does not fit."""
    padded = chunks.padded(plan, cells=cells, seeds=seeds)
    way = Course(padded, plan.depth, chunks.plan_chunk(padded, cells=cells, seeds=seeds), cells, seeds)
    return way._replace(chunk=way.chunk._replace(effort=effort(padded, way.chunk, way.size)))


def result_shape(plan: Plan) -> dict[str, tuple[int, ...]]:
    """The shape of what each statistic gives for one network: (start,) depth, (parameter or singular value)."""
    steps = (plan.depth,) * (1 + plan.pairs)
    return {one.name: steps + one.shape(plan.network) for one in plan.statistics}
