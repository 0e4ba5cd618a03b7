"""Networks with a path around each layer: residual blocks x + a·branch(x), and highways.

Without the path a gradient is a product of L factors; with it, of L factors near one.
"""

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
from gradsim.networks.depth import scaling as schemes
from gradsim.networks.depth.dense import Dense, checked
from gradsim.networks.depth.scaling import RESIDUAL, Branch, checked_layers
from gradsim.networks.network import Gains

FORMS = ("two_layer", "pre_activation", "post_activation")


class TwoLayerWeights(NamedTuple):
    """The draw of a block whose branch has two."""

    w: Float[Array, "n n"]
    b: Float[Array, " n"]
    v: Float[Array, "n n"]


@dataclass(frozen=True)
class Residual(Dense):
    """See `residual`."""

    form: str
    scaling: str
    layers: int | None
    family: ClassVar[str] = "residual"

    @property
    def parameters(self) -> Mapping[str, str]:  # type: ignore[override]
        """The weights by form, and with some schemes those that the branch gain multiplies."""
        second = {"v": "sigma_v"} if self.form == "two_layer" else {}
        return schemes.parameters(self.scaling, {**Dense.parameters, **second})

    @property
    def gains(self) -> dict[str, float]:
        found, matrices = {**super().gains, "branch_gain": 1.0}, Branch((), "sigma_w")
        if self.form == "two_layer":
            found["sigma_v"] = self.initializer.weight_gain(self.width, self.width)
            matrices = Branch(("sigma_w",), "sigma_v")
        return schemes.started(self.scaling, self.layers, found, [matrices])

    @property
    def numbered(self) -> bool:
        return schemes.numbered(self.scaling)

    def draw(self, key: Array, dtype: DTypeLike) -> Any:
        n, law = self.width, self.initializer
        if self.form == "two_layer":
            (w, v), b = together(key, dtype, Part(law.draw, (n, n), 2), Part(law.draw_bias, (n,)))
            drawn: Any = TwoLayerWeights(w, b, v)
        else:
            drawn = super().draw(key, dtype)
        return schemes.with_scale(self.scaling, drawn, 1, n, dtype)

    def step(
        self, weights: Any, gains: Gains, state: Float[Array, " n"], inputs: Array | None
    ) -> tuple[Float[Array, " n"], tuple[Float[Array, " n"], ...]]:
        x, carried = state, schemes.carried(self.scaling, gains, state)
        a = schemes.branch_gain(self.scaling, self.layers, gains, inputs, getattr(weights, "scale", None))
        before = self.form == "pre_activation"
        z = gains["sigma_w"] * ((self.activation(x) if before else x) @ weights.w) + gains["sigma_b"] * weights.b
        if before:
            return carried + a * z, (x,)
        if self.form == "post_activation":
            return carried + a * self.activation(z), (z,)
        return carried + (a * gains["sigma_v"]) * (self.activation(z) @ weights.v), (z,)


def residual(
    width: int,
    activation: str | activations.Function | Activation = "relu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    form: str = "two_layer",
    scaling: str = "constant",
    layers: int | None = None,
    tied: bool = False,
) -> Residual:
    """A residual network of constant width, x_l = x_{l−1} + a s f(x_{l−1}).

        form="two_layer"        f(x) = σ_v φ(σ_w x W + σ_b b) V
        form="pre_activation"   f(x) = σ_w φ(x) W + σ_b b
        form="post_activation"  f(x) = φ(σ_w x W + σ_b b)

    with s = 1 (scaling="constant"), 1/√L ("inverse_sqrt_depth"), 1/L ("inverse_depth"), 1/√l ("inverse_sqrt_index") or
    1/l ("inverse_index"), L = `layers` and l the block's number; or a = 0 ("rezero", "skipinit"), a = 1e-5
    ("layerscale"), a weight that is trained, one a block or one a unit; or by default σ_w = 0, in the two-layer form
    σ_v = 0 and σ_w times L^−½ ("fixup"); or a skip of its own gain, μ x_{l−1} + a f ("weighted_skip").

    The Jacobian is ∂x_L/∂x_0 = Π_l (1 + a s ∂f_l/∂x), skips included. Gains: sigma_w, sigma_b,
    branch_gain (a), and sigma_v where the branch has two matrices; the initializer's own unless given; skip_gain (μ, 1)
    where the skip has one.
    `tied` shares one draw among all blocks.

    Raises: ValueError or TypeError for a width or layers that are not positive whole numbers, an
    unknown name (the known ones are listed), layers missing where the scaling needs them or given
    where it does not.
    Source: He et al. 2015, 2016; Yang & Schoenholz 2017; for the scalings De & Smith 2020, Hayou et al. 2021,
    Bachlechner et al. 2021, Touvron et al. 2021, Zhang, Dauphin & Ma 2019, Doshi, He & Gromov 2023.
    """
    form = arguments.choice("form", form, FORMS)
    scaling = arguments.choice("scaling", scaling, RESIDUAL)
    return Residual(
        **checked(width, activation, initializer, tied),
        form=form,
        scaling=scaling,
        layers=checked_layers(scaling, layers),
    )


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
