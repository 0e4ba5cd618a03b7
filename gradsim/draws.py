"""Random draws: all arrays of a step out of one draw of uniform numbers.

A compiler spends more on the hash behind a draw than on anything else in a program. So what one key gives is hashed
once and cut, and a law is a function of uniform numbers (inverse transform sampling). Numbers are drawn in float32
and widened, so that a run in float64 measures the same networks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.typing import DTypeLike

Shape = tuple[int, ...]
Draw = Callable[[Array, tuple[int, int], Any], Array]

LOWEST = float(np.nextafter(np.float32(-1), np.float32(0)))


@dataclass(frozen=True)
class Widened:
    """`draw(key, shape, dtype)` called with float32, whatever the dtype of the run, to which the result is widened."""

    draw: Callable[..., Array]

    def __call__(self, key: Array, shape: Shape, dtype: DTypeLike, *args: int | float) -> Array:
        return self.draw(key, shape, jnp.float32, *args).astype(dtype)


normal = Widened(random.normal)  # (key, shape, dtype), of mean 0 and variance 1
uniform = Widened(random.uniform)  # (key, shape, dtype, low, high)


@dataclass(frozen=True)
class Transform:
    """A law as a function of uniform numbers: `of(u, shape, dtype)` for u [count(shape)] in (−1, 1), float32.

    Called with a key in place of the numbers it draws them.
    """

    of: Callable[[Array, Shape, DTypeLike], Array]
    count: Callable[[Shape], int] = math.prod

    def __call__(self, key: Array, shape: Shape, dtype: DTypeLike) -> Array:
        return together(key, dtype, Part(self, shape))[0]


class Part(NamedTuple):
    """An array to draw, [*shape], or [copies, *shape]."""

    law: Callable[..., Array]
    shape: Shape
    copies: int | None = None


def together(key: Array, dtype: DTypeLike, *parts: Part) -> list[Array]:
    """The arrays of these parts, independent of one another: one hash for all `Transform`s, a key for any other law."""
    keys = [key]
    if others := sum(not isinstance(part.law, Transform) for part in parts):
        keys = list(random.split(key, 1 + others))
    counts = [_count(part) for part in parts]
    u = random.uniform(keys.pop(0), (sum(counts),), jnp.float32, LOWEST, 1)
    cuts = jnp.split(u, np.cumsum(counts)[:-1])
    return [
        _of_uniform(part, part.law, cut, dtype)
        if isinstance(part.law, Transform)
        else _of_key(part, keys.pop(0), dtype)
        for part, cut in zip(parts, cuts, strict=True)
    ]


def _count(part: Part) -> int:
    return part.law.count(part.shape) * (part.copies or 1) if isinstance(part.law, Transform) else 0


def _of_uniform(part: Part, law: Transform, u: Array, dtype: DTypeLike) -> Array:
    if part.copies is None:
        return law.of(u, part.shape, dtype)
    return jax.vmap(lambda u: law.of(u, part.shape, dtype))(u.reshape(part.copies, -1))


def _of_key(part: Part, key: Array, dtype: DTypeLike) -> Array:
    if part.copies is None:
        return part.law(key, part.shape, dtype)
    return lax.map(lambda one: part.law(one, part.shape, dtype), random.split(key, part.copies))


def standard_normal(u: Array) -> Array:
    """Numbers of mean 0 and variance 1 out of uniform ones in (−1, 1), as jax.random.normal makes them."""
    return math.sqrt(2) * lax.erf_inv(u)


def _interval(u: Array, shape: Shape, dtype: DTypeLike, low: float, high: float) -> Array:
    return (low + (high - low) * (0.5 * u + 0.5)).reshape(shape).astype(dtype)


def interval(low: float, high: float) -> Transform:
    """The uniform law on [low, high]."""
    return Transform(partial(_interval, low=low, high=high))


def _gaussian(u: Array, shape: Shape, dtype: DTypeLike) -> Array:
    return standard_normal(u).reshape(shape).astype(dtype)


GAUSSIAN = Transform(_gaussian)  # of mean 0 and variance 1
