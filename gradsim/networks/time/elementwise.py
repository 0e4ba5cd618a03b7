"""Recurrences whose state meets no matrix: IndRNN, minGRU and minLSTM. Their Jacobians are diagonal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jax import Array, nn
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import Part, interval, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time import driven
from gradsim.networks.time.driven import Driven

SIGMOID = ACTIVATIONS["sigmoid"]


@dataclass(frozen=True)
class Elementwise(Driven):
    """What these cells share: affine maps of the input."""

    initializer: Initializer

    @property
    def gains(self) -> dict[str, float]:
        return {
            "sigma_v": self.initializer.weight_gain(self.features, self.width),
            "sigma_b": self.initializer.bias_gain(self.features),
        }

    def parts(self, maps: int | None = None) -> tuple[Part, Part]:
        """V and b of so many maps."""
        law = self.initializer
        return Part(law.draw, (self.features, self.width), maps), Part(law.draw_bias, (self.width,), maps)


class IndRNNWeights(NamedTuple):
    """The recurrent weights u [n], the input weights and the biases."""

    u: Float[Array, " n"]
    v: Float[Array, "features n"]
    b: Float[Array, " n"]


@dataclass(frozen=True)
class IndRNN(Elementwise):
    """See `indrnn`."""

    activation: Activation
    family: ClassVar[str] = "indrnn"
    parameters: ClassVar[Mapping[str, str]] = {"u": "radius", "v": "sigma_v", "b": "sigma_b"}

    @property
    def gains(self) -> dict[str, float]:
        return {"radius": 1.0, **super().gains}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def draw(self, key: Array, dtype: DTypeLike) -> IndRNNWeights:
        return IndRNNWeights(*together(key, dtype, Part(interval(0.0, 1.0), (self.width,)), *self.parts()))

    def step(
        self, weights: IndRNNWeights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        z = gains["radius"] * weights.u * state + _affine(gains, weights.v, weights.b, inputs)
        return self.activation(z), (z,)


def _affine(gains: Gains, v: Array, b: Array, inputs: Array) -> Array:
    """σ_v x V + σ_b b."""
    return gains["sigma_v"] * (inputs @ v) + gains["sigma_b"] * b


class MinGRUWeights(NamedTuple):
    """The maps of the update gate z and of the candidate h."""

    v_z: Float[Array, "features n"]
    v_h: Float[Array, "features n"]
    b_z: Float[Array, " n"]
    b_h: Float[Array, " n"]


@dataclass(frozen=True)
class MinGRU(Elementwise):
    """See `min_gru`."""

    family: ClassVar[str] = "min_gru"
    parameters: ClassVar[Mapping[str, str]] = {
        "v_z": "sigma_v", "v_h": "sigma_v", "b_z": "sigma_b", "b_h": "sigma_b",
    }  # fmt: skip

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "update_bias": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SIGMOID,)

    def draw(self, key: Array, dtype: DTypeLike) -> MinGRUWeights:
        v, b = together(key, dtype, *self.parts(2))
        return MinGRUWeights(*v, *b)

    def step(
        self, weights: MinGRUWeights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        z = _affine(gains, weights.v_z, weights.b_z, inputs) - gains["update_bias"]
        candidate = _affine(gains, weights.v_h, weights.b_h, inputs)
        # sigmoid(−a), not 1 − sigmoid(a): an open gate still lets e^−a through.
        return SIGMOID(-z) * state + SIGMOID(z) * candidate, (z,)


class MinLSTMWeights(NamedTuple):
    """The maps of the gates f and i and of the candidate h."""

    v_f: Float[Array, "features n"]
    v_i: Float[Array, "features n"]
    v_h: Float[Array, "features n"]
    b_f: Float[Array, " n"]
    b_i: Float[Array, " n"]
    b_h: Float[Array, " n"]


@dataclass(frozen=True)
class MinLSTM(Elementwise):
    """See `min_lstm`."""

    family: ClassVar[str] = "min_lstm"
    parameters: ClassVar[Mapping[str, str]] = {
        "v_f": "sigma_v", "v_i": "sigma_v", "v_h": "sigma_v", "b_f": "sigma_b", "b_i": "sigma_b", "b_h": "sigma_b",
    }  # fmt: skip

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "forget_bias": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SIGMOID,)

    def draw(self, key: Array, dtype: DTypeLike) -> MinLSTMWeights:
        v, b = together(key, dtype, *self.parts(3))
        return MinLSTMWeights(*v, *b)

    def step(
        self, weights: MinLSTMWeights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        z_f, z_i, candidate = (
            _affine(gains, v, b, inputs) for v, b in zip(weights[:3], weights[3:], strict=True)
        )  # fmt: skip
        # f/(f + i) = sigmoid(ln f − ln i), and ln sigmoid(a) = −softplus(−a): no gate is divided by another.
        z = nn.softplus(-z_i) - nn.softplus(-(z_f + gains["forget_bias"]))
        return SIGMOID(z) * state + SIGMOID(-z) * candidate, (z,)


def _checked(width: Any, features: Any, initializer: Any, initial: Any, tied: Any) -> dict[str, Any]:
    """The fields of `Elementwise` from what a user passed."""
    return {**driven.checked(width, features, initial, tied), "initializer": initializers.get(initializer)}


def indrnn(
    width: int,
    activation: str | activations.Function | Activation = "relu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> IndRNN:
    """The independently recurrent network, h_t = φ(radius u ∘ h_{t−1} + σ_v x_t V + σ_b b).

    Each unit hears itself alone, through u_i, uniform on [0, 1]. The Jacobian ∂h_T/∂h_0 is diagonal,
    Π_t radius u ∘ φ'(z_t): for a linear unit E‖J u‖² = radius^2T/(2T + 1), a power of T at radius 1.
    Gains: radius (1), sigma_v, sigma_b (the initializer's own unless given: it is the law of V and b).
    The first state is "zero", or "gaussian" of unit variance. `features`, `tied`: as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Li et al. 2018.
    """
    fields = _checked(width, features, initializer, initial, tied)
    return IndRNN(**fields, activation=activations.get(activation))


def min_gru(
    width: int,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> MinGRU:
    """The minGRU, whose gate reads the input alone: h_t = (1 − z) ∘ h_{t−1} + z ∘ (σ_v x_t V_h + σ_b b_h).

    z = sigmoid(σ_v x_t V_z + σ_b b_z − update_bias): as in `gru`, a large update_bias keeps the memory. The Jacobian
    ∂h_T/∂h_0 is diagonal, Π_t (1 − z_t): at update_bias 0 it falls e-fold in 1.2 steps.
    Gains: sigma_v, sigma_b (the initializer's own unless given: it is the law of V and b), update_bias (0).
    `features`, `initial`, `tied`: as in `indrnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Feng et al. 2024.
    """
    return MinGRU(**_checked(width, features, initializer, initial, tied))


def min_lstm(
    width: int,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> MinLSTM:
    """The minLSTM, gates of the input alone that add up to one: h_t = (f ∘ h_{t−1} + i ∘ h̃)/(f + i).

    f = sigmoid(σ_v x_t V_f + σ_b b_f + forget_bias), i = sigmoid(σ_v x_t V_i + σ_b b_i), h̃ = σ_v x_t V_h + σ_b b_h.
    The Jacobian ∂h_T/∂h_0 is diagonal, Π_t f_t/(f_t + i_t): with both gates open half is lost at each step.
    Gains: sigma_v, sigma_b (the initializer's own unless given: it is the law of V and b), forget_bias (0).
    `features`, `initial`, `tied`: as in `indrnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Feng et al. 2024.
    """
    return MinLSTM(**_checked(width, features, initializer, initial, tied))
