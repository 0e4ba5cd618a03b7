"""Jacobian products as bundles of tangents (or cotangents) that an exact power of two keeps in range."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim import scaled
from gradsim.networks.network import Network, State
from gradsim.scaled import Scaled

# A step that multiplies the norm by less than 2**±FAR is divided out with the next one.
FAR = 16


class Bundle(NamedTuple):
    """Tangents after a step, vector-first (leaves [vectors, ...]): mantissa * 2**exponent, of squared norm `squares`.

    The norm of the mantissa lies within 2**±FAR, or is 0.
    """

    mantissa: State
    exponent: Array
    squares: Array


class Share(NamedTuple):
    """The share of each of these devices, which lie along an axis of a mesh."""

    axis: str
    devices: int

    def columns(self, count: int) -> int:
        """How many of `count` columns a device has; the last may have some that are zero."""
        return -(-count // self.devices)

    def first(self, count: int) -> Array:
        """The first of this device."""
        return lax.axis_index(self.axis).astype(jnp.int32) * self.columns(count)


def start(vectors: State, exponent: Array | int = 0) -> Bundle:
    """The bundle before the first step, of vectors whose norm lies within 2**±FAR."""
    return Bundle(vectors, jnp.asarray(exponent, jnp.int32), scaled.square_sum(vectors))


def push(bundle: Bundle, linear: Callable[[State], State], *, tile: int = 0, transposed: bool = False) -> Bundle:
    """The bundle after one step, whose derivative (or its transpose) is `linear`, so many tangents at once.

    The division is done where the step is elementwise, at its end or, transposed, its start: a compiler joins the two.
    A state of several parts is divided at the start either way: at the end a part that another is made of, as an
    LSTM's h of its c, would have two readers, and XLA on a CPU would compute it for each and copy it.
    """
    shift = scaled.exponent_of(bundle.squares) >> 1
    factor = scaled.power_of_two(-shift, bundle.squares.dtype)  # within 2**±FAR, and so one number
    at_start = transposed or len(jax.tree.leaves(bundle.mantissa)) > 1

    def divided(vector: State) -> State:
        if at_start:
            return linear(jax.tree.map(factor.__mul__, vector))
        return jax.tree.map(factor.__mul__, linear(vector))

    moved = _tiled(divided, bundle.mantissa, tile)
    return _settle(Bundle(moved, bundle.exponent + shift, scaled.square_sum(moved)), bundle.squares > 0)


def _tiled(linear: Callable[[State], State], vectors: State, tile: int) -> State:
    """`linear` of each, all of them at once or a tile after the other: what lies within a step then fits a cache."""
    count = jax.tree.leaves(vectors)[0].shape[0]
    if not tile or count <= tile:
        return jax.vmap(linear)(vectors)
    tile = max(size for size in range(1, tile + 1) if count % size == 0)  # of a device's share, which may be odd

    def move(i: Array, vectors: State) -> State:  # in place: a copy of all tangents would be another pass over them
        start = tile * i
        some = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, tile), vectors)
        moved = jax.vmap(linear)(some)
        return jax.tree.map(lambda leaf, new: lax.dynamic_update_slice_in_dim(leaf, new, start, 0), vectors, moved)

    moved: State = lax.fori_loop(0, count // tile, move, vectors)
    return moved


def _settle(bundle: Bundle, alive: Array) -> Bundle:
    """The same product, brought back to norm 1 where the step has taken it far: two such steps would leave the floats.

    A loop, which vmap skips unless some network needs it, as it would not skip a branch. It takes a second turn where
    the squares have left the floats: their sum is then that of the mantissa which the first has brought back.
    """

    def far(carry: tuple[Bundle, Array]) -> Array:
        bundle, turns = carry
        return (turns > 0) & ~((bundle.squares > 2.0 ** (-2 * FAR)) & (bundle.squares < 2.0 ** (2 * FAR)))

    def bring_back(carry: tuple[Bundle, Array]) -> tuple[Bundle, Array]:
        bundle, turns = carry
        squares = jnp.where(_inside(bundle.squares), bundle.squares, scaled.square_sum(bundle.mantissa))
        shift = scaled.binary_exponent(bundle.mantissa)
        mantissa = scaled.times_power_of_two(bundle.mantissa, -shift)
        brought = jnp.where(_inside(squares), scaled.times_power_of_two(squares, -2 * shift), squares)
        return Bundle(mantissa, bundle.exponent + shift, brought), turns - 1

    return lax.while_loop(far, bring_back, (bundle, 2 * alive.astype(jnp.int32)))[0]


def _inside(squares: Array) -> Array:
    """Are they far from the ends of the floats, and so exact?"""
    return (squares > 2.0**-100) & (squares < 2.0**100)


def observed(bundle: Bundle, network: Network) -> Bundle:
    """The observed part of the product."""
    part = jax.vmap(network.observed)(bundle.mantissa)
    if scaled.size(part) == scaled.size(bundle.mantissa):
        return bundle
    part, exponent = scaled.normalize(Scaled(part, bundle.exponent))
    return Bundle(part, exponent, scaled.square_sum(part))


def basis(network: Network, state: State, share: Share | None = None) -> State:
    """The unit vectors of the observed part of a state, or a device's share, as tangents of the whole state."""
    leaves, structure = jax.tree.flatten(network.observed(state))
    n, offset, columns = scaled.size(leaves), 0, []
    count, first = (share.columns(n), share.first(n)) if share else (n, 0)
    numbers = first + jnp.arange(count, dtype=jnp.int32)
    for leaf in leaves:
        entries = jnp.arange(offset, offset + leaf.size, dtype=jnp.int32)
        columns.append((numbers[:, None] == entries).astype(leaf.dtype).reshape(count, *leaf.shape))
        offset += leaf.size
    return embed(network, state, jax.tree.unflatten(structure, columns))


def along(network: Network, state: State, vector: Array) -> State:
    """The unit vector along this one [n] of the observed part, as a tangent of the whole state."""
    leaves, structure = jax.tree.flatten(network.observed(state))
    parts = jnp.split(vector / jnp.sqrt(scaled.square_sum(vector)), np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [part.reshape(1, *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return embed(network, state, jax.tree.unflatten(structure, shaped))


def embed(network: Network, state: State, vectors: State) -> State:
    """Vectors of the observed part as vectors of the whole state: the transpose of `observed`."""
    whole = jax.linear_transpose(network.observed, state)
    return jax.vmap(lambda vector: whole(vector)[0])(vectors)


def matrix(tree: Any) -> Array:
    """Vectors, leaves [vectors, …], as the rows of a matrix."""
    rows = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(rows, axis=1)
