"""Chunk by chunk through the engine: all cells and seeds of one network, as arrays on the host."""

from functools import partial

import jax
import numpy as np
from jax import Array

from gradsim.engine.chain import Keys, network_keys
from gradsim.engine.norms import norms
from gradsim.engine.plan import Plan
from gradsim.engine.statistics import Statistic
from gradsim.engine.tiling import Tiling
from gradsim.networks.network import State
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.progress import Part, Progress

PIECE = 2**17  # numbers that are finished at once

# A program of its own: compiled once, not with every network.
_network_keys = jax.jit(jax.vmap(network_keys, in_axes=(None, 0)))


@partial(jax.jit, static_argnames=("plan", "tiling"))
def _measure(
    plan: Plan,
    tiling: Tiling,
    gains: dict[str, Array],
    keys: Keys,
    inputs: Array | None,
    cotangent: State | None,
) -> dict[str, Scaled]:
    """Statistics of every seed and cell, leaves [seeds, cells, …]; the cells of a seed share its weights."""
    one = partial(norms, plan, tiling)
    return jax.vmap(one, in_axes=(0, None, None if inputs is None else 0, None))(keys, gains, inputs, cotangent)


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
    chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds.size)
    results: dict[str, np.ndarray] = {}
    root = jax.random.key(key)
    bar.phase(f"compiling {plan.network.family}")  # which the first call does before it returns
    for seed_slice in chunks.slices(seeds.size, chunk.seeds):
        numbers = seeds[seed_slice]
        keys = _network_keys(root, numbers.astype(np.uint32))
        data = None if inputs is None else inputs[numbers % len(inputs)]
        for cell_slice in chunks.slices(cells, chunk.cells):
            some_gains = {name: values[cell_slice] for name, values in gains.items()}
            measured = _measure(plan, chunk.tiling, some_gains, keys, data, cotangent)
            bar.phase(f"measuring {plan.network.family}")
            chunks.release_compiler_memory(plan, chunk)
            for statistic in plan.statistics:
                _store(results, statistic, measured.pop(statistic.name), (cells, seeds.size), cell_slice, seed_slice)
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
    value = jax.tree.map(np.asarray, value)
    if statistic.name not in results:
        results[statistic.name] = np.empty((*shape, *value.mantissa.shape[2:]))
    few = max(1, PIECE * cells.size // value.mantissa.size)
    for start in range(0, cells.size, few):
        place = slice(start, start + few)
        part = Scaled(value.mantissa[:, place], value.exponent[:, place])
        results[statistic.name][np.ix_(cells[place], seeds)] = statistic.finish(part).swapaxes(0, 1)
