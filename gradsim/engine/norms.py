"""Norms of random networks as pure functions of arrays: what a sweep compiles, and what one composes with.

Everything here may be jitted, vmapped over keys and gains, differentiated in forward mode and sharded.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradsim import arguments, scaled
from gradsim.engine import columns
from gradsim.engine import plan as plans
from gradsim.engine import precision as precisions
from gradsim.engine.backward import backward
from gradsim.engine.chain import Source
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.plan import LOSS_SCALE, Plan
from gradsim.engine.products import Share
from gradsim.engine.statistic import Statistic
from gradsim.engine.streams import Ahead, ahead, extent, observed_size, streams
from gradsim.engine.tiling import Tiling, segment
from gradsim.networks.network import Network, State
from gradsim.scaled import Scaled


def norms(
    plan: Plan,
    tiling: Tiling,
    drawn: Ahead,
    gains: Mapping[str, Array],
    inputs: Array | None,
    cotangent: State | None,
    share: Share | None = None,
) -> dict[str, Scaled]:
    """The plan's statistics of one random network at many gains [cells], leaves [cells, (starts,) depth, …].

    With `share` the tangents of a basis are those of one of the devices that share them, under `jax.shard_map`.
    """
    task = Task(plan.statistics, plan.depth, tiling, plan.at, plan.burn_in, plan.format, share)
    own = {name: values for name, values in gains.items() if name != LOSS_SCALE or plan.format is None}
    cells = Cells(own, loss_scale=gains[LOSS_SCALE] if plan.format else None)
    source = Source(plan.network, drawn, inputs, plan.dtype, precision=plan.precision)
    with jax.default_matmul_precision("highest"):  # of all but the steps: GPUs round to TF32 by default
        if plan.direction == "backward":
            measured = backward(source, cells, task, plan.loss, cotangent)
        elif plan.pairs:
            measured = _pairs(source, gains, task)
        else:
            measured = forward(source, cells, task)
    return columns.joined(plan.statistics, measured, share, observed_size(plan.network)) if share else measured


def _pairs(source: Source, gains: Mapping[str, Array], task: Task) -> dict[str, Scaled]:
    """The product from every start, leaves [cells, starts, …]: each is a cell of its own to the engine."""
    every = {name: jnp.repeat(values, task.depth) for name, values in gains.items()}
    cells = next(iter(gains.values())).size
    start = jnp.tile(jnp.arange(task.depth, dtype=jnp.int32), cells)
    measured = forward(source, Cells(every, start), task)
    return jax.tree.map(lambda leaf: leaf.reshape(cells, task.depth, *leaf.shape[1:]), measured)


def jacobian_norms(
    network: Network,
    key: Array,
    gains: Mapping[str, ArrayLike] | None = None,
    *,
    depth: int,
    statistics: str | Statistic | Sequence[str | Statistic] = ("log_gain",),
    direction: str = "forward",
    at: int | Sequence[int] | None = None,
    burn_in: int = 0,
    inputs: ArrayLike | None = None,
    loss: Callable[[State], Array] | None = None,
    cotangent: State | None = None,
    dtype: str = "float32",
    precision: precisions.Precision = "highest",
    exponents: bool = False,
) -> dict[str, Any]:
    """The exact norms of one random network at every depth, as a pure function: `jit`, `vmap`, `jvp` and shard it.

    What `gradsim.sweep` measures, with the same numbers: seed i of `sweep(…, key=k)` is the network of
    `jax.random.fold_in(jax.random.key(k), i)`. It differentiates in forward mode with respect to gains and
    inputs (`jax.jvp`, `jax.jacfwd`); loops keep products in range, so there is no reverse mode.

    Args:
        network: what is static: family, sizes, activation, laws of the weights.
        key: a key of `jax.random.key`, which may be traced.
        gains: names to numbers or arrays of one shape, which may be traced; the network's own unless given.
        depth, statistics, direction, at, burn_in, loss, cotangent, precision: as in `gradsim.sweep`. Where the call is
            traced, for a platform that is not known, JAX refuses a precision which that does not have.
        inputs: one input [*input_shape], or [time, *input_shape] of a recurrent network; Gaussian unless given.
        dtype: "float32", or "float64" where `jax.enable_x64` is on; or a narrow one, as in `gradsim.sweep`, whose
            `loss_scale` is among the gains.
        exponents: give each number as `gradsim.Scaled(mantissa, exponent)`, mantissa · 2^exponent, and no logarithm:
            a float32 logarithm of −100,000 has lost the digits behind the point.

    Returns: each statistic under its name, [*gains' shape, depth] (and parameters behind where it has them); in nat
        where logarithmic, −inf for a product that is exactly zero.
    Raises: ValueError or TypeError naming the argument, when it is traced at the latest.
    """
    plan = plans.planned(
        plans.checked_network(network), depth=depth, statistics=statistics, direction=direction, at=at, burn_in=burn_in,
        dtype=dtype, loss=loss, narrow=True, precision=precision,
    )  # fmt: skip
    if plan.dtype == "float64" and jnp.result_type(float) != jnp.float64:
        raise ValueError("dtype: got 'float64' where JAX rounds it to float32; call it under jax.enable_x64(True)")
    values = _gains(plan, gains)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((_key(key), values, inputs, cotangent))):
        precisions.refuse_elsewhere(plan.precision, next(iter(key.devices())))
    shape = jnp.broadcast_shapes(*map(jnp.shape, values.values()))
    cells = {name: jnp.broadcast_to(value, shape).ravel() for name, value in values.items()}
    one = plans.one_input(plan, inputs)
    measured = norms(
        plan,
        Tiling(max(1, reduce(int.__mul__, shape, 1)), segment(plan.network, plan.dtype, plan.depth)),
        ahead(streams(_key(key)), extent(plan.network, plan.steps, given=one is not None)),
        cells,
        None if one is None else jnp.asarray(one, plan.dtype),
        jax.tree.map(lambda leaf: jnp.asarray(leaf, plan.dtype), plans.cotangent(plan, cotangent)),
    )
    measured = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), measured)
    if exponents:
        return dict(measured)
    return {statistic.name: scaled.on_device(measured[statistic.name], logarithm=statistic.logarithm)
            for statistic in plan.statistics}  # fmt: skip


def _gains(plan: Plan, gains: Any) -> dict[str, Array]:
    """Every gain as an array of the run's dtype."""
    given = {} if gains is None else gains
    if not isinstance(given, Mapping):
        raise TypeError(f"gains: got {type(gains).__name__}; pass a mapping of names to numbers or arrays")
    for name, value in given.items():
        if name not in plan.gains:
            raise ValueError(
                f"gains: got {arguments.shown(name)}; the gains of {plan.network.family}: {', '.join(plan.gains)}"
            )
        if not isinstance(value, Array):  # nor traced
            arguments.numbers(str(name), value, "real numbers")
        elif value.dtype.kind not in "iuf":
            raise TypeError(f"{name}: got an array of {value.dtype}; pass real numbers")
    values = {name: jnp.asarray(given.get(name, default), plan.dtype) for name, default in plan.gains.items()}
    shapes = {name: jnp.shape(value) for name, value in values.items() if jnp.shape(value)}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"gains: got the shapes {shapes}; pass numbers and arrays of one shape")
    return values


def _key(key: Any) -> Array:
    if not isinstance(key, Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        got = f"{key.dtype}{list(key.shape)}" if isinstance(key, Array) else arguments.got(key)[4:]
        raise TypeError(f"key: got {got}; pass one key such as jax.random.key(0), and jax.vmap over several")
    return key
