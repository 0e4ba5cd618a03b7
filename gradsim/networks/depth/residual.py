"""Networks with a path around each layer: residual blocks x + a·branch(x), and highways.

Without the path a gradient is a product of L factors; with it, of L factors near one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, arguments, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.depth.dense import Dense, Weights, checked
from gradsim.networks.network import Gains

FORMS = ("two_layer", "pre_activation", "post_activation")
SCALINGS = ("constant", "inverse_sqrt_depth", "inverse_depth")


def checked_layers(scaling: str, layers: int | None) -> int | None:
    """`layers`, which a scaling by the depth needs and which means nothing without one."""
    if scaling == "constant":
        if layers is not None:
            raise ValueError(
                f"layers: got {arguments.shown(layers)} with scaling='constant'; leave it out, or take another scaling"
            )
        return None
    if layers is None:
        raise ValueError(f"layers: got None; pass the depth L that scaling={scaling!r} divides by")
    return arguments.size("layers", layers)


def branch_scale(scaling: str, layers: int | None) -> float:
    """The factor on a branch that keeps the sum of L of them bounded: 1, 1/√L or 1/L."""
    if scaling == "inverse_sqrt_depth" and layers is not None:
        return 1 / math.sqrt(layers)
    if scaling == "inverse_depth" and layers is not None:
        return 1 / layers
    return 1.0


class TwoLayerWeights(NamedTuple):
    """The draw of a block whose branch has two."""

    w: Float[Array, "n n"]
    b: Float[Array, " n"]
    v: Float[Array, "n n"]


@dataclass(frozen=True)
class _Residual(Dense):
    """What the residual forms share."""

    scaling: str
    layers: int | None
    family: ClassVar[str] = "residual"

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "branch_gain": 1.0}

    def _scale(self, gains: Gains) -> Array:
        return gains["branch_gain"] * branch_scale(self.scaling, self.layers)


@dataclass(frozen=True)
class Residual(_Residual):
    """A branch of one matrix, its activation before or after it; see `residual`."""

    form: str

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        x, before = state, self.form == "pre_activation"
        z = gains["sigma_w"] * ((self.activation(x) if before else x) @ weights.w) + gains["sigma_b"] * weights.b
        return x + self._scale(gains) * (z if before else self.activation(z)), (x if before else z,)


@dataclass(frozen=True)
class TwoLayerResidual(_Residual):
    """A branch of two matrices, its activation between them; see `residual`."""

    parameters: ClassVar[Mapping[str, str]] = {"w": "sigma_w", "b": "sigma_b", "v": "sigma_v"}

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "sigma_v": self.initializer.weight_gain(self.width, self.width)}

    def draw(self, key: Array, dtype: DTypeLike) -> TwoLayerWeights:
        n, law = self.width, self.initializer
        (w, v), b = together(key, dtype, Part(law.draw, (n, n), 2), Part(law.draw_bias, (n,)))
        return TwoLayerWeights(w, b, v)

    def step(
        self, weights: TwoLayerWeights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        z = gains["sigma_w"] * (state @ weights.w) + gains["sigma_b"] * weights.b
        return state + (self._scale(gains) * gains["sigma_v"]) * (self.activation(z) @ weights.v), (z,)


def residual(
    width: int,
    activation: str | activations.Function | Activation = "relu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    form: str = "two_layer",
    scaling: str = "constant",
    layers: int | None = None,
    tied: bool = False,
) -> Residual | TwoLayerResidual:
    """A residual network of constant width, x_l = x_{l−1} + a s f(x_{l−1}).

        form="two_layer"        f(x) = σ_v φ(σ_w x W + σ_b b) V
        form="pre_activation"   f(x) = σ_w φ(x) W + σ_b b
        form="post_activation"  f(x) = φ(σ_w x W + σ_b b)

    with s = 1 (scaling="constant"), 1/√L ("inverse_sqrt_depth") or 1/L ("inverse_depth"), L = `layers`.

    The Jacobian is ∂x_L/∂x_0 = Π_l (1 + a s ∂f_l/∂x), skips included. Gains: sigma_w, sigma_b,
    branch_gain (a), and sigma_v where the branch has two matrices; the initializer's own unless given.
    `tied` shares one draw among all blocks.

    Raises: ValueError or TypeError for a width or layers that are not positive whole numbers, an
    unknown name (the known ones are listed), layers missing where the scaling needs them or given
    where it does not.
    Source: He et al. 2015, 2016; Yang & Schoenholz 2017; De & Smith 2020 for the scalings.
    """
    form = arguments.choice("form", form, FORMS)
    scaling = arguments.choice("scaling", scaling, SCALINGS)
    shared: dict[str, Any] = {
        **checked(width, activation, initializer, tied),
        "scaling": scaling,
        "layers": checked_layers(scaling, layers),
    }
    return TwoLayerResidual(**shared) if form == "two_layer" else Residual(form=form, **shared)


class HighwayWeights(NamedTuple):
    """One layer's draw: the columns of W_H, then those of W_T, so that both take one product."""

    w: Float[Array, "n 2*n"]
    b: Float[Array, " 2*n"]


@dataclass(frozen=True)
class Highway(Dense):
    """See `highway`."""

    family: ClassVar[str] = "highway"

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "transform_bias": -1.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation, ACTIVATIONS["sigmoid"])

    def draw(self, key: Array, dtype: DTypeLike) -> HighwayWeights:
        n, law = self.width, self.initializer
        w, b = together(key, dtype, Part(law.draw, (n, n), 2), Part(law.draw_bias, (2 * n,)))
        return HighwayWeights(jnp.concatenate(list(w), axis=1), b)

    def step(
        self, weights: HighwayWeights, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        x = state
        z, z_transform = jnp.split(gains["sigma_w"] * (x @ weights.w) + gains["sigma_b"] * weights.b, 2)
        z_transform = z_transform + gains["transform_bias"]
        phi, sigmoid = self.activations
        return x + sigmoid(z_transform) * (phi(z) - x), (z, z_transform)


def highway(
    width: int,
    activation: str | activations.Function | Activation = "tanh",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    tied: bool = False,
) -> Highway:
    """A highway network: a transform gate mixes each layer with what it carries over.

        H = φ(σ_w x W_H + σ_b b_H),   T = sigmoid(σ_w x W_T + σ_b b_T + transform_bias),
        x_l = T H + (1 − T) x_{l−1}

    The Jacobian is ∂x_L/∂x_0, through both the layers and the gates. Gains: sigma_w, sigma_b (the
    initializer's own unless given) and transform_bias (−1): the more negative, the more is carried.
    `tied` shares one draw among all layers.

    Raises: ValueError or TypeError for a width that is not a positive whole number, an unknown
    activation or initializer (the known ones are listed).
    Source: Srivastava, Greff & Schmidhuber 2015.
    """
    return Highway(**checked(width, activation, initializer, tied))
