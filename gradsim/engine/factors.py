"""All singular values of the product of matrices of any origin, as a pure function of arrays."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from gradsim import arguments, scaled
from gradsim.engine import spectra
from gradsim.engine.graded import Graded
from gradsim.engine.jacobi import SingularValues, not_taken, singular_values
from gradsim.engine.plan import lengths
from gradsim.engine.spectra import Spectrum
from gradsim.scaled import Scaled


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
    factors: ArrayLike | Scaled, *, at: int | Sequence[int] | None = None, exponents: bool = False
) -> LogSingularValues:
    """All singular values of the products J = A_l … A_1 of a chain of matrices, however far apart they lie.

    Each to about rounding times the condition of a factor times √l of its own size, at any length: a QR a step, whose
    triangles make rows that each have a power of two of their own, and Jacobi rotations at the end, written in the
    ratio of two rows. Memory is O(n²) a chain, beside the factors. A step costs some 8 n³ operations and a QR
    (LAPACK's on a CPU, one call for all chains), the singular values at one length 10 to 40 n³. In float32 what a
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

    Returns: a `LogSingularValues(values, rank, converged)`. Pure: `jit`, `vmap` and shard it.
    Raises: ValueError or TypeError naming the argument, when it is traced at the latest.
    Source: Benettin et al. 1980 for the QR of a chain; Demmel & Veselić 1992 for the rotations.
    """
    matrices, powers = _checked(factors)
    arguments.flag("exponents", exponents)
    wanted = lengths(at, matrices.shape[-3])
    with jax.default_matmul_precision("highest"):  # GPUs round to TF32 by default
        found = _at_lengths(matrices, powers, wanted)
    if at is None or isinstance(at, int):
        found = jax.tree.map(lambda leaf: leaf[..., 0, :] if leaf.ndim > powers.ndim else leaf[..., 0], found)
    values = found.values if exponents else scaled.on_device(found.values, logarithm=True)
    rank = jnp.sum((found.values.mantissa != 0).astype(jnp.int32), axis=-1)
    return LogSingularValues(values, rank, found.converged)


def _checked(factors: Any) -> tuple[Array, Array]:
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


@partial(jax.jit, static_argnames="wanted")
def _at_lengths(matrices: Array, powers: Array, wanted: tuple[int, ...]) -> SingularValues:
    """The singular values at these lengths, leaves [..., lengths, …]."""
    *batch, length, n, _ = matrices.shape
    flat = jnp.moveaxis(matrices.reshape(-1, length, n, n), 1, 0), jnp.moveaxis(powers.reshape(-1, length), 1, 0)
    product = spectra.start(jnp.eye(n, dtype=matrices.dtype))
    products = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (flat[0].shape[1], *leaf.shape)), product)

    def step(products: Spectrum, x: tuple[Array, Array, Array]) -> tuple[Spectrum, SingularValues]:
        products = jax.vmap(_one)(products, *x[1:])
        taken = jnp.any(x[0] == jnp.asarray(wanted, jnp.int32))
        take = jax.vmap(lambda product: singular_values(product.triangle))
        leave = jax.vmap(lambda product: not_taken(product.triangle))
        return products, lax.cond(taken, take, leave, products)

    _, found = lax.scan(step, products, (jnp.arange(1, length + 1, dtype=jnp.int32), *flat))
    at = jnp.asarray(wanted, jnp.int32) - 1
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf[at], 0, 1).reshape(*batch, len(wanted), *leaf.shape[2:]), found)


def _one(product: Spectrum, matrix: Array, power: Array) -> Spectrum:
    basis, triangle = spectra.push(product, lambda rows: rows @ matrix.T)
    return Spectrum(basis, Graded(triangle.rows, jnp.maximum(triangle.exponents + power, scaled.NOTHING)))
