"""How far a product is from an isometry: numbers read off its singular values, or off its Gram matrix."""

import jax.numpy as jnp
from jax import Array

from gradsim import scaled
from gradsim.scaled import Scaled


def condition(values: Scaled) -> Scaled:
    """σ_max/σ_min of singular values [n], from the largest; inf where one is zero."""
    mantissa, exponent = values
    none = mantissa[-1] == 0
    ratio = jnp.where(none, jnp.inf, mantissa[0] / jnp.where(none, 1, mantissa[-1]))
    return Scaled(ratio, jnp.where(none, 0, exponent[0] - exponent[-1]))


def isometric_share(values: Scaled) -> Array:
    """The share of singular values between ½ and 2; NaN where they were not taken."""
    sizes = jnp.asarray(scaled.times_power_of_two(values.mantissa, jnp.clip(values.exponent, -8, 8)))
    near = jnp.mean(((sizes >= 0.5) & (sizes <= 2)).astype(sizes.dtype))
    return jnp.where(jnp.any(jnp.isnan(values.mantissa)), jnp.nan, near)


def second_moment(rows: Array, exponent: Array) -> Scaled:
    """Σ σ⁴/n of the matrix rows · 2**exponent, [n, …], whose norm is near 1."""
    gram = rows @ rows.T
    return Scaled(jnp.sum(gram * gram) / len(gram), 4 * exponent)


def spectral_variance(rows: Array) -> Array:
    """The variance of the squared singular values over the square of their mean; inf for zeros alone.

    The mean is taken off before the squares: near an isometry both are alike to rounding.
    """
    gram = rows @ rows.T
    mean = jnp.trace(gram) / len(gram)
    apart = gram - mean * jnp.eye(len(gram), dtype=gram.dtype)
    zero = mean == 0
    return jnp.where(zero, jnp.inf, jnp.sum(apart * apart) / (len(gram) * jnp.where(zero, 1, mean * mean)))
