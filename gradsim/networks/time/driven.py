"""What families over time share: every step reads an input, and there is a state before the first."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from gradsim import arguments
from gradsim.networks.network import Gains, Network

INITIAL = ("gaussian", "zero")


@dataclass(frozen=True)
class Driven(Network):
    """Sizes, and the state before the first step: Gaussian of unit variance, or zero."""

    width: int
    features: int
    initial: str
    axis: ClassVar[str] = "time"
    axis_units: ClassVar[str] = "step"
    driven: ClassVar[bool] = True

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.features,)

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (self.width,)

    def initial_state(self, gains: Gains, inputs: Array) -> Any:
        """The Gaussian array itself, or zeros of its shape."""
        return inputs if self.initial == "gaussian" else jnp.zeros_like(inputs)


def checked(width: Any, features: Any, initial: Any, tied: Any) -> dict[str, Any]:
    """The fields of `Driven` from what a user passed; `features` is the width unless given."""
    width = arguments.size("width", width)
    return {
        "width": width,
        "features": width if features is None else arguments.size("features", features),
        "initial": arguments.choice("initial", initial, INITIAL),
        "tied": arguments.flag("tied", tied),
    }
