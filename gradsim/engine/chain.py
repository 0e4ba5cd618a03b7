"""One random network, drawn from its keys and bound to its gains: what happens in a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from gradsim import scaled
from gradsim.draws import normal
from gradsim.engine.streams import Ahead, Keys, ahead, extent, first_shape, in_turn, other_numbers, paired, sizes
from gradsim.networks.network import Gains, Network, State, Weights
from gradsim.scaled import Scaled


class Drawn(NamedTuple):
    """What a step reads beside the state: its weights (None where all steps share them) and its input."""

    weights: Weights | None
    inputs: Array | None  # or its number, where the network is `numbered`


@dataclass(frozen=True)
class Source:
    """Where one random network takes its weights and inputs from, whatever its gains."""

    network: Network
    ahead: Ahead
    inputs: Array | None  # [*input_shape], or [steps, *input_shape] where driven; None is Gaussian
    dtype: DTypeLike
    precision: str = field(default="highest", kw_only=True)  # of a step's matrix products

    @classmethod
    def of(cls, network: Network, keys: Keys, inputs: Array | None, dtype: DTypeLike, steps: int) -> "Source":
        """That of these streams, for so many steps."""
        return cls(network, ahead(keys, extent(network, steps, given=inputs is not None)), inputs, dtype)

    def weights(self, t: Array | int) -> Weights:
        """The weights that are drawn for step t."""
        return self.network.draw(_at(self.ahead.weights, t), self.dtype)

    def input(self, t: Array | int) -> Array:
        """The input of step t of a driven network."""
        here = _at(self.ahead.inputs if self.inputs is None else self.inputs, t)
        if jnp.issubdtype(here.dtype, jax.dtypes.prng_key):
            return normal(here, self.network.input_shape, self.dtype)
        return here.astype(self.dtype)

    def first_input(self) -> Array:
        """What the state before step 0 is made of."""
        network = self.network
        if self.inputs is not None and not network.driven:
            return self.inputs
        (first, entries), shape = sizes(network.alone), first_shape(network)
        numbers = self.ahead.normals[:first]
        if others := other_numbers(network):
            numbers = jnp.concatenate([numbers, self.ahead.normals[first + entries : first + entries + others]])
        return numbers.reshape(shape).astype(self.dtype)

    def vector(self) -> Array:
        """A Gaussian vector as long as the observed state."""
        first, entries = sizes(self.network.alone)
        return self.ahead.normals[first : first + entries].astype(self.dtype)

    def drawn(self, t: Array | int) -> Drawn:
        """What step t alone reads."""
        weights = None if self.network.tied else self.weights(t)
        if self.network.numbered:
            return Drawn(weights, jnp.asarray(t, jnp.int32))
        return Drawn(weights, self.input(t) if self.network.driven else None)

    def bind(self) -> "Binding":
        """The network, ready for gains; a tied one's weights are drawn here, once."""
        network, pair = self.network.alone, self.network if paired(self.network) else None
        shared = self.weights(0) if network.tied else None
        return Binding(network, shared, self.first_input(), pair, self.precision)


def _at(array: Array, t: Array | int) -> Array:
    return lax.dynamic_index_in_dim(array, t, keepdims=False)


