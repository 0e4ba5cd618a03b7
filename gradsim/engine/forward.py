"""The engine: exact Jacobian products of random networks at every depth, far outside the range of floats.

A scan pushes a basis of tangents through the steps. After each step the product is brought back
by an exact power of two, so nothing underflows; states are kept the same way, since a ReLU network's
activity leaves the range as fast as its gradient. The cells, one network at many gains, share its
weights, and the grid becomes one tall matrix product. Everything here is pure: jit it, vmap it over seeds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradsim.engine import products, spectra
from gradsim.engine.chain import Binding, Chain, Drawn, Source, beyond, in_range
from gradsim.engine.formats import FORMATS
from gradsim.engine.hardware import Hardware, Rounded, States, first_states, unscaled
from gradsim.engine.jacobi import SingularValues, not_taken
from gradsim.engine.products import Bundle, Share
from gradsim.engine.spectra import Spectrum
from gradsim.engine.statistic import Statistic, View
from gradsim.engine.statistics import measure
from gradsim.engine.streams import beginning, stepping
from gradsim.engine.tiling import Tiling, drawing, joined
from gradsim.networks.network import Gains, Network, State
from gradsim.scaled import Scaled


class Cells(NamedTuple):
    """The cells of a grid, leaves [cells]."""

    gains: Gains
    start: Array | None = None  # the step after which the product starts; 0 if not given
    loss_scale: Array | None = None  # of the gradient in a rounded chain

    @property
    def scale(self) -> Array:
        """The loss scale, which is there."""
        assert self.loss_scale is not None
        return self.loss_scale


class Task(NamedTuple):
    """What is measured of a chain, either way: step 1 of `depth` comes after `burn_in` steps.

    Costly statistics are measured at the depths `at` and are NaN elsewhere.
    """

    statistics: tuple[Statistic, ...]
    depth: int
    tiling: Tiling
    at: tuple[int, ...] = ()
    burn_in: int = 0
    format: str | None = None  # of a chain that is rounded at every step, beside the exact one
    share: Share | None = None  # of the tangents of a basis, where devices share them

    @property
    def needs(self) -> set[str]:
        """What the statistics are made of."""
        return {need for statistic in self.statistics for need in statistic.needs}

    def hardware(self, bind: Binding) -> Hardware | None:
        """What runs the rounded chain, if a statistic reads it."""
        return Hardware.of(FORMATS[self.format], bind) if self.format and "rounded" in self.needs else None

    def singular_values(self, spectrum: Spectrum | None, network: Network, state: State, t: Array) -> Scaled | None:
        """Those after step t, taken at the depths `at` alone and NaN elsewhere: once for all that read them."""
        if spectrum is None:
            return None
        wanted = jnp.any(t - self.burn_in + 1 == jnp.asarray(self.at, jnp.int32))
        found: SingularValues = jax.lax.cond(
            wanted, lambda: spectra.observed(spectrum, network, state), lambda: not_taken(spectrum.triangle)
        )
        return found.values

    def measure(self, view: View, t: Array, *, of_pair: bool = False) -> dict[str, Scaled]:
        """Each statistic of a chain after step number t; or those `of_pair`, of what is seen of both, leaves [2, …]."""
        some = [one for one in self.statistics if one.of_pair == of_pair]
        return {one.name: measure(one, view, t - self.burn_in + 1, self.at) for one in some}


class Carry(NamedTuple):
    """What the way forward carries: the state after the step, the tangents, the product's spectrum."""

    state: Scaled
    bundles: dict[str, Bundle]
    spectrum: Spectrum | None
    rounded: Any  # the chain beside it, as Rounded; None where nothing is rounded


