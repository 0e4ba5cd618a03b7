"""How many networks go through the device at once: sized to the memory at hand before anything runs."""

import ctypes
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import psutil

from gradsim.engine.columns import may_be_shared
from gradsim.engine.plan import Plan
from gradsim.engine.streams import extent, observed_size, paired
from gradsim.engine.tiling import SEGMENT_BYTES, SEGMENT_STEPS, Tiling, draw_bytes, step_bytes
from gradsim.sweeps.machine import at_hand

# Tangents before and after the matrix product, their slopes' product, and the scan's double buffer.
COPIES = 4
# On a CPU the tangents of a block stay in the cache of its cores, and those of a chunk near it.
BLOCK_BYTES = 4 * 2**20
CPU_BYTES = 128 * 2**20
# Where those of one cell are more than TANGENT_BYTES, so many take a step at once as these bytes hold: what lies within
# a step, some times wider, then stays near a core's cache. (Smaller tiles, and blocks that count what gates make, are
# faster where one core works alone, and slower where two do.)
TANGENT_BYTES, TILE_BYTES = 2 * 2**20, 2 * 2**20
# A product of this many rows runs at the full rate: more seeds in a chunk only make it a batched one.
CPU_ROWS = 1024
# In products' operations: a number drawn, a step's work on an entry of a tangent, that on a weight for the state alone.
DRAWN, ENTRY, SINGLE = 400.0, 30.0, 10.0
# The same, in n³: a step's QR and triangle of n × n, and all singular values where they are taken.
TRIANGLE, ROTATIONS = 80.0, 3000.0
# Operations that may be wasted to spare another compilation: some thousandths of its time.
SPARE = 3e8
Effort = Literal["default", "level 1", "brief"]  # see effort.py


class Chunk(NamedTuple):
    """Networks of one call: cells share a seed's draw, so cells come first, then seeds."""

    cells: int
    seeds: int
    tiling: Tiling
    devices: int = 1  # that take it together, each some of the tangent columns
    effort: Effort = "level 1"  # of the compiler, on a CPU


def memory_at_hand() -> int:
    """Bytes that each device can still give."""
    return at_hand().free_memory()


def allowed() -> int:
    """Bytes of each device that are planned with."""
    free, most = memory_at_hand() // 2, at_hand().max_memory
    return free if most is None else min(free, most)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class Needs(NamedTuple):
    """Predicted bytes of one cell at its peak, of its tangents, of one step's draw, of all inputs; rows; operations.

    Rows are those of a cell in a product. Operations are worth one of a matrix product: those of a step of one cell,
    of its state alone, and of its draw. `products` are those of the step's matrix products themselves.
    """

    cell: int
    tangents: int
    draw: int
    inputs: int
    rows: int
    step: float
    state: float
    drawing: float
    products: float


