"""Numbers far outside the range of floats: a mantissa and an exact power of two."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

LN2 = float(np.log(2.0))
NOTHING = -(2**30)  # the exponent of zero: below that of any product


class Scaled(NamedTuple):
    """A pytree of arrays held as `mantissa * 2**exponent`, one int32 exponent for all of it."""

    mantissa: Any
    exponent: Array


def power_of_two(exponent: Array, dtype: DTypeLike) -> Array:
    """2**exponent, exact, cut to the normal numbers of `dtype`."""
    info = jnp.finfo(dtype)
    limit = -int(info.minexp)  # 126 in float32, 1022 in float64
    biased = jnp.clip(exponent, -limit, limit) + (int(info.maxexp) - 1)
    return lax.bitcast_convert_type(biased.astype(_integers(dtype)) << int(info.nmant), dtype)


def _integers(dtype: DTypeLike) -> str:
    """The integers as wide as these floats, to write and read their bits: far fewer operations than ldexp and frexp."""
    return f"int{jnp.finfo(dtype).bits}"


def exponent_of(x: Array) -> Array:
    """The k for which |x| lies in [2**(k−1), 2**k), int32, as frexp gives it; 0 for what is zero or not finite."""
    info = jnp.finfo(x.dtype)
    digits, ones = int(info.nmant), 2 ** (int(info.bits) - 1 - int(info.nmant)) - 1
    below = jnp.abs(x) < info.tiny  # not normal: its exponent is not in its bits
    x = jnp.where(below, x * 2.0 ** (digits + 1), x)
    biased = ((lax.bitcast_convert_type(x, _integers(x.dtype)) >> digits) & ones).astype(jnp.int32)
    exponent = biased - int(info.maxexp) + 2 - (digits + 1) * below.astype(jnp.int32)
    return jnp.where((biased == 0) | (biased == ones), 0, exponent)


def times_power_of_two(tree: Any, exponent: Array) -> Any:
    """tree * 2**exponent, leaf by leaf; exact unless a number leaves the range."""
    half = exponent >> 1  # 2**±149, the way from one end of float32 to 1, is no normal number itself
    return jax.tree.map(
        lambda leaf: leaf * power_of_two(half, leaf.dtype) * power_of_two(exponent - half, leaf.dtype), tree
    )


def binary_exponent(tree: Any) -> Array:
    """The k for which the largest |entry| of the tree lies in [2**(k-1), 2**k); 0 for an all-zero tree."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
    return exponent_of(largest)


def normalize(value: Scaled) -> Scaled:
    """The same number with its largest entry in [½, 1)."""
    shift = binary_exponent(value.mantissa)
    return Scaled(times_power_of_two(value.mantissa, -shift), value.exponent + shift)


def square_sum(tree: Any) -> Array:
    """Σ x² over all entries of a tree."""
    return jnp.asarray(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))


def size(tree: Any) -> int:
    """The number of entries of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def norm(value: Scaled) -> Scaled:
    """The Euclidean norm of all entries, of a normalized number."""
    return Scaled(jnp.sqrt(square_sum(value.mantissa)), value.exponent)


def add(first: Scaled, second: Scaled) -> Scaled:
    """The sum, at the larger of the two exponents: exact where the addition of floats is."""
    # A zero has no size: its exponent must not push the other number out of range.
    zeros = [jnp.all(jnp.stack([jnp.all(leaf == 0) for leaf in jax.tree.leaves(x.mantissa)])) for x in (first, second)]
    sizes = [jnp.where(zero, NOTHING, x.exponent) for zero, x in zip(zeros, (first, second), strict=True)]
    exponent = jnp.maximum(*sizes)
    one = times_power_of_two(first.mantissa, first.exponent - exponent)
    two = times_power_of_two(second.mantissa, second.exponent - exponent)
    return normalize(Scaled(jax.tree.map(jnp.add, one, two), exponent))


def total(values: Scaled) -> Scaled:
    """The sum over the leading axis, at the largest of the exponents there: exact where the addition of floats is."""
    zeros = [jnp.all(leaf.reshape(leaf.shape[0], -1) == 0, axis=1) for leaf in jax.tree.leaves(values.mantissa)]
    sizes = jnp.where(jnp.all(jnp.stack(zeros), axis=0), NOTHING, values.exponent)
    largest = jnp.max(sizes)
    brought = jax.vmap(times_power_of_two)(values.mantissa, sizes - largest)
    return normalize(Scaled(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), brought), largest))


def log(value: Scaled) -> np.ndarray:
    """ln |mantissa * 2**exponent| in float64 on the host; −inf where the mantissa is 0."""
    logs = np.array(value.mantissa, np.float64)
    with np.errstate(divide="ignore"):
        np.log(np.abs(logs, out=logs), out=logs)
    logs += LN2 * np.asarray(value.exponent)
    return logs


def on_device(value: Scaled, *, logarithm: bool) -> Array:
    """The number itself, or ln of its size, as an array of the mantissa's dtype; −inf where it is 0."""
    if logarithm:
        return jnp.log(jnp.abs(value.mantissa)) + LN2 * value.exponent.astype(value.mantissa.dtype)
    tops = value.exponent.reshape(value.exponent.shape + (1,) * (value.mantissa.ndim - value.exponent.ndim))
    return jnp.asarray(times_power_of_two(value.mantissa, tops))


def join(value: Scaled) -> np.ndarray:
    """mantissa * 2**exponent in float64 on the host; beyond 1e308 it is inf."""
    with np.errstate(over="ignore"):
        return np.asarray(np.ldexp(np.asarray(value.mantissa, np.float64), np.asarray(value.exponent)))
