"""Gated recurrent networks, LSTM and GRU, in the conventions of flax.nnx."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import arguments, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import Part, interval, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time.recurrent import Recurrent, checked

SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]


class LSTMState(NamedTuple):
    """Hidden state and memory cell."""

    h: Float[Array, " n"]
    c: Float[Array, " n"]


class LSTMWeights(NamedTuple):
    """The draw of the gates i, f, o and of the candidate g: each a field, so that each has its own gradient."""

    w_i: Float[Array, "n n"]
    w_f: Float[Array, "n n"]
    w_g: Float[Array, "n n"]
    w_o: Float[Array, "n n"]
    v_i: Float[Array, "features n"]
    v_f: Float[Array, "features n"]
    v_g: Float[Array, "features n"]
    v_o: Float[Array, "features n"]
    b_i: Float[Array, " n"]
    b_f: Float[Array, " n"]
    b_g: Float[Array, " n"]
    b_o: Float[Array, " n"]
    log_time: Float[Array, " n"]  # ln of the chrono times; 0 without chrono


class GRUWeights(NamedTuple):
    """The draw of the gates r and z, and of the candidate n."""

    w_r: Float[Array, "n n"]
    w_z: Float[Array, "n n"]
    w_n: Float[Array, "n n"]
    v_r: Float[Array, "features n"]
    v_z: Float[Array, "features n"]
    v_n: Float[Array, "features n"]
    b_r: Float[Array, " n"]
    b_z: Float[Array, " n"]
    b_n: Float[Array, " n"]
    log_time: Float[Array, " n"]  # ln of the chrono times; 0 without chrono


GAIN_OF = {"w": "sigma_w", "v": "sigma_v", "b": "sigma_b"}


def _parameters(fields: tuple[str, ...]) -> dict[str, str]:
    return {name: GAIN_OF[name[0]] for name in fields if name != "log_time"}


@dataclass(frozen=True)
class Gated(Recurrent):
    """What both gated cells share: the affine maps of all gates in one product, and the chrono times."""

    of: str
    chrono: int | None
    input_gain: ClassVar[str | None] = "sigma_v"
    gates: ClassVar[int]
    nonlinearities: ClassVar[tuple[Activation, ...]]
    bias: ClassVar[str]  # the gain that is added to the gate which keeps the memory
    drawn: ClassVar[Any]  # the named tuple of the weights

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, self.bias: 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return self.nonlinearities

    def draw(self, key: Array, dtype: DTypeLike) -> Any:
        return self.drawn(*self.draw_gates(key, dtype))

    def draw_gates(self, key: Array, dtype: DTypeLike) -> list[Array]:
        """W of every gate, V of every gate, b of every gate, and the chrono times' logarithms."""
        # The times come last, and cells with and without chrono share their other weights.
        times = Part(interval(1.0, 1.0 if self.chrono is None else self.chrono - 1.0), (self.width,))
        *maps, drawn = together(key, dtype, *self.parts(self.gates), times)
        return [gate for kind in maps for gate in kind] + [jnp.log(drawn)]

    def products(
        self, weights: LSTMWeights | GRUWeights, gains: Gains, h: Array, inputs: Array | None
    ) -> tuple[list[Array], list[Array]]:
        """σ_w h W and σ_v x V + σ_b b for each gate.

        A product a gate for the tangents of h: joined into one they would run no faster, and the way back
        would have to write the joined cotangents out. The inputs have no tangents, and take one product.
        """
        assert inputs is not None
        g = self.gates
        v, b = (jnp.concatenate(weights[k * g : (k + 1) * g], axis=-1) for k in (1, 2))
        of_input = gains["sigma_v"] * (inputs @ v) + gains["sigma_b"] * b
        return [gains["sigma_w"] * (h @ w) for w in weights[:g]], jnp.split(of_input, g)


@dataclass(frozen=True)
class LSTM(Gated):
    """See `lstm`."""

    family: ClassVar[str] = "lstm"
    gates: ClassVar[int] = 4
    nonlinearities: ClassVar[tuple[Activation, ...]] = (SIGMOID, SIGMOID, TANH, SIGMOID, TANH)
    bias: ClassVar[str] = "forget_bias"
    drawn: ClassVar[Any] = LSTMWeights
    parameters: ClassVar[Mapping[str, str]] = _parameters(LSTMWeights._fields)

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, self.width)

    def initial_state(self, gains: Gains, inputs: Float[Array, "2 n"]) -> LSTMState:
        return LSTMState(*super().initial_state(gains, inputs))

    def step(
        self, weights: LSTMWeights, gains: Gains, state: LSTMState, inputs: Array | None
    ) -> tuple[LSTMState, tuple[Float[Array, " n"], ...]]:
        of_state, of_input = self.products(weights, gains, state.h, inputs)
        of_input[0] -= weights.log_time
        of_input[1] += weights.log_time + gains["forget_bias"]
        z_i, z_f, z_g, z_o = (h + x for h, x in zip(of_state, of_input, strict=True))
        # Whole before h is made of it: a compiler would compute its tangents twice.
        c = lax.optimization_barrier(SIGMOID(z_f) * state.c + SIGMOID(z_i) * TANH(z_g))
        return LSTMState(h=SIGMOID(z_o) * TANH(c), c=c), (z_i, z_f, z_g, z_o, c)

    def output(self, state: LSTMState) -> Array:
        return state.h

    def observed(self, state: LSTMState) -> LSTMState | Array:
        parts: dict[str, LSTMState | Array] = {"state": state, "hidden": state.h, "cell": state.c}
        return parts[self.of]


