"""A recurrent network that is an Euler step of a stable differential equation: the antisymmetric RNN."""

from dataclasses import dataclass
from typing import ClassVar

from jax import Array
from jaxtyping import Float

from gradsim import activations, initializers
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time.recurrent import OneMap, Weights, checked


@dataclass(frozen=True)
class AntisymmetricRNN(OneMap):
    """See `antisymmetric_rnn`."""

    activation: Activation
    family: ClassVar[str] = "antisymmetric_rnn"

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "step_size": 0.01, "damping": 0.01}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        of_state = gains["sigma_w"] * (state @ (weights.w - weights.w.T)) - gains["damping"] * state
        z = of_state + (gains["sigma_v"] * (inputs @ weights.v) + gains["sigma_b"] * weights.b)
        return state + gains["step_size"] * self.activation(z), (z,)


def antisymmetric_rnn(
    width: int,
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    features: int | None = None,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    initial: str = "zero",
    tied: bool = True,
) -> AntisymmetricRNN:
    """The antisymmetric RNN, h_t = h_{t−1} + ε φ(h_{t−1} (σ_w (W − Wᵀ) − γ) + σ_v x_t V + σ_b b).

    An Euler step of a flow whose Jacobian has eigenvalues of real part −γ. The step itself is not stable: of a linear
    network with new weights at each step E‖J u‖² grows by (1 − εγ)² + 2ε²σ_w²(n − 1)/n, so that it takes γ ≈ εσ_w² to
    hold it, and about four times that where the weights are tied.
    The Jacobian is ∂h_T/∂h_0, a step of it I + ε diag φ'(z) (σ_w (W − Wᵀ) − γ).
    Gains: sigma_w, sigma_v, sigma_b (the initializers' own unless given), step_size ε (0.01), damping γ (0.01).
    The first state is "zero", or "gaussian" of unit variance. All else is as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Chang, Chen, Haber & Chi 2019.
    """
    fields = checked(width, features, initializer, input_initializer, initial, tied)
    return AntisymmetricRNN(**fields, activation=activations.get(activation))
