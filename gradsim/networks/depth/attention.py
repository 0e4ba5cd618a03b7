"""Transformer blocks: softmax attention over tokens and a small network at each, around which the state may skip."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, nn
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, arguments, initializers, scaled
from gradsim.activations import Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.depth.normalized import checked_epsilon, standardize
from gradsim.networks.depth.residual import SCALINGS, branch_scale, checked_layers
from gradsim.networks.network import Gains, Network

NORMS = ("pre", "post", "none")
DEEPNORM = "deepnorm"
# Queries and keys of 2**40 have logits of 2**80: a hard choice to rounding, and still far from overflow.
LARGEST_EXPONENT = 40


@jax.custom_jvp
def _softmax(logits: Array) -> Array:
    return nn.softmax(logits, axis=-1)


@_softmax.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # dp = p (ds − Σ p ds) cancels where one token takes all: what should be 0 is rounding times ds, and times
    # the values it outgrows the whole Jacobian. Counted from the largest logit's own ds nothing cancels.
    (logits,), (ds,) = primals, tangents
    p = _softmax(logits)
    top = nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    moved = jnp.where(top, 0, ds - jnp.sum(jnp.where(top, ds, 0), axis=-1, keepdims=True))
    return p, p * (moved - jnp.sum(p * moved, axis=-1, keepdims=True))


class Weights(NamedTuple):
    """One draw of attention, all heads side by side: queries, keys, values, output."""

    q: Float[Array, "d d"]
    k: Float[Array, "d d"]
    v: Float[Array, "d d"]
    o: Float[Array, "d d"]


class BlockWeights(NamedTuple):
    """One block's draw: attention, then the two layers at each token."""

    q: Float[Array, "d d"]
    k: Float[Array, "d d"]
    v: Float[Array, "d d"]
    o: Float[Array, "d d"]
    w: Float[Array, "d m"]
    b: Float[Array, " m"]
    u: Float[Array, "m d"]


@dataclass(frozen=True)
class _Attention(Network):
    """What attention alone and the whole block share: sizes, the attention itself, the way around it."""

    width: int
    heads: int
    tokens: int
    initializer: Initializer
    norm: str
    skip: bool
    causal: bool
    epsilon: float
    scaling: str
    layers: int | None
    family: ClassVar[str] = "attention"
    state_axes: ClassVar[tuple[str, ...]] = ("tokens", "width")

    def __post_init__(self) -> None:  # a sweep over widths makes networks too
        arguments.divisor("heads", self.heads, "width", self.width)

    @property
    def gains(self) -> dict[str, float]:
        weight = self.initializer.weight_gain(self.width, self.width)
        branch = {"branch_gain": 1.0} if self.skip else {}
        return {"sigma_q": weight, "sigma_v": weight, "sigma_o": weight, **branch}

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.tokens, self.width)

    def initial_state(self, gains: Gains, inputs: Float[Array, "tokens d"]) -> Float[Array, "tokens d"]:
        return inputs

    def _maps(self) -> Part:
        """What queries, keys, values and output draw."""
        return Part(self.initializer.draw, (self.width, self.width), 4)

    def _before(self, x: Array) -> Array:
        """What a branch reads: the state, normalized where the norm comes first."""
        return standardize(x, -1, self.epsilon) if self.norm == "pre" else x

    def _after(self, gains: Gains, x: Array, branch: Array) -> Array:
        """The state after a branch: x + a s branch, normalized where the norm comes last."""
        if self.skip:
            x = deepnorm(self.layers)[0] * x if self.scaling == DEEPNORM and self.layers else x
            branch = x + (gains["branch_gain"] * branch_scale(self.scaling, self.layers)) * branch
        return standardize(branch, -1, self.epsilon) if self.norm == "post" else branch

    @property
    def _beta(self) -> float:
        """DeepNorm's factor on the values, the output and the layers at each token."""
        return deepnorm(self.layers)[1] if self.scaling == DEEPNORM and self.layers else 1.0

    def _attend(self, weights: Weights | BlockWeights, gains: Gains, x: Array) -> Array:
        """Σ_heads softmax(q kᵀ / √d_head) v, times the output weights."""
        heads = (self.tokens, self.heads, self.width // self.heads)
        # d_head^−¼ on each of q and k; and an unnormalized state may be as large as 2**94 in float32,
        # where a logit is its square: the softmax is a hard choice long before.
        shrink: Array | float = heads[-1] ** -0.25
        if self.norm == "none":
            excess = jnp.maximum(scaled.binary_exponent(lax.stop_gradient(x)) - LARGEST_EXPONENT, 0)
            shrink = shrink * scaled.power_of_two(-excess, x.dtype)
        q = ((gains["sigma_q"] * shrink) * (x @ weights.q)).reshape(heads)
        k = ((gains["sigma_q"] * shrink) * (x @ weights.k)).reshape(heads)
        v = ((gains["sigma_v"] * self._beta) * (x @ weights.v)).reshape(heads)
        logits = jnp.einsum("thc,shc->hts", q, k)
        if self.causal:
            logits = jnp.where(jnp.tri(self.tokens, dtype=bool), logits, -jnp.inf)
        mixed = jnp.einsum("hts,shc->thc", _softmax(logits), v).reshape(self.tokens, self.width)
        return (gains["sigma_o"] * self._beta) * (mixed @ weights.o)


@dataclass(frozen=True)
class Attention(_Attention):
    """Attention alone; see `attention`."""

    parameters: ClassVar[Mapping[str, str]] = {"q": "sigma_q", "k": "sigma_q", "v": "sigma_v", "o": "sigma_o"}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return ()

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        return Weights(*together(key, dtype, self._maps())[0])

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, "tokens d"], inputs: Array | None
    ) -> tuple[Float[Array, "tokens d"], tuple[Array, ...]]:
        return self._after(gains, state, self._attend(weights, gains, self._before(state))), ()


