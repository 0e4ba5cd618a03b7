"""Sweeps: a grid of gains, times seeds, times depth, measured exactly and returned as one Dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.engine import plan as plans
from gradsim.engine.plan import Plan
from gradsim.engine.precision import Precision, refuse_elsewhere
from gradsim.engine.statistic import Statistic
from gradsim.lapack import in_one_thread
from gradsim.networks.network import Network, State
from gradsim.sweeps import chunks, dataset, grid
from gradsim.sweeps.asked import Sweep
from gradsim.sweeps.calls import DeviceError
from gradsim.sweeps.loop import Results, measure_cells
from gradsim.sweeps.machine import at_hand, used
from gradsim.sweeps.progress import Part, Progress, reporting
from gradsim.sweeps.stores import stored
from gradsim.sweeps.stores.opening import open_store

if TYPE_CHECKING:
    import xarray


def sweep(
    network: Network | Mapping[Any, Network],
    *,
    depth: int,
    seeds: int | range,
    key: int = 0,
    direction: str = "forward",
    statistics: str | Statistic | Sequence[str | Statistic] = ("log_gain",),
    at: int | Sequence[int] | None = None,
    burn_in: int = 0,
    inputs: ArrayLike | None = None,
    loss: Callable[[State], Array] | None = None,
    cotangent: State | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    widths: Sequence[int] | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    devices: int | Sequence[jax.Device] | None = None,
    max_memory: int | str | None = None,
    process: int | None = None,
    processes: int | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """Measure random networks over a grid of gains, many seeds, and every depth up to `depth`.

    Each network draws its weights from (key, seed, step) alone: cells of the grid share a draw, so maps
    are smooth, and a longer sweep extends a shorter one. Seeds are the independent axis: take
    error bars from them.

    Args:
        network: one network, or a mapping of names (or numbers) to networks, which adds a leading axis `network`.
        depth: the number of steps L; every l = 1 … L is measured.
        seeds: the number of independent networks in each cell, or a range of their numbers: range(8, 16) measures the
            next eight, which `gradsim.concat` joins to the first.
        key: the whole number from which all randomness derives.
        direction: "forward" measures the prefixes J_l … J_1 at every l; "backward" the suffixes
            J_L … J_l, which is what the gradient meets on its way back through step l.
        statistics: names out of `gradsim.STATISTICS`, or `gradsim.Statistic` objects of one's own.
        at: the depths at which costly statistics (log_spectral, log_singular_values and others of the spectrum) are
            taken, by default the whole product's; elsewhere they are NaN.
        burn_in: steps taken before the product starts, to let the length settle.
        inputs: real data [samples, *input_shape], or [samples, time, *input_shape] for recurrent networks;
            seed i takes sample i modulo samples. Gaussian of unit variance if not given.
        loss: backward only, a scalar function of the final state; or
        cotangent: backward only, the gradient with respect to the final state. By default a random unit vector.
        dtype: "float32" or "float64", of the same networks. A narrow one, "bfloat16", "float16", "float8_e4m3" (448 its
            largest number) or "float8_e5m2", measures the chain as hardware runs it beside the exact one of float32, as
            below.
        precision: of the matrix products of a step and of its derivative, as JAX spells it; all else is float32. On a
            CPU it always is, and on GPUs whose float32 is slow, and TPUs, others than "highest" are faster: see below.
        widths: several widths of the one network, which add a leading axis `width`.
        store: a folder, such as "map.zarr", that keeps each chunk as soon as it is measured: see below.
        progress: show how far it is on stderr, as a bar in a terminal or a notebook and as lines elsewhere; by default
            only where it is a bar.
        devices: how many of this process's devices measure, a chunk each at a time, or which; all unless given. Where
            they outnumber the networks, or none holds one, they share the tangent columns of log_gain, if no other
            statistic asked for needs all of them; the result is then the same within rounding. The cores of a CPU
            measure a chunk each where it takes more than a moment; with devices=1 one chunk follows the other.
        max_memory: the most memory of a device that is used, in bytes or such as "2GiB"; half of what is free unless
            given. It bounds the arrays of a device, not the result, nor what Python and the compiler take.
        process, processes: the number of this process, from 0, and of all that measure into the same `store`: see
            below. Where `jax.distributed` has been set up they are JAX's own.
        **gains: numbers, or 1-d arrays which become axes in the order given: sigma_w, sigma_b, … The numbers of a
            network that lacks a gain repeat along its axis.

    A narrow dtype rounds a second chain of the same draws to nearest, subnormal numbers kept: its weights at unit gain,
    inputs and first state, its state after each step, and the one vector that is pushed through it (J u forward, the
    gradient backward), times `loss_scale`, before and after each step. Within a step all is float32, sums of products
    as tensor cores take them. Every statistic of `statistics` is still that of the exact chain. Behind them stand the
    exact log_jvp (backward log_gradient) of the vector and, of the rounded one g without its loss scale: `zeros`, the
    share of the exact vector's nonzero entries that are 0 in g; `overflow`, the share of g's that are inf or NaN;
    `energy_kept` ‖g‖²/‖exact‖²; `noise` ‖g − exact‖²/‖exact‖²; `angle` between the two, in rad. These are NaN where the
    exact vector is zero (`dead`), the last three where `overflow` is above 0, the angle where g is 0.
    `loss_scale` is a gain of such runs, a positive number or an axis: 1 unless given.

    "TF32_TF32_F32_X3", "BF16_BF16_F32_X9" and "BF16_BF16_F32_X6" multiply float32 in parts and keep its digits: 100
    layers of width 64 in the ordered phase have a log gain 1e-7 to 3e-7 nat off in all four. "BF16_BF16_F32_X3" is 1e-5
    off, and one pass of TF32, which is what "high" and "default" are on a GPU, 1e-3 (root mean squares over networks,
    of products in parts emulated in float32). Chaos multiplies all of these alike. They are of float32 alone; a
    convolution has none in parts.

    Returns: a Dataset with dimensions (network,) gains…, seed, depth (or time), in nats where logarithmic.
        `dead` flags networks whose product is exactly zero; there the logarithms are NaN. Where numbers have left the
        range of floats they are not finite, a warning says so, and `<statistic>_lost` flags them; every variable's
        attribute `lost` counts the networks. `log_singular_values` has one more dimension, `singular_value`, from the
        largest, NaN at depths not in `at` and −inf for what is exactly zero or rounding; `rank` counts the others.
    With `store` the result may be larger than memory: it is what `gradsim.open(store)` gives, also meanwhile, and its
    numbers are read when they are asked for. The same call goes on where another was ended, by Ctrl-C, a crash or a
    full disk, with the chunks that were planned then, so that the result is the same to the last bit; chunks that are
    damaged are measured anew. More seeds, more points of a gain and more networks extend it, and only these are
    measured. All other arguments must be the same; functions are compared by their names, inputs and cotangents by
    their numbers. More depth extends a finished sweep forward; its first steps are taken once more, for the products to
    go on from are not kept, and are refused where they do not come out the same to the last bit.
    Several processes, on one machine or on many that share the folder, make the same call, each with its own `process`.
    Chunk c is that of process c mod `processes`; nothing passes between them but files, so each may start, end and be
    started again by itself. Each returns when its own chunks are done, with what all have done by then; the same call
    without `process` measures what is missing still.

    Raises: ValueError or TypeError before anything is compiled, naming the argument; OSError where the store can no
        longer be written; KeyboardInterrupt, and RuntimeError where the device fails twice, with what has been measured
        as the Dataset `dataset` of the error, NaN where there is nothing, whose attribute `done` is the share.
    """
    several = grid.networks(network, widths)
    choices: dict[str, Any] = {"depth": depth, "statistics": statistics, "direction": direction, "at": at}
    choices |= {"burn_in": burn_in, "dtype": dtype, "precision": precision, "loss": loss, "narrow": True}
    planned = [plans.planned(one, **choices) for one in several.each.values()]
    grid.check_parameters(several, planned[0].statistics)
    given: dict[str, Any] = {"seeds": seeds, "key": key, "inputs": inputs, "cotangent": cotangent}
    with used(devices, max_memory, process, processes), in_one_thread():
        return _run(several, planned, gains, **given, store=store, progress=progress)


def partial_products(
    network: Network | Mapping[Any, Network],
    *,
    depth: int,
    seeds: int | range,
    key: int = 0,
    inputs: ArrayLike | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    devices: int | Sequence[jax.Device] | None = None,
    max_memory: int | str | None = None,
    process: int | None = None,
    processes: int | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """Measure the log gain between every pair of steps: ½ ln(‖J_l … J_{k+1}‖_F²/n) for 0 ≤ k < l ≤ depth.

    Arguments are those of `sweep`. All depth² products are carried at once, which takes depth times the
    memory and the arithmetic of one sweep.

    Returns: a Dataset with dimensions (network,) gains…, seed, start = k, depth = l (or time); NaN for l ≤ k.
    Source: the partial Jacobian norms of Doshi, He and Gromov 2023, here exact.
    """
    several = grid.networks(network)
    planned = [
        plans.planned(one, depth=depth, statistics="log_gain", dtype=dtype, precision=precision, pairs=True)
        for one in several.each.values()
    ]
    with used(devices, max_memory, process, processes), in_one_thread():
        return _run(several, planned, gains, seeds=seeds, key=key, inputs=inputs, store=store, progress=progress)


def _run(
    several: grid.Networks,
    planned: Sequence[Plan],
    gains: Mapping[str, Any],
    *,
    seeds: Any,
    key: Any,
    inputs: ArrayLike | None = None,
    cotangent: State | None = None,
    store: Any = None,
    progress: Any = None,
) -> xarray.Dataset:
    """Check what is left to check, measure each network as it is planned, and label the arrays."""
    numbers, key = grid.seeds(seeds), arguments.key(key)
    refuse_elsewhere(planned[0].precision, at_hand().devices[0])
    axes = grid.axes(several, gains, others=planned[0].gains)
    own = [grid.own(plan, axes) for plan in planned]
    path = stored.folder_of(store)
    if path is None:
        chunks.check_result(planned[0], axes, networks=len(planned), seeds=numbers.size)
    jobs = [
        (plan, grid.cells(plan, some), plans.inputs(plan, inputs), plans.cotangent(plan, cotangent))
        for plan, some in zip(planned, own, strict=True)
    ]
    settings = {"key": key, "inputs": _described(inputs), "gradient_from": _start(planned[0], cotangent)}
    asked = Sweep(several, planned, axes, numbers, key, inputs, cotangent, settings)
    total = numbers.size * sum(map(grid.size, own))
    with reporting(progress, total) as bar, jax.enable_x64(planned[0].dtype == "float64"):
        for plan, some in zip(planned, own, strict=True):  # one that cannot fit is refused before another is measured
            chunks.plan_chunk(plan, cells=grid.size(some), seeds=numbers.size)
        return _in_memory(asked, jobs, bar) if path is None else _kept(path, asked, bar)


def _in_memory(asked: Sweep, jobs: Sequence[tuple[Any, ...]], bar: Progress | Part) -> xarray.Dataset:
    """The Dataset of a sweep that the memory holds."""
    each = list(zip(asked.planned, asked.own, strict=True))
    results = [Results(plan, cells=grid.size(own), seeds=asked.seeds.size) for plan, own in each]
    frame = (asked.several, asked.axes, asked.planned[0])
    try:
        for job, result in zip(jobs, results, strict=True):
            measure_cells(*job, key=asked.key, seeds=asked.seeds, bar=bar, results=result)
    except (KeyboardInterrupt, DeviceError) as error:
        partial = [{**one.partial(), "": one.done} for one in results]
        arrays = [grid.on_all_axes(one, own, asked.axes) for one, own in zip(partial, asked.own, strict=True)]
        done = [one.pop("") for one in arrays]
        stored.attach(error, dataset.build(*frame, arrays, asked.seeds, asked.settings, done))
        raise
    arrays = [grid.on_all_axes(one.arrays, own, asked.axes) for one, own in zip(results, asked.own, strict=True)]
    return dataset.build(*frame, arrays, asked.seeds, asked.settings)


def _kept(path: Path, asked: Sweep, bar: Progress | Part) -> xarray.Dataset:
    """The Dataset of a sweep that is measured into a store."""
    kept = stored.keep(path, asked, bar)
    stored.warn_of_lost(kept, asked.planned[0])
    return open_store(path)


def _described(inputs: ArrayLike | None) -> str:
    """What was read, so that runs on other data are told apart."""
    if inputs is None:
        return "gaussian"
    return f"given, {np.shape(inputs)[0]} samples, {digest(inputs)}"


def digest(tree: Any) -> str:
    """The same text for the same numbers."""
    arrays = [np.ascontiguousarray(leaf, np.float64).tobytes() for leaf in jax.tree.leaves(tree)]
    return f"sha256 {hashlib.sha256(b''.join(arrays)).hexdigest()[:16]}"


def _start(plan: Plan, cotangent: State | None) -> str:
    """Where the gradient of a backward sweep comes from."""
    if plan.loss is not None:
        return f"loss {getattr(plan.loss, '__qualname__', type(plan.loss).__name__)}"
    return "unit vector" if cotangent is None else f"cotangent, {digest(cotangent)}"
