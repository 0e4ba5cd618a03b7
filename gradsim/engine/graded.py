"""Matrices whose rows differ by hundreds of orders of magnitude: each row has a power of two of its own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import scaled
from gradsim.scaled import NOTHING, Scaled


class Graded(NamedTuple):
    """Row i is rows[i] · 2**exponents[i]; the largest entry of rows[i] lies in [½, 1), or all of it is 0."""

    rows: Array
    exponents: Array


def identity(n: int, like: Array) -> Graded:
    """The n × n identity, in the dtype of an array."""
    return Graded(jnp.eye(n, dtype=like.dtype) / 2, jnp.ones(n, jnp.int32))


def brought_back(rows: Array, exponents: Array) -> Graded:
    """The same rows with their largest entries in [½, 1): exact."""
    largest = jnp.max(jnp.abs(rows), axis=1)
    shift = scaled.exponent_of(largest)
    exponents = jnp.where(largest == 0, NOTHING, exponents + shift)
    return Graded(jax.vmap(scaled.times_power_of_two)(rows, -shift), exponents)


def times_scales(matrix: Array, exponents: Array) -> Graded:
    """matrix · diag(2**exponents), of columns near 1: entries below ε² of a column are taken for 0.

    No exponent has to be read off an entry then, and none is lost that is more than 2**−60 of its row.
    """
    there = ~(jnp.abs(matrix) < float(jnp.finfo(matrix.dtype).eps) ** 2)  # NaN is
    tops = jnp.max(jnp.where(there, exponents, NOTHING), axis=1)
    scales = scaled.power_of_two(exponents - tops[:, None], matrix.dtype)
    return Graded(jnp.where(there, matrix, 0) * scales, tops)


def times(matrix: Array, graded: Graded) -> Graded:
    """matrix · graded, each of whose rows is as exact as its largest terms."""
    weights = times_scales(matrix, graded.exponents)
    return brought_back(weights.rows @ graded.rows, weights.exponents)


def norms(graded: Graded) -> Scaled:
    """The Euclidean norms of the rows, mantissas in [½, 1) or 0, exponents [n]."""
    norm = jnp.sqrt(jnp.sum(graded.rows * graded.rows, axis=1))
    shift = scaled.exponent_of(norm)
    exponents = jnp.where(norm == 0, NOTHING, graded.exponents + shift)
    return Scaled(scaled.times_power_of_two(norm, -shift), exponents)


def by_size(graded: Graded) -> tuple[Graded, Scaled]:
    """The rows from the largest to the smallest, and their norms."""
    mantissa, exponents = norms(graded)
    places = jnp.arange(exponents.size, dtype=jnp.int32)
    falling = (-exponents, -mantissa, places)
    exponents, mantissa, places = lax.sort(falling, num_keys=2)
    return Graded(graded.rows[places], graded.exponents[places]), Scaled(-mantissa, -exponents)
