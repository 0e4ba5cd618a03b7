"""Lyapunov exponents over a grid of gains and many seeds, as one Dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import product
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.typing import ArrayLike

from gradsim import arguments, scaled
from gradsim.cores import cores
from gradsim.engine import plan as plans
from gradsim.engine.covariant import covariant
from gradsim.engine.lyapunov import Frame, along, begin
from gradsim.engine.plan import Plan
from gradsim.engine.streams import Keys, ahead, extent, network_keys
from gradsim.engine.tiling import draw_bytes
from gradsim.lapack import in_one_thread
from gradsim.networks.network import Network
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks, grid
from gradsim.sweeps.compiling import Compiling
from gradsim.sweeps.effort import LEVEL_1
from gradsim.sweeps.exponents import labelled
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.progress import Part, Progress, reporting

if TYPE_CHECKING:
    import xarray

BATCHES = 32  # parts of a run whose means give the error
CALL = 3e9  # operations of one call, about: a fraction of a second
TOLERANCE = {"float32": 1e-3, "float64": 1e-7}
# Tangents before and after a step, their factors, and what a group that is taken again starts from.
COPIES = 10
CPU_BYTES = 2 * 2**20  # a core's own cache


def lyapunov_exponents(
    network: Network | Mapping[Any, Network],
    *,
    depth: int,
    seeds: int | range,
    count: int | None = None,
    key: int = 0,
    burn_in: int = 200,
    inputs: ArrayLike | None = None,
    vectors: str | None = None,
    at: int | list[int] | tuple[int, ...] | None = None,
    tolerance: float | None = None,
    dtype: str = "float32",
    progress: bool | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """The Lyapunov exponents of the state's chain, λ_i = lim (1/T) ln σ_i(J_T … J_1), all of them or the k largest.

    By the QR method: k orthonormal tangents of the whole state are pushed through the steps and made orthonormal again,
    A = RᵀQ, and λ_i is the mean of ln |R_ii| a step, over `depth` steps after `burn_in`. Several steps lie between two
    factors where rounding allows, chosen as the run goes; the product of the R_ii is the same. A sum over all λ_i is
    the mean of ln |det J_t|, exactly; each λ_i is that of the limit up to `drift` and `standard_error`. Networks are
    those of `gradsim.sweep`: seed i of key k draws from `jax.random.fold_in(jax.random.key(k), i)`. Memory does not
    grow with the depth; a step costs 2 k n² operations for a dense matrix, and a factor some 4 k² n. Each core of a CPU
    takes networks of its own.

    Args:
        network: one network, or a mapping of names to networks; of any family, tied or not, driven or not.
        depth: the steps T that are averaged, over depth or time.
        seeds: the number of independent networks in each cell, or a range of their numbers.
        count: how many exponents, the largest; all n of the state's size unless given.
        key: the whole number from which all randomness derives.
        burn_in: steps taken first, in which the state settles and the tangents turn into their directions.
        inputs: real data [samples, *input_shape], or [samples, time, *input_shape] for recurrent networks. Gaussian
            of unit variance if not given.
        vectors: "covariant" for the covariant Lyapunov vectors too, which each step's Jacobian maps on one another with
            growth e^λ_i in the mean. It takes a second run, and memory for k² numbers a step and network.
        at: the steps, from 1 to depth, after which these vectors are taken; the middle unless given. They are exact
            only so far as both the steps before, from burn_in on, and those up to depth have let them settle.
        tolerance: the largest relative error that rounding may make in an R_ii because several steps lie between two
            factors: 1e-3 in float32, 1e-7 in float64, and one step where even that makes more (see `rounding`).
        dtype: "float32" or "float64", of the same networks.
        progress: show how far it is on stderr, as in `gradsim.sweep`.
        **gains: numbers, or 1-d arrays which become axes in the order given.

    Returns: a Dataset with dimensions (network,) gains…, seed, exponent:
        lyapunov (nat a step), the growth of tangent i beyond those before it: in falling order but for the noise of a
            finite run; −inf for a direction that a step has mapped to zero or to rounding (`lost` counts them, `dead`
            says where all are); NaN, with a warning, where a network left the floats;
        standard_error of the mean over time, from 32 means of successive parts, or 16 or 8 longer ones where
            correlations make theirs larger; it knows nothing of correlations over an eighth of the run;
        drift, the mean of the last half less that of the whole;
        rounding, about the largest relative error that rounding has made in one R_ii, NaN for what was lost;
        kaplan_yorke, the dimension j + (λ_1 + … + λ_j) / |λ_{j+1}|, NaN where the sum of k < n is still positive;
        entropy_rate, the sum of the positive exponents (Pesin), NaN where all k < n are;
        covariant_vector over (at, exponent, component) of the state's entries, of unit norm, the largest positive.
    Raises: ValueError or TypeError before anything is compiled, naming the argument.
    Source: Benettin et al. 1980; Kaplan & Yorke 1979; Ginelli et al. 2007 for the vectors.
    """
    several = grid.of_one_input(grid.networks(network), "lyapunov_exponents")
    planned = [
        plans.planned(one, depth=depth, statistics="log_gain", burn_in=burn_in, dtype=dtype)
        for one in several.each.values()
    ]
    numbers, key = grid.seeds(seeds), arguments.key(key)
    axes = grid.axes(several, gains, "lyapunov_exponents")
    own = [grid.own(plan, axes) for plan in planned]
    counts = [_count(count, plan) for plan in planned]
    limit = _limit(tolerance, dtype)
    steps = _steps(vectors, at, planned[0].depth)
    data = [plans.inputs(plan, inputs) for plan in planned]
    wanted = [
        Given(key, numbers, grid.cells(plan, some), one, limit[0], steps)
        for plan, some, one in zip(planned, own, data, strict=True)
    ]
    total = (BATCHES + 1 + bool(steps)) * numbers.size * sum(map(grid.size, own))
    with reporting(progress, total) as bar, in_one_thread(), jax.enable_x64(dtype == "float64"):
        found = [_measured(plan, k, given, bar) for plan, k, given in zip(planned, counts, wanted, strict=True)]
    arrays = [grid.on_all_axes(one, some, axes) for one, some in zip(found, own, strict=True)]
    settings = {"key": key, "inputs": "gaussian" if inputs is None else f"given, {np.shape(inputs)[0]} samples"}
    return labelled(several, axes, planned, arrays, numbers, steps, {**settings, "tolerance": limit[1]})


def _count(count: Any, plan: Plan) -> int:
    n = plan.state_size()
    return n if count is None else arguments.whole("count", count, maximum=n)


def _limit(tolerance: Any, dtype: str) -> tuple[float, float]:
    """The largest spread of a group of steps, and the tolerance that it comes from."""
    if tolerance is None:
        tolerance = TOLERANCE[dtype]
    tolerance = arguments.number("tolerance", tolerance, "a number above 0 and below 1", 0.0, 1.0)
    return max(1.0, tolerance / float(np.finfo(dtype).eps)), tolerance


def _steps(vectors: Any, at: Any, depth: int) -> tuple[int, ...]:
    """The steps after which vectors are taken, in rising order; none where none are asked for."""
    if vectors is None:
        if at is not None:
            raise ValueError(f"at: got {arguments.shown(at)} without vectors; pass vectors='covariant' with it")
        return ()
    arguments.choice("vectors", vectors, ("covariant",))
    if at is None:
        return (max(1, depth // 2),)
    points = list(at) if isinstance(at, list | tuple) else [at]
    chosen = tuple(sorted({arguments.whole("at", point, maximum=depth) for point in points}))
    if not chosen:
        raise ValueError(f"at: got none; pass steps from 1 to depth={depth}")
    return chosen


class Many(NamedTuple):
    """The networks of a call: how many seeds and cells."""

    seeds: int
    cells: int


def _many(plan: Plan, count: int, kept: int, apart: int, *, cells: int, seeds: int) -> Many:
    """Cells first, which share a draw, then seeds, until the memory or a CPU's cache is full; work for each core."""
    n = plan.state_size()
    size = np.dtype(plan.dtype).itemsize
    work = size * (COPIES * (count + 2) * n + 4 * count**2)
    network = work + size * kept * count**2
    draw = 3 * draw_bytes(plan.network, plan.dtype)
    available = chunks.allowed() // apart
    if network + draw > available:
        raise ValueError(
            f"{'depth' if kept else 'count'}: one {plan.network.family} network needs "
            f"{(network + draw) / 2**30:.3g} GiB and {available / 2**30:.3g} GiB may be used; pass fewer exponents"
            + (", or a smaller depth, since vectors keep k² numbers a step" if kept else "")
        )
    at_once = max(1, (CPU_BYTES if at_hand().platform == "cpu" else available) // work)
    most = cells if seeds >= apart else math.ceil(cells * seeds / apart)
    some = min(most, at_once, (available - draw) // network)
    fit = max(1, min(at_once // some, available // (some * network + draw)))
    turns = math.ceil(seeds / (apart * fit))
    return Many(math.ceil(seeds / (apart * turns)), some)


def _keys(network: Network, given: bool, key: Array, seeds: Array) -> tuple[Keys, Array]:
    keys = jax.vmap(lambda seed: network_keys(key, seed))(seeds)
    return keys, jax.vmap(lambda one: ahead(one, extent(network, 1, given=given)).normals)(keys)


@cache
def program(function: Any, *static: str) -> Any:
    """The function jitted; on a CPU at LLVM's level 1, which compiles in half the time."""
    options = LEVEL_1 if jax.local_devices()[0].platform == "cpu" else None
    return jax.jit(function, static_argnames=static, compiler_options=options)


class Given(NamedTuple):
    """What is measured of a network: seeds [seeds], gains [cells], data, the most spread of a group, vectors' steps."""

    key: int
    seeds: np.ndarray
    gains: dict[str, np.ndarray]
    inputs: np.ndarray | None
    most: float
    steps: tuple[int, ...]


def _measured(plan: Plan, count: int, given: Given, bar: Progress | Part) -> dict[str, np.ndarray]:
    """All cells and seeds of one network: arrays [cells, seeds, …].

    Each core of a CPU takes networks of its own, since LAPACK takes one matrix after the other.
    """
    cells, seeds = next(iter(given.gains.values())).size, given.seeds.size
    apart = min(cores(), cells * seeds) if at_hand().platform == "cpu" else 1
    many = _many(plan, count, plan.depth if given.steps else 0, apart, cells=cells, seeds=seeds)
    frame = Frame(plan.network, count, plan.dtype, _silent(plan.network, given.gains, given.inputs))
    places = list(product(chunks.slices(cells, many.cells), chunks.slices(seeds, many.seeds)))
    call, stop = Compiling(bar, "measuring", plan.network.family), Event()
    found: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(apart) as pool:
        try:
            measured = pool.map(partial(_at, plan, frame, given, call, stop), places)
            for place, values in zip(places, measured, strict=True):
                for name, value in values.items():
                    whole = found.setdefault(name, np.empty((cells, seeds, *value.shape[2:])))
                    whole[np.ix_(*place)] = value.swapaxes(0, 1)
        finally:
            stop.set()
    return found


def _at(
    plan: Plan, frame: Frame, given: Given, call: Compiling, stop: Event, place: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """These cells and seeds, arrays [seeds, cells, …]; nothing where it was stopped."""
    cell, seed = place
    networks = np.unique(cell).size * np.unique(seed).size
    edges = np.array([0, *plan.burn_in + np.arange(BATCHES + 1) * plan.depth // BATCHES], np.int32)
    most = np.asarray(given.most, plan.dtype)
    data = None if given.inputs is None else given.inputs[given.seeds[seed] % len(given.inputs)]
    with jax.enable_x64(plan.dtype == "float64"), jax.default_matmul_precision("highest"):
        some = {name: jnp.asarray(values[cell]) for name, values in given.gains.items()}
        numbers = given.seeds[seed].astype(np.uint32)
        keys = call(program(_keys, "network", "given"), plan.network, data is not None, random.key(given.key), numbers)
        shared, start = call(program(begin, "frame"), frame, *keys, data, some)
        shape = (BATCHES + 1, *start.spread.shape)
        done = start, Scaled(jnp.asarray(np.ones(shape, plan.dtype)), jnp.asarray(np.zeros(shape, np.int32)))
        for parts in _calls(plan, frame.tangents, networks):
            if stop.is_set():
                return {}
            done = call(program(along, "frame"), frame, shared, some, done, edges, parts, most)
            call.update(networks * int(parts[1] - parts[0]))
        run, growth = done
        values = _read(np.moveaxis(scaled.log(growth)[1:], 0, -2), np.diff(edges)[1:])
        rounding = float(np.finfo(plan.dtype).eps) * np.asarray(run.spread, np.float64)
        values["rounding"] = np.where(values["lyapunov"] == -np.inf, np.nan, rounding)
        if given.steps:
            values["covariant_vector"] = call(
                program(covariant, "frame", "burn_in", "depth", "at"), frame, shared, some, start, most,
                burn_in=plan.burn_in, depth=plan.depth, at=given.steps,
            )  # fmt: skip
            call.update(networks)
        return {name: np.asarray(value, np.float64) for name, value in values.items()}


def _calls(plan: Plan, count: int, networks: int) -> list[tuple[np.int32, np.int32]]:
    """From and to which part of the run, the burn-in one of them, each call goes: one for all where they are cheap."""
    n, parts = plan.state_size(), BATCHES + 1
    operations = networks * (plan.burn_in + plan.depth) * (2 * count * n**2 + 4 * count**2 * n)
    step = max(1, int(parts * min(1.0, CALL / operations)))
    return [(np.int32(first), np.int32(min(first + step, parts))) for first in range(0, parts, step)]


def _silent(network: Network, gains: Mapping[str, np.ndarray], inputs: np.ndarray | None) -> bool:
    """Whether every input is multiplied by a gain of zero: then none is drawn."""
    return inputs is None and network.input_gain is not None and not np.any(gains[network.input_gain])


def _read(sums: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
    """Exponents [seeds, cells, k] and their errors, from ln Π R_ii over parts of the run.

    They are left in the order of the tangents: each is then an unbiased mean, which the largest of several is not.
    """
    depth = int(steps.sum())
    exponents = sums.sum(-2) / depth
    with np.errstate(invalid="ignore"):  # of a direction that was lost, −inf less −inf
        half = len(steps) // 2
        drift = sums[..., half:, :].sum(-2) / steps[half:].sum() - exponents if depth >= 2 * len(steps) else np.nan
        error = np.full(exponents.shape, np.nan)
        for parts in (32, 16, 8):
            length = steps.reshape(parts, -1).sum(1)
            if length.min() > 0:
                joined = sums.reshape(*sums.shape[:-2], parts, -1, sums.shape[-1]).sum(-2)
                off = joined - exponents[..., None, :] * length[:, None]
                error = np.fmax(error, np.sqrt((off**2).sum(-2) * parts / (parts - 1)) / depth)
    return {"lyapunov": exponents, "standard_error": error, "drift": np.broadcast_to(drift, exponents.shape)}
