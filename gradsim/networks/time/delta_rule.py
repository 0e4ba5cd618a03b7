"""Linear attention that overwrites: the delta rule, and RWKV-7."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import arguments, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time.linear_attention import LinearAttention, checked, spread

SIGMOID = ACTIVATIONS["sigmoid"]


class DeltaWeights(NamedTuple):
    w_k: Float[Array, "features width"]
    w_v: Float[Array, "features values"]
    w_beta: Float[Array, "features heads"]


@dataclass(frozen=True)
class DeltaNet(LinearAttention):
    """See `delta_net`."""

    family: ClassVar[str] = "delta_net"
    parameters: ClassVar[Mapping[str, str]] = {"w_k": "sigma_k", "w_v": "sigma_v", "w_beta": "sigma_beta"}

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "beta": 0.5, "sigma_beta": 1.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SIGMOID,)

    def draw(self, key: Array, dtype: DTypeLike) -> DeltaWeights:
        return DeltaWeights(*together(key, dtype, *self.parts(), self.map_to(self.heads)))

    def transition(
        self, weights: DeltaWeights, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        z = gains["sigma_beta"] * (inputs @ weights.w_beta)
        unit = unit_rows(keys)
        written = 2 * gains["beta"] * SIGMOID(z)[:, None] * unit
        recalled = jnp.sum(unit[:, :, None] * state, axis=1, keepdims=True)
        return state - written[:, :, None] * recalled, written, (z,)


def unit_rows(rows: Array) -> Array:
    """Each row of unit norm, or zero where it is zero."""
    largest = jnp.max(jnp.abs(rows), axis=-1, keepdims=True)
    near_one = rows / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(near_one**2, axis=-1, keepdims=True)
    return near_one / jnp.sqrt(jnp.where(square > 0, square, 1))


class RWKV7Weights(NamedTuple):
    w_k: Float[Array, "features width"]
    w_v: Float[Array, "features values"]
    w_decay: Float[Array, "features width"]
    w_rate: Float[Array, "features width"]


@dataclass(frozen=True)
class RWKV7(LinearAttention):
    """See `rwkv7`."""

    layer: float
    family: ClassVar[str] = "rwkv7"
    parameters: ClassVar[Mapping[str, str]] = {
        "w_k": "sigma_k", "w_v": "sigma_v", "w_decay": "sigma_decay", "w_rate": "sigma_beta",
    }  # fmt: skip

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "sigma_decay": 0.0, "decay_bias": 0.0, "sigma_beta": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SIGMOID, SIGMOID)

    def draw(self, key: Array, dtype: DTypeLike) -> RWKV7Weights:
        return RWKV7Weights(*together(key, dtype, *self.parts(), self.map_to(self.width), self.map_to(self.width)))

    def transition(
        self, weights: RWKV7Weights, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        bias = spread(self.width, -6.5, 0.85 + math.sqrt(self.layer), state.dtype) + gains["decay_bias"]
        z_decay = gains["sigma_decay"] * (inputs @ weights.w_decay) + bias
        z_rate = gains["sigma_beta"] * (inputs @ weights.w_rate)
        kept, rate = jnp.exp(-math.exp(-0.5) * SIGMOID(z_decay)), SIGMOID(z_rate)
        unit = unit_rows(keys)
        recalled = jnp.sum(unit[:, :, None] * state, axis=1, keepdims=True)
        faded = self.by_head(kept)[:, :, None] * state - (self.by_head(rate) * unit)[:, :, None] * recalled
        return faded, keys, (z_decay, z_rate)


def delta_net(
    width: int,
    heads: int = 1,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    values: int = 1,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> DeltaNet:
    """The delta rule, a key's recall replaced by a value: S_t = (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ, ‖k_t‖ = 1.

    k is the direction of x_t W_k, v = σ_v x_t W_v, β_t = 2 beta sigmoid(σ_β x_t W_β), one a head. A step is a
    projection at β = 1 and a reflection, an isometry, at β = 2; for independent keys E‖J u‖² falls by 1 − β(2 − β)/d_k.
    Gains: sigma_k (without effect: keys are normalized), sigma_v (the initializer's own unless given), beta (½),
    sigma_beta (1; at 0 β_t = beta).
    All else is as in `retnet`.

    Raises: ValueError or TypeError as `retnet` does.
    Source: Schlag, Irie & Schmidhuber 2021; Yang et al. 2024.
    """
    return DeltaNet(**checked(width, heads, values, features, initializer, initial, tied))


def rwkv7(
    width: int,
    heads: int = 1,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    values: int = 1,
    layer: float = 0.0,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> RWKV7:
    """RWKV-7: S_t = (diag(w_t) − (a_t ∘ κ_t) κ_tᵀ) S_{t−1} + k_t v_tᵀ, κ_t the direction of the key.

    w_t = exp(−e^(−½) sigmoid(σ_decay x_t W + w₀ + decay_bias)), w₀ = −6.5 + 5 (j/(width − 1))^(0.85 + √layer) in
    channel j, and a_t = sigmoid(σ_β x_t W_a) is how much of what the key recalls is erased.
    Gains: sigma_k, sigma_v (the initializer's own unless given), sigma_decay (0, the start), decay_bias (0),
    sigma_beta (0).
    All else is as in `retnet`.

    Raises: ValueError or TypeError as `retnet` does and for a layer outside of [0, 1].
    Source: Peng et al. 2025.
    """
    return RWKV7(
        **checked(width, heads, values, features, initializer, initial, tied), layer=arguments.share("layer", layer)
    )
