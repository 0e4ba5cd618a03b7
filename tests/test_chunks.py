"""Chunks of a sweep: sized to the machine, and without an effect on any number."""

import importlib
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

import gradsim as gs
from gradsim.engine import statistics
from gradsim.engine.plan import Plan
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks
from gradsim.sweeps.machine import used

WIDTH = 6
NETWORK, RECURRENT = gs.feedforward(WIDTH, "tanh"), gs.vanilla_rnn(WIDTH)
FEW: dict[str, Any] = {"sigma_w": [0.5, 1.0, 2.0], "seeds": 4}


def sweep(network: Any = NETWORK, **options: Any) -> xarray.Dataset:
    return gs.sweep(network, **{"depth": 4, "seeds": 3, **options})


@settings(deadline=None)
@given(cells=st.integers(1, 3000), seeds=st.integers(1, 300), width=st.sampled_from([1, 8, 64, 300]))
def test_a_chunk_holds_whole_blocks_and_little_beyond_the_grid(cells: int, seeds: int, width: int) -> None:
    plan = Plan(gs.feedforward(width), statistics.get("log_gain"), 10, (10,), 0, "float32", "forward")
    chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds)
    assert chunk.cells % chunk.tiling.cells == 0
    few = chunks.SPARE / chunks.operations(plan, chunk.cells)  # seeds more, so that other numbers share the program
    for total, part, spare in ((cells, chunk.cells, 0), (seeds, chunk.seeds, few)):
        done = -(-total // part) * part
        beyond = (0.12 if total > 200 else 7 / 9) * total  # of blocks of cells, and chunks of blocks
        assert total <= done <= total + max(beyond, spare)
    assert 1 <= chunk.tiling.steps <= 10
    assert chunks.plan_chunk(replace(plan, depth=5000), cells=cells, seeds=seeds).tiling.steps <= chunks.SEGMENT_STEPS
    pairs = chunks.plan_chunk(replace(plan, pairs=True), cells=1, seeds=1)
    assert pairs.tiling.cells == 10  # the starts of a cell stay together


def test_segments_are_short_forwards_and_long_where_they_would_be_drawn_twice() -> None:
    plan = Plan(gs.feedforward(8), statistics.get("log_gain"), 200, (200,), 0, "float32", "forward")
    assert chunks.plan_chunk(plan, cells=4, seeds=1).tiling.steps == chunks.SEGMENT_STEPS
    assert chunks.plan_chunk(replace(plan, direction="backward"), cells=4, seeds=1).tiling.steps == 200
    wide, tied = (replace(plan, network=gs.feedforward(512, tied=tied)) for tied in (False, True))
    assert chunks.plan_chunk(wide, cells=4, seeds=1).tiling.steps == 3
    assert chunks.plan_chunk(tied, cells=4, seeds=1).tiling.steps == chunks.SEGMENT_STEPS  # its weights are drawn once


def test_each_core_has_a_chunk_of_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the device is named, which then measures one at a time."""
    plan = Plan(gs.feedforward(64), statistics.get("log_gain"), 50, (50,), 0, "float32", "forward")
    monkeypatch.setattr("gradsim.sweeps.machine.cores", lambda: 4)
    monkeypatch.setattr(chunks, "CPU_ROWS", 10**6)
    assert [chunks.side_by_side(plan, cells=cells, seeds=8) for cells in (1, 64)] == [1, 4]
    assert chunks.plan_chunk(plan, cells=16, seeds=8)[:2] == (16, 2)
    few = chunks.plan_chunk(plan, cells=256, seeds=1)
    assert few.cells == 64
    with used(devices=1):
        assert chunks.side_by_side(plan, cells=64, seeds=8) == 1
        assert chunks.plan_chunk(plan, cells=16, seeds=8)[:2] == (16, 8)


def test_a_device_other_than_a_cpu_takes_the_grid_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are for a CPU's cache; a GPU is filled."""

    class Device:
        platform = "gpu"

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 2**36, "bytes_in_use": 0}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    plan = Plan(gs.feedforward(64), statistics.get("log_gain"), 10, (10,), 0, "float32", "forward")
    chunk = chunks.plan_chunk(plan, cells=1024, seeds=8)
    assert (chunk.cells, chunk.tiling.cells, chunk.seeds) == (1024, 1024, 8)


