"""Layer norm and RMS norm: in place of a layer's scale, before a residual branch, or after the sum."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from gradsim import activations, arguments, initializers
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.depth import scaling as schemes
from gradsim.networks.depth.dense import Dense, Weights, checked
from gradsim.networks.depth.norm import NORMS, checked_epsilon, standardize, standardize_affine
from gradsim.networks.depth.scaling import FACTORS, checked_layers
from gradsim.networks.network import Gains

FORMS = ("plain", "pre", "post")


@dataclass(frozen=True)
class LayerNorm(Dense):
    """See `layernorm`."""

    form: str
    norm: str
    epsilon: float
    scaling: str
    layers: int | None
    family: ClassVar[str] = "layernorm"

    @property
    def gains(self) -> dict[str, float]:
        if self.form == "plain":
            return super().gains
        return {**super().gains, "branch_gain": 1.0, **schemes.skip_gains(self.scaling)}

    @property
    def numbered(self) -> bool:
        return schemes.numbered(self.scaling)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        x, bias = state, gains["sigma_b"] * weights.b
        centre = self.norm == "layer"
        if self.form == "plain":
            w = weights.w
            if centre:  # the mean of x W + b is linear in x: taken off the weights it costs the tangents no pass
                w, bias = w - jnp.mean(w, axis=1, keepdims=True), bias - jnp.mean(bias)
            z = standardize_affine(x @ w, gains["sigma_w"], bias, self.epsilon)
            return self.activation(z), (z,)
        scale = schemes.branch_gain(self.scaling, self.layers, gains, inputs)
        z = x if self.form == "post" else standardize(x, -1, self.epsilon, centre)
        branch = gains["sigma_w"] * (self.activation(z) @ weights.w) + bias
        x = schemes.carried(self.scaling, gains, x) + scale * branch
        return (x if self.form == "pre" else standardize(x, -1, self.epsilon, centre)), (z,)


def layernorm(
    width: int,
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    form: str = "plain",
    norm: str = "layer",
    epsilon: float = 1e-6,
    scaling: str = "constant",
    layers: int | None = None,
    tied: bool = False,
) -> LayerNorm:
    """A network that normalizes each state over its units, N(x) = (x − mean x) / √(var x + ε).

        form="plain"  h_l = φ(N(σ_w h W + σ_b b))
        form="pre"    x_l = x + a s (σ_w φ(N(x)) W + σ_b b)
        form="post"   x_l = N(x + a s (σ_w φ(x) W + σ_b b))

    norm="rms" leaves the mean in, x / √(mean x² + ε). ε is 1e-6 as in Flax; with epsilon=0 the norm is
    exactly free of scale. s is 1, 1/√L, 1/L, 1/√l or 1/l by `scaling` and L = `layers`, as in `residual`;
    scaling="weighted_skip" has μ x in place of x, and the gain μ, skip_gain (1), as Doshi et al. have it.

    The Jacobian is ∂x_L/∂x_0, through the norms. Gains: sigma_w and sigma_b (the initializer's own
    unless given), and branch_gain (a) in the residual forms. The norm's own scale and shift are 1 and 0.
    `tied` shares one draw among all layers.

    Raises: ValueError or TypeError for a width below 2, an unknown name (the known ones are listed),
    a negative epsilon, a scaling without a residual branch or without layers.
    Source: Ba, Kiros & Hinton 2016; Zhang & Sennrich 2019; Xiong et al. 2020; Doshi, He & Gromov 2023.
    """
    form = arguments.choice("form", form, FORMS)
    scaling = arguments.choice("scaling", scaling, (*FACTORS, "weighted_skip") if form != "plain" else FACTORS[:1])
    return LayerNorm(
        **checked(width, activation, initializer, tied, narrowest=2),
        form=form,
        norm=arguments.choice("norm", norm, NORMS),
        epsilon=checked_epsilon(epsilon),
        scaling=scaling,
        layers=checked_layers(scaling, layers),
    )
