"""The engine: exact Jacobian products of a random network at every depth, far outside the range of floats.

One scan pushes a basis of tangents through the steps. After each step the product is brought back
by an exact power of two, so nothing underflows; states are kept the same way, since a ReLU network's
activity leaves the range as fast as its gradient. Everything here is pure: jit it, vmap it over gains
(the weights stay shared, and the grid becomes one tall matrix product) and over seeds.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import products
from gradsim.chain import Chain, take_step
from gradsim.networks.network import State
from gradsim.products import Bundle
from gradsim.scaled import Scaled
from gradsim.statistics import Statistic, View, measure


def forward(
    chain: Chain,
    statistics: tuple[Statistic, ...],
    *,
    depth: int,
    at: tuple[int, ...] = (),
    burn_in: int = 0,
    start: Array | int = 0,
) -> dict[str, Scaled]:
    """The statistics of the prefixes J_l … J_1 for every l = 1 … depth, leaves [depth].

    Step 1 comes after `burn_in` steps. Costly statistics are measured at the depths `at` and are NaN
    elsewhere. With `start` = k the product starts after step k, J_l … J_{k+1}; it means nothing up to there.
    """
    draw, network = chain.drawer(), chain.network

    def advance(state: Scaled, bundles: dict[str, Bundle], t: Array) -> tuple[Scaled, dict[str, Bundle], Any]:
        step = chain.step(t, draw(t))
        here, new, preactivations = take_step(step, state)

        def linear(tangent: State) -> State:
            return jax.jvp(lambda state: step(state)[0], (here,), (tangent,))[1]

        bundles = {name: products.push(bundle, linear) for name, bundle in bundles.items()}
        return new, bundles, preactivations

    def body(carry: tuple[Scaled, dict[str, Bundle]], t: Array) -> tuple[Any, dict[str, Scaled]]:
        state, bundles = carry
        if isinstance(start, Array):
            bundles = jax.tree.map(lambda fresh, old: jnp.where(t - burn_in == start, fresh, old), fresh, bundles)
        state, bundles, preactivations = advance(state, bundles, t)
        seen = {name: products.observed(bundle, network) for name, bundle in bundles.items()}
        view = View(network, seen.get("all"), seen.get("one"), state, preactivations)
        return (state, bundles), {s.name: measure(s, view, t - burn_in + 1, at) for s in statistics}

    state = chain.initial_state()
    if burn_in:
        state = lax.fori_loop(0, burn_in, lambda t, state: advance(state, {}, t)[0], state)
    needs = {need for statistic in statistics for need in statistic.needs}
    fresh = {}
    if "all" in needs:
        fresh["all"] = products.start(products.basis(network, state.mantissa))
    if "one" in needs:
        fresh["one"] = products.start(products.unit_vector(network, state.mantissa, chain.keys.vector))
    return lax.scan(body, (state, fresh), jnp.arange(burn_in, burn_in + depth, dtype=jnp.int32))[1]
