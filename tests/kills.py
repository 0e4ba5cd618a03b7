"""A sweep whose process is killed again and again at random instants: python tests/kills.py [kills] [cells] [counts …]

Each process is a fork of this one, which has imported everything and run nothing. At the end two go on at once. Then so
many processes share a sweep, one of which is killed midway, and so many more, one of which …, until the last go on.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, loop
from gradsim.sweeps.stores import stored
from gradsim.sweeps.stores.store import Store, read

warnings.filterwarnings("ignore", "os.fork")  # there is no backend yet, and no thread of it
REFUSED = 3
STARTING = 2.0  # seconds that a process takes to its first chunk, about


def sweep(store: Path | None, cells: int, calls: Path | None = None, share: tuple[int, int] | None = None) -> Any:
    """Half as many chunks as cells times seeds; a byte is added to `calls` before each goes to the device.

    Beside it, to `calls.writes` as one is handed over to be written, and to `calls.marks` when it is marked as done.
    """
    chunks.plan_chunk = lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 8))
    chosen, put, keep = loop.program, stored.Writer.put, Store.keep

    def note(kind: str) -> None:
        if calls is not None:
            with calls.with_name(calls.name + kind).open("ab", buffering=0) as file:
                file.write(b".")

    def program(*choice: Any) -> Any:
        def call(*args: Any) -> Any:
            note("")
            return chosen(*choice)(*args)

        return call

    def noted_put(*args: Any) -> None:
        note(".writes")
        put(*args)

    def noted_keep(*args: Any) -> None:
        keep(*args)
        note(".marks")

    vars(loop)["program"] = program
    stored.Writer.put = noted_put  # type: ignore[method-assign, assignment]
    Store.keep = noted_keep  # type: ignore[method-assign, assignment]
    axis = np.linspace(0.5, 2, cells)
    options: dict[str, Any] = dict(zip(("process", "processes"), share or (), strict=False))
    return gs.sweep(gs.feedforward(4), depth=8, seeds=4, sigma_w=axis, store=store, progress=False, **options)


def start(store: Path, cells: int, calls: Path, share: tuple[int, int] | None = None) -> int:
    """The number of a process that sweeps; it ends with 0, or REFUSED where another has the store."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        sweep(store, cells, calls, share)
        code = 0
    except ValueError as error:
        print(error, file=sys.stderr)
        code = REFUSED if "is being written by process" in str(error) else 1
    finally:
        os._exit(code)


def killed(folder: Path, kills: int, cells: int) -> dict[str, Any]:
    """What became of a store in that folder: the chunks done at each kill, and the calls of the device in all; those
    that each kill cost, and how many of these were being written; how the last two processes ended, which went on at
    once; whether it is, bit for bit, the store of one process."""
    store, calls = folder / "killed.zarr", folder / "calls"
    shares, lost = [], []
    for _ in range(kills):
        before = _sizes(calls)
        process = start(store, cells, calls)
        _wait_for_calls(calls, random.randint(1, 10), patience=random.choice([60.0, random.uniform(0, STARTING)]))
        time.sleep(random.uniform(0.0, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        shares.append((store / "done").read_bytes().count(b"\n") if (store / "done").exists() else 0)
        called, written, marked = (now - then for now, then in zip(_sizes(calls), before, strict=True))
        lost.append((called - marked, written - marked))
    both = [start(store, cells, calls) for _ in range(2)]
    ends = sorted(_end(process) for process in both)
    whole = [_end(start(folder / "whole.zarr", cells, folder / "other")), _end(start(store, cells, calls))]
    same = not any(whole) and contents(store) == contents(folder / "whole.zarr")
    return {"ends": ends, "calls": calls.stat().st_size, "done": shares, "lost": lost, "same": same}


def together(folder: Path, cells: int, counts: Sequence[int]) -> dict[str, Any]:
    """What became of a store into which so many processes measured at once, and then so many, and so on.

    In each round but the last one of them is killed midway: how the others ended; and, as in `killed`, the calls and
    whether each file of numbers is that of one process.
    """
    store, calls, ends = folder / "together.zarr", folder / "calls together", []
    for turn, count in enumerate(counts, 1):
        started = [start(store, cells, calls, (process, count)) for process in range(count)]
        if turn < len(counts):
            victim = started.pop(random.randrange(count))
            _wait_for_calls(calls, 3 * count, patience=60.0)
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
        ends += [_end(process) for process in started]
    whole = _end(start(folder / "one.zarr", cells, folder / "other"))
    found, one = ({name: data for name, data in contents(some).items() if "done" not in name}
                  for some in (store, folder / "one.zarr"))  # fmt: skip
    marks = [read(some).marks for some in (store, folder / "one.zarr")]  # type: ignore[union-attr]
    same = not whole and found == one and marks[0] == marks[1]
    return {"ends": ends, "calls": calls.stat().st_size, "same": same}


def _sizes(calls: Path) -> list[int]:
    """Chunks that went to the device, that were handed over to be written, and that were marked as done."""
    files = [calls.with_name(calls.name + kind) for kind in ("", ".writes", ".marks")]
    return [file.stat().st_size if file.exists() else 0 for file in files]


def _end(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _wait_for_calls(calls: Path, count: int, patience: float) -> None:
    """Until so many chunks have gone to the device, or so many seconds at most."""
    size = calls.stat().st_size if calls.exists() else 0
    end = time.monotonic() + patience
    while time.monotonic() < end and (calls.stat().st_size if calls.exists() else 0) < size + count:
        time.sleep(0.001)


def contents(store: Path) -> dict[str, bytes]:
    """The files of a store, but for when it was made and by whom."""
    files = (file for file in store.rglob("*") if file.is_file() and not file.name.startswith(("lock", "owner")))
    return {str(file.relative_to(store)): file.read_bytes() for file in files if file != store / "zarr.json"}


def main(kills: int = 100, cells: int = 400, *counts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = killed(Path(folder), kills, cells) | {"chunks": 2 * cells}
        print(json.dumps(found | {"together": together(Path(folder), cells, counts or (2, 4))}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
