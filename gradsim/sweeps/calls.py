"""The calls of a network's program, and what becomes of one that the device fails."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gradsim import arguments
from gradsim.engine.streams import Ahead
from gradsim.networks.network import State
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.course import Course

EXHAUSTED = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")  # how XLA says so


class DeviceError(RuntimeError):
    """A chunk that the device has failed for good."""


class Calls:
    """A chunk's arrays on the host, again and again; in smaller calls once the device has run out of memory.

    Args:
        program: jitted, as `gradsim.sweeps.loop.program` gives it.
    """

    def __init__(self, program: Callable[..., Any], course: Course) -> None:
        self._program, self._course = program, course
        self.piece = course.chunk

    def __call__(
        self, gains: dict[str, np.ndarray], drawn: Ahead, inputs: np.ndarray | None, cotangent: State | None
    ) -> dict[str, Scaled]:
        """What the statistics of a chunk are, leaves [seeds, cells, …].

        Where memory is exhausted the chunk is halved, with one warning, and again until it fits; another error of the
        device is tried once more.

        Raises: DeviceError where the second try fails as well, or one network alone does not fit.
        """
        again = True
        while True:
            try:
                return self._in_pieces(gains, drawn, inputs, cotangent)
            except jax.errors.JaxRuntimeError as error:
                if any(words in str(error) for words in EXHAUSTED) and self.piece[:2] != (1, 1):
                    self._halve()
                elif again:
                    again = False
                else:
                    raise DeviceError(f"device: it failed a chunk twice ({arguments.reason(error)})") from error

    def _halve(self) -> None:
        if self.piece == self._course.chunk:
            arguments.warn(
                f"device: out of memory with {self.piece.cells} cells x {self.piece.seeds} seeds at once; goes on with "
                "half of that, or less where it takes less. The numbers are the same within rounding"
            )
        self.piece = halved(self.piece, starts=self._course.plan.depth if self._course.plan.pairs else 1)

    def _in_pieces(
        self, gains: dict[str, np.ndarray], drawn: Ahead, inputs: np.ndarray | None, cotangent: State | None
    ) -> dict[str, Scaled]:
        if self.piece == self._course.chunk:
            return self._one(gains, drawn, inputs, cotangent)
        whole: dict[str, Scaled] = {}
        for seeds in chunks.slices(self._course.chunk.seeds, self.piece.seeds):
            keys, data = jax.tree.map(lambda leaf, seeds=seeds: np.asarray(leaf)[seeds], (drawn, inputs))
            for cells in chunks.slices(self._course.chunk.cells, self.piece.cells):
                part = self._one({name: values[cells] for name, values in gains.items()}, keys, data, cotangent)
                if not whole:
                    whole = jax.tree.map(self._empty, part)
                for name, value in part.items():
                    for leaf, piece in zip(whole[name], value, strict=True):
                        leaf[np.ix_(seeds, cells)] = piece
        return whole

    def _empty(self, leaf: np.ndarray) -> np.ndarray:
        """Room for a leaf of the whole chunk, like this one of a part."""
        return np.empty((self._course.chunk.seeds, self._course.chunk.cells, *leaf.shape[2:]), leaf.dtype)

    def _one(
        self, gains: dict[str, np.ndarray], drawn: Ahead, inputs: np.ndarray | None, cotangent: State | None
    ) -> dict[str, Scaled]:
        plan, depth = self._course.plan, self._course.depth
        measured = self._program(plan, self.piece.tiling, gains, drawn, inputs, cotangent)
        # One after the other, and none of the device's kept: they are the largest arrays of a call.
        return {
            one.name: jax.tree.map(lambda leaf: np.asarray(leaf)[:, :, :depth], measured.pop(one.name))
            for one in plan.statistics
        }


def halved(chunk: chunks.Chunk, starts: int = 1) -> chunks.Chunk:
    """About half of it: of its seeds, then of its blocks of cells, then of the block.

    Args:
        starts: those of the products of one cell, which stay together.
    """
    if chunk.seeds > 1:
        return chunk._replace(seeds=-(-chunk.seeds // 2))
    block = chunk.tiling.cells // starts
    blocks = chunk.cells // block
    if blocks > 1:
        return chunk._replace(cells=-(-blocks // 2) * block)
    half = -(-block // 2)
    return chunk._replace(cells=half, tiling=chunk.tiling._replace(cells=half * starts))
