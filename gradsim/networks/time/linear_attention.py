"""Linear attention as a recurrence: a memory that fades, and into which a key writes a value.

    S_t = T_t S_{t−1} + k_t v_tᵀ

for S [d_k, values] of every head. All columns of S evolve alike under the transition T_t, so the Jacobian is T ⊗ I,
and one column measures it.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import arguments, initializers
from gradsim.activations import Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains, Weights
from gradsim.networks.time import driven
from gradsim.networks.time.driven import Driven


@dataclass(frozen=True)
class LinearAttention(Driven):
    """What all share: heads, the maps of keys and values, and how a memory is written."""

    heads: int
    values: int
    initializer: Initializer

    def __post_init__(self) -> None:  # a sweep over widths makes networks too
        arguments.divisor("heads", self.heads, "width", self.width)

    @property
    def gains(self) -> dict[str, float]:
        gain = self.initializer.weight_gain(self.features, self.width)
        return {"sigma_k": gain, "sigma_v": gain}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (self.heads, self.width // self.heads, self.values)

    def parts(self) -> tuple[Part, Part]:
        """The maps of keys and of values."""
        return self.map_to(self.width), self.map_to(self.heads * self.values)

    def map_to(self, size: int) -> Part:
        return Part(self.initializer.draw, (self.features, size))

    def by_head(self, flat: Array) -> Array:
        return flat.reshape(self.heads, -1)

    def keys(self, weights: Any, gains: Gains, inputs: Array) -> Float[Array, "heads d_k"]:
        return gains["sigma_k"] * self.by_head(inputs @ weights.w_k)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, "heads d_k values"], inputs: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        assert inputs is not None
        keys, values = self.keys(weights, gains, inputs), gains["sigma_v"] * self.by_head(inputs @ weights.w_v)
        faded, written, preactivations = self.transition(weights, gains, state, keys, inputs)
        return faded + written[:, :, None] * values[:, None, :], preactivations

    @abstractmethod
    def transition(
        self, weights: Any, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """T S, what a value is written by [heads, d_k], and the preactivations."""


class RetNetWeights(NamedTuple):
    w_k: Float[Array, "features width"]
    w_v: Float[Array, "features values"]


@dataclass(frozen=True)
class RetNet(LinearAttention):
    """See `retnet`."""

    family: ClassVar[str] = "retnet"
    parameters: ClassVar[Mapping[str, str]] = {"w_k": "sigma_k", "w_v": "sigma_v"}

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "time_scale": 1.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return ()

    def draw(self, key: Array, dtype: DTypeLike) -> RetNetWeights:
        return RetNetWeights(*together(key, dtype, *self.parts()))

    def transition(
        self, weights: RetNetWeights, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        rates = jnp.asarray(-np.log1p(-(2.0 ** (-5 - np.arange(self.heads)))), state.dtype)
        return jnp.exp(-gains["time_scale"] * rates)[:, None, None] * state, keys, ()


class RWKV6Weights(NamedTuple):
    w_k: Float[Array, "features width"]
    w_v: Float[Array, "features values"]
    w_decay: Float[Array, "features width"]


@dataclass(frozen=True)
class RWKV6(LinearAttention):
    """See `rwkv6`."""

    layer: float
    family: ClassVar[str] = "rwkv6"
    parameters: ClassVar[Mapping[str, str]] = {"w_k": "sigma_k", "w_v": "sigma_v", "w_decay": "sigma_decay"}

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "sigma_decay": 0.0, "decay_bias": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return ()

    def draw(self, key: Array, dtype: DTypeLike) -> RWKV6Weights:
        return RWKV6Weights(*together(key, dtype, *self.parts(), self.map_to(self.width)))

    def transition(
        self, weights: RWKV6Weights, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        bias = spread(self.width, -6.0, 0.7 + 1.3 * self.layer, state.dtype) + gains["decay_bias"]
        kept = jnp.exp(-jnp.exp(gains["sigma_decay"] * (inputs @ weights.w_decay) + bias))
        return self.by_head(kept)[:, :, None] * state, keys, ()


def spread(width: int, start: float, power: float, dtype: DTypeLike) -> Array:
    """start + 5 (j/(width − 1))^power over the channels j."""
    place = np.arange(width) / max(width - 1, 1)
    return jnp.asarray(start + 5 * place**power, dtype)


def checked(
    width: Any, heads: Any, values: Any, features: Any, initializer: Any, initial: Any, tied: Any
) -> dict[str, Any]:
    """The fields of `LinearAttention` from what a user passed."""
    return {
        **driven.checked(width, features, initial, tied),
        "heads": arguments.size("heads", heads),
        "values": arguments.size("values", values),
        "initializer": initializers.get(initializer),
    }


def retnet(
    width: int,
    heads: int = 8,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    values: int = 1,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> RetNet:
    """Linear attention of fixed decay, S_t = γ_h S_{t−1} + k_t v_tᵀ, γ_h = (1 − 2^(−5−h))^time_scale in head h.

    k = σ_k x_t W_k and v = σ_v x_t W_v; S is [width/heads, values] in each of the heads. Its columns evolve alike, and
    the Jacobian ∂S_T/∂S_0, of size width values, is diag γ_h^T: one column of `values` measures it, training takes
    more.
    Gains: sigma_k, sigma_v (the initializer's own unless given), time_scale (1). The first state is "zero", or
    "gaussian" of unit variance; `features` is the width of an input, the network's own unless given.

    Raises: ValueError or TypeError for sizes that are not positive whole numbers, heads that do not divide the width,
    an unknown initializer or `initial`.
    Source: Sun et al. 2023.
    """
    return RetNet(**checked(width, heads, values, features, initializer, initial, tied))


def rwkv6(
    width: int,
    heads: int = 1,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    values: int = 1,
    layer: float = 0.0,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> RWKV6:
    """Linear attention whose decays are channels' own and may read the input: S_t = diag(w_t) S_{t−1} + k_t v_tᵀ.

    w_t = exp(−exp(σ_decay x_t W + w₀ + decay_bias)), w₀ = −6 + 5 (j/(width − 1))^(0.7 + 1.3 layer) in channel j, for a
    layer at this place of its stack, 0 for the first, 1 for the last. The Jacobian is diagonal, Π_t w_t.
    Gains: sigma_k, sigma_v (the initializer's own unless given), sigma_decay (0, the start), decay_bias (0).
    All else is as in `retnet`.

    Raises: ValueError or TypeError as `retnet` does and for a layer outside of [0, 1].
    Source: Peng et al. 2024.
    """
    return RWKV6(
        **checked(width, heads, values, features, initializer, initial, tied), layer=arguments.share("layer", layer)
    )
