"""A network's random streams: which numbers it draws from which key, and what of them is hashed ahead."""

import math
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from gradsim import scaled
from gradsim.draws import normal
from gradsim.networks.network import Network

# Numbers of a network's inputs that are held at once; those of longer sequences are drawn as they are read.
MOST_INPUTS = 2**18


class Keys(NamedTuple):
    """A network's independent streams; a step's draws fold its number in, and so do not depend on the depth."""

    weights: Array
    inputs: Array
    once: Array


def streams(key: Array) -> Keys:
    """The streams of the network of this key."""
    return Keys(*random.split(key, 3))


def network_keys(key: Array, seed: Array | int) -> Keys:
    """The streams of network number `seed`."""
    return streams(random.fold_in(key, seed))


class Ahead(NamedTuple):
    """What is hashed ahead by a program that all networks share: that of a chain then hashes its weights alone."""

    weights: Array  # a key for each step, [steps]
    inputs: Array  # [steps, *shape], or a key for each step where that is many numbers
    normals: Array  # what is drawn once for a network, [numbers]


class Extent(NamedTuple):
    """How much is hashed ahead; other sizes share its program, since two of these are powers of two, none small."""

    steps: int
    numbers: int
    shape: tuple[int, ...] | None  # of a step's input; (0,) where none is drawn, None for keys


def ahead(keys: Keys, extent: Extent) -> Ahead:
    """So much of the streams; the first of it does not depend on how much."""
    fold = jax.vmap(random.fold_in, in_axes=(None, 0))
    both = jnp.stack([keys.weights, keys.inputs])
    weights, inputs = jax.vmap(fold, in_axes=(0, None))(both, jnp.arange(extent.steps))
    if (shape := extent.shape) is not None:
        inputs = jax.vmap(lambda key: normal(key, shape, jnp.float32))(inputs)
    return Ahead(weights, inputs, normal(keys.once, (extent.numbers,), jnp.float32))


@lru_cache(maxsize=256)
def extent(network: Network, steps: int, *, given: bool) -> Extent:
    """What `ahead` draws for so many steps of a network, whose inputs may be given."""
    steps, numbers = power_above(steps, 64), power_above(sum(sizes(network.alone)) + other_numbers(network), 256)
    shape = network.input_shape if network.driven and not given else (0,)
    return Extent(steps, numbers, shape if steps * math.prod(shape) <= MOST_INPUTS else None)


def power_above(n: int, least: int) -> int:
    """The smallest power of two that is smaller than neither."""
    return int(2 ** (max(n, least) - 1).bit_length())


def observed_size(network: Network) -> int:
    """The numbers of the observed part of a state: the rows and columns of a product."""
    return sizes(network.alone)[1]


def paired(network: Network) -> bool:
    """Do two inputs pass through it?"""
    return network.alone is not network


def each(network: Network, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one chain, of a pair as one of both, whose arguments and results then have a leading axis [2]."""
    return jax.vmap(function) if paired(network) else function


def in_turn(network: Network, function: Callable[..., Any]) -> Callable[..., Any]:
    """As `each`, the chains of a pair one after the other: each has matrix products of its own.

    They have the shape of those of one network, and so its kernels, which sum in the same order. Both chains in one
    product of twice as many rows would have other last digits, at widths that do not fill a machine's vectors.
    """
    if not paired(network):
        return function

    def both(*args: Any) -> Any:
        first, second = halves(args)
        return together(function(*first), function(*second))

    return both


def halves(both: Any) -> tuple[Any, Any]:
    """What each chain of a pair has, of leaves [2, …]."""
    return jax.tree.map(itemgetter(0), both), jax.tree.map(itemgetter(1), both)


def together(*each: Any) -> Any:
    """What both chains of a pair have, leaves [2, …]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def beginning(network: Network, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one chain that gives the carry of its scan, of a pair as one of both that gives one for each.

    They stay apart, since joining them would copy the tangents, the largest array there is, at every step.
    """
    both = each(network, function)
    return (lambda *args: halves(both(*args))) if paired(network) else function


def stepping(network: Network, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function (carry, …) -> (carry, found) of one chain, of a pair as one of both `in_turn`, a carry for each."""
    if not paired(network):
        return function

    def both(carries: tuple[Any, Any], *args: Any) -> Any:
        stepped = (function(carry, *one) for carry, one in zip(carries, halves(args), strict=True))
        carries, found = zip(*stepped, strict=True)
        return carries, together(*found)

    return both


def first_shape(network: Network) -> tuple[int, ...]:
    """The shape of what the first state is made of."""
    return network.initial_shape if network.driven else network.input_shape


def other_numbers(network: Network) -> int:
    """The numbers that other first states than the first are made of; they come last, and leave the first as it is."""
    return math.prod(first_shape(network)) - math.prod(first_shape(network.alone))


@lru_cache(maxsize=256)
def sizes(network: Network) -> tuple[int, int]:
    """The numbers that the first state is made of, and those of a vector in the observed part."""
    shape = first_shape(network)
    gains = {name: jax.ShapeDtypeStruct((), "float32") for name in network.gains}
    state = jax.eval_shape(network.initial_state, gains, jax.ShapeDtypeStruct(shape, "float32"))
    return math.prod(shape), scaled.size(jax.tree.leaves(jax.eval_shape(network.observed, state)))
