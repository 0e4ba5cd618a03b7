"""The norm of a state: layer norm and RMS norm, exact far outside the range of their squares."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float

from gradsim import arguments, scaled

NORMS = ("layer", "rms")
LARGEST_EPSILON = 1e30  # in float32 a larger one, or its product with a scale, would be infinite


def _mean(x: Array, axis: int) -> Array:
    """The mean along axis −1 or −2, kept as an axis of length 1.

    Over the last axis but one halves are added to each other: XLA makes one pass of vector instructions of it, where
    its reduction after a matrix product took up to 80 times as long on a CPU. The transpose of that joins halves; that
    of a sum written out row by row would add as many padded arrays as there are rows.
    """
    return jnp.mean(x, axis, keepdims=True) if axis == -1 else _sum_of_rows(x) / x.shape[-2]


def _sum_of_rows(x: Array) -> Array:
    half, odd = divmod(x.shape[-2], 2)
    if half == 0:
        return x
    first, second, *last = jax.lax.split(x, [half, half, 1][: 2 + odd], x.ndim - 2)
    return _sum_of_rows(first + second) + last[0] if odd else _sum_of_rows(first + second)


def _divided(x: Array, axis: int, epsilon: float) -> tuple[Array, Array]:
    """x / s and 1 / s for s = √(mean x² + ε) along the axis; both 0 where s is.

    A state may be as large as 2**94 in float32: the squares are taken after an exact division.
    """
    largest = jnp.max(jnp.abs(x), axis, keepdims=True)
    largest = jnp.maximum(largest, epsilon**0.5)
    shrink = scaled.power_of_two(-scaled.exponent_of(largest), x.dtype)
    small = x * shrink
    variance = _mean(small * small, axis) + (epsilon**0.5 * shrink) ** 2
    # The limit ε -> 0 of a vector without any variance, as a layer of dead ReLUs leaves it.
    inverse = jnp.where(variance > 0, jax.lax.rsqrt(jnp.where(variance > 0, variance, 1)), 0)
    return small * inverse, shrink * inverse


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def standardize(x: Array, axis: int, epsilon: float, centre: bool = True) -> Array:
    """(x − mean x) / √(var x + ε) along axis −1 or −2; without centring x / √(mean x² + ε)."""
    return _divided(x - _mean(x, axis) if centre else x, axis, epsilon)[0]


@standardize.defjvp
def _(axis: int, epsilon: float, centre: bool, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # dy = (dx − mean dx − y mean(y dx)) / s: two sums and one product for each tangent, where
    # automatic differentiation follows the mean, the square and the root one by one.
    (x,), (dx,) = primals, tangents
    y, inverse = _divided(x - _mean(x, axis) if centre else x, axis, epsilon)
    if axis == -2:
        moved = dx - _mean(dx, axis) if centre else dx
        return y, inverse * (moved - y * _mean(y * dx, axis))
    # Over the last axis both sums are one thin matrix product, at twice the speed of reductions on a CPU.
    directions = jnp.stack([y, jnp.ones_like(y)] if centre else [y], axis=-1)
    means = (dx[..., None, :] @ directions)[..., 0, :] / x.shape[-1]
    moved = dx - means[..., 1:] if centre else dx
    # A product, for its transpose: there a sum of products is slower than all other passes of a norm together.
    return y, inverse * (moved - (means[..., None, :1] @ y[..., None, :])[..., 0, :])


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def standardize_affine(x: Float[Array, " n"], gain: Array, shift: Float[Array, " n"], epsilon: float) -> Array:
    """v / √(mean v² + ε) for v = gain x + shift: `standardize` of a layer, whose mean has been taken off before."""
    return _divided(gain * x + shift, -1, epsilon)[0]


@partial(standardize_affine.defjvp, symbolic_zeros=True)
def _(epsilon: float, primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    # The tangents of x meet y before they meet the gain: another pass over them is spared.
    (x, gain, shift), (dx, *others) = primals, tangents
    y, inverse = _divided(gain * x + shift, -1, epsilon)
    moved = (inverse * gain) * (dx - y * ((dx @ y) / x.shape[-1]))
    for tangent, by in zip(others, (x, jnp.ones_like(x)), strict=True):
        if not isinstance(tangent, SymbolicZero):  # of the gain or the shift
            value = tangent * by
            moved = moved + inverse * (value - y * jnp.mean(y * value))
    return y, moved


def checked_epsilon(epsilon: float) -> float:
    """`epsilon` as one number that is not negative, and that float32 holds."""
    value = arguments.gain("epsilon", epsilon)
    if value.ndim:
        raise ValueError(f"epsilon: got an array of shape {value.shape}; pass one number of at least 0")
    if value > LARGEST_EPSILON:
        raise ValueError(f"epsilon: got {value}; pass one number from 0 to {LARGEST_EPSILON:g}")
    return float(value)
