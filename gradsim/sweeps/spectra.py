"""All singular values of chains that are at hand: each core of a CPU takes some, as many as its cache holds."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from threading import Event, Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradsim.cores import cores
from gradsim.engine import factors as engine
from gradsim.engine.factors import LogSingularValues
from gradsim.lapack import in_one_thread
from gradsim.scaled import Scaled

CPU_BYTES = 2 * 2**20  # a core's own cache
COPIES = 8  # matrices of a chain that a step reads and writes


class First(NamedTuple):
    """The first call of a program, which compiles it while the others wait."""

    lock: Lock
    done: Event


@wraps(engine.log_singular_values)
def log_singular_values(
    factors: ArrayLike | Scaled,
    *,
    at: int | Sequence[int] | None = None,
    exponents: bool = False,
    tolerance: float | None = None,
) -> LogSingularValues:
    """`gradsim.engine.factors.log_singular_values`, for chains on a CPU by all of its cores."""
    options: dict[str, Any] = {"at": at, "exponents": exponents, "tolerance": tolerance}
    matrices, powers = engine.checked(factors)
    *batch, length, n, _ = matrices.shape
    chains = math.prod(batch)
    if chains < 2 or not _on_one_cpu(matrices, powers):
        return engine.log_singular_values(Scaled(matrices, powers), **options)
    flat = np.asarray(matrices).reshape(chains, length, n, n), np.asarray(powers).reshape(chains, length)
    size, double = _block(chains, n, matrices.dtype.itemsize), matrices.dtype == jnp.float64
    first = _first(size, length, n, double, str(options))

    def found(start: int) -> Any:
        rows = np.minimum(np.arange(start, start + size), chains - 1)  # the last block is filled up
        with jax.enable_x64(double):
            some = Scaled(*(jnp.asarray(one[rows]) for one in flat))
            return jax.block_until_ready(engine.log_singular_values(some, **options))

    def one(start: int) -> Any:
        if not first.done.is_set():
            with first.lock:
                if not first.done.is_set():
                    values = found(start)
                    first.done.set()
                    return values
        return found(start)

    pool = ThreadPoolExecutor(min(cores(), math.ceil(chains / size)))
    try:
        with in_one_thread():
            parts = list(pool.map(one, range(0, chains, size)))
    finally:
        pool.shutdown(cancel_futures=True)
    return jax.tree.map(lambda *some: _joined(some, chains, batch), *parts)


def _on_one_cpu(*arrays: Any) -> bool:
    """Whether these arrays, none of which is traced, are all on one device, which is a CPU."""
    if any(isinstance(one, jax.core.Tracer) for one in arrays):
        return False
    devices = set[Any]().union(*(one.devices() for one in arrays))
    return len(devices) == 1 and all(one.platform == "cpu" for one in devices)


def _block(chains: int, n: int, itemsize: int) -> int:
    """How many chains a call takes: the same number on each core, within its cache."""
    most = max(1, CPU_BYTES // (COPIES * n * n * itemsize))
    turns = math.ceil(chains / (cores() * most))
    return math.ceil(chains / (cores() * turns))


@lru_cache(maxsize=256)
def _first(size: int, length: int, n: int, double: bool, options: str) -> First:
    return First(Lock(), Event())


def _joined(parts: Sequence[Any], chains: int, batch: Sequence[int]) -> jax.Array:
    whole = np.concatenate([np.asarray(part) for part in parts])[:chains]
    return jnp.asarray(whole.reshape(*batch, *whole.shape[1:]))