@dataclass(frozen=True)
class TransformerBlock(_Attention):
    """Attention, then two layers at each token; see `attention`."""

    mlp: int
    activation: Activation
    parameters: ClassVar[Mapping[str, str]] = {
        **Attention.parameters,
        "w": "sigma_w",
        "b": "sigma_b",
        "u": "sigma_u",
    }

    @property
    def gains(self) -> dict[str, float]:
        hidden = self.mlp * self.width
        return {
            **super().gains,
            "sigma_w": self.initializer.weight_gain(self.width, hidden),
            "sigma_u": self.initializer.weight_gain(hidden, self.width),
            "sigma_b": self.initializer.bias_gain(self.width),
        }

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,)

    def draw(self, key: Array, dtype: DTypeLike) -> BlockWeights:
        hidden, law = self.mlp * self.width, self.initializer
        w, b, u = (
            Part(law.draw, (self.width, hidden)),
            Part(law.draw_bias, (hidden,)),
            Part(law.draw, (hidden, self.width)),
        )
        maps, *others = together(key, dtype, self._maps(), w, b, u)
        return BlockWeights(*maps, *others)

    def step(
        self, weights: BlockWeights, gains: Gains, state: Float[Array, "tokens d"], inputs: Array | None
    ) -> tuple[Float[Array, "tokens d"], tuple[Array, ...]]:
        x = self._after(gains, state, self._attend(weights, gains, self._before(state)))
        z = (gains["sigma_w"] * self._beta) * (self._before(x) @ weights.w) + gains["sigma_b"] * weights.b
        return self._after(gains, x, (gains["sigma_u"] * self._beta) * (self.activation(z) @ weights.u)), (z,)


def attention(
    width: int,
    heads: int = 1,
    tokens: int = 8,
    mlp: int = 4,
    activation: str | activations.Function | Activation = "gelu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    norm: str = "pre",
    skip: bool = True,
    causal: bool = False,
    epsilon: float = 1e-6,
    scaling: str = "constant",
    layers: int | None = None,
    tied: bool = False,
) -> Attention | TransformerBlock:
    """Transformer blocks over tokens: two sublayers f one after the other, each with its way around it.

        attention         f(X) = concat_heads[softmax(Q Kᵀ / √d_head) V] σ_o W_o,
                          Q = σ_q X W_q,  K = σ_q X W_k,  V = σ_v X W_v,  d_head = width / heads
        at each token     f(x) = σ_u φ(σ_w x W + σ_b b) U, `mlp` times as wide inside; mlp=0 leaves it out

        norm="pre"  X + a s f(LN X)     norm="post"  LN(X + a s f(X))     norm="none"  X + a s f(X)

    and the same without "X + a s" where skip=False. `causal` lets a token see itself and those before it.
    s is 1, 1/√L or 1/L by `scaling` and L = `layers`, as in `residual`; scaling="deepnorm" (norm="post")
    is LN(α X + a f(X)) with α = (2L)^¼ and values, output, W and U times (8L)^−¼. ε is 1e-6 as in Flax.

    The state is [tokens, width] and the Jacobian ∂X_L/∂X_0 that of all tokens together. Without a norm
    the state may grow so far that tokens agree to rounding (in float32 when a skip has grown 2^24 fold):
    from there on their hard choices, and the gradient through them, are not resolved. Gains: sigma_q,
    sigma_v, sigma_o, sigma_w, sigma_u, sigma_b (the initializer's own unless given), branch_gain (a).

    Raises: ValueError or TypeError for sizes that are not positive whole numbers (a width below 2 with a
    norm), heads that do not divide the width, an unknown name (the known ones are listed), a scaling
    without what it needs, a negative epsilon.
    Source: Vaswani et al. 2017; Xiong et al. 2020; Wang et al. 2022 (DeepNorm).
    """
    norm = arguments.choice("norm", norm, NORMS)
    skip = arguments.flag("skip", skip)
    scaling = arguments.choice("scaling", scaling, (*SCALINGS, DEEPNORM) if skip else SCALINGS[:1])
    if scaling == DEEPNORM and norm != "post":
        raise ValueError(
            f"norm: got {arguments.shown(norm)} with scaling='deepnorm'; pass norm='post', or another scaling"
        )
    width = arguments.size("width", width, minimum=1 if norm == "none" else 2)
    heads = arguments.size("heads", heads)
    mlp = arguments.size("mlp", mlp, minimum=0)
    activation = activations.get(activation)
    shared: dict[str, Any] = {
        "width": width,
        "heads": heads,
        "tokens": arguments.size("tokens", tokens),
        "initializer": initializers.get(initializer),
        "norm": norm,
        "skip": skip,
        "causal": arguments.flag("causal", causal),
        "epsilon": checked_epsilon(epsilon),
        "scaling": scaling,
        "layers": checked_layers(scaling, layers),
        "tied": arguments.flag("tied", tied),
    }
    return TransformerBlock(mlp=mlp, activation=activation, **shared) if mlp else Attention(**shared)


def deepnorm(layers: int) -> tuple[float, float]:
    """(α, β) of DeepNorm for L blocks of one stack: (2L)^¼ on the skip, (8L)^−¼ on the branch's weights."""
    return (2 * layers) ** 0.25, (8 * layers) ** -0.25
