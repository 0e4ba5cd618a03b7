"""The calls of a network's program, and what becomes of one that the device fails."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

import jax
import numpy as np

from gradsim import arguments, lapack
from gradsim.engine.streams import Ahead
from gradsim.networks.network import State
from gradsim.programs import once
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.course import Course
from gradsim.sweeps.machine import Machine, at_hand

EXHAUSTED = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")  # how XLA says so


class DeviceError(RuntimeError):
    """A chunk that the device has failed for good."""


class TooLarge(Exception):
    """A program needs more memory than it may have."""


class Calls:
    """Chunks' arrays on the host, again and again; in smaller calls once the device has run out of memory.

    Args:
        program: jitted, as `gradsim.sweeps.loop.program` gives it.
        spread: whether each call is of one chunk for each device, which all arrays then have as their first axis.
        threads: how many call at a time.
    """

    def __init__(self, program: Callable[..., Any], course: Course, *, spread: bool = False, threads: int = 1) -> None:
        self._program, self._course = program, course
        self._front = (slice(None),) if spread else ()
        self._most, self._threads = limit(at_hand()) // threads, threads
        self._turn: AbstractContextManager[Any] = nullcontext()
        self._known = set[chunks.Chunk]()  # whose memory has been looked at
        self._lock = Lock()
        self.piece = course.chunk

    def __call__(
        self, gains: dict[str, np.ndarray], drawn: Ahead, inputs: np.ndarray | None, cotangent: State | None
    ) -> dict[str, Scaled]:
        """What the statistics of a chunk are, leaves [seeds, cells, …], or those of one for each device.

        Where the program needs more memory than there is the chunk is halved, with one warning, and again until it
        fits; another error of the device is tried once more.

        Raises: DeviceError where the second try fails as well, or one network alone does not fit; ValueError where
            that is for `max_memory`.
        """
        again = True
        while True:
            piece = self.piece
            try:
                return self._in_pieces(piece, gains, drawn, inputs, cotangent)
            except TooLarge as error:
                self._halve(piece, str(error))
            except jax.errors.JaxRuntimeError as error:
                if any(words in str(error) for words in EXHAUSTED) and piece[:2] != (1, 1):
                    self._halve(piece, "out of memory")
                elif again:
                    again = False
                else:
                    raise DeviceError(f"device: it failed a chunk twice ({arguments.reason(error)})") from error

    def _halve(self, piece: chunks.Chunk, why: str) -> None:
        """Half of a piece from now on, unless another thread has halved it."""
        with self._lock:
            if piece != self.piece:
                return
            if piece == self._course.chunk:
                arguments.warn(
                    f"device: {why} with {piece.cells} cells x {piece.seeds} seeds at once; goes on with "
                    "half of that, or less where it takes less. The numbers are the same within rounding"
                )
            self.piece = halved(piece, starts=self._course.plan.depth if self._course.plan.pairs else 1)

    def _in_pieces(
        self, piece: chunks.Chunk, gains: dict[str, np.ndarray], drawn: Ahead, inputs: Any, cotangent: State | None
    ) -> dict[str, Scaled]:
        if piece == self._course.chunk:
            return self._one(piece, gains, drawn, inputs, cotangent)
        whole: dict[str, Scaled] = {}
        for seeds in chunks.slices(self._course.chunk.seeds, piece.seeds):
            keys, data = jax.tree.map(lambda leaf, at=(*self._front, seeds): np.asarray(leaf)[at], (drawn, inputs))
            for cells in chunks.slices(self._course.chunk.cells, piece.cells):
                some = {name: values[(*self._front, cells)] for name, values in gains.items()}
                part = self._one(piece, some, keys, data, cotangent)
                if not whole:
                    whole = jax.tree.map(self._empty, part)
                for name, value in part.items():
                    for leaf, new in zip(whole[name], value, strict=True):
                        leaf[(*self._front, *np.ix_(seeds, cells))] = new
        return whole

    def _empty(self, leaf: np.ndarray) -> np.ndarray:
        """Room for a leaf of the whole chunk, like this one of a part."""
        front = len(self._front)
        size = (self._course.chunk.seeds, self._course.chunk.cells)
        return np.empty((*leaf.shape[:front], *size, *leaf.shape[front + 2 :]), leaf.dtype)

    def _one(
        self, piece: chunks.Chunk, gains: dict[str, np.ndarray], drawn: Ahead, inputs: Any, cotangent: State | None
    ) -> dict[str, Scaled]:
        plan, depth = self._course.plan, self._course.depth
        given = (plan, piece.tiling, gains, drawn, inputs, cotangent)
        with self._lock:  # one compiles, and the others wait
            if piece not in self._known:
                self._look(piece, given)
        kept = (*self._front, slice(None), slice(None), slice(depth))
        with self._turn:
            measured = self._program(*given)
            # One after the other, and none of the device's kept: they are the largest arrays of a call.
            return {
                one.name: jax.tree.map(lambda leaf: np.asarray(leaf)[kept], measured.pop(one.name))
                for one in plan.statistics
            }

    def _look(self, piece: chunks.Chunk, given: tuple[Any, ...]) -> None:
        """Compile the program, whose memory is then known. Raises: TooLarge, or ValueError for one network."""
        devices = len(at_hand().devices)
        if max(devices, self._threads) > 1 and lapack.waits(self._program, *given):
            if devices > 1:
                raise ValueError(
                    f"devices: got {devices} of a CPU, which wait for each other for ever where a statistic or a "
                    "network of your own gives LAPACK many matrices at once; pass devices=1"
                )
            self._turn = lapack.alone
        needed = memory(self._program, *given)
        if needed is not None and needed > self._most:
            if piece[:2] == (1, 1):
                name = "width" if at_hand().max_memory is None else "max_memory"
                raise ValueError(
                    f"{name}: one {self._course.plan.network.family} network with these statistics needs "
                    f"{needed / 2**30:.3g} GiB as it is compiled, and {self._most / 2**30:.3g} GiB may be used"
                )
            raise TooLarge(f"{needed / 2**30:.3g} GiB are needed, and {self._most / 2**30:.3g} GiB may be used,")
        self._known.add(piece)


@once
def memory(program: Any, *given: Any) -> int | None:
    """Bytes of a device that a call takes at its peak, its arguments and results with it, as it is compiled.

    What is compiled stays: the call finds it. None where XLA does not say.
    """
    lower = getattr(program, "lower", None)
    told = None if lower is None else lower(*given).compile().memory_analysis()
    if told is None:
        return None
    arrays = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    return int(arrays + told.temp_size_in_bytes)


def limit(machine: Machine) -> int:
    """The most bytes of a device that a program may take."""
    return machine.free_memory() if machine.max_memory is None else machine.max_memory


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
