"""Jacobian products as bundles of tangents (or cotangents) that an exact power of two keeps in range."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from gradsim import scaled
from gradsim.networks.network import Network, State
from gradsim.scaled import Scaled


class Bundle(NamedTuple):
    """Tangents after a step, vector-first (leaves [vectors, ...]), not yet divided by 2**pending.

    The true product is mantissa * 2**(exponent - pending). The division waits for the next step,
    where a compiler may join it to other elementwise work.
    """

    mantissa: State
    pending: Array
    exponent: Array

    def normalized(self, network: Network) -> Scaled:
        """The observed part of the product, its largest entry in [½, 1)."""
        whole = scaled.times_power_of_two(self.mantissa, -self.pending)
        part = jax.vmap(network.observed)(whole)
        # Where nothing is left out the largest entry is known, and a pass over the tangents is saved.
        product = Scaled(part, self.exponent)
        return product if scaled.size(part) == scaled.size(whole) else scaled.normalize(product)


def start(vectors: State) -> Bundle:
    """The bundle before the first step."""
    pending = scaled.binary_exponent(vectors)
    return Bundle(vectors, pending, pending)


def push(bundle: Bundle, linear: Callable[[State], State]) -> Bundle:
    """The bundle after one step, whose derivative (or its transpose) is `linear`.

    The division comes first: what one step has shrunk by 1e-30 another may shrink as much again.
    """
    moved = jax.vmap(linear)(scaled.times_power_of_two(bundle.mantissa, -bundle.pending))
    pending = scaled.binary_exponent(moved)
    return Bundle(moved, pending, bundle.exponent + pending)


def basis(network: Network, state: State) -> State:
    """The unit vectors of the observed part of a state, as tangents of the whole state."""
    leaves, structure = jax.tree.flatten(network.observed(state))
    n, offset, columns = scaled.size(leaves), 0, []
    for leaf in leaves:
        columns.append(jnp.eye(n, leaf.size, -offset, dtype=leaf.dtype).reshape(n, *leaf.shape))
        offset += leaf.size
    return embed(network, state, jax.tree.unflatten(structure, columns))


def unit_vector(network: Network, state: State, key: Array) -> State:
    """One vector of unit norm and random direction in the observed part, as a tangent of the whole state."""
    leaves, structure = jax.tree.flatten(network.observed(state))
    keys = random.split(key, len(leaves))
    drawn = [random.normal(k, (1, *leaf.shape), leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    norm = jnp.sqrt(scaled.square_sum(drawn))
    return embed(network, state, jax.tree.unflatten(structure, [leaf / norm for leaf in drawn]))


def embed(network: Network, state: State, vectors: State) -> State:
    """Vectors of the observed part as vectors of the whole state: the transpose of `observed`."""
    whole = jax.linear_transpose(network.observed, state)
    return jax.vmap(lambda vector: whole(vector)[0])(vectors)
