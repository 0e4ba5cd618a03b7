"""Which processes write into a folder, each its own chunks: no two have the same number, and all have one count."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradsim.sweeps.stores.folder import LOCK, OWNER, numbered, replace, suffix

PATIENCE = 60.0  # seconds that a process waits until another has laid out the store


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While it is open no other process lays out the folder, or joins those that write; waits for one that does.

    Raises: ValueError where that takes too long, or nothing may be written.
    """
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(folder / LOCK, PATIENCE)
    if lock is None:
        raise ValueError(f"store: {folder} is held by another process that does not go on; end it, or try again")
    try:
        yield
    finally:
        lock.release()


class Member:
    """One of the processes that write into a folder, each its own chunks; the system ends the lock of one killed.

    To be made, and `others` to be called, while the folder is `locked`.

    Raises: ValueError where another process has this number, or is one of another number of processes; which is said.
    """

    def __init__(self, folder: Path, process: int, processes: int) -> None:
        self._folder, self._process, self._processes = folder, process, processes
        self._lock: Any = None
        for number in self.others():
            count = _who(folder, number).get("processes")
            if count != processes:
                raise ValueError(
                    f"{_refused(folder, number)}, one of {count or 'some'} processes, and this is one of {processes}"
                )
        with _writable(folder):
            self._lock = _acquired(folder / f"{LOCK}{suffix(process)}.own")
        if self._lock is None:
            raise ValueError(
                f"{_refused(folder, process)}; wait until it has ended, or pass another folder, or process and "
                "processes where it shall help"
            )
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "processes": processes,
        }
        with suppress(OSError):  # a courtesy to who comes second: a full disk is said where it matters
            replace(folder / f"{OWNER}{suffix(process)}", json.dumps(who))

    def others(self) -> list[int]:
        """The numbers of the other processes that write now."""
        numbers = [0, *numbered(self._folder, OWNER)]
        return [number for number in numbers if number != self._process and _held(self._folder, number)]

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *_: object) -> None:
        """Who it was and its lock go at once for one that joins, which would not know a lock that nobody owns."""
        with suppress(ValueError, OSError), locked(self._folder):
            (self._folder / f"{OWNER}{suffix(self._process)}").unlink(missing_ok=True)
            self._lock.release()
        self._lock.release()  # also where nothing may be written any more


def _held(folder: Path, process: int) -> bool:
    """Whether the process of this number is there; the lock of one that was killed is free."""
    file = folder / f"{LOCK}{suffix(process)}.own"
    if not file.exists():
        return False
    lock = _acquired(file)
    if lock is not None:
        lock.release()
    return lock is None


def _acquired(file: Path, timeout: float = 0.0) -> Any:
    """The lock of this file; None where another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:  # a file system may have no locks
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"store: cannot write into {folder} ({reason}); pass a folder that you may write to"
        ) from error


def _who(folder: Path, process: int) -> dict[str, Any]:
    try:
        who = json.loads((folder / f"{OWNER}{suffix(process)}").read_text(encoding="utf-8"))
        return {
            "processes": int(who["processes"]),
            "said": f"process {int(who['pid'])} on {str(who['host'])[:80]} since {str(who['since'])[:40]}",
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {"said": "another process"}


def _refused(folder: Path, process: int) -> str:
    return f"store: {folder} is being written by {_who(folder, process)['said']}"
