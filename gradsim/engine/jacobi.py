"""Singular values of a graded matrix by one-sided Jacobi rotations, each to rounding of its own size.

Rotations of pairs of rows make all rows orthogonal; their norms are then the singular values. Two rows s_i u_i and
s_j u_j enter a rotation by the cosine c of their angle and the ratio r = s_j / s_i <= 1 of their sizes alone, so that
nothing leaves the range however far apart they are: with the tangent t of the rotation,

    t/r = -2c / (1 - r² + sqrt((1 - r²)² + 4 c² r²))
    u_i' = (u_i - t r u_j) / sqrt(1 + t²)        the larger row
    u_j' = (u_j + (t/r) u_i) / sqrt(1 + t²)      the smaller one, which for r -> 0 is projected off the larger

Sources: Hestenes 1958; Demmel & Veselić 1992 (accuracy of small values); Drmač & Veselić 2008 (QR before Jacobi).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import scaled
from gradsim.engine import graded
from gradsim.engine.graded import Graded
from gradsim.engine.orthogonal import orthonormalized, without_rounding
from gradsim.scaled import Scaled

# QR steps before the rotations: each takes the cosine of two rows of size ratio r to about r² of it.
PASSES = 3
# Convergence is quadratic: 5 to 9 sweeps. What takes more than this does not converge.
SWEEPS = 30


class SingularValues(NamedTuple):
    """All singular values, from the largest: mantissas and exponents [n], 0 for what is lost; did they converge?"""

    values: Scaled
    converged: Array


def singular_values(matrix: Graded) -> SingularValues:
    """The singular values of a square graded matrix; NaN where the rotations did not converge."""
    rows = matrix.rows.shape[0]
    matrix = lax.fori_loop(0, PASSES, lambda _, matrix: _reduced(matrix), matrix)
    matrix = Graded(
        jnp.pad(matrix.rows, ((0, rows % 2), (0, 0))),
        jnp.pad(matrix.exponents, (0, rows % 2), constant_values=scaled.NOTHING),
    )
    # A sum of n products rounds by about √n ε.
    tolerance = 4.0 * float(rows) ** 0.5 * float(jnp.finfo(matrix.rows.dtype).eps)

    def unfinished(carry: tuple[Graded, Array, Array]) -> Array:
        _, cosine, sweeps = carry
        return (cosine > tolerance) & (sweeps < SWEEPS)  # of NaN nothing will become

    def another(carry: tuple[Graded, Array, Array]) -> tuple[Graded, Array, Array]:
        swept = _sweep(carry[0])
        return swept, _largest_cosine(swept), carry[2] + 1

    first = jnp.full_like(matrix.rows[0, 0], jnp.inf)
    matrix, cosine, _ = lax.while_loop(unfinished, another, (matrix, first, jnp.zeros((), jnp.int32)))
    converged = cosine <= tolerance
    values = graded.by_size(matrix)[1]
    mantissa = jnp.where(converged, values.mantissa[:rows], jnp.nan)
    return SingularValues(Scaled(mantissa, values.exponent[:rows]), converged)


def not_taken(matrix: Graded) -> SingularValues:
    """NaN in place of the singular values of a matrix."""
    n = len(matrix.exponents)
    nothing = Scaled(jnp.full(n, jnp.nan, matrix.rows.dtype), jnp.zeros(n, jnp.int32))
    return SingularValues(nothing, jnp.zeros((), bool))


def _reduced(matrix: Graded) -> Graded:
    """A triangular matrix of the same singular values, whose rows are nearer to orthogonal, the lost ones 0.

    Sorted rows D U with U = Rᵀ Q, D their sizes, have the singular values of D Rᵀ, and so of R D.
    """
    matrix, _ = graded.by_size(matrix)
    r = without_rounding(orthonormalized(matrix.rows)[1])
    return graded.brought_back(*graded.times_scales(r, matrix.exponents))


def _largest_cosine(matrix: Graded) -> Array:
    """The largest |cosine| between two rows."""
    norms = jnp.sqrt(jnp.sum(matrix.rows * matrix.rows, axis=1, keepdims=True))
    unit = matrix.rows / jnp.where(norms == 0, 1, norms)
    cosines = jnp.abs(unit @ unit.T)
    return jnp.max(jnp.where(jnp.eye(len(norms), dtype=bool), 0, cosines))


def _sweep(matrix: Graded) -> Graded:
    """Every pair of rows rotated once, in n − 1 rounds of n/2 pairs: the order of a round-robin tournament."""
    half = matrix.rows.shape[0] // 2
    top = jax.tree.map(lambda leaf: leaf[:half], matrix)
    bottom = jax.tree.map(lambda leaf: leaf[half:], matrix)

    def turn(_: Array, pairs: tuple[Graded, Graded]) -> tuple[Graded, Graded]:
        top, bottom = _rotated(*pairs)
        # One stays; the others move on by a place, along the top and back along the bottom.
        moved = jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[:1], a[1:-1]]), top, bottom)
        back = jax.tree.map(lambda a, b: jnp.concatenate([b[1:], a[-1:]]), top, bottom)
        return (moved, back) if half > 1 else (top, bottom)

    top, bottom = lax.fori_loop(0, 2 * half - 1, turn, (top, bottom))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), top, bottom)


def _rotated(one: Graded, other: Graded) -> tuple[Graded, Graded]:
    """Row i of the one and row i of the other made orthogonal; either may be the larger, and each keeps its place."""
    a, b = one.rows, other.rows
    aa, bb, ab = jnp.sum(a * a, axis=1), jnp.sum(b * b, axis=1), jnp.sum(a * b, axis=1)
    eps = float(jnp.finfo(a.dtype).eps)
    there = (aa > 0) & (bb > 0)
    size_a, size_b = (jnp.sqrt(jnp.where(there, square, 1)) for square in (aa, bb))
    c = ab / (size_a * size_b)
    turns = there & (jnp.abs(c) > eps / 4)
    apart = scaled.power_of_two(other.exponents - one.exponents, a.dtype)
    ratio = size_b / size_a * apart
    swapped = ratio > 1  # the other is the larger
    r = jnp.where(swapped, size_a / size_b * scaled.power_of_two(one.exponents - other.exponents, a.dtype), ratio)
    gap = (1 - r) * (1 + r)
    c = jnp.where(turns, c, 0)
    over_r = -2 * c / jnp.where(turns, gap + jnp.sqrt(gap * gap + 4 * c * c * r * r), 1)  # t/r
    cosine = 1 / jnp.sqrt(1 + (over_r * r) ** 2)
    smaller, larger = over_r, -over_r * r * r
    to_a = jnp.where(swapped, smaller, larger) * size_a / size_b
    to_b = jnp.where(swapped, larger, smaller) * size_b / size_a
    return _combined(one, a, b, cosine, to_a, aa), _combined(other, b, a, cosine, to_b, bb)


def _combined(row: Graded, own: Array, partner: Array, cosine: Array, weight: Array, square: Array) -> Graded:
    """cosine · (own + weight · partner), brought back by what the row's last rotation left of it."""
    shift = scaled.exponent_of(square) >> 1
    factor = cosine * scaled.power_of_two(-shift, own.dtype)
    return Graded(factor[:, None] * own + (factor * weight)[:, None] * partner, row.exponents + shift)
