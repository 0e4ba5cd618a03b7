"""What is measured into a store: begun, gone on with, extended, or refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from gradsim import arguments
from gradsim.engine.plan import Plan
from gradsim.sweeps import flags
from gradsim.sweeps.calls import DeviceError
from gradsim.sweeps.course import Place
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.progress import Part as Share
from gradsim.sweeps.progress import Progress
from gradsim.sweeps.stores import store
from gradsim.sweeps.stores.differences import OtherNumbers, is_deeper, refuse_differences
from gradsim.sweeps.stores.members import Member, locked
from gradsim.sweeps.stores.opening import checked, open_store
from gradsim.sweeps.stores.sheet import Part, Sheet, rest
from gradsim.sweeps.stores.store import Lost, Store

if TYPE_CHECKING:
    import xarray

Finish = Callable[[], tuple[dict[str, np.ndarray], Lost]]  # the numbers of a chunk [cells, seeds, …], what it has lost


@runtime_checkable
class Asked(Protocol):
    """What a store can keep: a sweep, or a training run."""

    def sheet(self) -> Sheet:
        """What its store would say, before its parts are planned."""

    def parts(self, network: int, box: Mapping[str, np.ndarray]) -> list[Part]:
        """Those that these cells and seeds of a network are measured in, planned for the memory at hand."""

    def steps(self, part: Part) -> int:
        """Those of the program that measures these cells and seeds, some of which may be beyond the depth."""

    def chunks(
        self, part: Part, missing: Sequence[int], bar: Progress | Share
    ) -> Generator[tuple[Place, Finish], None, None]:
        """Each of the missing chunks of a part as soon as the device is done with it."""


def folder_of(value: Any) -> Path | None:
    """The argument `store` as a path, if there is one.

    Raises: TypeError or ValueError for what is none, and where several processes have none to meet in.
    """
    if value is not None:
        return checked("store", value)
    if (at_hand().processes or 1) > 1:
        raise ValueError(f"processes: got {at_hand().processes}, which meet in a store; pass store='map.zarr' with it")
    return None


def keep(path: Path, asked: Asked, bar: Progress | Share) -> Store:
    """`measure`; where Ctrl-C or the device ends it, what there is by then is the error's attribute `dataset`."""
    try:
        return measure(path, asked, bar)
    except (KeyboardInterrupt, DeviceError) as error:
        with suppress(ValueError):  # it may have ended before there was a store
            partial = attach(error, open_store(path))
            print(
                f"{path}: {partial.attrs['done']:.0%} of it is done; the same call goes on from there, and "
                f"gradsim.open({str(path)!r}) shows what there is",
                file=sys.stderr,
            )
        raise


def attach(error: Any, partial: xarray.Dataset) -> xarray.Dataset:
    """What there is by then, as the error's attribute `dataset`."""
    error.dataset = partial
    return partial


def measure(path: Path, asked: Asked, bar: Progress | Share) -> Store:
    """Measure what the store at `path` has not yet, and keep it there.

    Raises: ValueError where it is of another sweep, not a store, not to be written, or of another process; OSError
        where a write fails; KeyboardInterrupt and DeviceError with what is done kept.
    """
    wanted = asked.sheet()
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
        try:
            _measure(there, asked, bar)
        except OtherNumbers:
            there.take_back()
            raise
        return there if share[1] == 1 else store.read(path) or there


def _joined(path: Path, asked: Asked, wanted: Sheet, share: tuple[int, int], *, alone: bool) -> Store:
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


def _begun(path: Path, asked: Asked, wanted: Sheet, share: tuple[int, int]) -> Store:
    parts = [part for number in range(len(wanted.networks)) for part in asked.parts(number, wanted.box(number))]
    begun = Store(path, replace(wanted, parts=tuple(parts)), share)
    with writing(begun):
        begun.lay_out(range(len(parts)))
    return begun


def _extended(there: Store, asked: Asked, wanted: Sheet, *, alone: bool) -> Store:
    """The store with parts for what it does not cover yet; those that it has stay as they are.

    Raises: ValueError where others are writing it as it is.
    """
    old, names = there.sheet, list(wanted.networks)
    parts = [replace(part, network=names.index(list(old.networks)[part.network])) for part in old.parts]
    fresh: list[Part] = []
    if is_deeper(old, wanted):
        parts, fresh = _deepened(there, asked, wanted, parts)
    for network, name in enumerate(names):
        box = wanted.box(network)
        known = old.box(list(old.networks).index(name)) if name in old.networks else None
        for some in [box] if known is None else rest(known, box):
            fresh += asked.parts(network, some)
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
    extended.before = old
    return extended


def _deepened(there: Store, asked: Asked, wanted: Sheet, parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """The parts with the steps that they hold, and those that hold the further steps of the same networks.

    What carries a chain on, a product of each network, is not kept: it is some hundred times the numbers kept. So the
    first steps are taken once more, in the same chunks, and must come out as they are in the store to the last bit.

    Raises: ValueError where the store is not finished.
    """
    first, last = there.sheet.arguments["depth"], wanted.arguments["depth"]
    done, chunks = there.done
    if done < chunks:
        raise ValueError(
            f"depth: {done} of {chunks} chunks of the store at {there.path} are done; finish them with depth={first}, "
            "and pass more then"
        )
    known = [replace(part, span=part.span or (0, first)) for part in parts]
    followed = {part.follows for part in parts}
    further = [
        replace(part, span=(first, last), follows=number, steps=asked.steps(part))
        for number, part in enumerate(known)
        if number not in followed
    ]
    return known, further


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


def _measure(there: Store, asked: Asked, bar: Progress | Share) -> None:
    bar.found(there.others())
    with Writer(there) as writer:
        for number, part in enumerate(there.sheet.parts):
            if missing := there.missing(number):
                with closing(asked.chunks(part, missing, bar)) as chunks:
                    for place, finish in chunks:
                        writer.put(number, place, finish)


class Writer:
    """Finishes and writes a chunk in a thread of its own, while the device measures the next one.

    So two chunks are in flight while one is written, and an end then costs both: a pipeline of two is what hides the
    host's work, and while nothing is written it costs the one on the device.

    Raises: OSError where a write fails, from the next `put` or at the end.
    """

    def __init__(self, there: Store) -> None:
        self._store, self._pool = there, ThreadPoolExecutor(1)
        self._pool.submit(int)  # starts the thread, lest Ctrl-C meets its start and nobody waits for what it writes
        self._last: Future[None] | None = None

    def put(self, number: int, place: Place, finish: Finish) -> None:
        """Hand over a chunk; waits until the one before is on disk, so that an end costs no more than two."""
        self._wait()
        self._last = self._pool.submit(_write, self._store, number, place, finish)

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


def _write(there: Store, number: int, place: Place, finish: Finish) -> None:
    there.keep(number, place, *finish())


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
