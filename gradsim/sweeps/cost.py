"""What a sweep will take: its arithmetic over the machine's rate, and what compiling takes."""

import math
import time
from functools import lru_cache

import jax
import jax.numpy as jnp

from gradsim.engine.plan import Plan
from gradsim.engine.tiling import draw_bytes
from gradsim.sweeps import chunks

# In products' operations: a normal number drawn, a step's work on an entry of a tangent, one tangent's on a weight.
DRAWN, ENTRY, SINGLE = 400.0, 30.0, 10.0
# Seconds to compile a program.
COMPILED = {"cpu": 3.0}
COMPILED_ELSEWHERE = 5.0
UNITS = ((1, "s"), (60, "min"), (3600, "h"))


def flops(plan: Plan, *, cells: int, seeds: int) -> float:
    """About how many operations all cells and seeds of one network take, each worth one of a matrix product."""
    leaves = jax.tree.leaves(plan.state_shape())
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    positions = max(math.prod(leaf.shape[:-1]) for leaf in leaves)  # that share the weights of a step
    weights = draw_bytes(plan.network, plan.dtype) / jnp.dtype(plan.dtype).itemsize
    rows = chunks.predicted(plan).rows
    met = weights * positions
    if plan.network.driven:  # tangents do not meet the weights of the inputs
        width = leaves[0].shape[-1]
        met *= width / (width + plan.network.input_shape[-1])
    chunk = chunks.plan_chunk(plan, cells=cells, seeds=seeds)
    back = 2 if plan.direction == "backward" else 1
    step = cells * (2 * rows * met + rows * size * ENTRY * back + SINGLE * weights * positions * back)
    drawn = math.ceil(cells / chunk.cells) * weights * DRAWN * back
    return seeds * (plan.depth * (step + drawn) + plan.burn_in * (drawn + cells * SINGLE * weights * positions))


@lru_cache(maxsize=1)
def machine_rate() -> float:
    """Operations a second of this machine's matrix products, measured in some milliseconds."""
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
    """Seconds that a program takes to compile, about."""
    return COMPILED.get(jax.local_devices()[0].platform, COMPILED_ELSEWHERE)


def words(seconds: float | int) -> str:
    """A time that is known to a factor of two, in words."""
    if seconds < 3:
        return "a few seconds"
    length, unit = next((length, unit) for length, unit in UNITS if seconds < 90 * length or unit == "h")
    number = seconds / length
    step = next((step for top, step in ((10, 1), (30, 5)) if number < top), 10)
    return f"about {round(number / step) * step:,} {unit}"
