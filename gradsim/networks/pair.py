"""Two inputs through one network: the same weights, and a state for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradsim import arguments
from gradsim.activations import Activation
from gradsim.networks.network import Gains, Network, State, Weights

CORRELATION = "input_correlation"


@dataclass(frozen=True)
class Pair(Network):
    """See `pair`. Its states and inputs are those of the network with a leading axis [2]."""

    network: Network

    # What a family declares is that of the network.
    family = property(lambda self: self.network.family)
    axis = property(lambda self: self.network.axis)
    axis_units = property(lambda self: self.network.axis_units)
    state_axes = property(lambda self: self.network.state_axes)
    driven = property(lambda self: self.network.driven)
    input_gain = property(lambda self: self.network.input_gain)
    numbered = property(lambda self: self.network.numbered)
    parameters = property(lambda self: self.network.parameters)

    @property
    def alone(self) -> Network:
        return self.network

    @property
    def gains(self) -> dict[str, float]:
        return {**self.network.gains, CORRELATION: 0.0}

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2, *self.network.input_shape)

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, *self.network.initial_shape)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return self.network.activations

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        return self.network.draw(key, dtype)

    def mixed(self, gains: Gains, inputs: Array) -> Array:
        """x and c x + √(1 − c²) z, of x and z; the number of a step is that of both."""
        if jnp.issubdtype(inputs.dtype, jnp.integer):
            return jnp.stack([inputs, inputs])
        c, (x, z) = gains[CORRELATION], inputs
        return jnp.stack([x, c * x + jnp.sqrt((1 - c) * (1 + c)) * z])

    def initial_state(self, gains: Gains, inputs: Array) -> State:
        return jax.vmap(lambda one: self.network.initial_state(gains, one))(self.mixed(gains, inputs))

    def step(
        self, weights: Weights, gains: Gains, state: State, inputs: Array | None
    ) -> tuple[State, tuple[Array, ...]]:
        both = None if inputs is None else self.mixed(gains, inputs)
        stepped: tuple[State, tuple[Array, ...]] = jax.vmap(
            lambda state, inputs: self.network.step(weights, gains, state, inputs)
        )(state, both)
        return stepped

    def observed(self, state: State) -> State:
        return jax.vmap(self.network.observed)(state)

    def output(self, state: State) -> State:
        return jax.vmap(self.network.output)(state)

    def describe(self) -> dict[str, Any]:
        """What the network is, and that two inputs pass through it."""
        return {**self.network.describe(), "paired": True}


def pair(network: Network) -> Pair:
    """Two inputs x, x' through one network, any family: how alike do their states and gradients stay?

        x' = c x + √(1 − c²) z,   c = `input_correlation`, from −1 to 1

    x and z are independent: Gaussian, x the single network's own input, or given, inputs=[samples, 2, …]. At c = 0,
    the default, x' = z; at c = 1 both are x, bit for bit. Over time it holds of the states before the first step and
    of the inputs at every step. All that `sweep` measures of a network it measures of a pair, on one more axis,
    `input`, with the numbers of each input alone; and what compares the two, on no such axis: `correlation`,
    `log_decorrelation`, `gradient_correlation`, `jvp_correlation`, `loss_gradient_correlation` and
    `weight_gradient_correlation`. Each of the two chains has exponents of its own, so that one may die or explode
    beside the other. A loss or a cotangent is that of each.

    Equal inputs have correlations of exactly 1, and twice the numbers of the single network, bit for bit: each chain
    has matrix products of its own, of the shape of the single network's. A pair takes twice its time. (What both
    depend on in the last digit is the shape of a product: how many cells of a grid go through at once, and of seeds
    whether it is one alone. A sweep that memory cuts into other chunks agrees to rounding.)

    Gains: those of the network, and input_correlation.

    Raises: TypeError for anything but a network; ValueError for a pair, or for a network with a gain of that name.
    Source: Poole et al. 2016 and Schoenholz et al. 2017 for the states, Balduzzi et al. 2017 for the gradients.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network: {arguments.got(network)}; pass a network such as gradsim.feedforward(width=64)")
    if network.alone is not network:
        raise ValueError("network: got a pair; pass the network itself")
    gains: Mapping[str, float] = network.gains
    if CORRELATION in gains:
        raise ValueError(f"network: {network.family} has a gain {CORRELATION}; pass one without, a pair has its own")
    return Pair(network, tied=network.tied)
