"""One random network, drawn from its keys and bound to its gains: what happens in a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.typing import DTypeLike

from gradsim import scaled
from gradsim.draws import GAUSSIAN, Part, normal, together
from gradsim.networks.network import Gains, Network, State, Weights
from gradsim.scaled import Scaled


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


class Once(NamedTuple):
    """What is drawn once for a network, Gaussian of unit variance."""

    first: Array  # what the state before step 0 is made of
    vector: Array  # as long as an observed state, [n]


class Drawn(NamedTuple):
    """What a step reads beside the state: its weights (None where all steps share them) and its input."""

    weights: Weights | None
    inputs: Array | None


@dataclass(frozen=True)
class Source:
    """Where one random network takes its weights and inputs from, whatever its gains."""

    network: Network
    keys: Keys
    inputs: Array | None  # [*input_shape], or [steps, *input_shape] where driven; None is Gaussian
    dtype: DTypeLike

    def weights(self, t: Array | int) -> Weights:
        """The weights that are drawn for step t; a tied network's are those of its only draw."""
        key = self.keys.weights if self.network.tied else random.fold_in(self.keys.weights, t)
        drawn = self.network.draw(key, self.dtype)
        return lax.optimization_barrier(drawn)  # whole: a compiler would draw an entry anew wherever it reads one

    def input(self, t: Array | int) -> Array:
        """The input of step t of a driven network."""
        if self.inputs is None:
            return normal(random.fold_in(self.keys.inputs, t), self.network.input_shape, self.dtype)
        return lax.dynamic_index_in_dim(self.inputs, t, keepdims=False)

    def once(self) -> Once:
        """Both in one draw; the input of a network that is not driven is the first state's."""
        network, dtype = self.network, self.dtype
        shape = network.initial_shape if network.driven else network.input_shape
        gains = {name: jax.ShapeDtypeStruct((), dtype) for name in network.gains}
        state = jax.eval_shape(network.initial_state, gains, jax.ShapeDtypeStruct(shape, dtype))
        entries = scaled.size(jax.tree.leaves(jax.eval_shape(network.observed, state)))
        first, vector = together(self.keys.once, dtype, Part(GAUSSIAN, shape), Part(GAUSSIAN, (entries,)))
        return Once(first if network.driven or self.inputs is None else self.inputs, vector)

    def drawn(self, t: Array | int) -> Drawn:
        """What step t alone reads."""
        weights = None if self.network.tied else self.weights(t)
        return Drawn(weights, self.input(t) if self.network.driven else None)

    def bind(self, once: Once) -> Callable[[Gains], "Chain"]:
        """The network with gains bound to it; a tied one's weights are drawn here, once."""
        shared = self.weights(0) if self.network.tied else None
        return lambda gains: Chain(self.network, gains, shared, once.first)


@dataclass(frozen=True)
class Chain:
    """A random network bound to its gains."""

    network: Network
    gains: Gains
    shared: Weights | None  # the weights of a tied network
    first_input: Array

    def weights(self, drawn: Drawn) -> Weights:
        """The weights of the step for which that was drawn."""
        return self.shared if self.network.tied else drawn.weights

    def initial_state(self) -> Scaled:
        """The state before step 0."""
        state = self.network.initial_state(self.gains, self.first_input)
        return scaled.normalize(Scaled(state, jnp.zeros((), jnp.int32)))

    def step(self, drawn: Drawn) -> Callable[[State], tuple[State, Any]]:
        """A step as a function of the state alone: (state', preactivations)."""
        return lambda state: self.network.step(self.weights(drawn), self.gains, state, drawn.inputs)


def in_range(state: Scaled) -> tuple[State, Array]:
    """The state as plain floats, brought to 2**±limit if it lies farther out, and the power of two then missing."""
    dtype = jax.tree.leaves(state.mantissa)[0].dtype
    limit = 2 * (jnp.finfo(dtype).nmant + 1)
    reached = jnp.clip(state.exponent, -limit, limit)
    return scaled.times_power_of_two(state.mantissa, reached), state.exponent - reached


def take_step(step: Callable[[State], tuple[State, Any]], state: Scaled) -> tuple[State, Scaled, Any]:
    """A step of a state that may lie outside the floats: (the point it is taken at, state', preactivations).

    Beyond the limit of `in_range` a step has a limit form, to rounding: biases vanish beside the state, or the
    state beside the biases, and an activation is its asymptote or its tangent cone. It then scales with the state,
    step(2**k h) = 2**k step(h), or does not depend on its size, step(2**k h) = step(h); in both cases the
    Jacobian at the limit is the one sought (up to a vanishing one in the second). Which of the two it is
    shows at half the state; where it is neither (sin, x²) the new state is NaN.
    """
    here, missing = in_range(state)
    new, preactivations = step(here)
    carried = carry_over({"state": new}, missing, lambda part: {"state": step(times(part, here))[0]})
    return here, scaled.normalize(carried["state"]), preactivations


def burned_in(source: Source, chain: Chain, steps: int) -> Scaled:
    """The state after the first `steps` steps."""
    state = chain.initial_state()
    if steps:
        state = lax.fori_loop(0, steps, lambda t, state: take_step(chain.step(source.drawn(t)), state)[1], state)
    return state


def carry_over(
    values: Mapping[str, Any], missing: Array, at: Callable[[Array], Mapping[str, Any]]
) -> dict[str, Scaled]:
    """Each of the values of a function at a state, at 2**missing times that state: NaN where it is not known.

    `at` gives the values at a part of the state. It is called in a loop of at most one turn, which vmap skips
    unless some state lies far out, as it would not skip a branch.
    """

    def look(carry: tuple[Array, Array, Any, Any]) -> tuple[Array, Array, Any, Any]:
        half = carry[1] / 2  # out of the carry, or a compiler would find the call constant and move it before the loop
        at_half = at(half)
        scales = {name: close(values[name], times(jnp.full_like(half, 2), at_half[name])) for name in values}
        known = {name: scales[name] | close(values[name], at_half[name]) for name in values}
        return jnp.zeros_like(carry[0]), half, scales, known

    yes = {name: jnp.ones((), bool) for name in values}
    one = jnp.ones((), jax.tree.leaves(values)[0].dtype)
    _, _, scales, known = lax.while_loop(lambda carry: carry[0], look, (missing != 0, one, yes, yes))
    exponents = {name: jnp.where(scales[name], missing, 0) for name in values}
    return {name: Scaled(_or_nan(known[name], value), exponents[name]) for name, value in values.items()}


def _or_nan(known: Array, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(known, leaf, jnp.nan), tree)


def times(number: Array, state: State) -> State:
    return jax.tree.map(lambda leaf: number.astype(leaf.dtype) * leaf, state)


def close(first: State, second: State) -> Array:
    """Are two states equal but for their smallest entries?"""
    apart = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), first, second)
    # Of the second, which is made in the loop above: a compiler would take the first's out of it, and find it always.
    largest = jax.tree.map(lambda a: jnp.max(jnp.abs(a)), second)
    difference, size = (jnp.max(jnp.stack(jax.tree.leaves(x))) for x in (apart, largest))
    return (difference < 1e-3 * size) | (difference == 0)
