"""How much effort the compiler makes on a CPU: as much as pays within the sweep.

LLVM's level 1 compiles in half the time of its own default and gives the same numbers, to rounding where a row does not
fill the machine's vectors. (Level 0 rounds otherwise, and runs at half the speed.) XLA's former emitters, and one piece
of code in place of one for each core, take 0.4 of the processor time that is left. They run as fast where products
count, and take up to 1.4 times as long in gates, whose last digits differ: for sweeps that take a moment. jaxlib 0.12
has no such emitters any more.
"""

from typing import Any

import jax

from gradsim.engine.plan import Plan
from gradsim.sweeps.chunks import Chunk, Effort, operations, predicted

LEVEL_1 = {"xla_backend_optimization_level": 1}
BRIEF = LEVEL_1 | (
    {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
    if jax.__version_info__ < (0, 11)
    else {}
)
OPTIONS: dict[Effort, dict[str, Any] | None] = {"default": None, "level 1": LEVEL_1, "brief": BRIEF}
# Operations of a whole sweep: a second of one core, and fewer than any whose rate benchmark.py measures.
FEW = 1e11
# As many calls, and code that is compiled twice as long has paid where drawing takes most of the time.
MANY_CALLS = 64


def effort(plan: Plan, chunk: Chunk, calls: int) -> Effort:
    """That for a program which is called so many times."""
    if calls * chunk.seeds * operations(plan, chunk.cells) < FEW:
        return "brief"
    needs = predicted(plan)
    draws_most = chunk.cells * needs.step < needs.drawing
    return "default" if draws_most and calls > MANY_CALLS else "level 1"
