"""The other direction: the gradient that reaches every step from the end, and every step's weights.

A forward pass keeps the states (not the weights, which are drawn anew from their keys), then a reverse
scan pulls cotangents back, rescaled by exact powers of two like the tangents of `forward`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradsim import scaled
from gradsim.engine import products, spectra
from gradsim.engine.chain import Binding, Chain, Drawn, Source, carry_over, in_range, times
from gradsim.engine.forward import Cells, Task
from gradsim.engine.hardware import Hardware, States, first_states, next_states, unscaled
from gradsim.engine.products import Bundle
from gradsim.engine.spectra import Spectrum
from gradsim.engine.statistic import View
from gradsim.engine.streams import beginning, stepping
from gradsim.engine.tiling import drawing, joined
from gradsim.networks.network import Gains, Network, State, Weights, leaves_of, path_name
from gradsim.scaled import Scaled


class Carry(NamedTuple):
    """What the way back carries: the state after the step, the cotangents, sums of weight gradients, the spectrum."""

    state: Scaled
    bundles: dict[str, Bundle]
    sums: dict[str, Scaled]
    spectrum: Spectrum | None
    rounded: Any  # the gradient of the chain beside it, as Scaled; None where nothing is rounded


def backward(
    source: Source,
    cells: Cells,
    task: Task,
    loss: Callable[[State], Array] | None = None,
    cotangent: State | None = None,
) -> dict[str, Scaled]:
    """The statistics of the suffixes J_L … J_l = ∂h_L/∂h_{l−1} for every l = 1 … L = depth, leaves [cells, depth].

    The gradient starts from `cotangent` (of the observed state), or from the gradient of `loss` there, or
    from one random unit vector. Memory holds the states: O(depth · n).
    """
    bind, tiling = source.bind(), task.tiling
    hardware = task.hardware(bind)
    way = WayBack(source, bind, task, hardware, loss, cotangent)

    def ahead(cell: Cells, state: States, x: tuple[Array, Drawn, None]) -> tuple[States, States]:
        t, drawn, _ = x
        new = next_states(bind(cell.gains), hardware, drawn, state)
        return jax.tree.map(lambda new, old: jnp.where(t >= task.burn_in, new, old), new, state), state

    def turn(cell: Cells, last: States) -> Any:
        return beginning(source.network, partial(way.begin, cell))(last)

    def body(cell: Cells, carry: Any, x: tuple[Array, Drawn, States]) -> tuple[Any, dict[str, Scaled]]:
        t, drawn, befores = x
        chain = bind(cell.gains)
        one = stepping(source.network, partial(way.step, cell, chain, t, drawn))
        carry, (found, seen) = one(carry, befores, chain.inputs(drawn))
        return carry, {**found, **task.measure(View(way.network, *seen), t, of_pair=True)}

    steps = tiling.segments(task.burn_in, task.depth, to_end=True)
    draw = drawing(source, steps)
    first = first_states(source, bind, hardware, task.burn_in)
    start = jax.vmap(lambda cell: first(cell.gains))(cells)
    last, befores = tiling.walk(ahead, cells, lambda cell, state: state, start, draw, steps)
    measured = tiling.walk(body, cells, turn, last, draw, steps, xs=befores, reverse=True)[1]
    return jax.tree.map(lambda leaf: joined(leaf)[:, -task.depth :], measured)


@dataclass(frozen=True)
class WayBack:
    """What one chain does on its way back, in one cell."""

    source: Source
    bind: Binding
    task: Task
    hardware: Hardware | None
    loss: Callable[[State], Array] | None
    cotangent: State | None

    @property
    def network(self) -> Network:
        """Of one chain."""
        return self.source.network.alone

    def begin(self, cell: Cells, states: States) -> Carry:
        """What starts at the last states: of the chain, and of the one beside it."""
        needs, (last, rounded) = self.task.needs, states
        end, bundles, sums = in_range(last)[0], {}, {}
        if "all" in needs:
            bundles["all"] = products.start(products.basis(self.network, end, self.task.share))
        if "one" in needs:
            bundles["one"] = self._gradient(end)
        if "weight_sums" in needs:
            chain = self.bind(cell.gains)
            shapes = jax.eval_shape(lambda: trained(chain, chain.weights(self.source.drawn(0))))
            sums = {name: _zero(shape) for name, shape in shapes.items()}
        spectrum = spectra.of_network(self.network, end) if "spectrum" in needs else None
        if self.hardware:
            first = self._gradient(in_range(rounded)[0])
            rounded = self.hardware.start(first.mantissa, first.exponent, cell.scale)
        return Carry(last, bundles, sums, spectrum, rounded)

    def step(
        self, cell: Cells, chain: Chain, t: Array, drawn: Drawn, carry: Carry, befores: States, inputs: Array | None
    ) -> tuple[Carry, tuple[dict[str, Scaled], tuple[Any, ...]]]:
        """Back through step t: what is carried on, what is measured of the chain, and what of a pair may be."""
        (after, bundles, sums, spectrum, rounded), (before, beside) = carry, befores
        drawn = drawn._replace(inputs=inputs)
        here, missing = in_range(before)
        _, pullback, preactivations = jax.vjp(chain.step(drawn), here, has_aux=True)
        gradients = {}
        if "weights" in self.task.needs:
            gradients = weight_gradients(chain, drawn, here, missing, bundles["one"])
        if "weight_sums" in self.task.needs:
            sums = {name: scaled.add(sums[name], gradient) for name, gradient in gradients.items()}

        def back(cotangent: State) -> State:
            return pullback(cotangent)[0]

        tile = self.task.tiling.tangents
        bundles = {name: products.push(bundle, back, tile=tile, transposed=True) for name, bundle in bundles.items()}
        spectrum = None if spectrum is None else spectra.push_states(spectrum, here, back)
        values = self.task.singular_values(spectrum, self.network, here, t)
        seen = {name: products.observed(bundle, self.network) for name, bundle in bundles.items()}
        held = None
        if self.hardware:
            rounded = self.hardware.back(cell.gains, drawn, beside, rounded)
            held = unscaled(self.network, rounded, cell.scale)
        of_all, of_one = seen.get("all"), seen.get("one")
        view = View(self.network, of_all, of_one, after, preactivations, gradients, sums, values, held)
        return Carry(before, bundles, sums, spectrum, rounded), (self.task.measure(view, t), view[1:])

    def _gradient(self, end: State) -> Bundle:
        """What starts on its way back."""
        cotangent = self.cotangent if self.loss is None else jax.grad(self.loss)(self.network.observed(end))
        if cotangent is None:
            return products.start(products.along(self.network, end, self.source.vector()))
        given = products.embed(self.network, end, jax.tree.map(lambda leaf: leaf[None], cotangent))
        return products.start(*scaled.normalize(Scaled(given, jnp.zeros((), jnp.int32))))


def trained(chain: Chain, weights: Weights) -> dict[str, Any]:
    """The weights as one trains them: the unit draws times their gains, by field and path."""
    gains = {name: chain.gains[gain] for name, gain in chain.network.parameters.items()}
    return {name: jax.tree.map(gain.__mul__, leaves_of(weights, name)) for name, gain in gains.items()}


def unit_gains(network: Network, gains: Gains) -> dict[str, Array]:
    """The gains under which a step takes weights as they are trained."""
    return {**gains, **{gain: jnp.ones_like(gains[gain]) for gain in network.parameters.values()}}


def _replaced(weights: Weights, fields: Mapping[str, Any]) -> Weights:
    """The weights with those of the fields in their places."""
    leaves = {path: leaf for field in fields.values() for path, leaf in field.items()}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(path_name(path), leaf), weights)


def weight_gradients(chain: Chain, drawn: Drawn, here: State, missing: Array, bundle: Bundle) -> dict[str, Scaled]:
    """∂loss/∂(gain · weights) of a step, by field and path.

    Beyond the limit of `in_range` the gradient of weights that meet the state scales with it, and that of a bias
    does not depend on it; as in `take_step` half the state shows which, and what does neither is NaN.
    """
    unit = unit_gains(chain.network, chain.gains)
    weights = chain.weights(drawn)
    fields = trained(chain, weights)
    vector = jax.tree.map(lambda leaf: leaf[0], bundle.mantissa)

    def gradients(state: State) -> dict[str, Any]:
        def step(fields: Mapping[str, Any]) -> State:
            return chain.step_by(_replaced(weights, fields), unit, state, drawn.inputs)[0]

        found: dict[str, Any] = jax.vjp(step, fields)[1](vector)[0]
        return found

    carried = carry_over(gradients(here), missing, lambda part: gradients(times(part, here)))
    return {
        name: scaled.normalize(Scaled(gradient.mantissa, bundle.exponent + gradient.exponent))
        for name, gradient in carried.items()
    }


def _zero(shape: Any) -> Scaled:
    return Scaled(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape), jnp.int32(scaled.NOTHING))
