"""Which chunks of a store are done, as the processes that write it say, each in a file of its own."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gradsim.sweeps.stores import folder
from gradsim.sweeps.stores.folder import DONE, numbered, suffix


class Mark(NamedTuple):
    """A chunk that is done: the checksums of its files, and what it has lost.

    `lost` counts networks, by the name of the statistic, and has the first and the last step at which they lost.
    """

    part: int
    chunk: int
    checksums: tuple[int, ...]
    lost: dict[str, tuple[int, int, int]]


class Journal:
    """Which chunks are done: a file with a line for each, [part, chunk, [checksum, …], {statistic: [lost, …]}].

    A line is appended when the data of its chunk are on disk, never before, so an end at any instant costs what was
    under way. The last line of a chunk counts; what is no line of this form, such as one cut short, counts for nothing.
    Each process has a file of its own, done.2 for one. A process that starts alone puts all into the first: so what
    stands in the others is never older.
    """

    def __init__(self, path: Path, files: int, process: int = 0) -> None:
        self._path, self._files = path, files  # those of a chunk
        self.file = path / f"{DONE}{suffix(process)}"

    def read(self) -> dict[tuple[int, int], Mark]:
        """The mark of each chunk."""
        numbers = numbered(self._path, DONE)  # the first is read last: what has left them by then is in it
        own = [self._read(self._path / f"{DONE}{suffix(number)}") for number in numbers]
        marks = self._read(self._path / DONE)
        for one in own:
            marks |= one
        return marks

    def _read(self, file: Path) -> dict[tuple[int, int], Mark]:
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return {}
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        try:
            told = json.loads(b"[" + b",".join(lines) + b"]")  # all at once, unless one is damaged
        except (ValueError, RecursionError):
            told = [_loaded(line) for line in lines]
        marks = (_mark(one) for one in told)
        good = (mark for mark in marks if mark is not None and len(mark.checksums) == self._files)
        return {(mark.part, mark.chunk): mark for mark in good}

    def cut(self) -> None:
        """Take off a last line that is not whole."""
        _cut(self.file)

    def join(self) -> None:
        """Put what all processes have marked into the first one's file; none of them may be there."""
        if numbers := numbered(self._path, DONE):
            folder.replace(self._path / DONE, "".join(map(_line, self.read().values())))
            for number in numbers:
                (self._path / f"{DONE}{suffix(number)}").unlink()
        else:
            _cut(self._path / DONE)

    def append(self, mark: Mark) -> None:
        new = not self.file.exists()
        with self.file.open("ab") as stream:
            start = stream.tell()
            try:
                stream.write(_line(mark).encode())
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                with suppress(OSError):  # of a full disk, for one
                    os.truncate(self.file, start)
                raise
        if new:
            folder.sync(self.file.parent)


def _line(mark: Mark) -> str:
    return json.dumps([mark.part, mark.chunk, mark.checksums, mark.lost], separators=(",", ":")) + "\n"


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _mark(told: Any) -> Mark | None:
    try:
        part, chunk, checksums, lost = told
        found = {str(name): (int(count), int(first), int(last)) for name, (count, first, last) in lost.items()}
        return Mark(int(part), int(chunk), tuple(map(int, checksums)), found)
    except (ValueError, TypeError, AttributeError):
        return None


def _cut(file: Path) -> None:
    if file.exists():
        data = file.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(file, data.rfind(b"\n") + 1)
