"""What a sweep will take: its arithmetic over the machine's rate, and what compiling takes."""

import time
from functools import lru_cache

import jax
import jax.numpy as jnp

from gradsim.engine.plan import Plan
from gradsim.sweeps import chunks
from gradsim.sweeps.machine import at_hand

# Seconds to compile the program of a sweep.
COMPILED = {"cpu": 1.5}
COMPILED_ELSEWHERE = 5.0
UNITS = ((1, "s"), (60, "min"), (3600, "h"))


def flops(plan: Plan, *, cells: int, seeds: int) -> float:
    """About how many operations all cells and seeds of one network take, each worth one of a matrix product."""
    with jax.enable_x64(plan.dtype == "float64"):
        chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds)
        return seeds * sum(chunks.operations(plan, part.size) for part in chunks.slices(cells, chunk.cells))


def machine_rate() -> float:
    """Operations a second of the matrix products of all devices in use; those of a CPU share its cores."""
    machine = at_hand()
    return _device_rate() * (1 if machine.platform == "cpu" else len(machine.devices))


@lru_cache(maxsize=1)
def _device_rate() -> float:
    """That of one device, measured in some milliseconds."""
    size = 512 if jax.local_devices()[0].platform == "cpu" else 4096
    square = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    product(square).block_until_ready()
    return 2.0 * size**3 / min(_seconds(product, square) for _ in range(3))


def _seconds(product: jax.stages.Wrapped, square: jax.Array) -> float:
    start = time.perf_counter()
    product(square).block_until_ready()
    return time.perf_counter() - start


def compiling() -> float:
    """Seconds that the program of a sweep takes to compile, about."""
    return COMPILED.get(jax.local_devices()[0].platform, COMPILED_ELSEWHERE)


def words(seconds: float | int) -> str:
    """A time that is known to a factor of two, in words."""
    if seconds < 3:
        return "a few seconds"
    length, unit = next((length, unit) for length, unit in UNITS if seconds < 90 * length or unit == "h")
    number = seconds / length
    step = next((step for top, step in ((10, 1), (30, 5)) if number < top), 10)
    return f"about {round(number / step) * step:,} {unit}"
