"""Arrays in block floating point: mantissas of any shape, with an int32 exponent for each slab of entries.

The exponent has as many axes as the mantissa, each of length one or of the mantissa's own: one exponent for the whole
array, for each step of a scan, or for each entry. A slab that is zero has the exponent NOTHING, below every other.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax.numpy as jnp
from jax import Array, lax

from gradsim.scaled import NOTHING, Scaled, exponent_of, times_power_of_two


def is_block(value: Any) -> TypeGuard[Scaled]:
    """Is it a mantissa with its exponents?"""
    return isinstance(value, Scaled)


def times(x: Array, exponent: Array) -> Array:
    """x * 2**exponent, for exponents of at most zero; zero where that is below the normal numbers."""
    if jnp.iscomplexobj(x):
        return lax.complex(times(x.real, exponent), times(x.imag, exponent))
    if _is_narrow(x.dtype):
        return jnp.asarray(times_power_of_two(x, exponent))
    return x * _power(lax.max(exponent, jnp.int32(1 - jnp.finfo(x.dtype).maxexp)), x.dtype)


def _is_narrow(dtype: Any) -> bool:
    """Does crossing the format's range take two factors?"""
    return bool(jnp.finfo(dtype).minexp > -100)


def has_range(dtype: Any) -> bool:
    """Are these real floats with the range of float32 or more?"""
    return bool(jnp.issubdtype(dtype, jnp.floating)) and not _is_narrow(dtype)


def _power(exponent: Array, dtype: Any) -> Array:
    """2**exponent in few operations, for there is one in every equation; 0 for the exponent below the normal ones."""
    info = jnp.finfo(dtype)
    biased = (exponent + jnp.int32(info.maxexp - 1)).astype(f"int{info.bits}")
    return lax.bitcast_convert_type(lax.shift_left(biased, jnp.full_like(biased, info.nmant)), dtype)


def normalized(mantissa: Array, exponent: Array) -> Scaled:
    """The same numbers with the largest entry of each slab in [½, 1)."""
    x = mantissa
    if 0 in x.shape:
        return Scaled(x, jnp.full_like(exponent, NOTHING))
    sizes = lax.max(lax.abs(x.real), lax.abs(x.imag)) if jnp.iscomplexobj(x) else lax.abs(x)
    if _is_narrow(sizes.dtype):
        axes = tuple(axis for axis, length in enumerate(exponent.shape) if length == 1)
        largest = lax.reduce_max(sizes, axes).reshape(exponent.shape)
        shift = exponent_of(largest)
        scaled = times_power_of_two(x, -shift)
        return Scaled(scaled, lax.select(largest == 0, jnp.full_like(exponent, NOTHING), exponent + shift))
    digits, least = _extremes(_bits(sizes), _bits(sizes), exponent.shape)
    # The least is no more than the largest; were it not wanted, XLA would make a slower program of one extreme.
    return _at(x, lax.max(digits, least), exponent)


def _bits(sizes: Array) -> Array:
    """Those of floats that are not negative: read as integers, they are in the order of their sizes."""
    return lax.bitcast_convert_type(sizes, f"int{jnp.finfo(sizes.dtype).bits}")


def _extremes(above: Array, below: Array, shape: Sequence[int]) -> list[Array]:
    """The largest of the ones and the least of the others in each slab: both of integers take one pass, and half the
    time that the largest of floats takes."""
    dtype = above.dtype.type
    both = lax.reduce(
        (above, below),
        (dtype(0), dtype(jnp.iinfo(dtype).max)),
        lambda one, two: (lax.max(one[0], two[0]), lax.min(one[1], two[1])),
        tuple(axis for axis, length in enumerate(shape) if length == 1),
    )
    return [one.reshape(tuple(shape)) for one in both]


