"""All singular values of the product of matrices of any origin, as a pure function of arrays."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from gradsim import arguments, scaled
from gradsim.engine import graded, spectra
from gradsim.engine.graded import Graded
from gradsim.engine.grouping import next_interval
from gradsim.engine.jacobi import SingularValues, not_taken, singular_values
from gradsim.engine.plan import lengths
from gradsim.engine.spectra import Spectrum
from gradsim.scaled import Scaled

# Times ε: what a group of factors may lose unless told, less than most single Gaussian factors do.
FREE = 8


class LogSingularValues(NamedTuple):
    """What `gradsim.log_singular_values` returns, of each product.

    Attributes:
        values: ln σ_i in nat, [..., n] from the largest: −inf for what is exactly zero or lost to rounding, NaN where
            the rotations did not converge. With exponents=True the σ_i themselves, as a `gradsim.Scaled`.
        rank: how many of them are not −inf, [...], int32.
        converged: whether they converged, [...], bool.
    """

    values: Any
    rank: Array
    converged: Array


def log_singular_values(
    factors: ArrayLike | Scaled,
    *,
    at: int | Sequence[int] | None = None,
    exponents: bool = False,
    tolerance: float | None = None,
) -> LogSingularValues:
    """All singular values of the products J = A_l … A_1 of a chain of matrices, however far apart they lie.

    Each to about rounding times the condition of a factor times √l of its own size, at any length: a QR a step, or a
    group of steps, whose triangles make rows that each have a power of two of their own, and Jacobi rotations at the
    end, written in the ratio of two rows. Memory is O(n²) a chain, beside the factors. A factor costs 2 n³ operations,
    a group of them some 6 n³ and a QR (LAPACK's on a CPU, one chain after the other), the singular values at one length
    10 to 40 n³. On a CPU each core takes chains of its own, unless this is called inside `jit`. In float32 what a
    factor makes some 10⁶ times smaller than a direction that it depends on is rounding, and lost: take float64.
    Not resolved is a pair whose order later factors reverse by more than the mantissa without mixing them (16 nats in
    float32, 36 in float64), as a symmetry may; on a diagonal chain it is.

    Args:
        factors: [..., length, n, n], the matrices A_1 … A_L that act one after the other on column vectors (the
            transposes, in the order J = A_1ᵀ … A_Lᵀ, of what acts on rows); float32, or float64 where
            `jax.enable_x64` is on. `gradsim.Scaled(factors, powers)` gives each a power of two, int32 [..., length].
        at: lengths l from 1 to L, or one; all of it unless given. A list adds an axis in front of the values.
        exponents: give σ_i = mantissa · 2^exponent as a `gradsim.Scaled` in place of logarithms: a float32 logarithm
            of −3,000 has lost the digits behind the third.
        tolerance: the largest relative error that rounding may make in a group of factors which are multiplied before
            one QR, as estimated from the sizes that the QR leaves, which is no bound; the errors of the groups add up.
            8 ε unless given: orthogonal factors and those near the identity are then grouped, and Gaussian ones hardly
            ever. In float64 1e-7 takes about half the time for Gaussian chains. A group that loses more, in any chain,
            or a direction altogether, is taken again with fewer; a single factor loses what it must.

    Returns: a `LogSingularValues(values, rank, converged)`. Pure: `jit`, `vmap` and shard it.
    Raises: ValueError or TypeError naming the argument, when it is traced at the latest.
    Source: Benettin et al. 1980 for the QR of a chain; Demmel & Veselić 1992 for the rotations.
    """
    matrices, powers = checked(factors)
    arguments.flag("exponents", exponents)
    wanted = lengths(at, matrices.shape[-3])
    allowed = _nats(tolerance, matrices.dtype)
    with jax.default_matmul_precision("highest"):  # GPUs round to TF32 by default
        found = _at_lengths(matrices, powers, wanted, allowed)
    if at is None or isinstance(at, int):
        found = jax.tree.map(lambda leaf: leaf[..., 0, :] if leaf.ndim > powers.ndim else leaf[..., 0], found)
    values = found.values if exponents else scaled.on_device(found.values, logarithm=True)
    rank = jnp.sum((found.values.mantissa != 0).astype(jnp.int32), axis=-1)
    return LogSingularValues(values, rank, found.converged)


def _nats(tolerance: Any, dtype: Any) -> Array:
    """How many nats of its digits rounding may take from a group of factors: ln(tolerance/ε), none below."""
    eps = float(jnp.finfo(dtype).eps)
    if tolerance is None:
        tolerance = FREE * eps
    tolerance = arguments.number("tolerance", tolerance, "a number above 0 and below 1", 0.0, 1.0)
    return jnp.asarray(math.log(max(tolerance / eps, 1.0)), dtype)


def checked(factors: Any) -> tuple[Array, Array]:
    """The matrices [..., length, n, n] and their powers of two [..., length]."""
    wanted = "an array [..., length, n, n] of real numbers, or a gradsim.Scaled of it and int32 [..., length]"
    matrices, powers = factors if isinstance(factors, Scaled) else (factors, None)
    if not isinstance(matrices, Array):  # nor traced
        arguments.numbers("factors", matrices, wanted)
    matrices = jnp.asarray(matrices)
    if matrices.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"factors: got {matrices.dtype}; pass float32, or float64 under jax.enable_x64(True)")
    shape = list(matrices.shape)
    if matrices.ndim < 3 or shape[-1] != shape[-2] or 0 in shape:
        raise ValueError(f"factors: got shape {shape}; pass {wanted}")
    if powers is None:
        return matrices, jnp.zeros(shape[:-2], jnp.int32)
    if jnp.shape(powers) != matrices.shape[:-2] or jnp.result_type(powers) != jnp.int32:
        got = f"{jnp.result_type(powers)} {list(jnp.shape(powers))}"
        raise ValueError(f"factors: got powers of two {got} of matrices {shape}; pass int32 {shape[:-2]}")
    return matrices, jnp.asarray(powers)


class Walk(NamedTuple):
    """A walk along the chains: the factors passed, the products, the factors of the next group, what was found."""

    t: Array
    products: Spectrum
    interval: Array
    found: SingularValues  # leaves [lengths, chains, …]


@partial(jax.jit, static_argnames="wanted")
def _at_lengths(matrices: Array, powers: Array, wanted: tuple[int, ...], allowed: Array) -> SingularValues:
    """The singular values at these lengths, leaves [..., lengths, …]; no group of factors loses more nats than allowed.

    Groups are the same for all chains. One that has lost too much, or a direction altogether, is taken again with half
    as many factors: of one factor each loses what it must.
    """
    *batch, length, n, _ = matrices.shape
    flat = jnp.moveaxis(matrices.reshape(-1, length, n, n), 1, 0), jnp.moveaxis(powers.reshape(-1, length), 1, 0)
    product = spectra.start(jnp.eye(n, dtype=matrices.dtype))
    products = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (flat[0].shape[1], *leaf.shape)), product)
    lengths = jnp.asarray(wanted, jnp.int32)

    def turn(walk: Walk) -> Walk:
        stop = jnp.min(jnp.where(lengths > walk.t, lengths, length))
        steps = jnp.minimum(walk.interval, stop - walk.t)
        products, lost = _group(walk.products, flat, walk.t, steps)
        accepted = (lost <= allowed) | (steps == 1)
        interval = next_interval(walk.interval, steps, lost, allowed)
        interval = jnp.where(accepted, interval, jnp.maximum(steps // 2, 1))
        t = jnp.where(accepted, walk.t + steps, walk.t)
        products = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), products, walk.products)
        found = lax.cond(jnp.any(lengths == t), lambda: _put(walk.found, products, lengths == t), lambda: walk.found)
        return Walk(t, products, interval, found)

    nothing = jax.vmap(lambda product: not_taken(product.triangle))(products)
    nothing = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(wanted), *leaf.shape)), nothing)
    zero, one = jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32)
    last = lax.while_loop(lambda walk: walk.t < max(wanted), turn, Walk(zero, products, one, nothing))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(*batch, len(wanted), *leaf.shape[2:]), last.found)


def _group(products: Spectrum, chains: tuple[Array, Array], t: Array, steps: Array) -> tuple[Spectrum, Array]:
    """The products after some factors and one QR, and the most nats that rounding may have lost in one of them."""

    def step(i: Array, carry: tuple[Graded, Array]) -> tuple[Graded, Array]:
        here = [lax.dynamic_index_in_dim(leaf, t + i, keepdims=False) for leaf in chains]
        return jax.vmap(_image)(*carry, *here)

    nothing = jnp.zeros(products.basis.shape[:-1], products.basis.dtype)
    carry = Graded(products.basis, nothing.astype(jnp.int32)), nothing
    images, shrunk = lax.fori_loop(0, steps, step, carry)
    there = jnp.any(products.triangle.rows != 0, axis=-1)
    after, lost = jax.vmap(spectra.factored)(products, images)
    return after, jnp.max(lost) + jnp.max(jnp.where(there, shrunk, 0))


def _image(rows: Graded, shrunk: Array, matrix: Array, power: Array) -> tuple[Graded, Array]:
    """The images of rows, and the nats by which all its factors have shrunk each more than the vectors at large.

    A factor's rounding is that of its large entries: ε ‖A‖ ‖row‖, more than ε of an image that has come out small.
    """
    images = rows.rows @ matrix.T
    before, after = (jnp.sum(some * some, axis=1) for some in (rows.rows, images))
    at_large = jnp.mean(jnp.sum(matrix * matrix, axis=0))
    shrunk = shrunk + jnp.maximum(0.5 * jnp.log(at_large * before / after), 0)
    images, exponents = graded.brought_back(images, rows.exponents)
    return Graded(images, jnp.maximum(exponents + power, scaled.NOTHING)), shrunk


def _put(found: SingularValues, products: Spectrum, here: Array) -> SingularValues:
    """What was found, with the singular values of these products at one of the lengths."""
    new = jax.vmap(lambda product: singular_values(product.triangle))(products)
    return jax.tree.map(lambda new, old: jnp.where(here.reshape(-1, *(1,) * new.ndim), new, old), new, found)
