"""Mirrored activations and weights, [φ(z), φ(−z)] and [W; −W]: a ReLU network that starts as a linear one."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, initializers
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.depth.dense import Dense, Weights, checked
from gradsim.networks.network import Gains


@dataclass(frozen=True)
class Mirrored(Dense):
    """See `mirrored`."""

    family: ClassVar[str] = "mirrored"

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation, self.activation)

    def draw(self, key: Array, dtype: DTypeLike) -> Any:
        w, b = super().draw(key, dtype)
        return Weights(jnp.concatenate([w, -w]), b)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        z = state
        both = jnp.concatenate([self.activation(z), self.activation(-z)])
        return gains["sigma_w"] * (both @ weights.w) + gains["sigma_b"] * weights.b, (z, -z)


def mirrored(
    width: int,
    activation: str | activations.Function | Activation = "relu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    tied: bool = False,
) -> Mirrored:
    """A "looks-linear" network: two halves of opposite sign, z_l = σ_w [φ(z_{l−1}), φ(−z_{l−1})] [W_l; −W_l] + σ_b b_l.

    What is not odd in φ cancels at the start. A ReLU leaves z itself: every network begins as the linear one of the
    same W, ∂z_L/∂z_0 = Π_l σ_w W_l for every input, though training moves the two halves apart. The state is the
    pre-activation z. Gains: sigma_w (the initializer's own unless given) and sigma_b. `tied` shares one draw among all
    layers.

    Raises: ValueError or TypeError for a width that is not a positive whole number, an unknown activation or
    initializer (the known ones are listed).
    Source: Balduzzi et al. 2017, arXiv:1702.08591, with the concatenated ReLU of Shang et al. 2016.
    """
    return Mirrored(**checked(width, activation, initializer, tied))
