"""Mixing over channels: the two layers at each token, plain or gated."""

from typing import Any

from jax import Array
from jaxtyping import Float

from gradsim.activations import Activation
from gradsim.networks.network import Gains


def feed(
    weights: Any,
    gains: Gains,
    x: Float[Array, "tokens d"],
    activation: Activation,
    *,
    gated: bool = False,
    factor: float = 1.0,
) -> tuple[Float[Array, "tokens d"], Float[Array, "tokens m"]]:
    """σ_u h U and the argument z of φ: h = φ(z), z = σ_w x W + σ_b b, or gated h = φ(z) ∘ σ_w x W, z = σ_g x G + σ_b b.

    W and U are times `factor`.
    """
    up, bias = (gains["sigma_w"] * factor) * (x @ weights.w), gains["sigma_b"] * weights.b
    z = gains["sigma_g"] * (x @ weights.g) + bias if gated else up + bias
    hidden = activation(z) * up if gated else activation(z)
    return (gains["sigma_u"] * factor) * (hidden @ weights.u), z
