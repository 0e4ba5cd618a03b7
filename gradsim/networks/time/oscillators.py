"""A recurrent network of driven, damped, coupled oscillators: coRNN."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, initializers
from gradsim.activations import Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time.recurrent import Recurrent, checked


class Weights(NamedTuple):
    """The maps of the positions, of the velocities and of the input, and the biases."""

    w: Float[Array, "n n"]
    w_z: Float[Array, "n n"]
    v: Float[Array, "features n"]
    b: Float[Array, " n"]


class Oscillators(NamedTuple):
    """Positions y and velocities z."""

    y: Float[Array, " n"]
    z: Float[Array, " n"]


@dataclass(frozen=True)
class CoRNN(Recurrent):
    """See `cornn`."""

    activation: Activation
    family: ClassVar[str] = "cornn"
    parameters: ClassVar[Mapping[str, str]] = {"w": "sigma_w", "w_z": "sigma_z", "v": "sigma_v", "b": "sigma_b"}

    @property
    def gains(self) -> dict[str, float]:
        own = super().gains
        return {**own, "sigma_z": own["sigma_w"], "step_size": 0.042, "stiffness": 2.7, "damping": 4.7}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, self.width)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        w, v, b = self.parts()
        return Weights(*together(key, dtype, w, Part(w.law, w.shape), v, b))

    def initial_state(self, gains: Gains, inputs: Float[Array, "2 n"]) -> Oscillators:
        return Oscillators(*super().initial_state(gains, inputs))

    def step(
        self, weights: Weights, gains: Gains, state: Oscillators, inputs: Array | None
    ) -> tuple[Oscillators, tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        of_state = gains["sigma_w"] * (state.y @ weights.w) + gains["sigma_z"] * (state.z @ weights.w_z)
        a = of_state + (gains["sigma_v"] * (inputs @ weights.v) + gains["sigma_b"] * weights.b)
        force = self.activation(a) - gains["stiffness"] * state.y - gains["damping"] * state.z
        z = state.z + gains["step_size"] * force
        return Oscillators(y=state.y + gains["step_size"] * z, z=z), (a,)

    def output(self, state: Oscillators) -> Array:
        return state.y


def cornn(
    width: int,
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    features: int | None = None,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    initial: str = "zero",
    tied: bool = True,
) -> CoRNN:
    """The coupled oscillatory network: z += Δt (φ(σ_w y W + σ_z z W̄ + σ_v x V + σ_b b) − γ y − ε z), then y += Δt z.

    The Jacobian is that of the whole state, ∂(y, z)_T/∂(y, z)_0, of size 2 width. Without W̄ (sigma_z = 0) its
    determinant is (1 − Δt ε)^(n T), whatever the weights and inputs.
    Gains: sigma_w, sigma_v, sigma_b (the initializers' own unless given), sigma_z (as sigma_w), step_size Δt (0.042),
    stiffness γ (2.7), damping ε (4.7), the source's for digits read pixel by pixel.
    The first state is "zero", or "gaussian" of unit variance. All else is as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Rusch & Mishra 2021.
    """
    fields = checked(width, features, initializer, input_initializer, initial, tied)
    return CoRNN(**fields, activation=activations.get(activation))
