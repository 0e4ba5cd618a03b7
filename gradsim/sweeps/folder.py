"""Files of a store: what is written is on disk before it counts, and one process writes at a time."""

from __future__ import annotations

import json
import os
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

SHEET, DONE, LOCK, OWNER, PARTIAL = "zarr.json", "done", "lock", "owner", ".partial"


def replace(file: Path, text: str) -> None:
    """Put the text into the file, whole or not at all, whenever the process or the machine stops."""
    partial = file.with_name(file.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """What was written to a file, or which files a folder has, goes to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens none, and keeps it in order itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(file: str | Path) -> int | None:
    """CRC-32 of a file's bytes; None where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return zlib.crc32(stream.read())
    except OSError:
        return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While it is open no other process writes into the folder; the system ends the lock of one that was killed.

    Raises: ValueError where another holds it, and says which.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"store: {folder} is being written by {_owner(folder)}; wait until it has ended, or pass another folder"
        ) from None
    except OSError as error:
        raise ValueError(
            f"store: cannot write into {folder} ({error.strerror or error}); pass a folder that you may write to"
        ) from error
    try:
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # a courtesy to who comes second: a full disk is said where it matters
            replace(folder / OWNER, json.dumps(who))
        yield
    finally:
        with suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        who = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {int(who['pid'])} on {str(who['host'])[:80]} since {str(who['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


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
    """

    def __init__(self, folder: Path, files: int) -> None:
        self.file, self._files = folder / DONE, files  # those of a chunk

    def read(self) -> dict[tuple[int, int], Mark]:
        """The mark of each chunk."""
        try:
            data = self.file.read_bytes()
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
        if self.file.exists():
            data = self.file.read_bytes()
            if data and not data.endswith(b"\n"):
                os.truncate(self.file, data.rfind(b"\n") + 1)

    def append(self, mark: Mark) -> None:
        line = json.dumps([mark.part, mark.chunk, mark.checksums, mark.lost], separators=(",", ":")) + "\n"
        new = not self.file.exists()
        with self.file.open("ab") as stream:
            start = stream.tell()
            try:
                stream.write(line.encode())
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                with suppress(OSError):  # of a full disk, for one
                    os.truncate(self.file, start)
                raise
        if new:
            sync(self.file.parent)


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


def foreign(folder: Path) -> str:
    """The name of something in the folder that no store has; "" where there is nothing of the kind, nor a folder."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return ""
    own = {SHEET, DONE, LOCK, OWNER, SHEET + PARTIAL, OWNER + PARTIAL}
    return next((name for name in names if name not in own and not _is_part(name)), "")


def part_name(number: int) -> str:
    """The folder of a part."""
    return f"part{number}"


def _is_part(name: str) -> bool:
    return name.startswith("part") and name[4:].isdigit()


def shown(value: Any) -> str:
    """`value` as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]} …"