@dataclass(frozen=True)
class Chain:
    """A random network bound to its gains; or the two of a pair, which share all but their inputs."""

    network: Network  # that of one chain
    gains: Gains
    shared: Weights | None  # the weights of a tied network
    first_input: Array
    pair: Network | None = None  # where they are two
    precision: str = "highest"  # of a step's matrix products: GPUs round to TF32 by default

    def each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See `in_turn`."""
        return in_turn(self.pair or self.network, function)

    def inputs(self, drawn: Drawn) -> Array | None:
        """What enters at a step, of each chain."""
        inputs = drawn.inputs
        return inputs if self.pair is None or inputs is None else self.pair.mixed(self.gains, inputs)

    def weights(self, drawn: Drawn) -> Weights:
        """The weights of the step for which that was drawn."""
        return self.shared if self.network.tied else drawn.weights

    def initial_state(self) -> Scaled:
        """The state before step 0, of each chain."""

        def one(inputs: Array) -> Scaled:
            state = self.network.initial_state(self.gains, inputs)
            return scaled.normalize(Scaled(state, jnp.zeros((), jnp.int32)))

        state: Scaled = self.each(one)(self.first_input)
        return state

    def step(self, drawn: Drawn) -> Callable[[State], tuple[State, Any]]:
        """A step of one chain as a function of the state alone: (state', preactivations)."""
        return lambda state: self.step_by(self.weights(drawn), self.gains, state, drawn.inputs)

    def step_by(self, weights: Weights, gains: Gains, state: State, inputs: Array | None) -> tuple[State, Any]:
        """The network's step by these weights and gains; its products, and their derivatives', at the precision."""
        with jax.default_matmul_precision(self.precision):
            return self.network.step(weights, gains, state, inputs)

    def take_step(self, drawn: Drawn, state: Scaled) -> Scaled:
        """The state after a step, of each chain; it may lie outside the floats."""

        def one(state: Scaled, inputs: Array | None) -> Scaled:
            return take_step(self.step(drawn._replace(inputs=inputs)), state)

        after: Scaled = self.each(one)(state, self.inputs(drawn))
        return after


@dataclass(frozen=True)
class Binding:
    """Gains to the chain that has them, of one random network."""

    network: Network
    shared: Weights | None
    first_input: Array
    pair: Network | None
    precision: str

    def __call__(self, gains: Gains) -> Chain:
        first = self.pair.mixed(gains, self.first_input) if self.pair else self.first_input
        return Chain(self.network, gains, self.shared, first, self.pair, self.precision)


def in_range(state: Scaled) -> tuple[State, Array]:
    """The state as plain floats, brought to 2**±limit if it lies farther out, and the power of two then missing."""
    dtype = jax.tree.leaves(state.mantissa)[0].dtype
    limit = 2 * (jnp.finfo(dtype).nmant + 1)
    reached = jnp.clip(state.exponent, -limit, limit)
    return scaled.times_power_of_two(state.mantissa, reached), state.exponent - reached


def take_step(step: Callable[[State], tuple[State, Any]], state: Scaled) -> Scaled:
    """The state after a step of one that may lie outside the floats."""
    here, missing = in_range(state)
    return beyond(step, here, missing, step(here)[0])


def beyond(step: Callable[[State], tuple[State, Any]], here: State, missing: Array, new: State) -> Scaled:
    """The state after a step, new = step(here), of the state 2**missing here.

    Beyond the limit of `in_range` a step has a limit form, to rounding: biases vanish beside the state, or the
    state beside the biases, and an activation is its asymptote or its tangent cone. It then scales with the state,
    step(2**k h) = 2**k step(h), or does not depend on its size, step(2**k h) = step(h); in both cases the
    Jacobian at the limit is the one sought (up to a vanishing one in the second). Which of the two it is
    shows at half the state; where it is neither (sin, x²) the new state is NaN.
    """
    carried = carry_over({"state": new}, missing, lambda part: {"state": step(times(part, here))[0]})
    return scaled.normalize(carried["state"])


def burned_in(source: Source, advance: Callable[[Drawn, Any], Any], state: Any, steps: int) -> Any:
    """The state after the first `steps` steps, state' = advance(what the step reads, state)."""
    if steps:
        state = lax.fori_loop(0, steps, lambda t, state: advance(source.drawn(t), state), state)
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
        kinds = {name: kind(value, at_half[name]) for name, value in values.items()}
        scales = {name: scales for name, (scales, _) in kinds.items()}
        known = {name: scales | constant for name, (scales, constant) in kinds.items()}
        return jnp.zeros_like(carry[0]), half, scales, known

    # Made of `missing`: what vmap maps from the start, it traces once.
    yes = dict.fromkeys(values, missing == missing)
    one = (missing == missing).astype(jax.tree.leaves(values)[0].dtype)
    _, _, scales, known = lax.while_loop(lambda carry: carry[0], look, (missing != 0, one, yes, yes))
    exponents = {name: jnp.where(scales[name], missing, 0) for name in values}
    return {name: Scaled(_or_nan(known[name], value), exponents[name]) for name, value in values.items()}


def _or_nan(known: Array, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.where(known, leaf, jnp.nan), tree)


def times(number: Array, state: State) -> State:
    return jax.tree.map(lambda leaf: number.astype(leaf.dtype) * leaf, state)


def kind(whole: State, half: State) -> tuple[Array, Array]:
    """Does a value scale with the state, or not depend on its size? By its value at half, small entries apart."""
    # All three maxima in one reduction, and the size that of the second: a compiler would take the first's out of the
    # loop that made the second, and find it always.
    parts = jax.tree.map(lambda w, h: jnp.stack([jnp.abs(w - 2 * h), jnp.abs(w - h), jnp.abs(h)]), whole, half)
    largest = [jnp.max(part.reshape(3, -1), axis=1) for part in jax.tree.leaves(parts)]
    apart, unlike, size = jnp.max(jnp.stack(largest), axis=0) if len(largest) > 1 else largest[0]
    return (apart < 2e-3 * size) | (apart == 0), (unlike < 1e-3 * size) | (unlike == 0)
