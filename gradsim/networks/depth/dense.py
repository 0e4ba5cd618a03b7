"""What the families whose layer has one square matrix and one bias share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, arguments, initializers
from gradsim.activations import Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains, Network


class Weights(NamedTuple):
    """One layer's draw."""

    w: Float[Array, "n n"]
    b: Float[Array, " n"]


@dataclass(frozen=True)
class Dense(Network):
    """Constant width, one activation, W and b drawn anew for each layer; the input is the first state."""

    width: int
    activation: Activation
    initializer: Initializer
    parameters: ClassVar[Mapping[str, str]] = {"w": "sigma_w", "b": "sigma_b"}

    @property
    def gains(self) -> dict[str, float]:
        return {
            "sigma_w": self.initializer.weight_gain(self.width, self.width),
            "sigma_b": self.initializer.bias_gain(self.width),
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.width,)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def draw(self, key: Array, dtype: DTypeLike) -> Any:
        n, law = self.width, self.initializer
        return Weights(*together(key, dtype, Part(law.draw, (n, n)), Part(law.draw_bias, (n,))))

    def initial_state(self, gains: Gains, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        return inputs


def checked(
    width: Any,
    activation: str | activations.Function | Activation,
    initializer: str | initializers.Draw | Initializer,
    tied: Any,
    narrowest: int = 1,
) -> dict[str, Any]:
    """The fields of `Dense` from what a user passed."""
    return {
        "width": arguments.size("width", width, narrowest),
        "activation": activations.get(activation),
        "initializer": initializers.get(initializer),
        "tied": arguments.flag("tied", tied),
    }
