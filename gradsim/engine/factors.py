"""All singular values of the product of matrices of any origin, as a pure function of arrays."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import arguments, scaled
from gradsim.engine import graded, spectra
from gradsim.engine.graded import Graded
from gradsim.engine.grouping import next_interval
from gradsim.engine.jacobi import SingularValues, not_taken, singular_values
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


def read(found: SingularValues, *, exponents: bool) -> LogSingularValues:
    """The logarithms, or the values themselves, and the rank of what was found."""
    values = found.values if exponents else scaled.on_device(found.values, logarithm=True)
    rank = jnp.sum((found.values.mantissa != 0).astype(jnp.int32), axis=-1)
    return LogSingularValues(values, rank, found.converged)


def nats(tolerance: Any, dtype: Any) -> Array:
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


@partial(jax.jit, static_argnums=0)
def at_lengths(wanted: tuple[int, ...], matrices: Array, powers: Array, allowed: Array) -> SingularValues:
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
