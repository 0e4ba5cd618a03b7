"""Chunk by chunk through the engine: all cells and seeds of one network, as arrays on the host."""

import time
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache, partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.sharding import Mesh, PartitionSpec

from gradsim.engine.norms import norms
from gradsim.engine.plan import Plan
from gradsim.engine.products import Share
from gradsim.engine.statistic import Statistic
from gradsim.engine.streams import Ahead
from gradsim.engine.tiling import Tiling
from gradsim.networks.network import State
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.calls import Calls
from gradsim.sweeps.course import Course, Place, course, result_shape
from gradsim.sweeps.effort import OPTIONS
from gradsim.sweeps.hashed import hashed_ahead
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.progress import Part, Progress

PIECE = 2**17  # numbers that are finished at once


def _measure(
    plan: Plan,
    tiling: Tiling,
    gains: dict[str, Array],
    drawn: Ahead,
    inputs: Array | None,
    cotangent: State | None,
    share: Share | None = None,
) -> dict[str, Scaled]:
    """Statistics of every seed and cell, leaves [seeds, cells, …]; the cells of a seed share its weights."""
    drawn = jax.tree.map(lambda leaf: random.wrap_key_data(leaf) if leaf.dtype == jnp.uint32 else leaf, drawn)
    one = partial(norms, plan, tiling, share=share)
    return jax.vmap(one, in_axes=(0, None, None if inputs is None else 0, None))(drawn, gains, inputs, cotangent)


_MEASURE = {
    level: jax.jit(_measure, static_argnames=("plan", "tiling"), compiler_options=options)
    for level, options in OPTIONS.items()
}


@cache
def _spread(level: chunks.Effort, devices: tuple[Any, ...]) -> Any:
    """`_measure` jitted for one chunk on each device: all arrays, but the cotangent, have those as their first axis.

    One program, compiled once; the devices run it side by side and never wait for each other.
    """
    mesh, each = Mesh(np.array(devices), ("chunk",)), PartitionSpec("chunk")

    def measure(plan: Plan, tiling: Tiling, *given: Any) -> dict[str, Scaled]:
        def one(gains: Any, drawn: Any, inputs: Any, cotangent: Any) -> dict[str, Scaled]:
            gains, drawn, inputs = jax.tree.map(lambda leaf: leaf[0], (gains, drawn, inputs))
            found = _measure(plan, tiling, gains, drawn, inputs, cotangent)
            return jax.tree.map(lambda leaf: leaf[None], found)

        split = jax.shard_map(
            one, mesh=mesh, in_specs=(each, each, each, PartitionSpec()), out_specs=each, check_vma=False
        )
        return split(*given)

    return jax.jit(measure, static_argnums=(0, 1), compiler_options=OPTIONS[level])


