"""Recurrent networks without memory cells: the vanilla RNN and the minimalRNN; and what all recurrent families share.

A recurrent network is driven: every step reads an input of its own. Its steps share one draw of the
weights, unless `tied=False` draws new ones at each step, as mean-field theory assumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time import driven
from gradsim.networks.time.driven import Driven


class Weights(NamedTuple):
    """The draw of one affine map of state and input, σ_w h W + σ_v x V + σ_b b."""

    w: Float[Array, "n n"]
    v: Float[Array, "features n"]
    b: Float[Array, " n"]


@dataclass(frozen=True)
class Recurrent(Driven):
    """What all dense recurrent families share beside that: the laws of the weights."""

    initializer: Initializer
    input_initializer: Initializer

    @property
    def gains(self) -> dict[str, float]:
        return {
            "sigma_w": self.initializer.weight_gain(self.width, self.width),
            "sigma_v": self.input_initializer.weight_gain(self.features, self.width),
            "sigma_b": self.initializer.bias_gain(self.width),
        }

    def parts(self, copies: int | None = None) -> tuple[Part, Part, Part]:
        """What an affine map draws, W, V and b; a gated cell draws one for each gate."""
        n = self.width
        return (
            Part(self.initializer.draw, (n, n), copies),
            Part(self.input_initializer.draw, (self.features, n), copies),
            Part(self.initializer.draw_bias, (n,), copies),
        )


def checked(
    width: Any,
    features: Any,
    initializer: str | initializers.Draw | Initializer,
    input_initializer: str | initializers.Draw | Initializer,
    initial: Any,
    tied: Any,
) -> dict[str, Any]:
    """The fields of `Recurrent` from what a user passed; `features` is the width unless given."""
    return {
        **driven.checked(width, features, initial, tied),
        "initializer": initializers.get(initializer),
        "input_initializer": _input_initializer(input_initializer),
    }


def _input_initializer(value: str | initializers.Draw | Initializer) -> Initializer:
    try:
        return initializers.get(value)
    except (ValueError, TypeError) as error:
        raise type(error)(f"input_{error}") from None  # the message starts with "initializer:"


@dataclass(frozen=True)
class OneMap(Recurrent):
    """What the cells of one affine map share: its draw."""

    parameters: ClassVar[Mapping[str, str]] = {"w": "sigma_w", "v": "sigma_v", "b": "sigma_b"}

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        return Weights(*together(key, dtype, *self.parts()))


@dataclass(frozen=True)
class VanillaRNN(OneMap):
    """See `vanilla_rnn`."""

    activation: Activation
    family: ClassVar[str] = "vanilla_rnn"
    input_gain: ClassVar[str | None] = "sigma_v"

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        z = affine(weights, gains, state, inputs)
        return self.activation(z), (z,)


@dataclass(frozen=True)
class MinimalRNN(OneMap):
    """See `minimal_rnn`."""

    family: ClassVar[str] = "minimal_rnn"

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "update_bias": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (ACTIVATIONS["sigmoid"],)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        z = affine(weights, gains, state, inputs) + gains["update_bias"]
        u = ACTIVATIONS["sigmoid"](z)
        # u h + (1 − u) x with u once only: a tangent then meets two products, not three.
        return inputs + u * (state - inputs), (z,)


def affine(weights: Weights, gains: Gains, state: Array, inputs: Array | None) -> Array:
    """σ_w h W + σ_v x V + σ_b b."""
    assert inputs is not None
    z = gains["sigma_w"] * (state @ weights.w)
    return z + (gains["sigma_v"] * (inputs @ weights.v) + gains["sigma_b"] * weights.b)


def vanilla_rnn(
    width: int,
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    features: int | None = None,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    initial: str = "gaussian",
    tied: bool = True,
) -> VanillaRNN:
    """The vanilla (Elman) recurrent network, h_t = φ(σ_w h_{t−1} W + σ_v x_t V + σ_b b).

    The Jacobian is ∂h_T/∂h_0 = Π_t σ_w W diag φ'(z_t): T slopes, all with the same W unless `tied=False`.
    Gains: sigma_w, sigma_v, sigma_b (the initializers' own unless given). W has entries of variance
    1/width and V of 1/features under laws of unit gain; `initializer` is the law of W ("orthogonal",
    "identity", …) and of b, `input_initializer` that of V. sigma_v = 0 is the autonomous network.
    `features` is the width of an input, the network's own unless given. `initial`: the state h_0 is
    "gaussian" of unit variance, or "zero" as in flax, where an autonomous network without bias would rest.

    Raises: ValueError or TypeError for sizes that are not positive whole numbers, an unknown activation,
    initializer or `initial` (the known ones are listed).
    Source: Elman 1990; Sompolinsky, Crisanti & Sommers 1988; Pascanu et al. 2013; Le et al. 2015 (identity).
    """
    fields = checked(width, features, initializer, input_initializer, initial, tied)
    return VanillaRNN(**fields, activation=activations.get(activation))


def minimal_rnn(
    width: int,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    initial: str = "gaussian",
    tied: bool = True,
) -> MinimalRNN:
    """The minimalRNN, one gate and no candidate: h_t = u ∘ h_{t−1} + (1 − u) ∘ x_t.

    The gate is u = sigmoid(σ_w h_{t−1} W + σ_v x_t V + σ_b b + update_bias): a large update_bias keeps the
    memory. Inputs have the width of the state. The Jacobian is ∂h_T/∂h_0, a step of it
    diag u + σ_w W diag[u (1 − u) ∘ (h_{t−1} − x_t)].
    Gains: sigma_w, sigma_v, sigma_b (the initializers' own unless given), update_bias (0).
    `initial`: h_0 is "gaussian" of unit variance or "zero"; `tied=False` draws new weights at each step.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Chen, Pennington & Schoenholz 2018.
    """
    return MinimalRNN(**checked(width, None, initializer, input_initializer, initial, tied))
