"""Loop tiling: every step and every cell once, in the order of a plain loop."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

import gradsim as gs
from gradsim import chunks, statistics
from gradsim.chain import Source, network_keys
from gradsim.plan import Plan
from gradsim.propagation import Cells, forward
from gradsim.tiling import Tiling, joined


@settings(deadline=None)
@given(first=st.integers(0, 20), count=st.integers(1, 500), steps=st.integers(1, 60), to_end=st.booleans())
def test_segments_hold_every_step_once_and_few_others(first: int, count: int, steps: int, to_end: bool) -> None:
    segments = np.asarray(Tiling(1, steps).segments(first, count, to_end=to_end))
    assert segments.shape[1] <= steps
    assert 0 <= segments.size - count < len(segments)
    wanted = segments.ravel()[-count:] if to_end else segments.ravel()[:count]
    np.testing.assert_array_equal(wanted, np.arange(first, first + count))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("block", "steps"), [(6, 8), (2, 8), (3, 3), (1, 1)])
def test_a_walk_is_a_scan_for_each_cell(block: int, steps: int, reverse: bool) -> None:
    """From x = 1 + cell, x' = (x cell + draw(t)) mod 1009, in whole numbers: the order of steps cannot be mistaken."""
    tiling, cells, count = Tiling(block, steps), np.arange(2, 8), 8
    numbers = tiling.segments(0, count, to_end=reverse)

    def body(cell: Array, x: Array, given: tuple[Array, Any, None]) -> tuple[Array, Array]:
        t, drawn, _ = given
        new = jnp.where((t >= 0) & (t < count), (x * cell + drawn) % 1009, x)
        return new, new

    def draw(t: Array) -> Any:
        return t * t + 1

    start = jnp.ones(6, int)
    last, ys = tiling.walk(body, jnp.asarray(cells), jnp.add, start, draw, numbers, reverse=reverse)
    expected, order = np.empty((6, count), int), range(count)[:: -1 if reverse else 1]
    x = 1 + cells
    for t in order:
        expected[:, t] = x = (x * cells + t * t + 1) % 1009
    np.testing.assert_array_equal(last, x)
    measured = np.asarray(joined(ys))
    np.testing.assert_array_equal(measured[:, -count:] if reverse else measured[:, :count], expected)


@settings(deadline=None)
@given(cells=st.integers(1, 3000), seeds=st.integers(1, 300), width=st.sampled_from([1, 8, 64, 300]))
def test_a_chunk_holds_whole_blocks_and_little_beyond_the_grid(cells: int, seeds: int, width: int) -> None:
    plan = Plan(gs.feedforward(width), statistics.get("log_gain"), 10, (10,), 0, "float32", "forward")
    chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds)
    assert chunk.cells % chunk.tiling.cells == 0
    for total, part in ((cells, chunk.cells), (seeds, chunk.seeds)):
        done = -(-total // part) * part
        assert total <= done <= (1.12 if total > 200 else 16 / 9) * total  # blocks of cells, and chunks of blocks
    assert 1 <= chunk.tiling.steps <= 10
    assert chunks.plan_chunk(replace(plan, depth=5000), cells=cells, seeds=seeds).tiling.steps <= chunks.SEGMENT_STEPS
    pairs = chunks.plan_chunk(replace(plan, pairs=True), cells=1, seeds=1)
    assert pairs.tiling.cells == 10  # the starts of a cell stay together


def test_a_call_holds_the_tangents_of_its_grid_once_at_any_depth() -> None:
    """In 16 blocks and 2 segments or 128: beside the tangents only blocks, and the numbers that come out."""
    network, cells, width = gs.feedforward(32), 64, 32
    gains = {name: jnp.ones(cells) for name in network.gains}

    def memory(depth: int) -> Any:
        def measured(key: Array) -> Any:
            source = Source(network, network_keys(key, 0), None, "float32")
            return forward(source, Cells(gains), statistics.get("log_gain"), depth=depth, tiling=Tiling(4, 8))

        return jax.jit(measured).lower(jax.random.key(0)).compile().memory_analysis()

    shallow, deep = memory(16), memory(1024)
    tangents = cells * width * width * 4
    assert tangents < shallow.temp_size_in_bytes < 2 * tangents
    assert deep.temp_size_in_bytes - shallow.temp_size_in_bytes <= deep.output_size_in_bytes


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
