"""How alike the two chains of a pair are: cosines that are 1 where they are equal, to the last bit.

    cos = (p − m) / (p + m),   1 − cos = 2 m / (p + m),   p, m = ‖â ± b̂‖² of unit vectors

Nothing cancels as cos → ±1, rounding of the two lengths enters squared, and the
exponents of the chains do not enter at all.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradsim import scaled
from gradsim.engine.products import Bundle
from gradsim.scaled import Scaled


def sums(both: Any) -> tuple[Array, Array, Array]:
    """(p, m, alive) of trees whose leaves [2, …] hold the two; where one is zero it has no direction."""
    squares = jax.vmap(scaled.square_sum)(both)
    plus, minus = (scaled.square_sum(combined(both, squares, sign)) for sign in (1, -1))
    return plus, minus, jnp.all(squares > 0)


def combined(both: Any, squares: Array, sign: int) -> Any:
    """‖a‖ (â ± b̂). Written a ± r b it is exactly zero of what is equal, also where the two operations round once."""
    first, second = jnp.where(squares > 0, squares, 1)
    ratio = sign * jnp.sqrt(first / second)
    return jax.tree.map(lambda leaf: leaf[0] + ratio * leaf[1], both)


def cosine(both: Any) -> Array:
    """That of the two; −inf, which a Dataset shows as NaN and flags as dead, where one is zero."""
    plus, minus, alive = sums(both)
    return jnp.where(alive, (plus - minus) / jnp.where(alive, plus + minus, 1), -jnp.inf)


def distance(both: Any) -> Array:
    """1 − cosine; 0 where one is zero, whose logarithm a Dataset shows as NaN, as of what is zero."""
    plus, minus, alive = sums(both)
    return jnp.where(alive, 2 * minus / jnp.where(alive, plus + minus, 1), 0)


def of_bundles(both: Bundle) -> Array:
    """`cosine` of two bundles by 1 − ‖â − b̂‖²/2, one pass over them: a product is the largest array that there is."""
    alive = jnp.all(both.squares > 0)
    apart = scaled.square_sum(combined(both.mantissa, both.squares, -1)) / jnp.where(alive, both.squares[0], 1)
    return jnp.where(alive, jnp.maximum(1 - apart / 2, -1), -jnp.inf)


def by_parameter(gradients: Mapping[str, Scaled], names: Mapping[str, str]) -> Array:
    """The cosine of all gradients together, then of each field's, leaves [2, …] and exponents [2]."""
    largest = jnp.max(jnp.stack([gradients[name].exponent for name in names]), axis=0)
    together = {
        name: jax.vmap(scaled.times_power_of_two)(gradients[name].mantissa, gradients[name].exponent - largest)
        for name in names
    }
    return jnp.stack([cosine(together), *[cosine(gradients[name].mantissa) for name in names]])
