"""A sweep or a training run on disk: Zarr v3 arrays, a chunk of which is what one call gives, and which are done.

map.zarr/zarr.json            the sheet: arguments, axes, coordinates, parts and their chunk plans
map.zarr/part0/log_gain/      a Zarr array [cells, seeds, depth, …] for each statistic, float64 with crc32c
map.zarr/done                 a line for each chunk that is done
map.zarr/lock.own, owner      of the process that writes; done.1, lock.1.own, owner.1 of a second one, and so on
map.zarr/lock                 of who lays out or joins
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from gradsim import arguments
from gradsim.sweeps.course import Place
from gradsim.sweeps.stores import folder, sheet
from gradsim.sweeps.stores.differences import OtherNumbers
from gradsim.sweeps.stores.journal import Journal, Mark
from gradsim.sweeps.stores.sheet import Part, Sheet, Told

if TYPE_CHECKING:
    import zarr

CODECS = ["bytes", "zstd", "crc32c"]
LEVEL = 1  # of zstd: NaN where costly statistics are not taken shrink to nothing, and noise is soon given up
Lost = dict[str, tuple[int, int, int]]


class Store:
    """One store: what its sheet says, and the marks of its chunks as they were when it was opened.

    Args:
        share: the number of the process that writes, and how many there are.
    """

    def __init__(self, path: Path, told: Sheet, share: tuple[int, int] = (0, 1)) -> None:
        self.path, self.sheet, self.share = path, told, share
        self.before: Sheet | None = None  # its sheet where this process has extended it
        self.journal = Journal(path, len(told.statistics), share[0])
        self._first = list(accumulate((part.size for part in told.parts), initial=0))  # the chunks before each part's
        known = [part.size for part in told.parts]
        self.marks = {
            (part, chunk): mark
            for (part, chunk), mark in self.journal.read().items()
            if 0 <= part < len(known) and 0 <= chunk < known[part]
        }

    @cached_property
    def array(self) -> Any:
        """The Zarr array of a part's statistic, by their numbers."""
        return lru_cache(maxsize=4096)(self._array)

    def folder(self, part: int, statistic: int) -> Path:
        """That of a Zarr array."""
        name = quote(self.sheet.statistics[statistic].name, safe=" ").replace(".", "%2E")  # any name stays within
        return self.path / folder.part_name(part) / name

    def file(self, part: int, statistic: int, chunk: int) -> Path:
        """That of a chunk, as Zarr's default encoding of its place names it."""
        return Path(self._names(part, statistic)(chunk))

    def _names(self, part: int, statistic: int) -> Callable[[int], str]:
        """The path of each chunk's file, fast: a store may have a million."""
        cells = self.sheet.parts[part].grid[1]
        told = self.sheet.statistics[statistic]
        inner = ".0" * len(told.shapes[self.sheet.parts[part].network])
        start = os.path.join(self.folder(part, statistic), "c.")
        return lambda chunk: f"{start}{chunk % cells}.{chunk // cells}{inner}"

    def shape(self, part: Part, told: Told) -> tuple[int, ...]:
        return (part.cells, part.seeds.size, *self.sheet.shape(part, told))

    def lay_out(self, parts: Iterable[int]) -> None:
        """Make the empty arrays of these parts, then write the sheet: it is there only when all of them are."""
        import zarr
        from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

        for number in parts:
            part = self.sheet.parts[number]
            for statistic, told in enumerate(self.sheet.statistics):
                zarr.create_array(
                    self.folder(number, statistic),
                    shape=self.shape(part, told),
                    chunks=(part.chunk.cells, part.chunk.seeds, *self.sheet.shape(part, told)),
                    dtype="float64",
                    fill_value=math.nan,
                    serializer=BytesCodec(),
                    compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
                    chunk_key_encoding={"name": "default", "separator": "."},
                    overwrite=True,
                )
                folder.sync(self.folder(number, statistic) / folder.SHEET)
                folder.sync(self.folder(number, statistic))
            whole = self.path / folder.part_name(number)
            folder.replace(whole / folder.SHEET, json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
        folder.replace(self.path / folder.SHEET, self.sheet.json())

    def _array(self, part: int, statistic: int) -> zarr.Array[Any]:
        """Raises: ValueError where it is not as gradsim writes it."""
        import zarr

        where, told = self.folder(part, statistic), self.sheet.statistics[statistic]
        try:
            said = json.loads((where / folder.SHEET).read_text(encoding="utf-8"))
            if said["data_type"] != "float64" or [codec["name"] for codec in said["codecs"]] != CODECS:
                raise ValueError("its numbers are not coded as gradsim writes them")
            opened: Any = zarr.open_array(where, mode="r+")
            array = opened.with_config({"write_empty_chunks": True})  # which `open_array` takes and leaves aside
            one = self.sheet.parts[part]
            inner = self.sheet.shape(one, told)
            if array.shape != self.shape(one, told) or array.chunks != (one.chunk.cells, one.chunk.seeds, *inner):
                raise ValueError(f"its shape is {array.shape} in chunks of {array.chunks}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"store: {where} is not what gradsim wrote ({arguments.reason(error)})") from error
        return array

    def missing(self, part: int) -> list[int]:
        """The chunks of a part that this process has still to do."""
        chunks = range(self.sheet.parts[part].size)
        return [chunk for chunk in chunks if self._mine(part, chunk) and (part, chunk) not in self.marks]

    def _mine(self, part: int, chunk: int) -> bool:
        """Whether the chunk is this process's: they take turns through all parts."""
        process, processes = self.share
        return (self._first[part] + chunk) % processes == process

    def share_done(self) -> float:
        """That of all networks, and of one which has the first of its steps alone, that of those steps."""
        counted = zip(self.sheet.parts, self._networks(self.marks), strict=True)
        return float(sum(count * self.sheet.share(part) for part, count in counted) / self.sheet.total)

    def others(self) -> int:
        """How many networks are done, or another process's."""
        missing = [(part, chunk) for part in range(len(self.sheet.parts)) for chunk in self.missing(part)]
        return max(0, self.sheet.total - sum(self._networks(missing)))

    def _networks(self, some: Collection[tuple[int, int]]) -> list[int]:
        """Those of some chunks, by their parts."""
        counts = []
        for number, part in enumerate(self.sheet.parts):
            chunks = np.array([chunk for (one, chunk) in some if one == number], np.int64)
            seed, cell = np.divmod(chunks, part.grid[1])
            cells = np.minimum(part.chunk.cells, part.cells - cell * part.chunk.cells)
            counts.append(int(np.sum(cells * np.minimum(part.chunk.seeds, part.seeds.size - seed * part.chunk.seeds))))
        return counts

    @property
    def done(self) -> tuple[int, int]:
        """How many chunks are done, of how many."""
        return len(self.marks), sum(part.size for part in self.sheet.parts)

    def keep(self, number: int, place: Place, values: dict[str, np.ndarray], lost: Lost) -> None:
        """Write a chunk, [cells, seeds, …] of each statistic; it is done when its bytes and their names are on disk.

        Raises: OtherNumbers where its first steps are not those that are there already.
        """
        cells, seeds = (np.unique(some) for some in (place.cells, place.seeds))
        where = (slice(cells[0], cells[-1] + 1), slice(seeds[0], seeds[-1] + 1))
        self._compare(number, place.number, values)
        checksums, rows = [], (slice(None), slice(None), self.sheet.parts[number].rows)
        for statistic, told in enumerate(self.sheet.statistics):
            self.array(number, statistic)[where] = values[told.name][rows[: values[told.name].ndim]]
            file = self.file(number, statistic, place.number)
            folder.sync(file)
            checksums.append(folder.checksum(file) or 0)
            folder.sync(file.parent)
        mark = Mark(number, place.number, tuple(checksums), lost)
        self.journal.append(mark)
        self.marks[number, place.number] = mark

    def _compare(self, number: int, chunk: int, values: dict[str, np.ndarray]) -> None:
        """Of a part that goes on where others end, the steps before: chaos makes another network of a last bit.

        Raises: OtherNumbers where they have come out otherwise.
        """
        before = self.sheet.parts[number].follows
        while before is not None:
            part = self.sheet.parts[before]
            there = (before, chunk) in self.marks  # if it is another process's it may not be done yet
            for statistic, told in enumerate(self.sheet.statistics if there else ()):
                kept, new = self.read(before, statistic, chunk), values[told.name][:, :, part.rows]
                if not np.array_equal(kept, new, equal_nan=True):
                    raise OtherNumbers(
                        f"depth: {told.name} of the first {part.rows.stop} steps comes out otherwise here than in "
                        f"{self.path}, and what follows would be of other networks; go on with the device and the "
                        "versions of its attributes, or pass another store"
                    )
            before = part.follows

    def take_back(self) -> None:
        """Make the store what it was before this process extended it, where nothing has come since."""
        if self.before is not None and all(part < len(self.before.parts) for part, _ in self.marks):
            folder.replace(self.path / folder.SHEET, self.before.json())

    def damaged(self) -> dict[tuple[int, int], Path]:
        """The chunks of this process that are marked as done, and whose files are not as they were written.

        All are read, which takes about a thousandth of the time that they took to measure.
        """
        wrong: dict[tuple[int, int], Path] = {}
        names = cache(self._names)
        for (part, chunk), mark in self.marks.items():
            if not self._mine(part, chunk):
                continue
            for statistic, checksum in enumerate(mark.checksums):
                file = names(part, statistic)(chunk)
                if folder.checksum(file) != checksum:
                    wrong[part, chunk] = Path(file)
        return wrong

    def read(self, part: int, statistic: int, chunk: int) -> np.ndarray:
        """The numbers of a chunk that is done. Raises: ValueError where its file is damaged or missing."""
        one = self.sheet.parts[part]
        seed, cell = divmod(chunk, one.grid[1])
        file = self.file(part, statistic, chunk)
        try:
            if not file.exists():  # which Zarr would take for a chunk of NaN
                raise FileNotFoundError("the file is missing")
            first, start = cell * one.chunk.cells, seed * one.chunk.seeds
            array = self.array(part, statistic)
            return np.asarray(array[first : first + one.chunk.cells, start : start + one.chunk.seeds])
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"store: {file} is damaged ({arguments.reason(error)}); the call that made the store, once more, "
                "measures it anew"
            ) from error

    def lost(self) -> Iterator[tuple[Part, Lost]]:
        """What each chunk that is done has lost; where further steps are done, over these and those before."""
        later = {part.follows: number for number, part in enumerate(self.sheet.parts) if part.follows is not None}
        for (part, chunk), mark in self.marks.items():
            if mark.lost and (later.get(part), chunk) not in self.marks:
                yield self.sheet.parts[part], mark.lost

    def lost_counts(self) -> dict[str, int]:
        """How many networks each statistic has lost, of all `sheet.points` of each network."""
        counts = {one.name: 0 for one in self.sheet.statistics}
        for part, lost in self.lost():
            own = math.prod(points.size for points in self.sheet.box(part.network).values())
            for name, (networks, *_) in lost.items():
                counts[name] += networks * (self.sheet.points // own)
        return counts

    def covers(self, wanted: Sheet) -> bool:
        """Whether it holds this sweep already, and all of it."""
        return len(self.marks) == self.done[1] and replace(wanted, parts=self.sheet.parts).same(self.sheet)

    def tidy(self, *, alone: bool) -> None:
        """Remove what a process that was killed has left half written; of others only where none is there."""
        self.journal.cut()
        if alone:
            self.journal.join()
            for file in [*self.path.glob(f"*{folder.PARTIAL}"), *self.path.glob(f"part*/*/*{folder.PARTIAL}")]:
                file.unlink()


def read(path: Path, share: tuple[int, int] = (0, 1)) -> Store | None:
    """The store in this folder; None where there is nothing, or one that was not laid out to the end.

    Raises: ValueError for a folder of another kind, and for a sheet that cannot be read.
    """
    file = path / folder.SHEET
    try:
        if path.exists() and not path.is_dir():
            raise ValueError(f"store: {path} is a file; pass a folder, new or one that gradsim wrote")
        if not file.exists():
            if other := folder.foreign(path):
                raise ValueError(
                    f"store: {path} holds {other!r}, which is none of gradsim's; pass a new folder, or one that it "
                    "wrote"
                )
            return None
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"store: cannot read {path} ({error.strerror or error})") from error
    with understood(path):
        return Store(path, sheet.read(text), share)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Whatever a sheet of another kind leads to is one line. Raises: ValueError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"store: {path} is nothing that gradsim wrote ({arguments.reason(error)}); pass another folder"
        ) from error
