"""The engine: exact Jacobian products of random networks at every depth, far outside the range of floats.

A scan pushes a basis of tangents through the steps. After each step the product is brought back
by an exact power of two, so nothing underflows; states are kept the same way, since a ReLU network's
activity leaves the range as fast as its gradient. The cells, one network at many gains, share its
weights, and the grid becomes one tall matrix product. Everything here is pure: jit it, vmap it over seeds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradsim.engine import products, spectra
from gradsim.engine.chain import Drawn, Source, beyond, burned_in, in_range
from gradsim.engine.jacobi import SingularValues, not_taken
from gradsim.engine.products import Bundle
from gradsim.engine.spectra import Spectrum
from gradsim.engine.statistic import Statistic, View
from gradsim.engine.statistics import measure
from gradsim.engine.tiling import Tiling, drawing, joined
from gradsim.networks.network import Gains, Network, State
from gradsim.scaled import Scaled


class Cells(NamedTuple):
    """The cells of a grid, leaves [cells]."""

    gains: Gains
    start: Array | None = None  # the step after which the product starts; 0 if not given


class Task(NamedTuple):
    """What is measured of a chain, either way: step 1 of `depth` comes after `burn_in` steps.

    Costly statistics are measured at the depths `at` and are NaN elsewhere.
    """

    statistics: tuple[Statistic, ...]
    depth: int
    tiling: Tiling
    at: tuple[int, ...] = ()
    burn_in: int = 0

    @property
    def needs(self) -> set[str]:
        """What the statistics are made of."""
        return {need for statistic in self.statistics for need in statistic.needs}

    def singular_values(self, spectrum: Spectrum | None, network: Network, state: State, t: Array) -> Scaled | None:
        """Those after step t, taken at the depths `at` alone and NaN elsewhere: once for all that read them."""
        if spectrum is None:
            return None
        wanted = jnp.any(t - self.burn_in + 1 == jnp.asarray(self.at, jnp.int32))
        found: SingularValues = jax.lax.cond(
            wanted, lambda: spectra.observed(spectrum, network, state), lambda: not_taken(spectrum.triangle)
        )
        return found.values

    def measure(self, view: View, t: Array) -> dict[str, Scaled]:
        """Each statistic after step number t of the chain."""
        return {one.name: measure(one, view, t - self.burn_in + 1, self.at) for one in self.statistics}


class Carry(NamedTuple):
    """What the way forward carries: the state after the step, the tangents, and the product's spectrum."""

    state: Scaled
    bundles: dict[str, Bundle]
    spectrum: Spectrum | None


def forward(source: Source, cells: Cells, task: Task) -> dict[str, Scaled]:
    """The statistics of the prefixes J_l … J_1 for every l = 1 … depth, leaves [cells, depth].

    With `start` = k the product starts after step k, J_l … J_{k+1}; it means nothing up to there.
    """
    network, bind = source.network, source.bind()

    def fresh(state: State) -> dict[str, Bundle]:
        bundles = {}
        if "all" in task.needs:
            bundles["all"] = products.start(products.basis(network, state))
        if "one" in task.needs:
            bundles["one"] = products.start(products.along(network, state, source.vector()))
        return bundles

    def begin(cell: Cells, state: Scaled) -> Carry:
        spectrum = spectra.of_network(network, state.mantissa) if "spectrum" in task.needs else None
        return Carry(state, fresh(state.mantissa), spectrum)

    def body(cell: Cells, carry: Carry, x: tuple[Array, Drawn, None]) -> tuple[Carry, dict[str, Scaled]]:
        (state, bundles, spectrum), (t, drawn, _) = carry, x
        step = bind(cell.gains).step(drawn)
        if cell.start is not None:
            starting = t - task.burn_in == cell.start
            bundles = jax.tree.map(lambda new, old: jnp.where(starting, new, old), fresh(state.mantissa), bundles)
        here, missing = in_range(state)
        new, linear, preactivations = jax.linearize(step, here, has_aux=True)
        state = beyond(step, here, missing, new)
        bundles = {name: products.push(bundle, linear, tile=task.tiling.tangents) for name, bundle in bundles.items()}
        seen = {name: products.observed(bundle, network) for name, bundle in bundles.items()}
        spectrum = None if spectrum is None else spectra.push_states(spectrum, here, linear)
        values = task.singular_values(spectrum, network, here, t)
        view = View(network, seen.get("all"), seen.get("one"), state, preactivations, singular_values=values)
        return Carry(state, bundles, spectrum), task.measure(view, t)

    steps = task.tiling.segments(task.burn_in, task.depth)
    states = jax.vmap(lambda cell: burned_in(source, bind(cell.gains), task.burn_in))(cells)
    _, measured = task.tiling.walk(body, cells, begin, states, drawing(source, steps), steps)
    return jax.tree.map(lambda leaf: joined(leaf)[:, : task.depth], measured)
