"""One random network, drawn from its keys and bound to its gains: what happens in a step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.typing import DTypeLike

from gradsim import scaled
from gradsim.draws import normal
from gradsim.networks.network import Gains, Network, State, Weights
from gradsim.scaled import Scaled

# Numbers of a network's inputs that are held at once; those of longer sequences are drawn as they are read.
MOST_INPUTS = 2**18


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


class Ahead(NamedTuple):
    """What is hashed ahead by a program that all networks share: that of a chain then hashes its weights alone."""

    weights: Array  # a key for each step, [steps]
    inputs: Array  # [steps, *shape], or a key for each step where that is many numbers
    normals: Array  # what is drawn once for a network, [numbers]


class Extent(NamedTuple):
    """How much is hashed ahead; other sizes share its program, since two of these are powers of two, none small."""

    steps: int
    numbers: int
    shape: tuple[int, ...] | None  # of a step's input; (0,) where none is drawn, None for keys


def ahead(keys: Keys, extent: Extent) -> Ahead:
    """So much of the streams; the first of it does not depend on how much."""
    fold = jax.vmap(random.fold_in, in_axes=(None, 0))
    both = jnp.stack([keys.weights, keys.inputs])
    weights, inputs = jax.vmap(fold, in_axes=(0, None))(both, jnp.arange(extent.steps))
    if (shape := extent.shape) is not None:
        inputs = jax.vmap(lambda key: normal(key, shape, jnp.float32))(inputs)
    return Ahead(weights, inputs, normal(keys.once, (extent.numbers,), jnp.float32))


@lru_cache(maxsize=256)
def extent(network: Network, steps: int, *, given: bool) -> Extent:
    """What `ahead` draws for so many steps of a network, whose inputs may be given."""
    steps, numbers = power_above(steps, 64), power_above(sum(_once(network)), 256)
    shape = network.input_shape if network.driven and not given else (0,)
    return Extent(steps, numbers, shape if steps * math.prod(shape) <= MOST_INPUTS else None)


def power_above(n: int, least: int) -> int:
    """The smallest power of two that is smaller than neither."""
    return int(2 ** (max(n, least) - 1).bit_length())


def observed_size(network: Network) -> int:
    """The numbers of the observed part of a state: the rows and columns of a product."""
    return _once(network)[1]


@lru_cache(maxsize=256)
def _once(network: Network) -> tuple[int, int]:
    """The numbers that the first state is made of, and those of a vector in the observed part."""
    shape = network.initial_shape if network.driven else network.input_shape
    gains = {name: jax.ShapeDtypeStruct((), "float32") for name in network.gains}
    state = jax.eval_shape(network.initial_state, gains, jax.ShapeDtypeStruct(shape, "float32"))
    return math.prod(shape), scaled.size(jax.tree.leaves(jax.eval_shape(network.observed, state)))


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
        shape = network.initial_shape if network.driven else network.input_shape
        return self.ahead.normals[: math.prod(shape)].reshape(shape).astype(self.dtype)

    def vector(self) -> Array:
        """A Gaussian vector as long as the observed state."""
        first, entries = _once(self.network)
        return self.ahead.normals[first : first + entries].astype(self.dtype)

    def drawn(self, t: Array | int) -> Drawn:
        """What step t alone reads."""
        weights = None if self.network.tied else self.weights(t)
        if self.network.numbered:
            return Drawn(weights, jnp.asarray(t, jnp.int32))
        return Drawn(weights, self.input(t) if self.network.driven else None)

    def bind(self) -> Callable[[Gains], "Chain"]:
        """The network with gains bound to it; a tied one's weights are drawn here, once."""
        shared, first = self.weights(0) if self.network.tied else None, self.first_input()
        return lambda gains: Chain(self.network, gains, shared, first)


def _at(array: Array, t: Array | int) -> Array:
    return lax.dynamic_index_in_dim(array, t, keepdims=False)


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


def burned_in(source: Source, chain: Chain, steps: int) -> Scaled:
    """The state after the first `steps` steps."""
    state = chain.initial_state()
    if steps:
        state = lax.fori_loop(0, steps, lambda t, state: take_step(chain.step(source.drawn(t)), state), state)
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
