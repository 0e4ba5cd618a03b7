"""A sweep measured into a store: begun, gone on with, extended, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gradsim import arguments
from gradsim.engine import plan as plans
from gradsim.engine.plan import Plan
from gradsim.scaled import Scaled
from gradsim.sweeps import flags, grid, store
from gradsim.sweeps.asked import Sweep, refuse_differences, sheet_of
from gradsim.sweeps.course import Place, course
from gradsim.sweeps.loop import finished, measured_chunks
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.members import Member, locked
from gradsim.sweeps.progress import Part as Share
from gradsim.sweeps.progress import Progress
from gradsim.sweeps.sheet import Part, Sheet, rest
from gradsim.sweeps.store import Store


def measure(path: Path, asked: Sweep, bar: Progress | Share) -> Store:
    """Measure what the store at `path` has not yet, and keep it there.

    Raises: ValueError where it is of another sweep, not a store, not to be written, or of another process; OSError
        where a write fails; KeyboardInterrupt and DeviceError with what is done kept.
    """
    wanted = sheet_of(asked)
    there = store.read(path)
    if there is not None:
        refuse_differences(path, there.sheet, wanted)
        if there.covers(wanted) and not there.damaged():
            return there  # also where nothing may be written
    share = at_hand().share()
    with ExitStack() as stack:
        with locked(path):
            member = stack.enter_context(Member(path, *share))
            there = _joined(path, asked, wanted, share, alone=not member.others())
        _drop_damaged(there)
        _measure(there, asked, bar)
        return there if share[1] == 1 else store.read(path) or there


def _joined(path: Path, asked: Sweep, wanted: Sheet, share: tuple[int, int], *, alone: bool) -> Store:
    """The store as this process finds it, or lays it out.

    Args:
        alone: whether no other process measures into it now.
    """
    there = store.read(path, share)  # which another may have written meanwhile
    if there is None:
        return _begun(path, asked, wanted, share)
    refuse_differences(path, there.sheet, wanted)
    there.tidy(alone=alone)
    _warn_of_versions(there, wanted)
    return _extended(there, asked, wanted, alone=alone)


def _begun(path: Path, asked: Sweep, wanted: Sheet, share: tuple[int, int]) -> Store:
    boxes = [(network, wanted.box(network)) for network in range(len(asked.planned))]
    parts = [_planned(asked, *box) for box in boxes]
    begun = Store(path, replace(wanted, parts=tuple(parts)), share)
    with writing(begun):
        begun.lay_out(range(len(parts)))
    return begun


def _planned(asked: Sweep, network: int, box: Mapping[str, np.ndarray]) -> Part:
    """A part for these cells and seeds, its chunks planned for the memory at hand."""
    axes = {name: points for name, points in box.items() if name != "seed"}
    cells = int(np.prod([points.size for points in axes.values()], dtype=np.int64))
    way = course(asked.planned[network], cells=cells, seeds=box["seed"].size)
    return Part(network, axes, box["seed"], way.chunk, way.plan.depth)


def _extended(there: Store, asked: Sweep, wanted: Sheet, *, alone: bool) -> Store:
    """The store with parts for what it does not cover yet; those that it has stay as they are.

    Raises: ValueError where others are writing it as it is.
    """
    old, names = there.sheet, list(wanted.networks)
    parts = [replace(part, network=names.index(list(old.networks)[part.network])) for part in old.parts]
    fresh: list[Part] = []
    for network, name in enumerate(names):
        box = wanted.box(network)
        known = old.box(list(old.networks).index(name)) if name in old.networks else None
        for some in [box] if known is None else rest(known, box):
            fresh.append(_planned(asked, network, some))
    told = replace(wanted, parts=(*parts, *fresh), attrs=old.attrs)
    if told.same(old):
        return there
    if not alone:
        raise ValueError(
            f"store: {there.path} is being written by other processes, and this call would extend it; wait until they "
            "have ended, or pass them the same arguments"
        )
    both = {name: f"{old.attrs[name]}\n{wanted.attrs[name]}" for name in ("created", "command")}
    extended = Store(there.path, replace(told, attrs={**wanted.attrs, **both}), there.share)
    with writing(there):
        extended.lay_out(range(len(parts), len(parts) + len(fresh)))
    return extended


def _warn_of_versions(there: Store, wanted: Sheet) -> None:
    """What else the last bits of a number depend on, and with other versions of gradsim perhaps the draws."""
    for name in ("gradsim_version", "jax_version", "device"):
        one, other = there.sheet.attrs.get(name), wanted.attrs[name]
        if _without_number(one) != _without_number(other):
            arguments.warn(
                f"store: {there.path} was begun with {name.replace('_', ' ')} {one!s:.80} and goes on with {other}: "
                "numbers of both are alike within rounding at best"
            )


def _without_number(told: Any) -> str:
    """A kind of device, however many there were."""
    return str(told).rpartition(" x ")[2]


def _drop_damaged(there: Store) -> None:
    """Chunks that are not as they were written count as missing, which a warning says."""
    damaged = there.damaged()
    if damaged:
        arguments.warn(
            f"store: {len(damaged)} of {len(there.marks)} chunks of {there.path} are damaged, the first in "
            f"{next(iter(damaged.values()))}; measured anew"
        )
    for chunk in damaged:
        del there.marks[chunk]


def _measure(there: Store, asked: Sweep, bar: Progress | Share) -> None:
    own = asked.own
    bar.found(there.others())
    with Writer(there) as writer:
        for number, part in enumerate(there.sheet.parts):
            missing, plan = there.missing(number), asked.planned[part.network]
            if not missing:
                continue
            chunks = measured_chunks(
                part.course(plan),
                grid.cells(plan, {**own[part.network], **part.axes}),
                plans.inputs(plan, asked.inputs),
                plans.cotangent(plan, asked.cotangent),
                key=asked.key,
                seeds=part.seeds,
                bar=bar,
                missing=missing,
            )
            for place, measured in chunks:
                writer.put(number, plan, place, measured)


class Writer:
    """Finishes and writes a chunk in a thread of its own, while the device measures the next one.

    Raises: OSError where a write fails, from the next `put` or at the end.
    """

    def __init__(self, there: Store) -> None:
        self._store, self._pool = there, ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def put(self, number: int, plan: Plan, place: Place, measured: dict[str, Scaled]) -> None:
        """Hand over a chunk; waits until the one before is on disk, so that an end costs no more than two."""
        self._wait()
        self._last = self._pool.submit(_write, self._store, number, plan, place, measured)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            with writing(self._store):
                last.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if kind else nullcontext():
            self._wait()
        self._pool.shutdown()


@contextmanager
def writing(there: Store) -> Iterator[None]:
    """An error of the disk says what is kept."""
    try:
        yield
    except OSError as error:
        done, chunks = there.done
        raise OSError(
            error.errno,
            f"store: cannot write into {there.path} ({error.strerror or error}); {done} of {chunks} chunks are done, "
            "and the same call goes on from there",
        ) from error


def _write(there: Store, number: int, plan: Plan, place: Place, measured: dict[str, Scaled]) -> None:
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
    there.keep(number, place, values, lost)


def warn_of_lost(there: Store, plan: Plan) -> None:
    """As `gradsim.sweep` does without a store."""
    steps: dict[str, list[int]] = {}
    for _, lost in there.lost():
        for name, (_, first, last) in lost.items():
            steps.setdefault(name, []).append(first if plan.direction == "forward" else last)
    counts = there.lost_counts()
    for name, some in steps.items():
        where = min(some) if plan.direction == "forward" else max(some)
        flags.warn_of_lost(name, counts[name], there.sheet.points * len(there.sheet.networks), where, plan)
