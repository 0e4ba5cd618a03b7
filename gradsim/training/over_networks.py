"""A function of one network, for many: on a CPU one after the other, elsewhere all at once."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax


def over_networks(function: Callable[..., Any], *args: Any) -> Any:
    """`function` of every network."""
    if jax.default_backend() == "cpu":
        return lax.map(lambda one: function(*one), args)
    return jax.vmap(function)(*args)


def over_networks_in_place(function: Callable[..., Any], state: Any, *args: Any) -> Any:
    """`over_networks` of a function that makes of a network's state the next; on a CPU each takes the old one's place.

    `lax.map` would clear room for the new states, fill it, and copy it to where the caller gave up the old ones.
    """
    if jax.default_backend() != "cpu":
        return over_networks(function, state, *args)

    def turn(k: Array, states: Any) -> Any:
        new = function(*jax.tree.map(lambda leaf: leaf[k], (states, *args)))
        return jax.tree.map(lambda leaf, one: leaf.at[k].set(one), states, new)

    return lax.fori_loop(0, jax.tree.leaves(state)[0].shape[0], turn, state)
