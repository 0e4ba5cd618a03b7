"""Fully connected feed-forward networks: h' = φ(σ_w h W + σ_b b)."""

from dataclasses import dataclass
from typing import ClassVar

from jax import Array
from jaxtyping import Float

from gradsim import activations, initializers
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.depth.dense import Dense, Weights, checked
from gradsim.networks.network import Gains


@dataclass(frozen=True)
class Feedforward(Dense):
    """See `feedforward`."""

    family: ClassVar[str] = "feedforward"

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        z = gains["sigma_w"] * (state @ weights.w) + gains["sigma_b"] * weights.b
        return self.activation(z), (z,)


def feedforward(
    width: int,
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    tied: bool = False,
) -> Feedforward:
    """A fully connected network of constant width, h_l = φ(σ_w h_{l−1} W_l + σ_b b_l).

    The Jacobian is ∂h_L/∂h_0 = Π_l σ_w W_l diag φ'(z_l): L slopes, h_0 the input.
    Gains: sigma_w (the initializer's own unless given) and sigma_b. W_l has entries of variance
    1/width under every law of unit gain, b_l of variance 1. `tied` shares one draw among all layers.

    Raises: ValueError or TypeError for a width that is not a positive whole number, an unknown
    activation or initializer (the known ones are listed).
    Source: Poole et al. 2016; Schoenholz et al. 2017.
    """
    return Feedforward(**checked(width, activation, initializer, tied))
