"""Batch norm: the state is a whole batch, and the exact Jacobian couples its samples."""

from dataclasses import dataclass
from typing import ClassVar

from jax import Array
from jaxtyping import Float

from gradsim import activations, arguments, initializers
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.depth.dense import Dense, Weights, checked
from gradsim.networks.depth.norm import checked_epsilon, standardize
from gradsim.networks.network import Gains

PLACES = ("before", "after")
OF = ("batch", "sample")


@dataclass(frozen=True)
class BatchNorm(Dense):
    """See `batchnorm`."""

    batch: int
    place: str
    of: str
    epsilon: float
    family: ClassVar[str] = "batchnorm"
    state_axes: ClassVar[tuple[str, ...]] = ("batch", "width")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.width)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, "batch n"], inputs: Array | None
    ) -> tuple[Float[Array, "batch n"], tuple[Float[Array, "batch n"], ...]]:
        z, bias = gains["sigma_w"] * (state @ weights.w), gains["sigma_b"] * weights.b
        if self.place == "before":
            z = standardize(z, -2, self.epsilon) + bias
            return self.activation(z), (z,)
        z = z + bias
        return standardize(self.activation(z), -2, self.epsilon), (z,)

    def observed(self, state: Float[Array, "batch n"]) -> Array:
        return state if self.of == "batch" else state[0]


def batchnorm(
    width: int,
    batch: int,
    activation: str | activations.Function | Activation = "relu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    place: str = "before",
    of: str = "batch",
    epsilon: float = 1e-5,
    tied: bool = False,
) -> BatchNorm:
    """A network with batch norm in training mode, BN(z) = (z − mean z) / √(var z + ε) over the batch.

        place="before"  h_l = φ(BN(σ_w h W) + σ_b b)      (the mean would take a bias away: it comes after)
        place="after"   h_l = BN(φ(σ_w h W + σ_b b))

    The state is the whole batch [B, N]. The Jacobian is that of the whole batch, ∂h_L/∂h_0 with B·N rows
    and columns, since a sample's output depends on every sample's input; with of="sample" its first block,
    that of one sample with respect to its own input. Gains: sigma_w and sigma_b (the initializer's own
    unless given). ε is 1e-5 as in Flax; with epsilon=0 σ_w drops out where the norm is before the
    activation. The norm's own scale is 1. `tied` shares one draw among all layers.

    Raises: ValueError or TypeError for a width that is not a positive whole number, a batch below 3
    (the outputs of two samples are ±1 whatever comes in, and every derivative is zero), an unknown
    name (the known ones are listed), a negative epsilon.
    Source: Ioffe & Szegedy 2015; Yang et al. 2019.
    """
    return BatchNorm(
        **checked(width, activation, initializer, tied),
        batch=arguments.size("batch", batch, minimum=3),
        place=arguments.choice("place", place, PLACES),
        of=arguments.choice("of", of, OF),
        epsilon=checked_epsilon(epsilon),
    )
