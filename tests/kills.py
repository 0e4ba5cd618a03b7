"""A sweep whose process is killed again and again at random instants: python tests/kills.py [kills] [cells]

Each process is a fork of this one, which has imported everything and run nothing. At the end two go on at once.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, loop

warnings.filterwarnings("ignore", "os.fork")  # there is no backend yet, and no thread of it
REFUSED = 3
STARTING = 2.0  # seconds that a process takes to its first chunk, about


def sweep(store: Path | None, cells: int, calls: Path | None = None) -> Any:
    """Half as many chunks as cells times seeds; a byte is added to `calls` before each goes to the device."""
    chunks.plan_chunk = lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 8))
    chosen = loop.program

    def program(*choice: Any) -> Any:
        def call(*args: Any) -> Any:
            if calls is not None:
                with calls.open("ab", buffering=0) as file:
                    file.write(b".")
            return chosen(*choice)(*args)

        return call

    vars(loop)["program"] = program
    axis = np.linspace(0.5, 2, cells)
    return gs.sweep(gs.feedforward(4), depth=8, seeds=4, sigma_w=axis, store=store, progress=False)


def start(store: Path, cells: int, calls: Path) -> int:
    """The number of a process that sweeps; it ends with 0, or REFUSED where another has the store."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        sweep(store, cells, calls)
        code = 0
    except ValueError as error:
        print(error, file=sys.stderr)
        code = REFUSED if "is being written by process" in str(error) else 1
    finally:
        os._exit(code)


def killed(folder: Path, kills: int, cells: int) -> dict[str, Any]:
    """What became of a store in that folder: the chunks done at each kill, and the calls of the device in all; how the
    last two processes ended, which went on at once; whether it is, bit for bit, the store of one process."""
    store, calls = folder / "killed.zarr", folder / "calls"
    shares = []
    for _ in range(kills):
        process = start(store, cells, calls)
        _wait_for_calls(calls, random.randint(1, 10), patience=random.choice([60.0, random.uniform(0, STARTING)]))
        time.sleep(random.uniform(0.0, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        shares.append((store / "done").read_bytes().count(b"\n") if (store / "done").exists() else 0)
    both = [start(store, cells, calls) for _ in range(2)]
    ends = sorted(_end(process) for process in both)
    whole = [_end(start(folder / "whole.zarr", cells, folder / "other")), _end(start(store, cells, calls))]
    same = not any(whole) and contents(store) == contents(folder / "whole.zarr")
    return {"ends": ends, "calls": calls.stat().st_size, "done": shares, "same": same}


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
    files = (file for file in store.rglob("*") if file.is_file() and file.name not in ("lock", "owner"))
    return {str(file.relative_to(store)): file.read_bytes() for file in files if file != store / "zarr.json"}


def main(kills: int = 100, cells: int = 400) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(killed(Path(folder), kills, cells) | {"chunks": 2 * cells}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