@cache
def in_one_piece(network: gs.Network, direction: str) -> tuple[dict[str, Any], xarray.Dataset]:
    """6 cells, 7 seeds and 7 steps: the options, and the sweep as it is planned for them."""
    options: dict[str, Any] = {"sigma_w": [0.5, 1.0, 2.0], "sigma_b": [0.0, 0.5], "seeds": 7, "depth": 7, "burn_in": 2}
    shape = (3, 9, WIDTH) if network.driven else (3, WIDTH)
    options |= {"inputs": np.random.default_rng(1).normal(size=shape), "direction": direction}
    options["statistics"] = ("log_gain", "length")
    return options, sweep(network, **options)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("network", "cells", "seeds", "block", "steps"),
    [(NETWORK, 1, 1, 1, 1), (NETWORK, 4, 5, 2, 3), (RECURRENT, 2, 3, 1, 5)],
)
def test_chunks_and_tiles_do_not_change_a_number(
    network: gs.Network, cells: int, seeds: int, block: int, steps: int, direction: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In parts that divide them or do not: every value keeps its place."""
    options, whole = in_one_piece(network, direction)
    used = []

    def planned(*_: Any, **__: Any) -> chunks.Chunk:
        used.append(True)
        return chunks.Chunk(cells, seeds, Tiling(block, steps))

    monkeypatch.setattr(chunks, "plan_chunk", planned)
    three_cells = 3 * seeds * whole.sizes["time" if network.driven else "depth"]
    monkeypatch.setattr(importlib.import_module("gradsim.sweeps.loop"), "PIECE", three_cells)
    parts = sweep(network, **options)
    assert used
    np.testing.assert_allclose(parts.log_gain, whole.log_gain, atol=1e-5)
    np.testing.assert_allclose(parts.length, whole.length, rtol=1e-5)


def test_little_memory_makes_small_chunks_and_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(**FEW)
    monkeypatch.setattr(chunks, "CPU_BYTES", 1)
    np.testing.assert_allclose(sweep(**FEW).log_gain, whole.log_gain, atol=1e-5)
    monkeypatch.undo()
    monkeypatch.setattr(chunks, "CPU_ROWS", 1)
    np.testing.assert_allclose(sweep(**FEW).log_gain, whole.log_gain, atol=1e-5)


def test_what_a_compiler_freed_is_given_back_once_for_each_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """By glibc's malloc_trim; where the C library has none a sweep goes on without it."""
    calls: list[int] = []

    class Library:
        malloc_trim = staticmethod(calls.append)

    forget = chunks.release_compiler_memory.cache_clear
    forget()
    monkeypatch.setattr(chunks.sys, "platform", "linux")
    monkeypatch.setattr(chunks.ctypes, "CDLL", lambda name: Library())
    for _ in range(2):
        sweep(**FEW)
    assert calls == [0]
    forget()
    monkeypatch.setattr(chunks.ctypes, "CDLL", lambda name: object())
    assert np.isfinite(sweep(**FEW).log_gain).all()
    forget()
    monkeypatch.setattr(chunks.sys, "platform", "win32")
    monkeypatch.delattr(chunks.ctypes, "CDLL")
    assert np.isfinite(sweep(**FEW).log_gain).all()


@given(total=st.integers(1, 5000), chunk=st.integers(1, 400))
def test_slices_cover_everything_in_equal_shapes(total: int, chunk: int) -> None:
    parts = chunks.slices(total, chunk)
    assert all(part.size == chunk for part in parts)  # one compilation
    np.testing.assert_array_equal(np.unique(np.concatenate(parts)), np.arange(total))
