"""All singular values of a long product, exactly: what a float of the product itself loses after 16 nats.

The product is kept as J = Q T (columns): an orthonormal basis Q, and T = R_L … R_1 of the triangles that each step's
QR leaves, A Q = Q' R, as rows that each have a power of two of their own. At any length T has the singular values of J.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim import scaled
from gradsim.engine import graded, products
from gradsim.engine.graded import Graded
from gradsim.engine.jacobi import SingularValues, singular_values
from gradsim.engine.orthogonal import orthonormalized, without_rounding
from gradsim.engine.products import matrix
from gradsim.networks.network import Network, State
from gradsim.scaled import NOTHING

# Turns in which a step may sort dependent images to the end: structured ones take one or two.
TURNS = 4


class Spectrum(NamedTuple):
    """A product J: `basis`, whose rows [n, d] are the columns of Q, and `triangle` T [n, n]."""

    basis: Array
    triangle: Graded


def start(vectors: Array) -> Spectrum:
    """The identity on the span of these orthonormal rows [n, d]."""
    return Spectrum(vectors, graded.identity(vectors.shape[0], vectors))


def push(spectrum: Spectrum, linear: Callable[[Array], Array]) -> Spectrum:
    """A J, where `linear` takes rows [n, d] to their images A q, of as many entries or not fewer than n."""
    images = linear(spectrum.basis)
    return factored(spectrum, graded.brought_back(images, jnp.zeros(images.shape[0], jnp.int32)))[0]


def factored(spectrum: Spectrum, images: Graded) -> tuple[Spectrum, Array]:
    """A J of the images A q of the basis, and an estimate of how many nats rounding loses in it.

    An image a_j is known to ε ‖a_j‖, and meets row j of T. Row i of R T, which is not smaller than R_ii times row i of
    T, is then known to about ε max_{j ≥ i} ‖a_j‖ ‖T_j‖ / (R_ii ‖T_i‖): no bound, since R⁻¹ may be larger than its
    diagonal. Of a row that is lost that is ∞.
    """
    exponents = jnp.maximum(spectrum.triangle.exponents + images.exponents, NOTHING)
    basis, r, triangle = _factored(images.rows, Graded(spectrum.triangle.rows, exponents))
    there = jnp.any(triangle.rows != 0, axis=1)
    norm, diagonal = jnp.sqrt(jnp.sum(r * r, axis=0)), jnp.abs(jnp.diagonal(r))
    nats = (triangle.exponents - jnp.max(triangle.exponents)).astype(r.dtype) * scaled.LN2
    sizes = jnp.where(there & (norm > 0), nats + jnp.log(jnp.where(norm > 0, norm, 1)), -jnp.inf)
    spread = lax.cummax(sizes, reverse=True) - nats - jnp.log(jnp.where(diagonal > 0, diagonal, 0))
    lost = jnp.max(jnp.where(there, spread, 0))
    return Spectrum(basis, graded.times(r, triangle)), lost


def _factored(images: Array, triangle: Graded) -> tuple[Array, Array, Graded]:
    """(Q', R, T) of the images A Q: A Q T = Q' R T, the rows of T in an order in which dependent images come last.

    In the place of an image that depends on those before it QR puts an arbitrary direction. Where that is not among
    the last, it would share what the images after it span, and the rows of T would hide their rank: a second turn then
    has the dependent ones, whose rows of R are zero, behind the others, and what has no row of T left behind all. It is
    a loop, which vmap skips unless some chain needs it, as it would not skip a branch.
    """
    n = images.shape[0]

    def turn(images: Array) -> tuple[Array, Array]:
        basis, r = orthonormalized(images)
        return basis, without_rounding(r)

    def idle(triangle: Graded) -> Array:
        return jnp.all(triangle.rows == 0, axis=1)

    def hidden(carry: tuple[Array, Graded, Array, Array, Array]) -> Array:
        _, triangle, _, r, turns = carry
        nothing = (jnp.diagonal(r) == 0) | idle(triangle)
        return jnp.any(nothing[:, None] & (r != 0) & ~idle(triangle)) & (turns < TURNS)

    def again(carry: tuple[Array, Graded, Array, Array, Array]) -> tuple[Array, Graded, Array, Array, Array]:
        images, triangle, _, r, turns = carry
        lost = (jnp.diagonal(r) == 0).astype(jnp.int32)
        rank = jnp.where(idle(triangle), 3, lost + jnp.all(images == 0, axis=1).astype(jnp.int32))
        places = jnp.argsort(rank, stable=True)
        # Where the lost ones are the last already, the first of them has hidden others.
        rank = jnp.where((rank == 1) & (jnp.arange(n) == jnp.argmax(rank == 1)), 2, rank)
        first_last = jnp.argsort(rank, stable=True)
        places = jnp.where(jnp.all(places == jnp.arange(n)), first_last, places)
        images, triangle = jax.tree.map(lambda leaf: leaf[places], (images, triangle))
        return images, triangle, *turn(images), turns + 1

    first = (images, triangle, *turn(images), jnp.zeros((), jnp.int32))
    _, triangle, basis, r, _ = lax.while_loop(hidden, again, first)
    return basis, r, triangle


def of_network(network: Network, state: State) -> Spectrum:
    """The product before the first step of a network: the unit vectors of the observed part of its state."""
    return start(matrix(products.basis(network, state)))


def push_states(spectrum: Spectrum, state: State, linear: Callable[[State], State]) -> Spectrum:
    """`push` by a function of states such as this one."""
    return push(spectrum, lambda rows: matrix(jax.vmap(linear)(as_states(rows, state))))


def observed(spectrum: Spectrum, network: Network, state: State) -> SingularValues:
    """The singular values of the observed part of the product."""
    n, d = spectrum.basis.shape
    if n < d:
        spectrum = push_states(spectrum, state, network.observed)
    return singular_values(spectrum.triangle)


def as_states(rows: Array, state: State) -> State:
    """Rows [n, d] as vectors of a state, leaves [n, …]."""
    leaves, structure = jax.tree.flatten(state)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1].tolist()
    parts = jnp.split(rows, ends, axis=1)
    shaped = [part.reshape(-1, *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
