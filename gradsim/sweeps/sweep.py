"""Sweeps: a grid of gains, times seeds, times depth, measured exactly and returned as one Dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from tqdm import tqdm

from gradsim import arguments
from gradsim.engine import statistics as statistics_module
from gradsim.engine.backward import backward
from gradsim.engine.chain import Keys, Source, network_keys
from gradsim.engine.forward import Cells, forward
from gradsim.engine.tiling import Tiling
from gradsim.networks.network import Network, State
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks, dataset, plan
from gradsim.sweeps.plan import Plan

if TYPE_CHECKING:
    import xarray

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
    options: dict[str, Any] = {"depth": plan.depth, "at": plan.at, "burn_in": plan.burn_in, "tiling": tiling}

    def one(keys: Keys, inputs: Array | None) -> dict[str, Scaled]:
        source = Source(plan.network, keys, inputs, plan.dtype)
        if plan.direction == "backward":
            return backward(source, Cells(gains), plan.statistics, loss=plan.loss, cotangent=cotangent, **options)
        if plan.pairs:
            return _pairs(source, gains, plan, options)
        return forward(source, Cells(gains), plan.statistics, **options)

    return jax.vmap(one, in_axes=(0, None if inputs is None else 0))(keys, inputs)


def _pairs(source: Source, gains: dict[str, Array], plan: Plan, options: dict[str, Any]) -> dict[str, Scaled]:
    """The product from every start, leaves [cells, starts, …]: each is a cell of its own to the engine."""
    every = {name: jnp.repeat(values, plan.depth) for name, values in gains.items()}
    cells = next(iter(gains.values())).size
    start = jnp.tile(jnp.arange(plan.depth, dtype=jnp.int32), cells)
    measured = forward(source, Cells(every, start), plan.statistics, **options)
    return jax.tree.map(lambda leaf: leaf.reshape(cells, plan.depth, *leaf.shape[1:]), measured)


def sweep(
    network: Network | Mapping[str, Network],
    *,
    depth: int,
    seeds: int,
    key: int = 0,
    direction: str = "forward",
    statistics: str | Sequence[str] = ("log_gain",),
    at: int | Sequence[int] | None = None,
    burn_in: int = 0,
    inputs: ArrayLike | None = None,
    loss: Callable[[State], Array] | None = None,
    cotangent: State | None = None,
    dtype: str = "float32",
    progress: bool | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """Measure random networks over a grid of gains, many seeds, and every depth up to `depth`.

    Each network draws its weights from (key, seed, step) alone: cells of the grid share a draw, so maps
    are smooth, and a longer sweep extends a shorter one. Seeds are the independent axis: take
    error bars from them.

    Args:
        network: one network, or a mapping of names to networks, which adds a leading axis `network`.
        depth: the number of steps L; every l = 1 … L is measured.
        seeds: the number of independent networks in each cell.
        key: the whole number from which all randomness derives.
        direction: "forward" measures the prefixes J_l … J_1 at every l; "backward" the suffixes
            J_L … J_l, which is what the gradient meets on its way back through step l.
        statistics: names out of `gradsim.STATISTICS`.
        at: the depths at which costly statistics (log_spectral) are taken, by default the whole product's;
            elsewhere they are NaN.
        burn_in: steps taken before the product starts, to let the length settle.
        inputs: real data [samples, *input_shape], or [samples, time, *input_shape] for recurrent networks;
            seed i takes sample i modulo samples. Gaussian of unit variance if not given.
        loss: backward only, a scalar function of the final state; or
        cotangent: backward only, the gradient with respect to the final state. By default a random unit vector.
        dtype: "float32" or "float64"; matrix products run at the highest precision in both.
        progress: show a bar on stderr; by default only in a terminal.
        **gains: numbers, or 1-d arrays which become axes in the order given: sigma_w, sigma_b, …

    Returns: a Dataset with dimensions (network,) gains…, seed, depth (or time), in nats where logarithmic.
        `dead` flags networks whose product is exactly zero; there the logarithms are NaN.
    Raises: ValueError or TypeError before anything is compiled, naming the argument.
    """
    networks = plan.networks(network)
    dtype = arguments.choice("dtype", dtype, ("float32", "float64"))
    direction = arguments.choice("direction", direction, ("forward", "backward"))
    depth = arguments.whole("depth", depth)
    if direction == "forward" and (loss is not None or cotangent is not None):
        raise ValueError("loss, cotangent: these start a gradient; pass direction='backward' with them")
    template = Plan(
        network=next(iter(networks.values())),
        statistics=statistics_module.get(statistics, direction),
        depth=depth,
        at=plan.depths(at, depth, direction),
        burn_in=arguments.whole("burn_in", burn_in, minimum=0),
        dtype=dtype,
        direction=direction,
        loss=loss,
    )
    return run(
        networks, template, gains, seeds=seeds, key=key, inputs=inputs, cotangent=cotangent, progress=progress,
        named=isinstance(network, Mapping),
    )  # fmt: skip


def partial_products(
    network: Network | Mapping[str, Network],
    *,
    depth: int,
    seeds: int,
    key: int = 0,
    inputs: ArrayLike | None = None,
    dtype: str = "float32",
    progress: bool | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """Measure the log gain between every pair of steps: ½ ln(‖J_l … J_{k+1}‖_F²/n) for 0 ≤ k < l ≤ depth.

    Arguments are those of `sweep`. All depth² products are carried at once, which takes depth times the
    memory and the arithmetic of one sweep.

    Returns: a Dataset with dimensions (network,) gains…, seed, start = k, depth = l (or time); NaN for l ≤ k.
    Source: the partial Jacobian norms of Doshi, He and Gromov 2023, here exact.
    """
    networks = plan.networks(network)
    template = Plan(
        network=next(iter(networks.values())),
        statistics=statistics_module.get("log_gain"),
        depth=arguments.whole("depth", depth),
        at=(),
        burn_in=0,
        dtype=arguments.choice("dtype", dtype, ("float32", "float64")),
        direction="forward",
        pairs=True,
    )
    return run(
        networks, template, gains, seeds=seeds, key=key, inputs=inputs, progress=progress,
        named=isinstance(network, Mapping),
    )  # fmt: skip


def run(
    networks: Mapping[str, Network],
    template: Plan,
    gains: Mapping[str, Any],
    *,
    seeds: int,
    key: int,
    inputs: ArrayLike | None = None,
    cotangent: State | None = None,
    progress: bool | None = None,
    named: bool = False,
) -> xarray.Dataset:
    """Check what is left to check, measure each network as the template plans it, and label the arrays."""
    seeds, key = arguments.whole("seeds", seeds), arguments.key(key)
    jobs = []
    for network in networks.values():
        one = replace(template, network=network)
        axes = plan.gain_axes(network, gains)
        plan.statistics(one)
        plan.loss(one)
        jobs.append((one, plan.cells(one, axes), plan.inputs(one, inputs), plan.cotangent(one, cotangent)))
    total = seeds * sum(next(iter(cells.values())).size for _, cells, *_ in jobs)
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with tqdm(total=total, unit="cell", disable=hidden) as bar, jax.enable_x64(template.dtype == "float64"):
        for one, cells, *_ in jobs:  # a network that cannot fit is refused before another is measured
            chunks.plan_chunk(one, cells=next(iter(cells.values())).size, seeds=seeds)
        measured = [measure_cells(*job, key=key, seeds=seeds, bar=bar) for job in jobs]
    given = "gaussian" if inputs is None else f"given, {np.shape(inputs)[0]} samples"
    shape = [axis.size for axis in axes.values() if axis.ndim]
    arrays = [{name: array.reshape(*shape, *array.shape[1:]) for name, array in one.items()} for one in measured]
    return dataset.build(networks, axes, template, arrays, {"key": key, "inputs": given}, named=named)


def measure_cells(
    plan: Plan,
    gains: dict[str, np.ndarray],
    inputs: np.ndarray | None,
    cotangent: State | None,
    *,
    key: int,
    seeds: int,
    bar: tqdm,
) -> dict[str, np.ndarray]:
    """All cells and seeds of one network, chunk by chunk: arrays [cells, seeds, …]."""
    cells = next(iter(gains.values())).size
    chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds)
    results: dict[str, np.ndarray] = {}
    root = jax.random.key(key)
    for seed_slice in chunks.slices(seeds, chunk.seeds):
        keys = _network_keys(root, seed_slice.astype(np.int32))
        data = None if inputs is None else inputs[seed_slice % len(inputs)]
        for cell_slice in chunks.slices(cells, chunk.cells):
            some_gains = {name: values[cell_slice] for name, values in gains.items()}
            with jax.default_matmul_precision("highest"):  # GPUs round to TF32 by default
                measured = _measure(plan, chunk.tiling, some_gains, keys, data, cotangent)
            chunks.release_compiler_memory(plan, chunk)
            for statistic in plan.statistics:
                _store(results, statistic, measured.pop(statistic.name), (cells, seeds), cell_slice, seed_slice)
            bar.update(np.unique(cell_slice).size * np.unique(seed_slice).size)
    return results


def _store(
    results: dict[str, np.ndarray],
    statistic: statistics_module.Statistic,
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
