"""Arrays in block floating point: mantissas of any shape, with an int32 exponent for each slab of entries.

The exponent has as many axes as the mantissa, each of length one or of the mantissa's own: one exponent for the whole
array, for each step of a scan, or for each entry. A slab that is zero has the exponent ZERO, below every other.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax.numpy as jnp
from jax import Array, lax

from gradsim.scaled import Scaled, exponent_of, times_power_of_two

ZERO = -(2**30)


def is_block(value: Any) -> TypeGuard[Scaled]:
    """Is it a mantissa with its exponents?"""
    return isinstance(value, Scaled)


def largest_parts(x: Array, axes: tuple[int, ...]) -> Array:
    """max |x| over these axes, which stay; of complex numbers the larger of the two parts."""
    sizes = jnp.maximum(jnp.abs(x.real), jnp.abs(x.imag)) if jnp.iscomplexobj(x) else jnp.abs(x)
    return jnp.max(sizes, axis=axes, keepdims=True, initial=jnp.zeros((), sizes.dtype))


def times(x: Array, exponent: Array) -> Array:
    """x * 2**exponent, exact unless it leaves the range."""
    if jnp.iscomplexobj(x):
        return lax.complex(times_power_of_two(x.real, exponent), times_power_of_two(x.imag, exponent))
    return jnp.asarray(times_power_of_two(x, exponent))


def normalized(mantissa: Array, exponent: Array) -> Scaled:
    """The same numbers with the largest entry of each slab in [½, 1)."""
    axes = tuple(axis for axis, length in enumerate(exponent.shape) if length == 1)
    largest = largest_parts(mantissa, axes)
    shift = exponent_of(largest)
    return Scaled(times(mantissa, -shift), jnp.where(largest == 0, ZERO, exponent + shift))


def block(value: Any) -> Scaled:
    """An array of plain floats as one slab."""
    if is_block(value):
        return value
    return normalized(value, jnp.zeros((1,) * jnp.ndim(value), jnp.int32))


def joint_shape(values: Sequence[Scaled]) -> tuple[int, ...]:
    """The finest of the exponents' shapes along each axis."""
    return jnp.broadcast_shapes(*(value.exponent.shape for value in values))


def coarse(exponent: Array, shape: Sequence[int]) -> Array:
    """The exponents of coarser slabs: the largest of those within each."""
    axes = tuple(axis for axis, length in enumerate(shape) if length == 1 and exponent.shape[axis] != 1)
    top = jnp.max(exponent, axis=axes, keepdims=True, initial=ZERO) if axes else exponent
    return jnp.broadcast_to(top, tuple(shape))


def aligned(value: Scaled, exponent: Array) -> Array:
    """The mantissa that the numbers have at these exponents, which are not below their own."""
    return times(value.mantissa, value.exponent - exponent)


def coarsened(value: Scaled, shape: Sequence[int]) -> Scaled:
    """The same numbers, with exponents of this shape."""
    top = coarse(value.exponent, shape)
    return Scaled(aligned(value, top), top)


def by_row(value: Any) -> Scaled:
    """The same numbers with one exponent for each entry of the leading axis: the form in which a loop carries them."""
    whole = block(value)
    return coarsened(whole, (*whole.mantissa.shape[:1], *(1,) * (whole.mantissa.ndim - 1)))


def vanished(before: Scaled, after: Array) -> Array:
    """Which entries were not zero, and are now."""
    return (before.mantissa != 0) & (after == 0)


def at_true_size(value: Any) -> Any:
    """The numbers as plain floats, 0 or inf where they leave the range."""
    return times(value.mantissa, value.exponent) if is_block(value) else value


def log_norm_parts(values: Sequence[Any]) -> Scaled:
    """The Euclidean norm of all entries of several arrays, as one number."""
    sizes = [_norm(block(value)) for value in values]
    top = jnp.max(jnp.stack([size.exponent for size in sizes]))
    parts = jnp.stack([aligned(size, top) for size in sizes])
    return Scaled(jnp.sqrt(jnp.sum(parts * parts)), top)


def _norm(value: Scaled) -> Scaled:
    wide = jnp.float64 if value.mantissa.dtype in (jnp.float64, jnp.complex128) else jnp.float32
    axes = tuple(axis for axis, length in enumerate(value.exponent.shape) if length == 1)
    x = value.mantissa
    squares = x.real.astype(wide) ** 2 + (x.imag.astype(wide) ** 2 if jnp.iscomplexobj(x) else 0)
    slabs = jnp.sqrt(jnp.sum(squares, axis=axes, keepdims=True)).astype(jnp.float64 if wide == jnp.float64 else wide)
    top = jnp.max(value.exponent, initial=ZERO)
    parts = times(slabs, value.exponent - top)
    return Scaled(jnp.sqrt(jnp.sum(parts * parts)), top)


def reshaped(exponent: Array, old: Sequence[int], new: Sequence[int]) -> Array:
    """The exponents of an array that is reshaped, made finer only along the axes that are merged with theirs."""
    pieces: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [], []
        a = b = 1
        while True:
            if i < len(old) and (a <= b or j >= len(new)):
                a, i, before = a * old[i], i + 1, [*before, i]
            elif j < len(new):
                b, j, after = b * new[j], j + 1, [*after, j]
            if a == b or (i >= len(old) and j >= len(new)):
                break
        pieces.append((before, after))
    kept = [any(exponent.shape[axis] > 1 for axis in before) for before, _ in pieces]
    shape = [1] * len(old)
    target: list[int] = []
    for (before, after), keep in zip(pieces, kept, strict=True):
        for axis in before if keep else []:
            shape[axis] = old[axis]
        target += [new[axis] if keep else 1 for axis in after]
    assert math.prod(shape) == math.prod(target)
    return jnp.broadcast_to(exponent, shape).reshape(target)
