"""Chunk by chunk through the engine: all cells and seeds of one network, as arrays on the host."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from gradsim.engine.chain import Ahead, Extent, ahead, extent, network_keys, power_above
from gradsim.engine.norms import norms
from gradsim.engine.plan import Plan
from gradsim.engine.statistic import Statistic
from gradsim.engine.tiling import Tiling
from gradsim.networks.network import State
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.progress import Part, Progress

PIECE = 2**17  # numbers that are finished at once


@partial(jax.jit, static_argnames="extent")
def _ahead(key: Array, seeds: Array, extent: Extent) -> Ahead:
    """`ahead` for every seed; keys as their data."""
    drawn = jax.vmap(lambda seed: ahead(network_keys(key, seed), extent))(seeds)
    return jax.tree.map(lambda leaf: random.key_data(leaf) if _are_keys(leaf) else leaf, drawn)


def _are_keys(array: Array) -> bool:
    return bool(jnp.issubdtype(array.dtype, jax.dtypes.prng_key))


def hashed_ahead(plan: Plan, key: int, seeds: np.ndarray, *, given: bool) -> Ahead:
    """What the seeds of these numbers hash ahead, by a program that few sizes of a power of two need anew."""
    padded = np.resize(seeds.astype(np.uint32), power_above(seeds.size, 8))
    drawn = _ahead(random.key(key), padded, extent(plan.network, plan.steps, given=given))
    if padded.size == seeds.size:
        return drawn
    return jax.tree.map(lambda array: np.asarray(array)[: seeds.size], drawn)


def _measure(
    plan: Plan,
    tiling: Tiling,
    gains: dict[str, Array],
    drawn: Ahead,
    inputs: Array | None,
    cotangent: State | None,
) -> dict[str, Scaled]:
    """Statistics of every seed and cell, leaves [seeds, cells, …]; the cells of a seed share its weights."""
    drawn = jax.tree.map(lambda leaf: random.wrap_key_data(leaf) if leaf.dtype == jnp.uint32 else leaf, drawn)
    one = partial(norms, plan, tiling)
    return jax.vmap(one, in_axes=(0, None, None if inputs is None else 0, None))(drawn, gains, inputs, cotangent)


# By level of optimization. LLVM's level 1 takes half the time to compile and gives the same numbers, to rounding where
# a row does not fill the machine's vectors (level 0 rounds differently, and runs at half the speed).
_MEASURE = {
    level: jax.jit(_measure, static_argnames=("plan", "tiling"), compiler_options=options)
    for level, options in {None: None, 1: chunks.LEVEL_1}.items()
}


def program(plan: Plan, chunk: chunks.Chunk, calls: int = 1) -> Any:
    """The jitted `_measure` for so many calls of it."""
    return _MEASURE[chunks.optimization_level(plan, chunk, calls)]


def measure_cells(
    plan: Plan,
    gains: dict[str, np.ndarray],
    inputs: np.ndarray | None,
    cotangent: State | None,
    *,
    key: int,
    seeds: np.ndarray,
    bar: Progress | Part,
) -> dict[str, np.ndarray]:
    """All cells, and the seeds of these numbers, of one network: arrays [cells, seeds, …]."""
    cells = next(iter(gains.values())).size
    depth, plan = plan.depth, chunks.padded(plan, cells=cells, seeds=seeds.size)
    chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds.size)
    results: dict[str, np.ndarray] = {}
    seed_slices, cell_slices = chunks.slices(seeds.size, chunk.seeds), chunks.slices(cells, chunk.cells)
    measure = program(plan, chunk, len(seed_slices) * len(cell_slices))
    bar.phase(f"compiling {plan.network.family}")  # which the first call does before it returns
    for seed_slice in seed_slices:
        numbers = seeds[seed_slice]
        drawn = hashed_ahead(plan, key, numbers, given=inputs is not None)
        data = None if inputs is None else inputs[numbers % len(inputs)]
        for cell_slice in cell_slices:
            some_gains = {name: values[cell_slice] for name, values in gains.items()}
            measured = measure(plan, chunk.tiling, some_gains, drawn, data, cotangent)
            bar.phase(f"measuring {plan.network.family}")
            chunks.release_compiler_memory(plan, chunk)
            for statistic in plan.statistics:
                value = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :, :depth], measured.pop(statistic.name))
                _store(results, statistic, value, (cells, seeds.size), cell_slice, seed_slice)
            bar.update(np.unique(cell_slice).size * np.unique(seed_slice).size)
    return results


def _store(
    results: dict[str, np.ndarray],
    statistic: Statistic,
    value: Scaled,
    shape: tuple[int, int],
    cells: np.ndarray,
    seeds: np.ndarray,
) -> None:
    """Finish what a chunk measured, leaves [seeds, cells, …], and put it into the result of that shape.

    Some cells at a time: the result may fill much of the memory, and finishing takes some of its own.
    """
    if statistic.name not in results:
        results[statistic.name] = np.empty((*shape, *value.mantissa.shape[2:]))
    few = max(1, PIECE * cells.size // value.mantissa.size)
    for start in range(0, cells.size, few):
        place = slice(start, start + few)
        part = Scaled(value.mantissa[:, place], value.exponent[:, place])
        results[statistic.name][np.ix_(cells[place], seeds)] = statistic.finish(part).swapaxes(0, 1)
