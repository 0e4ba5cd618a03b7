"""How many networks go through the device at once: sized to the memory at hand before anything runs."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from gradsim.plan import Plan

# Tangents before and after the matrix product, their slopes' product, and the scan's double buffer.
COPIES = 4
# On a CPU tangents that stay near the caches run faster than ones that fill the memory, and a product
# of this many rows already runs at the full rate: more seeds in a chunk only make it a batched one.
CPU_BYTES = 128 * 2**20
CPU_ROWS = 1024


class Chunk(NamedTuple):
    """Networks of one call: cells share a seed's draw, so cells come first, then seeds."""

    cells: int
    seeds: int


def memory_at_hand() -> int:
    """Bytes that the default device can still give."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    return int(psutil.virtual_memory().available)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def predicted_bytes(plan: Plan) -> tuple[int, int, int]:
    """Predicted peak of one cell, the draw of one seed, and the rows that one cell adds to a product."""
    network = plan.network
    state = plan.state_shape()
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))
    needs = {need for statistic in plan.statistics for need in statistic.needs}
    draw = _bytes(jax.eval_shape(lambda: network.draw(jax.random.key(0), jnp.dtype(plan.dtype))))
    rows = (("all" in needs) * size + ("one" in needs)) * (plan.depth if plan.pairs else 1)
    decomposed = any(statistic.costly for statistic in plan.statistics)
    states = plan.depth if plan.direction == "backward" else 0
    outputs = 8 * plan.depth * len(plan.statistics) * (plan.depth if plan.pairs else 1)
    cell = ((COPIES + 2 * decomposed) * (rows + 1) + states) * _bytes(state) + outputs
    cell += COPIES * ("weights" in needs) * draw
    return cell, 2 * draw, rows


def plan_chunk(plan: Plan, *, cells: int, seeds: int) -> Chunk:
    """The chunk for this sweep.

    Raises: ValueError where one network alone does not fit, with what would.
    """
    cell, draw, rows = predicted_bytes(plan)
    available = memory_at_hand() // 2
    if cell + draw > available:
        fits = math.sqrt(available / (cell + draw))
        raise ValueError(
            f"width: one {plan.network.family} network with these statistics needs {(cell + draw) / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB may be used; a state about {fits:.2g} times as wide fits"
            + (", or a statistic of one vector (log_jvp, log_gradient) in place of all tangents" if rows > 1 else "")
        )
    on_cpu = jax.local_devices()[0].platform == "cpu"
    budget = min(available, CPU_BYTES) if on_cpu else available
    per_call = _even(cells, max(1, (budget - draw) // cell))
    room = max(1, budget // (per_call * cell + draw))
    if on_cpu:
        room = min(room, math.ceil(CPU_ROWS / max(1, per_call * rows)))
    return Chunk(per_call, _even(seeds, room))


def _even(total: int, most: int) -> int:
    """The chunk of at most `most` that splits `total` into equal parts, so that padding is least."""
    return math.ceil(total / math.ceil(total / most))


def slices(total: int, chunk: int) -> list[np.ndarray]:
    """Indices of each chunk; the last is padded by repeating its last index, to keep one compilation."""
    return [np.minimum(np.arange(start, start + chunk), total - 1) for start in range(0, total, chunk)]