@lru_cache(maxsize=256)
def predicted(plan: Plan, devices: int = 1) -> Needs:
    """What one cell of this plan needs of each of the devices that share its tangent columns."""
    network = plan.network
    if paired(network):
        one = predicted(replace(plan, network=network.alone), devices)  # the chains take a step one after the other
        twice = {name: 2 * getattr(one, name) for name in ("cell", "inputs", "step", "state")}
        return one._replace(**twice)
    state = plan.state_shape()
    leaves = jax.tree.leaves(state)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    needs = {need for statistic in plan.statistics for need in statistic.needs}
    draw = draw_bytes(network, plan.dtype)
    spectrum = "spectrum" in needs
    beside = 2 * ("rounded" in needs)  # the rounded chain's vector, and its state
    rows = ("all" in needs) * -(-size // devices) + ("one" in needs) + beside + spectrum * 2 * size
    rows *= plan.depth if plan.pairs else 1
    decomposed = any(statistic.costly for statistic in plan.statistics)
    states = plan.depth * (1 + beside // 2) if plan.direction == "backward" else 0
    outputs = 8 * plan.depth * _numbers(plan) * (plan.depth if plan.pairs else 1)
    cell = ((COPIES + 2 * decomposed) * (rows + 1) + states) * _bytes(state) + outputs
    cell += COPIES * ("weights" in needs) * draw
    weights = draw / np.dtype(plan.dtype).itemsize
    met = weights * max(math.prod(leaf.shape[:-1]) for leaf in leaves)  # positions of a state share the weights
    single, back = SINGLE * met, 2 if plan.direction == "backward" else 1
    if network.driven:  # tangents do not meet the weights of the inputs
        width = leaves[0].shape[-1]
        met *= width / (width + network.input_shape[-1])
    products = 2 * rows * met
    step = products + back * (rows * size * ENTRY + single)
    step += spectrum * size**3 * (TRIANGLE + ROTATIONS * len(plan.at) / plan.depth)
    ahead = extent(network, plan.steps, given=False)
    inputs = 2 * 4 * ahead.steps * math.prod(ahead.shape or (0,))  # while they are made
    return Needs(cell, max(1, rows) * _bytes(state), draw, inputs, rows, step, single, back * weights * DRAWN, products)


def _numbers(plan: Plan) -> int:
    """Those of a result at one depth."""
    return sum(math.prod(one.shape(plan.network)) for one in plan.statistics)


def check_result(plan: Plan, axes: Mapping[str, np.ndarray], *, networks: int, seeds: int) -> None:
    """A result that the memory cannot hold is refused.

    Raises: ValueError naming the longest of its axes.
    """
    sizes = {**{name: axis.size for name, axis in axes.items() if axis.ndim}, "seeds": seeds, "depth": plan.depth}
    values = networks * math.prod(sizes.values()) * (plan.depth if plan.pairs else 1)
    numbers = _numbers(plan)
    needed, available = values * (8 * numbers + 1), int(psutil.virtual_memory().available)
    if needed > available:
        longest = max(sizes, key=sizes.__getitem__)
        counted = " x ".join(f"{size} {name}" for name, size in sizes.items())
        raise ValueError(
            f"{longest}: the result of {counted} needs {needed / 2**30:.3g} GiB and {available / 2**30:.3g} GiB are "
            f"free; pass about {max(1, int(sizes[longest] * available / needed))} and sweep the rest apart"
        )


def plan_chunk(plan: Plan, *, cells: int, seeds: int) -> Chunk:
    """The chunk for this sweep, such that each device has one where there are networks enough.

    Raises: ValueError where one network alone does not fit, with what would.
    """
    shared = sharing(plan, cells=cells, seeds=seeds)
    cell, tangents, one_draw, inputs, rows, *_ = predicted(plan, shared)
    draw = 2 * one_draw + inputs  # while it is made
    machine, beside = at_hand(), side_by_side(plan, cells=cells, seeds=seeds)
    available = allowed() // beside
    if cell + draw > available:
        fits = math.sqrt(available / (cell + draw))
        raise ValueError(
            f"width: one {plan.network.family} network with these statistics needs {(cell + draw) / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB may be used; a state about {fits:.2g} times as wide fits"
            + (", or a statistic of one vector (log_jvp, log_gradient) in place of all tangents" if rows > 1 else "")
            + ("" if machine.max_memory is None else ", or pass a larger max_memory")
            + ("" if may_be_shared(plan.statistics) else "; several devices share log_gain alone of all tangents")
        )
    places = len(machine.devices) * beside if shared == 1 else 1
    apart = min(places, seeds)  # seeds go to different devices, and cells where seeds are few
    cells, seeds = math.ceil(cells / (places // apart)), math.ceil(seeds / apart)
    on_cpu = machine.platform == "cpu"
    budget = min(available, CPU_BYTES) if on_cpu else available
    fit = max(1, (budget - draw) // cell)
    block = _part(cells, min(fit, max(1, BLOCK_BYTES // tangents)) if on_cpu else fit)
    blocks = _part(math.ceil(cells / block), fit // block)
    room = max(1, budget // (blocks * block * cell + draw))
    if on_cpu:
        room = min(room, math.ceil(CPU_ROWS / max(1, blocks * block * rows)))
    room = _part(seeds, room) if room < seeds else min(room, _rounded(seeds, operations(plan, blocks * block, shared)))
    segment = min(SEGMENT_BYTES, budget // 16)  # some times as much while it is drawn
    steps = min(plan.depth, max(1, segment // (room * step_bytes(plan.network, plan.dtype))))
    if plan.direction == "forward":  # backwards the weights of several segments are drawn twice
        steps = min(steps, SEGMENT_STEPS)
    tile = _tile(plan) if on_cpu else 0
    return Chunk(blocks * block, room, Tiling(block * (plan.depth if plan.pairs else 1), steps, tile), shared)


def side_by_side(plan: Plan, *, cells: int, seeds: int) -> int:
    """How many threads of a CPU measure a part of these networks each, for what is no product is done by one core.

    One takes them all where a part is soon done.
    """
    threads = at_hand().threads
    return threads if seeds * operations(plan, cells) > SPARE * threads else 1


def sharing(plan: Plan, *, cells: int, seeds: int) -> int:
    """How many devices take each chunk together, each with some of the tangent columns; 1 where each has its own.

    All do where a network is too large for one of them, or where there are fewer networks than devices and it is
    sooner done: states and draws are made on each.
    """
    count = len(at_hand().devices)
    shared = min(count, observed_size(plan.network))
    if shared == 1 or not may_be_shared(plan.statistics):
        return 1
    whole = predicted(plan)
    too_large = whole.cell + 2 * whole.draw + whole.inputs > allowed()
    sooner = cells * seeds < count and seeds * operations(plan, cells, shared) < operations(plan, 1)
    return shared if too_large or sooner else 1


def _tile(plan: Plan) -> int:
    """How many tangents of a product take a step at once, a divisor of all; 0 where all do.

    Of states whose rows share the weights, tokens or a batch: few tangents are then rows enough for a matrix product.
    """
    network, state = plan.network, plan.state_shape()
    count, each = observed_size(network), _bytes(state)
    if count * each <= TANGENT_BYTES or not network.state_axes:
        return 0
    return max(size for size in range(1, max(1, TILE_BYTES // each) + 1) if count % size == 0)


def padded(plan: Plan, *, cells: int, seeds: int) -> Plan:
    """The plan with some more steps where that costs little, so that other depths run the same program.

    Nothing but the steps beyond depends on them: forwards, where no branch is scaled by the depth.
    """
    if plan.direction == "backward" or plan.pairs or getattr(plan.network.alone, "layers", None) is not None:
        return plan
    needs = predicted(plan)
    step = seeds * (cells * needs.step + needs.drawing)
    # XLA makes no loop of a single step, and its last digits would be others than those of the first of several.
    least = 2 if step <= SPARE else 1
    return deepened(plan, _rounded(max(plan.depth, least), step))


def deepened(plan: Plan, steps: int) -> Plan:
    """The plan with so many steps, where `padded` may add some."""
    if plan.direction == "backward" or plan.pairs or getattr(plan.network, "layers", None) is not None:
        return plan
    return replace(plan, depth=steps, at=plan.at if any(one.costly for one in plan.statistics) else ())


def operations(plan: Plan, cells: int, devices: int = 1) -> float:
    """About how many operations of each device one seed of so many cells takes, whose weights are drawn once."""
    needs = predicted(plan, devices)
    return plan.depth * (cells * needs.step + needs.drawing) + plan.burn_in * (cells * needs.state + needs.drawing)


def _rounded(count: int, operations: float) -> int:
    """`count` rounded up to a multiple of the largest power of two for which what is added takes few operations."""
    powers = (2**k for k in reversed(range((count - 1).bit_length() + 1)))
    return next(up for up in (-(-count // power) * power for power in powers) if (up - count) * operations <= SPARE)


@lru_cache(maxsize=256)
def release_compiler_memory(plan: Plan, chunk: Chunk) -> None:
    """Give the system back what compiling this program took and freed, once; glibc would keep some 100 MiB of it."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library, which keeps less
            ctypes.CDLL(None).malloc_trim(0)


def _part(total: int, most: int) -> int:
    """The size of at most `most` in whose parts `total` is done soonest: few parts, and little beyond the total."""
    most = min(total, most)
    return min(range(most, most // 2, -1), key=lambda size: math.ceil(total / size) * (size + most / 16))


def slices(total: int, chunk: int) -> list[np.ndarray]:
    """Indices of each chunk; the last is padded by repeating its last index, to keep one compilation."""
    return [np.minimum(np.arange(start, start + chunk), total - 1) for start in range(0, total, chunk)]
