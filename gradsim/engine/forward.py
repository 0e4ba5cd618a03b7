"""The engine: exact Jacobian products of random networks at every depth, far outside the range of floats.

A scan pushes a basis of tangents through the steps. After each step the product is brought back
by an exact power of two, so nothing underflows; states are kept the same way, since a ReLU network's
activity leaves the range as fast as its gradient. The cells, one network at many gains, share its
weights, and the grid becomes one tall matrix product. Everything here is pure: jit it, vmap it over seeds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradsim.engine import products
from gradsim.engine.chain import Drawn, Source, beyond, burned_in, in_range
from gradsim.engine.products import Bundle
from gradsim.engine.statistics import Statistic, View, measure
from gradsim.engine.tiling import Tiling, drawing, joined
from gradsim.networks.network import Gains, State
from gradsim.scaled import Scaled


class Cells(NamedTuple):
    """The cells of a grid, leaves [cells]."""

    gains: Gains
    start: Array | None = None  # the step after which the product starts; 0 if not given


def forward(
    source: Source,
    cells: Cells,
    statistics: tuple[Statistic, ...],
    *,
    depth: int,
    tiling: Tiling,
    at: tuple[int, ...] = (),
    burn_in: int = 0,
) -> dict[str, Scaled]:
    """The statistics of the prefixes J_l … J_1 for every l = 1 … depth, leaves [cells, depth].

    Step 1 comes after `burn_in` steps. Costly statistics are measured at the depths `at` and are NaN
    elsewhere. With `start` = k the product starts after step k, J_l … J_{k+1}; it means nothing up to there.
    """
    network, bind = source.network, source.bind()

    def fresh(state: State) -> dict[str, Bundle]:
        needs = {need for statistic in statistics for need in statistic.needs}
        bundles = {}
        if "all" in needs:
            bundles["all"] = products.start(products.basis(network, state))
        if "one" in needs:
            bundles["one"] = products.start(products.along(network, state, source.vector()))
        return bundles

    def begin(cell: Cells, state: Scaled) -> tuple[Scaled, dict[str, Bundle]]:
        return state, fresh(state.mantissa)

    def body(
        cell: Cells, carry: tuple[Scaled, dict[str, Bundle]], x: tuple[Array, Drawn, None]
    ) -> tuple[Any, dict[str, Scaled]]:
        (state, bundles), (t, drawn, _) = carry, x
        step = bind(cell.gains).step(drawn)
        if cell.start is not None:
            starting = t - burn_in == cell.start
            bundles = jax.tree.map(lambda new, old: jnp.where(starting, new, old), fresh(state.mantissa), bundles)
        here, missing = in_range(state)
        new, linear, preactivations = jax.linearize(step, here, has_aux=True)
        state = beyond(step, here, missing, new)
        bundles = {name: products.push(bundle, linear) for name, bundle in bundles.items()}
        seen = {name: products.observed(bundle, network) for name, bundle in bundles.items()}
        view = View(network, seen.get("all"), seen.get("one"), state, preactivations)
        return (state, bundles), {s.name: measure(s, view, t - burn_in + 1, at) for s in statistics}

    steps = tiling.segments(burn_in, depth)
    states = jax.vmap(lambda cell: burned_in(source, bind(cell.gains), burn_in))(cells)
    _, measured = tiling.walk(body, cells, begin, states, drawing(source, steps), steps)
    return jax.tree.map(lambda leaf: joined(leaf)[:, :depth], measured)