@dataclass(frozen=True)
class GRU(Gated):
    """See `gru`."""

    family: ClassVar[str] = "gru"
    gates: ClassVar[int] = 3
    nonlinearities: ClassVar[tuple[Activation, ...]] = (SIGMOID, SIGMOID, TANH)
    bias: ClassVar[str] = "update_bias"
    drawn: ClassVar[Any] = GRUWeights
    parameters: ClassVar[Mapping[str, str]] = _parameters(GRUWeights._fields)

    def step(
        self, weights: GRUWeights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        (h_r, h_z, h_n), (x_r, x_z, x_n) = self.products(weights, gains, state, inputs)
        z_r = h_r + x_r
        z_z = h_z + (x_z + weights.log_time + gains["update_bias"])
        r, z = SIGMOID(z_r), SIGMOID(z_z)
        z_n = x_n + r * h_n
        # sigmoid(−a), not 1 − sigmoid(a): a gate held open by a large bias still lets e^−a through.
        return SIGMOID(-z_z) * TANH(z_n) + z * state, (z_r, z_z, z_n)


def lstm(
    width: int,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    of: str = "state",
    features: int | None = None,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    chrono: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> LSTM:
    """The long short-term memory: c_t = f ∘ c_{t−1} + i ∘ g, h_t = o ∘ tanh c_t.

    i, f, o = sigmoid(a), g = tanh(a), each with its own a = σ_w h_{t−1} W + σ_v x_t V + σ_b b; f's argument has
    forget_bias besides: a large one keeps the memory. The same cell as flax.nnx.LSTMCell.
    The Jacobian is that of the whole state, ∂(h, c)_T/∂(h, c)_0, of size 2 width; `of="hidden"` gives
    ∂h_T/∂h_0 and `of="cell"` ∂c_T/∂c_0, through all paths, the other half of the first state held fixed.
    Gains: sigma_w, sigma_v, sigma_b (the initializers' own unless given), forget_bias (0).
    `chrono=T_max` adds b_f = ln U[1, T_max − 1] to the forget gate and −b_f to the input gate, so that the
    units' memory times are spread evenly up to T_max. The first state is "zero", or "gaussian" of unit
    variance. `features`, `initializer`, `input_initializer`, `tied`: as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does, and for an unknown `of` or a chrono below 2.
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000; Tallec & Ollivier 2018 (chrono).
    """
    maps = checked(width, features, initializer, input_initializer, initial, tied)
    return LSTM(**maps, of=arguments.choice("of", of, ("state", "hidden", "cell")), chrono=_chrono(chrono))


def gru(
    width: int,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    of: str = "state",
    features: int | None = None,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    chrono: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> GRU:
    """The gated recurrent unit: h_t = (1 − z) ∘ n + z ∘ h_{t−1}.

    r, z = sigmoid(σ_w h_{t−1} W + σ_v x_t V + σ_b b), n = tanh(σ_v x_t V + σ_b b + r ∘ (σ_w h_{t−1} W)), each with
    its own W, V, b; z's argument has update_bias besides: a large positive one keeps the memory. The same
    cell as flax.nnx.GRUCell: the reset gate acts after the product, and that product has no bias of its own.
    The Jacobian is ∂h_T/∂h_0; the state is the hidden state, so `of="hidden"` is another name of it.
    Gains: sigma_w, sigma_v, sigma_b (the initializers' own unless given), update_bias (0).
    `chrono=T_max` adds ln U[1, T_max − 1] to the update gate. The first state is "zero", or "gaussian" of unit
    variance. `features`, `initializer`, `input_initializer`, `tied`: as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does, and for an unknown `of` or a chrono below 2.
    Source: Cho et al. 2014; Chung et al. 2014; Tallec & Ollivier 2018 (chrono).
    """
    maps = checked(width, features, initializer, input_initializer, initial, tied)
    return GRU(**maps, of=arguments.choice("of", of, ("state", "hidden")), chrono=_chrono(chrono))


def _chrono(longest: Any) -> int | None:
    return None if longest is None else arguments.size("chrono", longest, minimum=2)
