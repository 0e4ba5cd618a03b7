"""Time and memory of whole calls, measured in turns on a noisy machine; used by scripts/benchmark.py."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def timed(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each contender in each turn, [repeats], after one uncounted call of all.

    A turn calls each twice and times the second: the first pays for memory that the contender before has to return.
    """
    for call in contenders.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            jax.block_until_ready(call())
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: np.asarray(turns) for name, turns in seconds.items()}


def medians(seconds: dict[str, np.ndarray], over: str) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds, and the median of the ratio to `over` within each turn: a machine's speed drifts."""
    middle = {name: float(np.median(turns)) for name, turns in seconds.items()}
    return middle, {name: float(np.median(turns / seconds[over])) for name, turns in seconds.items()}


def matmul(rows: int, matrix: tuple[int, int], times: int) -> Callable[[], Any]:
    """That many plain products [rows, n] @ [n, m] in float32 at the highest precision, in one call.

    A loop on the device: a call for each product would allocate its result anew, and time the operating system.
    """
    left, right = jnp.ones((rows, matrix[0])), jnp.ones(matrix)

    def again(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, product = carry
        a = a.at[0, 0].set(product[0, 0])  # no product may be moved out of the loop
        return a, jnp.matmul(a, right, precision="highest")

    loop = jax.jit(lambda a: jax.lax.fori_loop(0, times, again, (a, jnp.zeros((rows, matrix[1])))))
    return lambda: loop(left)


def peak_memory() -> int:
    """The most bytes that this process has held: of the device where it says so, else resident."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would give the parent's peak where that is higher
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