def forward(source: Source, cells: Cells, task: Task) -> dict[str, Scaled]:
    """The statistics of the prefixes J_l … J_1 for every l = 1 … depth, leaves [cells, depth].

    With `start` = k the product starts after step k, J_l … J_{k+1}; it means nothing up to there. Of a pair each chain
    is pushed by itself, from the same basis: leaves [cells, depth, 2, …] of what one chain has.
    """
    bind = source.bind()
    hardware = task.hardware(bind)
    way = WayAhead(source, task, hardware)

    def begin(cell: Cells, states: States) -> Any:
        return beginning(source.network, partial(way.begin, cell))(states)

    def body(cell: Cells, carry: Any, x: tuple[Array, Drawn, None]) -> tuple[Any, dict[str, Scaled]]:
        t, drawn, _ = x
        chain = bind(cell.gains)
        one = stepping(source.network, partial(way.step, cell, chain, t, drawn))
        carry, (found, seen) = one(carry, chain.inputs(drawn))
        return carry, {**found, **task.measure(View(way.network, *seen), t, of_pair=True)}

    steps = task.tiling.segments(task.burn_in, task.depth)
    first = first_states(source, bind, hardware, task.burn_in)
    states = jax.vmap(lambda cell: first(cell.gains))(cells)
    _, measured = task.tiling.walk(body, cells, begin, states, drawing(source, steps), steps)
    return jax.tree.map(lambda leaf: joined(leaf)[:, : task.depth], measured)


@dataclass(frozen=True)
class WayAhead:
    """What one chain does on its way ahead, in one cell."""

    source: Source
    task: Task
    hardware: Hardware | None

    @property
    def network(self) -> Network:
        """Of one chain."""
        return self.source.network.alone

    def begin(self, cell: Cells, states: States) -> Carry:
        """What starts at the first states: of the chain, and of the one beside it."""
        state, rounded = states
        bundles = self._fresh(state.mantissa)
        spectrum = spectra.of_network(self.network, state.mantissa) if "spectrum" in self.task.needs else None
        if self.hardware:
            rounded = Rounded(rounded, self.hardware.start(bundles["one"].mantissa, jnp.int32(0), cell.scale))
        return Carry(state, bundles, spectrum, rounded)

    def step(
        self, cell: Cells, chain: Chain, t: Array, drawn: Drawn, carry: Carry, inputs: Array | None
    ) -> tuple[Carry, tuple[dict[str, Scaled], tuple[Any, ...]]]:
        """Step t: what is carried on, what is measured of the chain, and what of a pair may be."""
        state, bundles, spectrum, rounded = carry
        drawn = drawn._replace(inputs=inputs)
        step = chain.step(drawn)
        if cell.start is not None:
            starting, fresh = t - self.task.burn_in == cell.start, self._fresh(state.mantissa)
            bundles = jax.tree.map(lambda new, old: jnp.where(starting, new, old), fresh, bundles)
        here, missing = in_range(state)
        new, linear, preactivations = jax.linearize(step, here, has_aux=True)
        state = beyond(step, here, missing, new)
        tile = self.task.tiling.tangents
        bundles = {name: products.push(bundle, linear, tile=tile) for name, bundle in bundles.items()}
        seen = {name: products.observed(bundle, self.network) for name, bundle in bundles.items()}
        spectrum = None if spectrum is None else spectra.push_states(spectrum, here, linear)
        values = self.task.singular_values(spectrum, self.network, here, t)
        held = None
        if self.hardware:
            rounded = self.hardware.ahead(cell.gains, drawn, rounded)
            held = unscaled(self.network, rounded.gradient, cell.scale)
        of_all, of_one = seen.get("all"), seen.get("one")
        view = View(self.network, of_all, of_one, state, preactivations, singular_values=values, rounded=held)
        return Carry(state, bundles, spectrum, rounded), (self.task.measure(view, t), view[1:])

    def _fresh(self, state: State) -> dict[str, Bundle]:
        bundles = {}
        if "all" in self.task.needs:
            bundles["all"] = products.start(products.basis(self.network, state, self.task.share))
        if "one" in self.task.needs:
            bundles["one"] = products.start(products.along(self.network, state, self.source.vector()))
        return bundles
