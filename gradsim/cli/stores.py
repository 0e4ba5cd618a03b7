"""What a store costs: opened and gone on with where its chunks are many, and beside a sweep without one."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import xarray

import gradsim as gs
from gradsim.cli import matmul_rate
from gradsim.cli.timing import medians, timed
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, loop

CHUNKS, SEEDS, CELLS = 10_000, 4, 2  # chunks in all, and the cells of one
Sweep = partial[xarray.Dataset]


def filled(path: Path, count: int) -> Sweep:
    """The sweep of a store of so many chunks, all but the last of which are done: copies of one that is measured."""
    axis = np.linspace(0.5, 2, CELLS * count // SEEDS)
    call = partial(gs.sweep, gs.feedforward(6), depth=4, progress=False)
    whole: Sweep = partial(call, seeds=SEEDS, sigma_w=axis, store=path)
    with patch.object(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(CELLS, 1, Tiling(CELLS, 4))):
        with suppress(KeyboardInterrupt), patch.object(loop, "program", side_effect=KeyboardInterrupt):
            whole()  # lays it out
        with tempfile.TemporaryDirectory() as folder:
            call(seeds=1, sigma_w=axis[:CELLS], store=folder)
            data = (Path(folder) / "part0" / "log_gain" / "c.0.0.0").read_bytes()
            line = (Path(folder) / "done").read_text()
    for chunk in range(count - 1):
        seed, cell = divmod(chunk, count // SEEDS)
        (path / "part0" / "log_gain" / f"c.{cell}.{seed}.0").write_bytes(data)
    (path / "done").write_text("".join(line.replace("[0,0,", f"[0,{chunk},") for chunk in range(count - 1)))
    return whole


def fresh(folder: Path, call: Callable[..., Any]) -> Callable[[], Any]:
    """The call with a new store each time, and none of those before left."""
    numbers = itertools.count()

    def measured() -> Any:
        for old in folder.iterdir():
            shutil.rmtree(old)
        return call(store=folder / f"{next(numbers)}.zarr")

    return measured


def costs(repeats: int) -> dict[str, Any]:
    """Seconds to open a store of many chunks and to end it; a sweep with a store over one without, and its chunks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fresh").mkdir()
        call = filled(folder / "many", CHUNKS)
        journal = folder / "many" / "done"
        marks = journal.read_text()

        def resumed() -> Any:
            journal.write_text(marks)
            return call()

        many = {"open": lambda: gs.open(folder / "many").attrs["done"], "resume": resumed}
        found: dict[str, Any] = {"chunks": CHUNKS, "seconds": medians(timed(many, repeats), "open")[0]}
        sizes: dict[str, Any] = {"network": gs.feedforward(128), "cells": 256, "depth": 100, "seeds": 16}
        sweeps = {
            "without": matmul_rate.sweeping(**sizes),
            "with": fresh(folder / "fresh", lambda store: matmul_rate.sweeping(**sizes, store=store)()),
        }
        found["ratio"] = medians(timed(sweeps, repeats), "without")[1]["with"]
    for name, seconds in found["seconds"].items():
        print(f"{name:6s} a store of {CHUNKS:,} chunks: {seconds:.2f} s")
    print(f"a sweep with a store takes {found['ratio']:.3f} times as long as one without")
    return found
