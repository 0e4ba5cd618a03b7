"""Convolutional networks in one and two dimensions, with the full Jacobian over positions and channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, arguments, initializers
from gradsim.activations import Activation
from gradsim.draws import Part, Shape, Transform, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains, Network

PADDINGS = {"circular": "wrap", "zero": "constant"}  # name -> the mode of jax.numpy.pad
# Positions, then channels, as in Flax: input, kernel, output of one and two dimensions.
LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


def _delta_orthogonal(z: Array, shape: Shape, dtype: DTypeLike) -> Array:
    """An orthogonal matrix at the kernel's centre, zeros elsewhere; rows are places, then channels."""
    channels = shape[1]
    centre = initializers.orthogonal(z, (channels, channels), dtype)
    before = (shape[0] - channels) // 2
    return jnp.zeros(shape, dtype).at[before : before + channels].set(centre)


DELTA_ORTHOGONAL = "delta_orthogonal"
DELTA = Transform(_delta_orthogonal, lambda shape: shape[1] ** 2)


class Weights(NamedTuple):
    """One layer's draw."""

    w: Float[Array, "*kernel channels channels"]
    b: Float[Array, " channels"]


@dataclass(frozen=True)
class Convolutional(Network):
    """See `convolutional`."""

    channels: int
    size: int
    kernel: int
    dimensions: int
    padding: str
    activation: Activation
    initializer: Initializer
    family: ClassVar[str] = "convolutional"
    parameters: ClassVar[Mapping[str, str]] = {"w": "sigma_w", "b": "sigma_b"}

    @property
    def fan_in(self) -> int:
        """The inputs of one unit: channels · kernel^dimensions."""
        return self.channels * self.kernel**self.dimensions

    @property
    def gains(self) -> dict[str, float]:
        return {
            "sigma_w": self.initializer.weight_gain(self.fan_in, self.fan_in),
            "sigma_b": self.initializer.bias_gain(self.fan_in),
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (*(self.size,) * self.dimensions, self.channels)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        c, law = self.channels, self.initializer
        w, b = together(key, dtype, Part(law.draw, (self.fan_in, c)), Part(law.draw_bias, (c,)))
        return Weights(w.reshape(*(self.kernel,) * self.dimensions, c, c), b)

    def initial_state(
        self, gains: Gains, inputs: Float[Array, "*positions channels"]
    ) -> Float[Array, "*positions channels"]:
        return inputs

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, "*positions channels"], inputs: Array | None
    ) -> tuple[Float[Array, "*positions channels"], tuple[Float[Array, "*positions channels"], ...]]:
        reach = (self.kernel - 1) // 2
        padded = jnp.pad(state, [(reach, reach)] * self.dimensions + [(0, 0)], mode=PADDINGS[self.padding])
        convolved = lax.conv_general_dilated(
            padded[None],
            weights.w,
            window_strides=(1,) * self.dimensions,
            padding="VALID",
            dimension_numbers=LAYOUTS[self.dimensions],
        )[0]
        z = gains["sigma_w"] * convolved + gains["sigma_b"] * weights.b
        return self.activation(z), (z,)


def convolutional(
    channels: int,
    size: int,
    kernel: int = 3,
    dimensions: int = 1,
    padding: str = "circular",
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    tied: bool = False,
) -> Convolutional:
    """A convolutional network of constant size, h_l = φ(σ_w h_{l−1} * W_l + σ_b b_l).

    The state is [size, channels], or [size, size, channels] in two dimensions. W_l has entries of
    variance 1/(channels · kernel^dimensions) and its layout is Flax's; b_l has one entry a channel.
    initializer="delta_orthogonal" puts a random orthogonal matrix at the kernel's centre and zeros
    elsewhere, so that a linear network under circular padding is an isometry times σ_w.

    The Jacobian is ∂h_L/∂h_0 over all positions and channels. Gains: sigma_w and sigma_b (the
    initializer's own unless given). `tied` shares one draw among all layers.

    Raises: ValueError or TypeError for channels, a size or a kernel that are not positive whole numbers,
    an even kernel, one larger than the image under circular padding or reaching past all of it under zero
    padding, dimensions other than 1 and 2, an unknown name (the known ones are listed).
    Source: Xiao et al. 2018.
    """
    size = arguments.size("size", size)
    kernel = arguments.size("kernel", kernel)
    dimensions = arguments.size("dimensions", dimensions)
    padding = arguments.choice("padding", padding, PADDINGS)
    if dimensions not in LAYOUTS:
        raise ValueError(f"dimensions: got {dimensions}; pass 1 or 2")
    if kernel % 2 == 0:
        raise ValueError(f"kernel: got {kernel}; pass an odd number, so that a layer has a centre and keeps the size")
    most = size if padding == "circular" else 2 * size - 1
    if kernel > most:
        raise ValueError(f"kernel: got {kernel}; with {padding} padding and size={size} pass at most {most}")
    delta = isinstance(initializer, str) and initializer == DELTA_ORTHOGONAL
    return Convolutional(
        channels=arguments.size("channels", channels),
        size=size,
        kernel=kernel,
        dimensions=dimensions,
        padding=padding,
        activation=activations.get(activation),
        initializer=Initializer(DELTA_ORTHOGONAL, DELTA) if delta else initializers.get(initializer),
        tied=arguments.flag("tied", tied),
    )