def _at(x: Array, digits: Array, exponent: Array) -> Scaled:
    """The numbers with the largest entry of each slab, whose bits are `digits`, in [½, 1)."""
    dtype = jnp.float64 if digits.dtype == jnp.int64 else jnp.bfloat16 if digits.dtype == jnp.int16 else jnp.float32
    info = jnp.finfo(dtype)
    # The bits of the largest hold its exponent; what is not normal counts as the least number that is, and what is not
    # finite stays so.
    shift = lax.min(_biased(digits, dtype), jnp.int32(2 * info.maxexp - 4)) - jnp.int32(info.maxexp - 2)
    factor = _power(-shift, dtype)
    scaled = lax.complex(x.real * factor, x.imag * factor) if jnp.iscomplexobj(x) else x * factor
    return Scaled(scaled, lax.select(digits == 0, jnp.full_like(exponent, NOTHING), exponent + shift))


def _biased(digits: Array, dtype: Any) -> Array:
    """The exponent in the bits of floats that are not negative."""
    return lax.shift_right_logical(digits, jnp.full_like(digits, jnp.finfo(dtype).nmant)).astype(jnp.int32)


def levelled(mantissa: Array, exponent: Array, alive: Array) -> tuple[Scaled, Array]:
    """The normalized numbers, and for each slab the k for which those that are `alive` are 2**k or more; NOTHING where
    one of them is zero, −NOTHING where none is alive. Not for complex numbers, nor floats in a narrow range."""
    if 0 in mantissa.shape:
        return normalized(mantissa, exponent), jnp.full_like(exponent, -NOTHING)
    info = jnp.finfo(mantissa.dtype)
    bits = _bits(lax.abs(mantissa))
    end = bits.dtype.type(jnp.iinfo(bits.dtype).max)
    digits, least = _extremes(bits, lax.select(alive, bits, jnp.full_like(bits, end)), exponent.shape)
    power = _biased(least, mantissa.dtype) - jnp.int32(info.maxexp - 1) + exponent
    power = jnp.where(least == end, -NOTHING, jnp.where(least == 0, NOTHING, power))
    return _at(mantissa, digits, exponent), power


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
    top = jnp.max(exponent, axis=axes, keepdims=True, initial=NOTHING) if axes else exponent
    return jnp.broadcast_to(top, tuple(shape))


def aligned(value: Scaled, exponent: Array) -> Array:
    """The mantissa that the numbers have at these exponents, which are not below their own."""
    return times(value.mantissa, value.exponent - exponent)


def coarsened(value: Scaled, shape: Sequence[int]) -> Scaled:
    """The same numbers, with exponents of this shape."""
    if value.exponent.shape == tuple(shape):
        return value
    top = coarse(value.exponent, shape)
    return Scaled(aligned(value, top), top)


def with_rows(x: Scaled, length: int) -> Scaled:
    """The same numbers, with an exponent for each place of the first axis."""
    return Scaled(x.mantissa, jnp.broadcast_to(x.exponent, (length, *x.exponent.shape[1:])))


def vanished(before: Scaled, after: Array) -> Array:
    """Which entries were not zero, and are now."""
    return (before.mantissa != 0) & (after == 0)


def at_true_size(value: Any) -> Any:
    """The numbers as plain floats, 0 or inf where they leave the range."""
    if not is_block(value):
        return value
    x = value.mantissa
    if jnp.iscomplexobj(x):
        return lax.complex(*(times_power_of_two(part, value.exponent) for part in (x.real, x.imag)))
    return times_power_of_two(x, value.exponent)


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
    top = jnp.max(value.exponent, initial=NOTHING)
    parts = times(slabs, value.exponent - top)
    return Scaled(jnp.sqrt(jnp.sum(parts * parts)), top)


def reshaped(exponent: Array, old: Sequence[int], new: Sequence[int]) -> Array:
    """The exponents of an array that is reshaped, made finer only along the axes that are merged with theirs."""
    pieces: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before: list[int] = []
        after: list[int] = []
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
