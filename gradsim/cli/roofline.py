"""What a sweep costs on a machine: a step's arithmetic, the bytes that its program moves, and what hardware can do.

The roofline (Williams, Waterman & Patterson 2009): a kernel takes as long as the slower of its arithmetic at the peak
rate and its bytes at the peak bandwidth. Real kernels reach some share of either: the times are the least there can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradsim import scaled
from gradsim.networks.network import Network

ENTRY = 4  # bytes of a number in float32


@dataclass(frozen=True)
class Machine:
    """One kind of device and how many of them: operations and bytes a second of one, and who says so."""

    rate: float  # of float32 products at JAX's precision "highest", unless the name says otherwise
    bandwidth: float
    count: int
    source: str


H100 = "NVIDIA H100 Tensor Core GPU datasheet, SXM5: FP32 66.9 TFLOP/s, TF32 494.7 TFLOP/s (dense), 3.35 TB/s"
V5E = "Google Cloud documentation, TPU v5e: bf16 197 TFLOP/s, 819 GB/s, 256 chips a pod; float32 is six passes of bf16"
# Published peaks. What is computed from them is never called measured.
MACHINES: Mapping[str, Machine] = {
    "H100": Machine(66.9e12, 3.35e12, 1, H100),
    "H100, TF32 × 3": Machine(494.7e12 / 3, 3.35e12, 1, H100),
    "8 H100": Machine(66.9e12, 3.35e12, 8, H100),
    "8 H100, TF32 × 3": Machine(494.7e12 / 3, 3.35e12, 8, H100),
    "TPU v5e": Machine(197e12 / 6, 819e9, 1, V5E),
    "TPU v5e, pod of 256": Machine(197e12 / 6, 819e9, 256, V5E),
}
# What becomes of the tangents between a step's product and the next: as XLA compiles it; with slopes, rescaling and
# norm in the product's kernel, which reads and writes them once; or kept on the chip from step to step.
WAYS = ("as compiled", "one kernel a step", "kept on the chip")


class Step(NamedTuple):
    """Of one step of so many cells: operations of its products, bytes of these, of the weights, and of all."""

    cells: int
    products: float
    product_bytes: float
    weight_bytes: float
    all_bytes: float


def step_of(network: Network, cells: int) -> Step:
    """That of a plain network's gain, log ‖J‖_F, by the cost analysis of the step's own compiled program.

    The draws, which all cells share, are left out: at a hundred cells they are some percent of the arithmetic.
    """
    n = math.prod(network.input_shape)
    weights = jax.eval_shape(lambda: network.draw(jax.random.key(0), "float32"))
    weight_bytes = float(sum(leaf.size for leaf in jax.tree.leaves(weights)) * ENTRY)
    product_bytes = 2.0 * ENTRY * cells * n * n + weight_bytes
    moved = float(_compiled(network, cells, weights).cost_analysis()["bytes accessed"])
    return Step(cells, 2.0 * cells * n**3, product_bytes, weight_bytes, moved)


def _compiled(network: Network, cells: int, weights: Any) -> Any:
    """A step of the state and all its tangents, as `gradsim.engine.forward` takes it; a product of more than 2^16 or
    less than 2^-16 times the size before is brought back there by a loop that seldom runs."""
    n = math.prod(network.input_shape)

    def one(gains: Any, state: jax.Array, tangents: jax.Array, squares: jax.Array, weights: Any) -> Any:
        new, linear = jax.linearize(lambda state: network.step(weights, gains, state, None)[0], state)
        shift = scaled.exponent_of(squares) >> 1
        factor = scaled.power_of_two(-shift, squares.dtype)
        moved = factor * jax.vmap(linear)(tangents)
        return new, moved, scaled.square_sum(moved), shift

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((cells, *sizes), jnp.float32)

    jitted = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, 0, None)))
    return jitted.lower({name: shape() for name in network.gains}, shape(n), shape(n, n), shape(), weights).compile()


def seconds_of(step: Step, way: str, rate: float, bandwidth: float) -> float:
    """The least that a step takes; `way` is one of `WAYS`. As compiled the passes come after the product."""
    products = step.products / rate
    if way == "kept on the chip":
        return max(products, step.weight_bytes / bandwidth)
    together = max(products, step.product_bytes / bandwidth)
    passes = (step.all_bytes - step.product_bytes) / bandwidth
    return together if way == "one kernel a step" else together + passes


def share_of_rate(step: Step, way: str, rate: float, bandwidth: float) -> float:
    """Of the time that the products alone take at the peak rate."""
    return step.products / rate / seconds_of(step, way, rate, bandwidth)


class Map(NamedTuple):
    """A sweep: cells of its grid, seeds, the width and depth of its networks."""

    cells: int
    seeds: int
    width: int
    depth: int

    @property
    def result_bytes(self) -> int:
        """Of one statistic, in float64."""
        return 8 * self.cells * self.seeds * self.depth

    def seconds(self, step: Step, way: str, machine: Machine) -> float:
        """The least it takes, by the step of its width; networks are shared out evenly among the devices."""
        devices = min(machine.count, self.cells * self.seeds)
        blocks = self.cells * self.seeds / devices / step.cells
        return blocks * self.depth * seconds_of(step, way, machine.rate, machine.bandwidth)


def crossing(machine: Machine, steps: Mapping[int, Step]) -> float:
    """The width below which the elementwise passes, as compiled, take longer than the products.

    Products take time ∝ n³ and passes ∝ n²: by the widest step there is, where what goes otherwise matters least.
    """
    width = max(steps)
    passes = (steps[width].all_bytes - steps[width].product_bytes) / machine.bandwidth
    return width * passes / (steps[width].products / machine.rate)
