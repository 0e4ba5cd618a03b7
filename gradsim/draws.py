"""Random draws: all arrays of a step out of one draw of numbers.

Each hash behind a draw is compiled by itself. So what one key gives is hashed once and cut, and a law is a function of
independent numbers, normal or uniform (inverse transform sampling). Numbers are drawn in float32 and widened, so that a
run in float64 measures the same networks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.typing import DTypeLike

from gradsim import lapack, threefry

Shape = tuple[int, ...]
Draw = Callable[[Array, tuple[int, int], Any], Array]


@dataclass(frozen=True)
class Widened:
    """`draw(key, shape, dtype)` called with float32, whatever the dtype of the run, to which the result is widened."""

    draw: Callable[..., Array]

    def __call__(self, key: Array, shape: Shape, dtype: DTypeLike, *args: int | float) -> Array:
        return lax.optimization_barrier(self.draw(key, shape, jnp.float32, *args)).astype(dtype)


def standard_normal(u: Array) -> Array:
    """Numbers of mean 0 and variance 1 out of uniform ones in (−1, 1), as jax.random.normal makes them."""
    return math.sqrt(2) * lax.erf_inv(u)


def _normal(key: Array, shape: Shape, dtype: DTypeLike) -> Array:
    return standard_normal(threefry.uniform(key, math.prod(shape))).reshape(shape).astype(dtype)


normal = Widened(_normal)  # (key, shape, dtype), of mean 0 and variance 1
uniform = Widened(random.uniform)  # (key, shape, dtype, low, high)


@dataclass(frozen=True)
class Transform:
    """A law as a function of independent numbers: `of(z, shape, dtype)` for z [count(shape)], float32.

    The numbers are standard normal, or uniform on (−1, 1). Called with a key in place of them it draws them.
    """

    of: Callable[[Array, Shape, DTypeLike], Array]
    count: Callable[[Shape], int] = math.prod
    normal: bool = True

    def __call__(self, key: Array, shape: Shape, dtype: DTypeLike) -> Array:
        return together(key, dtype, Part(self, shape))[0]


class Part(NamedTuple):
    """An array to draw, [*shape], or [copies, *shape]."""

    law: Callable[..., Array]
    shape: Shape
    copies: int | None = None


def together(key: Array, dtype: DTypeLike, *parts: Part) -> list[Array]:
    """The arrays of these parts, independent of one another: one hash for all `Transform`s, a key for any other law.

    Among `Transform`s, a part's numbers depend on the sizes of the others and not on their laws.
    """
    keys = [key]
    if others := sum(not isinstance(part.law, Transform) for part in parts):
        keys = list(random.split(key, 1 + others))
    laws = [(part, part.law) for part in parts if isinstance(part.law, Transform)]
    wanted = [(law.count(part.shape) * (part.copies or 1), law.normal) for part, law in laws]
    cuts, keys = iter(_numbers(keys[0], wanted) if wanted else []), keys[1:]
    return [
        _of_numbers(part, part.law, next(cuts), dtype)
        if isinstance(part.law, Transform)
        else _of_key(part, keys.pop(0), dtype)
        for part in parts
    ]


def _numbers(key: Array, wanted: Sequence[tuple[int, bool]]) -> list[Array]:
    """So many numbers for each, normal or uniform; all are made at once: a compiler would draw one where it is read."""
    ends = np.cumsum([count for count, _ in wanted])[:-1]
    uniform = jnp.split(threefry.uniform(key, sum(count for count, _ in wanted)), ends)
    order = sorted(range(len(wanted)), key=lambda i: not wanted[i][1])  # normal ones in one pass
    normals = sum(normal for _, normal in wanted)
    sorted_ = [uniform[i] for i in order]
    made = [standard_normal(jnp.concatenate(sorted_[:normals]))] if normals else []
    whole = lax.optimization_barrier(jnp.concatenate([*made, *sorted_[normals:]]))
    cuts = jnp.split(whole, np.cumsum([wanted[i][0] for i in order])[:-1])
    return [cut for _, cut in sorted(zip(order, cuts, strict=True), key=lambda pair: pair[0])]


def _of_numbers(part: Part, law: Transform, z: Array, dtype: DTypeLike) -> Array:
    if part.copies is None:
        return law.of(z, part.shape, dtype)
    return jax.vmap(lambda z: law.of(z, part.shape, dtype))(z.reshape(part.copies, -1))


def _of_key(part: Part, key: Array, dtype: DTypeLike) -> Array:
    def drawn(key: Array) -> Array:
        return part.law(key, part.shape, dtype)

    name = jnp.dtype(dtype).name
    draw = lapack.one_by_one(drawn) if lapack.needed(part.law, part.shape, name) else drawn
    return lax.optimization_barrier(draw(key)) if part.copies is None else lax.map(draw, random.split(key, part.copies))


def _interval(u: Array, shape: Shape, dtype: DTypeLike, low: float, high: float) -> Array:
    u, middle, half = u.reshape(shape), (low + high) / 2, (high - low) / 2
    if not middle:
        return (half * u).astype(dtype)
    # A sum in the wide dtype: in float32 some programs round it once with the product, and others twice.
    return jnp.clip(middle + half * u.astype(dtype), low, high)


def interval(low: float, high: float) -> Transform:
    """The uniform law on [low, high]."""
    return Transform(partial(_interval, low=low, high=high), normal=False)


def _gaussian(z: Array, shape: Shape, dtype: DTypeLike) -> Array:
    return z.reshape(shape).astype(dtype)


GAUSSIAN = Transform(_gaussian)  # of mean 0 and variance 1
