"""The matrix memory of xLSTM, linear attention with gates: mLSTM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import GAUSSIAN, Part, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time.linear_attention import LinearAttention, checked

SIGMOID = ACTIVATIONS["sigmoid"]
CAP = 15.0  # of the input gate's argument, as in xLSTM 7B: its exponential would leave the floats


class MLSTMWeights(NamedTuple):
    """Maps of keys, values and the gates f and i, and the bias of i."""

    w_k: Float[Array, "features width"]
    w_v: Float[Array, "features values"]
    w_f: Float[Array, "features heads"]
    w_i: Float[Array, "features heads"]
    b_i: Float[Array, " heads"]


@dataclass(frozen=True)
class MLSTM(LinearAttention):
    """See `mlstm`."""

    family: ClassVar[str] = "mlstm"
    parameters: ClassVar[Mapping[str, str]] = {
        "w_k": "sigma_k", "w_v": "sigma_v", "w_f": "sigma_gate", "w_i": "sigma_gate", "b_i": "sigma_b",
    }  # fmt: skip

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "sigma_gate": 0.0, "sigma_b": 0.1, "forget_bias": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SIGMOID,)

    def draw(self, key: Array, dtype: DTypeLike) -> MLSTMWeights:
        gate = self.map_to(self.heads)
        return MLSTMWeights(*together(key, dtype, *self.parts(), gate, gate, Part(GAUSSIAN, (self.heads,))))

    def transition(
        self, weights: MLSTMWeights, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        start = jnp.asarray(np.linspace(3, 6, self.heads), state.dtype) + gains["forget_bias"]
        z = gains["sigma_gate"] * (inputs @ weights.w_f) + start
        a = gains["sigma_gate"] * (inputs @ weights.w_i) + gains["sigma_b"] * weights.b_i
        into = jnp.exp(CAP * jnp.tanh(a / CAP))
        written = into[:, None] * keys / (self.width // self.heads) ** 0.5
        return SIGMOID(z)[:, None, None] * state, written, (z,)


def mlstm(
    width: int,
    heads: int = 4,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    values: int = 1,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> MLSTM:
    """The matrix memory of xLSTM, C_t = f_t C_{t−1} + i_t k_t v_tᵀ/√d_k; its normalizer is one more column of values 1.

    f = sigmoid(σ_gate x_t W_f + b_f + forget_bias) and i = exp(σ_gate x_t W_i + σ_b b_i), one a head, the argument of
    i capped smoothly at 15, with b_f from 3 in the first head to 6 in the last. The Jacobian is Π_t f_t I in each head;
    the read-out is no part of the chain.
    Gains: sigma_k, sigma_v (the initializer's own unless given), sigma_gate (0, the start), sigma_b (0.1), forget_bias
    (0).
    All else is as in `retnet`.

    Raises: ValueError or TypeError as `retnet` does.
    Source: Beck et al. 2024; 2025 (the cap).
    """
    return MLSTM(**checked(width, heads, values, features, initializer, initial, tied))
