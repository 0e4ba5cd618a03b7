"""Loop tiling: every step and every cell once, in the order of a plain loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

import gradsim as gs
from gradsim.engine import products, statistics
from gradsim.engine.chain import Source
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.plan import planned
from gradsim.engine.streams import network_keys
from gradsim.engine.tiling import Tiling, draw_bytes, joined
from gradsim.sweeps import chunks


@settings(deadline=None, max_examples=25)
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


def test_a_call_holds_the_tangents_of_its_grid_once_at_any_depth() -> None:
    """In 16 blocks and 2 segments or 128: beside the tangents only blocks, and the numbers that come out."""
    network, cells, width = gs.feedforward(32), 64, 32
    gains = {name: jnp.ones(cells) for name in network.gains}

    def memory(depth: int) -> Any:
        def measured(key: Array) -> Any:
            source = Source.of(network, network_keys(key, 0), None, "float32", depth)
            return forward(source, Cells(gains), Task(statistics.get("log_gain"), depth, Tiling(4, 8)))

        return jax.jit(measured).lower(jax.random.key(0)).compile().memory_analysis()

    shallow, deep = memory(16), memory(1024)
    tangents = cells * width * width * 4
    assert tangents < shallow.temp_size_in_bytes < 2 * tangents
    assert deep.temp_size_in_bytes - shallow.temp_size_in_bytes <= deep.output_size_in_bytes


@pytest.mark.parametrize("transposed", [False, True])
def test_tangents_that_go_a_tile_after_the_other_are_those_that_go_at_once(transposed: bool) -> None:
    rng = np.random.default_rng(0)
    matrix, rows = (jnp.asarray(rng.normal(size=size).astype(np.float32)) for size in ((5, 5), (12, 5)))

    def push(tile: int) -> Any:
        return products.push(products.start(rows), lambda row: row @ matrix, tile=tile, transposed=transposed)

    for one, other in zip(push(4), push(0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_tangents_are_cut_into_equal_parts_where_those_of_one_cell_are_many() -> None:
    def tile(network: gs.Network) -> int:
        return chunks._tile(planned(network, depth=2, statistics="log_gain"))

    assert tile(gs.transformer(128, 4, 8)) == 512  # of 1,024, each of 4 KiB
    assert tile(gs.transformer(120, 4, 7)) == 420  # a divisor of 840
    assert tile(gs.batchnorm(128, 8)) == 512
    assert tile(gs.transformer(32, 4, 8)) == 0
    assert tile(gs.feedforward(1024)) == 0


def test_bytes_of_a_draw_are_those_of_its_dtype_wherever_they_are_first_asked_for() -> None:
    network = gs.feedforward(7)
    assert draw_bytes(network, "float64") == 2 * draw_bytes(network, "float32") == 8 * (7 * 7 + 7)
    with jax.enable_x64(True):
        assert draw_bytes(network, "float32") == 4 * (7 * 7 + 7)
