"""Small instances of every family: one that is registered here goes through all of test_conformance.py."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

import gradsim as gs
from gradsim import Network, initializers

PERI: dict[str, Any] = {"gated": True, "norm": "rms", "position": "peri", "qk_norm": True, "causal": True}
PERI["scaling"] = "inverse_sqrt_index"
FAMILIES: dict[str, Network] = {
    "feedforward": gs.feedforward(7, "gelu", "torch_linear"),
    "feedforward_tied": gs.feedforward(6, "softsign", "orthogonal", tied=True),
    "residual": gs.residual(6),
    "highway": gs.highway(6),
    "mirrored": gs.mirrored(5, "elu"),
    "layernorm": gs.layernorm(6, form="pre", scaling="weighted_skip"),
    "batchnorm": gs.batchnorm(4, 4, "tanh"),
    "convolutional": gs.convolutional(3, 4, activation="tanh"),
    "attention": gs.attention(4, 2, 3),
    "transformer": gs.transformer(6, 2, 2, 1, "silu", **PERI),
    "vanilla_rnn": gs.vanilla_rnn(6, features=3),
    "minimal_rnn": gs.minimal_rnn(6),
    "lstm": gs.lstm(4, features=3),
    "lstm_cell": gs.lstm(4, of="cell"),
    "gru": gs.gru(5),
    "linear_recurrence": gs.linear_recurrence(5),
    "indrnn": gs.indrnn(6, "tanh", features=3),
    "min_gru": gs.min_gru(5, features=3),
    "min_lstm": gs.min_lstm(5),
    "antisymmetric_rnn": gs.antisymmetric_rnn(6),
    "cornn": gs.cornn(3, features=2),
    "unitary_rnn": gs.unitary_rnn(3),
    "s4d": gs.s4d(3, 2),
    "mamba": gs.mamba(3, 2),
    "mamba2": gs.mamba2(6, 2),
    "retnet": gs.retnet(6, 2, values=2),
    "rwkv6": gs.rwkv6(6, 2),
    "rwkv7": gs.rwkv7(6, 2, layer=0.5),
    "delta_net": gs.delta_net(6, 2),
    "mlstm": gs.mlstm(6, 2),
    "slstm": gs.slstm(4, 2, features=3),
}


@dataclass(frozen=True)
class Own(Network):
    """h' = tanh(σ_w h W), with nothing wrong."""

    width: int = 4
    of: Any = None
    family: ClassVar[str] = "own"
    parameters: ClassVar[Any] = {"w": "sigma_w"}

    @property
    def gains(self) -> Any:
        return {"sigma_w": 1.2}

    @property
    def input_shape(self) -> Any:
        return (self.width,)

    @property
    def activations(self) -> Any:
        return (gs.ACTIVATIONS["tanh"],)

    def draw(self, key: Array, dtype: Any) -> Any:
        return {"w": initializers.normal(key, (self.width, self.width), dtype)}

    def initial_state(self, gains: Any, inputs: Array) -> Any:
        return inputs

    def step(self, weights: Any, gains: Any, state: Any, inputs: Array | None) -> Any:
        z = gains["sigma_w"] * (state @ weights["w"])
        return jnp.tanh(z), (z,)
