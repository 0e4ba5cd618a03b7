"""All singular values of a long product, exactly: what a float of the product itself loses after 16 nats.

The product is kept as J = Q T (columns): an orthonormal basis Q, and T = R_L … R_1 of the triangles that each step's
QR leaves, A Q = Q' R, as rows that each have a power of two of their own. At any length T has the singular values of J.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradsim.engine import graded, products
from gradsim.engine.graded import Graded
from gradsim.engine.jacobi import SingularValues, singular_values
from gradsim.engine.orthogonal import orthonormalized, without_rounding
from gradsim.engine.products import matrix
from gradsim.networks.network import Network, State


class Spectrum(NamedTuple):
    """A product J: `basis`, whose rows [n, d] are the columns of Q, and `triangle` T [n, n]."""

    basis: Array
    triangle: Graded


def start(vectors: Array) -> Spectrum:
    """The identity on the span of these orthonormal rows [n, d], which are turned at random.

    The first r vectors of a random basis span an image of rank r, with probability one: what depends on the others, as
    where units are dead or a norm takes directions away, comes last, and its row of T is zero from there on. Among the
    unit vectors it would stand anywhere, and an arbitrary direction in its place.
    """
    n = vectors.shape[0]
    turn = orthonormalized(mixed_numbers(n).astype(vectors.dtype))[0]
    return Spectrum(turn @ vectors, graded.identity(n, vectors))


def mixed_numbers(n: int) -> Array:
    """An n × n matrix of numbers between −½ and ½ without order, always the same; a tenth of a draw to compile."""
    numbers = jnp.arange(n * n, dtype=jnp.uint32).reshape(n, n) + 1
    for _ in range(3):
        numbers = (numbers ^ (numbers >> 16)) * jnp.uint32(0x45D9F3B)
    return (numbers >> 8).astype(jnp.float32) / 2**24 - 0.5


def push(spectrum: Spectrum, linear: Callable[[Array], Array]) -> Spectrum:
    """A J, where `linear` takes rows [n, d] to their images A q, of as many entries or not fewer than n."""
    images = linear(spectrum.basis)
    brought = graded.brought_back(images, jnp.zeros(images.shape[0], jnp.int32))
    basis, r = orthonormalized(brought.rows)
    exponents = jnp.maximum(spectrum.triangle.exponents + brought.exponents, graded.NOTHING)
    return Spectrum(basis, graded.times(without_rounding(r), Graded(spectrum.triangle.rows, exponents)))


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