@cache
def _shared(level: chunks.Effort, devices: tuple[Any, ...]) -> Any:
    """`_measure` jitted for one chunk on all devices, each with its share of the tangent columns.

    Nothing passes between them until all steps are done: then the sum over the columns.
    """
    mesh, share, whole = Mesh(np.array(devices), ("column",)), Share("column", len(devices)), PartitionSpec()

    def measure(plan: Plan, tiling: Tiling, *given: Any) -> dict[str, Scaled]:
        one = partial(_measure, plan, tiling, share=share)
        split = jax.shard_map(one, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
        return split(*given)

    return jax.jit(measure, static_argnums=(0, 1), compiler_options=OPTIONS[level])


def program(chunk: chunks.Chunk, devices: tuple[Any, ...] | None = None) -> Any:
    """The jitted `_measure` for such chunks, or that of these devices: a chunk for each, or one for all."""
    level = chunk.effort if at_hand().platform == "cpu" else "default"
    if devices is None:
        return _MEASURE[level]
    return _spread(level, devices) if chunk.devices == 1 else _shared(level, devices[: chunk.devices])


def measured_chunks(
    course: Course,
    gains: dict[str, np.ndarray],
    inputs: np.ndarray | None,
    cotangent: State | None,
    *,
    key: int,
    seeds: np.ndarray,
    bar: Progress | Part,
    missing: Collection[int] | None = None,
) -> Iterator[tuple[Place, dict[str, Scaled]]]:
    """Each chunk of one network in turn, or those `missing`: its place, and its statistics, leaves [seeds, cells, …].

    As many are measured at once as there are devices, one on each, by the program that one device alone would run, or
    as a CPU has cores where each takes a moment; or one on all, where the plan of the chunks is that they share it.

    Raises: DeviceError where the device fails one for good.
    """
    plan, chunk, machine = course.plan, course.chunk, at_hand()
    devices = () if machine.plain else (machine.devices,)
    spread = bool(devices) and chunk.devices == 1
    threads = chunks.side_by_side(plan, cells=chunk.cells, seeds=chunk.seeds * machine.threads)
    threads = min(threads, course.size)
    call = Calls(program(chunk, *devices), course, spread=spread, threads=threads)
    bar.phase(f"compiling {plan.network.family}")  # which the first call does before it returns
    places = _turns(course, missing, len(machine.devices) if spread else 1)
    given = _given(course, places, gains, inputs, cotangent, key=key, seeds=seeds, spread=spread)
    begun = time.monotonic()
    for turn, (some, measured) in enumerate(_called(call, given, threads, plan.dtype)):
        bar.phase(f"measuring {plan.network.family}")
        chunks.release_compiler_memory(plan, chunk)
        for number, place in enumerate(some):
            yield place, _of_device(measured, number) if spread else measured
        networks, now = sum(place.networks for place in some), time.monotonic()
        if turn >= threads:  # for which the first compiled or waited
            bar.counted(networks, networks * plan.depth * chunks.predicted(plan).products, now - begun)
        begun = now
        bar.update(networks)


def _given(
    course: Course,
    turns: Iterator[list[Place]],
    gains: dict[str, np.ndarray],
    inputs: np.ndarray | None,
    cotangent: State | None,
    *,
    key: int,
    seeds: np.ndarray,
    spread: bool,
) -> Iterator[tuple[list[Place], tuple[Any, ...]]]:
    """The places of each turn, and what the call for them takes."""
    plan, known = course.plan, dict[int, tuple[Ahead, np.ndarray | None]]()
    count = len(at_hand().devices)
    for places in turns:
        first = {place.seeds[0]: seeds[place.seeds] for place in places}
        known = {
            one: known[one]
            if one in known
            else (
                hashed_ahead(plan, key, numbers, given=inputs is not None),
                None if inputs is None else inputs[numbers % len(inputs)],
            )
            for one, numbers in first.items()
        }
        given = [
            ({name: values[place.cells] for name, values in gains.items()}, *known[place.seeds[0]]) for place in places
        ]
        if spread:
            given += given[-1:] * (count - len(given))  # the last turn may lack some
            yield places, (*jax.tree.map(lambda *leaves: np.stack(leaves), *given), cotangent)
        else:
            yield places, (*given[0], cotangent)


def _called(
    call: Calls, given: Iterator[tuple[list[Place], tuple[Any, ...]]], threads: int, dtype: str
) -> Iterator[tuple[list[Place], dict[str, Scaled]]]:
    """What is measured at the places of each turn, in their order, as many at a time as there are threads."""
    if threads == 1:
        yield from ((places, call(*arrays)) for places, arrays in given)
        return

    def one(arrays: tuple[Any, ...]) -> dict[str, Scaled]:
        with jax.enable_x64(dtype == "float64"):
            return call(*arrays)

    waiting = deque[tuple[list[Place], Future[dict[str, Scaled]]]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for places, arrays in given:
                waiting.append((places, pool.submit(copy_context().run, one, arrays)))
                if len(waiting) > threads:
                    first, found = waiting.popleft()
                    yield first, found.result()
            yield from ((places, found.result()) for places, found in waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _turns(course: Course, missing: Collection[int] | None, size: int) -> Iterator[list[Place]]:
    """The places of the chunks that are measured at once."""
    numbers = iter(sorted(range(course.size) if missing is None else missing))
    while some := list(islice(numbers, size)):
        yield [course.place(number) for number in some]


def _of_device(measured: dict[str, Scaled], number: int) -> dict[str, Scaled]:
    return jax.tree.map(lambda leaf: leaf[number], measured)


class Results:
    """All cells and seeds of one network in memory: arrays [cells, seeds, …], and where there is something yet."""

    def __init__(self, plan: Plan, *, cells: int, seeds: int) -> None:
        self.done = np.zeros((cells, seeds), bool)
        self.arrays = {name: np.empty((cells, seeds, *shape)) for name, shape in result_shape(plan).items()}

    def keep(self, plan: Plan, place: Place, measured: dict[str, Scaled]) -> None:
        """Finish what a chunk measured and put it into its place, and out of `measured`."""
        for statistic in plan.statistics:
            for some, values in finished(statistic, measured.pop(statistic.name)):
                self.arrays[statistic.name][np.ix_(place.cells[some], place.seeds)] = values
        self.done[np.ix_(place.cells, place.seeds)] = True

    def partial(self) -> dict[str, np.ndarray]:
        """The arrays, NaN where there is nothing yet."""
        for array in self.arrays.values():
            array[~self.done] = np.nan
        return self.arrays


def measure_cells(
    plan: Plan,
    gains: dict[str, np.ndarray],
    inputs: np.ndarray | None,
    cotangent: State | None,
    *,
    key: int,
    seeds: np.ndarray,
    bar: Progress | Part,
    results: Results | None = None,
) -> dict[str, np.ndarray]:
    """All cells, and the seeds of these numbers, of one network: arrays [cells, seeds, …], those of `results`."""
    cells = next(iter(gains.values())).size
    way = course(plan, cells=cells, seeds=seeds.size)
    if results is None:
        results = Results(plan, cells=cells, seeds=seeds.size)
    for place, measured in measured_chunks(way, gains, inputs, cotangent, key=key, seeds=seeds, bar=bar):
        results.keep(plan, place, measured)
    return results.arrays


def finished(statistic: Statistic, value: Scaled) -> Iterator[tuple[slice, np.ndarray]]:
    """What a chunk measured, leaves [seeds, cells, …], joined in float64, [cells, seeds, …], and of which cells.

    Some cells at a time: the result may fill much of the memory, and finishing takes some of its own.
    """
    cells = value.mantissa.shape[1]
    few = max(1, PIECE * cells // value.mantissa.size)
    for start in range(0, cells, few):
        some = slice(start, start + few)
        part = Scaled(value.mantissa[:, some], value.exponent[:, some])
        yield some, statistic.finish(part).swapaxes(0, 1)
