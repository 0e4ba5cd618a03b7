"""How many steps of a chain lie between two orthonormalizations: as many as their growth and a tolerance allow.

A group of steps that spreads its vectors by a factor s loses ln s of the ln(tolerance/ε) that it may. One that has lost
more is taken again with fewer steps; one that has lost less says how many the next may have.
"""

import jax.numpy as jnp
from jax import Array

MOST_STEPS = 64  # between two factors: they cost nothing any more
USED = 0.9  # of what a group may lose: what is spent on the few that lose too much costs less than shorter ones


def next_interval(interval: Array, steps: Array, lost: Array, allowed: Array) -> Array:
    """The steps of the next group after one that has lost so much: twice as many as those before it at the most."""
    room = USED * allowed / jnp.maximum(lost, 1e-2)
    wanted = jnp.floor(steps.astype(room.dtype) * jnp.minimum(room, MOST_STEPS)).astype(jnp.int32)
    return jnp.clip(wanted, 1, jnp.minimum(2 * interval, MOST_STEPS))
