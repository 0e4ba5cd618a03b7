"""What the streams of many networks hash ahead, by a few small programs that all sizes share.

A compiler takes as long for the hash behind a draw as for half a network. So each program hashes a block of one size,
and is called as often as there are blocks; only how many numbers a network draws makes it anew.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from gradsim.draws import normal
from gradsim.engine.plan import Plan
from gradsim.engine.streams import Ahead, extent, network_keys
from gradsim.sweeps import chunks
from gradsim.sweeps.effort import BRIEF
from gradsim.sweeps.machine import at_hand

STEPS = 64  # in a block; those of an extent are whole blocks
FEW, MANY, LEAST = 64, 1024, 8  # networks in a block
NUMBERS = 2**20  # in a block of draws, about
FREE = 2**15  # so many cost less than another program


def hashed_ahead(plan: Plan, key: int, seeds: np.ndarray, *, given: bool) -> Ahead:
    """`gradsim.engine.streams.ahead` of the seeds of these numbers, leaves [seeds, …] on the host, keys as their data.

    Args:
        given: whether the inputs of the networks are given.
    """
    wanted, start = extent(plan.network, plan.steps, given=given), random.key(key)
    seeds = seeds.astype(np.uint32)
    most = MANY if seeds.size >= MANY else FEW
    with jax.enable_x64(False):  # the numbers are those of float32, whatever the dtype
        streams = _over(most, partial(_jitted(_streams), start), seeds)
        weights, inputs = (_keys(one, wanted.steps, most) for one in streams[:2])
        if (shape := wanted.shape) is not None:
            flat = _numbers(inputs.reshape(-1, inputs.shape[-1]), shape, most * STEPS)
            inputs = flat.reshape(*inputs.shape[:2], *shape)
        numbers: Any = _numbers(streams[2], (wanted.numbers,), most)
    return Ahead(weights, inputs, numbers)


def _keys(stream: np.ndarray, steps: int, most: int) -> Any:
    """The key of each step of each network, [networks, steps, …]."""
    starts = np.arange(0, steps, STEPS, dtype=np.uint32)
    return np.concatenate([_over(most, lambda some, t=t: _jitted(_folded)(some, t), stream) for t in starts], axis=1)  # type: ignore[misc]


def _numbers(keys: np.ndarray, shape: tuple[int, ...], most: int) -> np.ndarray:
    """Standard normal numbers of this shape for each key."""
    size = int(np.prod(shape))
    if not size:
        return np.zeros((len(keys), *shape), np.float32)
    fit = LEAST
    while fit < most and 8 * fit * size <= (NUMBERS if fit < len(keys) else FREE):
        fit *= 8
    return _over(fit, lambda some: _jitted(_normals, "shape")(some, shape=shape), keys)


def _over(size: int, function: Callable[[Any], Any], values: np.ndarray) -> Any:
    """A function of blocks of so many rows, over all of them; the last block is filled up with repeated rows."""
    parts = [jax.tree.map(np.asarray, function(values[rows])) for rows in chunks.slices(len(values), size)]
    return jax.tree.map(lambda *several: np.concatenate(several)[: len(values)], *parts)


def _streams(key: Array, seeds: Array) -> tuple[Array, ...]:
    return tuple(jax.tree.map(random.key_data, jax.vmap(lambda seed: network_keys(key, seed))(seeds)))


def _folded(streams: Array, first: Array) -> Array:
    """The key of each step of a block, [streams, steps, …]."""
    steps = first + jnp.arange(STEPS, dtype=first.dtype)
    fold = jax.vmap(jax.vmap(random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
    return random.key_data(fold(random.wrap_key_data(streams), steps))


def _normals(keys: Array, shape: tuple[int, ...]) -> Array:
    return jax.vmap(lambda one: normal(one, shape, jnp.float32))(random.wrap_key_data(keys))


def _jitted(function: Callable[..., Any], *static: str) -> Any:
    return _compiled(function, at_hand().platform == "cpu", static)


@cache
def _compiled(function: Callable[..., Any], on_cpu: bool, static: tuple[str, ...]) -> Any:
    return jax.jit(function, static_argnames=static, compiler_options=BRIEF if on_cpu else None)
