"""Transformer blocks, put together from parts: a norm, softmax attention, an MLP, and the way around each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import activations, arguments, initializers
from gradsim.activations import Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.depth import scaling as schemes
from gradsim.networks.depth.channels import feed
from gradsim.networks.depth.mixing import attend
from gradsim.networks.depth.norm import NORMS, checked_epsilon, standardize
from gradsim.networks.depth.scaling import SCHEMES, Branch, checked_layers, deepnorm
from gradsim.networks.network import Gains, Network, Weights

POSITIONS = ("pre", "post", "peri", "none")
MAPS = {"q": "sigma_q", "k": "sigma_q", "v": "sigma_v", "o": "sigma_o"}  # those of attention draw side by side
MLP, GATE = {"w": "sigma_w", "b": "sigma_b", "u": "sigma_u"}, {"g": "sigma_g"}


@dataclass(frozen=True)
class Transformer(Network):
    """See `transformer`."""

    width: int
    heads: int
    tokens: int
    mlp: float | int
    activation: Activation
    initializer: Initializer
    gated: bool
    norm: str
    position: str
    qk_norm: bool
    causal: bool
    skip: bool
    epsilon: float
    scaling: str
    layers: int | None
    final_norm: bool
    family: ClassVar[str] = "transformer"
    state_axes: ClassVar[tuple[str, ...]] = ("tokens", "width")

    def __post_init__(self) -> None:  # a sweep over widths makes networks too
        if self.heads:
            arguments.divisor("heads", self.heads, "width", self.width)
        if self.mlp and not 1 <= self.hidden < 2**31:
            raise ValueError(
                f"mlp: got {self.mlp}, with which an MLP has {self.hidden} units inside at width={self.width}; "
                "pass a number that gives at least 1, and fewer than 2^31"
            )

    @property
    def hidden(self) -> int:
        """The width of an MLP inside: the whole number nearest to `mlp` times the width, the larger of two."""
        return math.floor(self.mlp * self.width + 0.5)

    @property
    def parameters(self) -> Mapping[str, str]:  # type: ignore[override]
        """What a block draws, and the gain of each: by what it is put together from."""
        mlp = MLP | GATE if self.gated else MLP
        return schemes.parameters(self.scaling, (MAPS if self.heads else {}) | (mlp if self.mlp else {}))

    @property
    def gains(self) -> dict[str, float]:
        n, hidden, weight = self.width, self.hidden, schemes.weight_gain(self.scaling, self.initializer)
        found: dict[str, float] = {}
        if self.heads:
            found["sigma_q"] = weight(n, n)
            found |= {"logit_gain": 1.0} if self.qk_norm else {}
            found |= {"sigma_v": weight(n, n), "sigma_o": weight(n, n)}
        found |= {"branch_gain": 1.0} if self.skip else {}
        if self.mlp:
            found |= {"sigma_w": weight(n, hidden), "sigma_u": weight(hidden, n)}
            found["sigma_b"] = self.initializer.bias_gain(n)
            found |= {"sigma_g": weight(n, hidden)} if self.gated else {}
        return schemes.started(self.scaling, self.layers, found, self._branches) if self.skip else found

    @property
    def _branches(self) -> list[Branch]:
        attention, mlp = Branch(("sigma_v",), "sigma_o"), Branch(("sigma_w", "sigma_g")[: 1 + self.gated], "sigma_u")
        return [attention] * bool(self.heads) + [mlp] * bool(self.mlp)

    @property
    def numbered(self) -> bool:
        return self.final_norm or schemes.numbered(self.scaling)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.tokens, self.width)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (self.activation,) * bool(self.mlp)

    def initial_state(self, gains: Gains, inputs: Float[Array, "tokens d"]) -> Float[Array, "tokens d"]:
        return inputs

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        n, hidden, law = self.width, self.hidden, self.initializer
        shapes = {"w": (n, hidden), "b": (hidden,), "u": (hidden, n), "g": (n, hidden)}
        names = [name for name in self.parameters if name in shapes]
        parts = [Part(law.draw_bias if name == "b" else law.draw, shapes[name]) for name in names]
        maps = [Part(law.draw, (n, n), len(MAPS))] if self.heads else []
        found = together(key, dtype, *maps, *parts)
        drawn = [*(found[0] if maps else []), *found[len(maps) :]]
        weights = schemes.record(*(MAPS if maps else ()), *names)(*drawn)
        return schemes.with_scale(self.scaling, weights, len(self._branches), n, dtype)

    def step(
        self, weights: Weights, gains: Gains, state: Float[Array, "tokens d"], inputs: Array | None
    ) -> tuple[Float[Array, "tokens d"], tuple[Array, ...]]:
        x, number, factor = state, inputs, self._deepnorm[1]
        seen: tuple[Array, ...] = ()
        if self.heads:
            mixed = attend(
                weights, gains, self._before(x), self.heads, causal=self.causal, factor=factor,
                qk_norm=self.epsilon if self.qk_norm else None, bounded=self.position != "none",
            )  # fmt: skip
            x = self._after(weights, gains, x, mixed, 0, number)
        if self.mlp:
            fed, z = feed(weights, gains, self._before(x), self.activation, gated=self.gated, factor=factor)
            x, seen = self._after(weights, gains, x, fed, -1, number), (z,)
        return self._finally(x, number), seen

    def _norm(self, x: Array) -> Array:
        return standardize(x, -1, self.epsilon, self.norm == "layer")

    def _before(self, x: Array) -> Array:
        """What a branch reads: the state, normalized where a norm comes first."""
        return self._norm(x) if self.position in ("pre", "peri") else x

    def _after(
        self, weights: Weights, gains: Gains, x: Array, branch: Array, place: int, number: Array | None
    ) -> Array:
        """The state after a branch: α x or μ x + a s branch, the branch or the sum normalized where a norm comes."""
        if self.position == "peri":
            branch = self._norm(branch)
        if self.skip:
            scale = getattr(weights, "scale", None)
            gain = schemes.branch_gain(self.scaling, self.layers, gains, number, scale, place)
            carried = self._deepnorm[0] * x if self.scaling == "deepnorm" else schemes.carried(self.scaling, gains, x)
            branch = carried + gain * branch
        return self._norm(branch) if self.position == "post" else branch

    def _finally(self, x: Array, number: Array | None) -> Array:
        """The last block's state normalized once more."""
        if not self.final_norm:
            return x
        assert number is not None
        assert self.layers is not None
        return lax.cond(number == self.layers - 1, self._norm, lambda x: x, x)

    @property
    def _deepnorm(self) -> tuple[float, float]:
        """The factors on the skip and on the values, the output and the layers at each token."""
        return deepnorm(self.layers) if self.scaling == "deepnorm" and self.layers else (1.0, 1.0)


def _ratio(value: Any) -> float | int:
    """`mlp` as a number of at least 0, an int where it is whole."""
    number = arguments.number("mlp", value, "a finite number of at least 0", low=math.nextafter(0.0, -1.0))
    return int(number) if number.is_integer() else number


def transformer(
    width: int,
    heads: int = 4,
    tokens: int = 8,
    mlp: float | int = 4,
    activation: str | activations.Function | Activation = "gelu",
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    gated: bool = False,
    norm: str = "layer",
    position: str = "pre",
    qk_norm: bool = False,
    causal: bool = False,
    skip: bool = True,
    epsilon: float = 1e-6,
    scaling: str = "constant",
    layers: int | None = None,
    final_norm: bool = False,
    tied: bool = False,
) -> Transformer:
    """Transformer blocks over tokens: two branches f one after the other, each with its norm N and its way around.

        attention         f(X) = concat_heads[softmax(Q Kᵀ / √d_head) V] σ_o W_o,
                          Q = σ_q X W_q,  K = σ_q X W_k,  V = σ_v X W_v,  d_head = width / heads
        MLP               f(x) = σ_u φ(σ_w x W + σ_b b) U, `mlp` times as wide inside, to the nearest whole number
        gated             f(x) = σ_u [φ(σ_g x G + σ_b b) ∘ (σ_w x W)] U: ReGLU, GEGLU, SwiGLU with relu, gelu, silu;
                          mlp=8/3 has as many weights as a plain one of 4

        position="pre"    X + a s f(N X)          position="post"   N(X + a s f(X))
        position="peri"   X + a s N f(N X)        position="none"   X + a s f(X)

    and the same without "X + a s" where skip=False. heads=0 leaves out attention, mlp=0 the MLP. N is the layer norm,
    (x − mean x)/√(var x + ε), or with norm="rms" x/√(mean x² + ε); its scale and shift are 1 and 0. `final_norm` is N
    once more after block number `layers`. `qk_norm` divides Q and K in each head by their root mean square, and
    logit_gain then multiplies the logits: σ_q has no effect left but through ε. `causal` lets a token see itself and
    those before it. The gains a and s by `scaling`, with L = `layers` blocks, of which l is the number:

        "constant"             s = 1
        "inverse_sqrt_depth"   s = 1/√L; "inverse_depth" 1/L; "inverse_sqrt_index" 1/√l; "inverse_index" 1/l
        "rezero", "skipinit"   a = 0; "layerscale" a = 1e-5: weights of their own that are trained, one a block,
                               one a branch, one a unit of a branch
        "deepnorm"             N(α X + a f(X)), α = (2L)^¼, values, output, W and U times (8L)^−¼ (position="post")
        "fixup"                σ_o = σ_u = 0, σ_v and σ_w times B^−½, or σ_w and σ_g times B^−¼; B branches in all
        "t_fixup"              σ_v, σ_o, σ_w and σ_u times 0.67 L^−¼ (position="none")
        "weighted_skip"        μ X in place of X, with the gain skip_gain μ
        "gpt2"                 every σ is 0.02 √fan-in, σ_o and σ_u also over √B

    where "fixup", "t_fixup" and "gpt2" set no more than the defaults of gains. The state is [tokens, width] and the
    Jacobian ∂X_L/∂X_0 that of all tokens together. Gains: sigma_q, logit_gain (1), sigma_v, sigma_o, sigma_w, sigma_u,
    sigma_b, sigma_g (the initializer's own unless given), branch_gain (a, 1), skip_gain (μ, 1). Where nothing
    normalizes, the state may grow so far that tokens agree to rounding (in float32 when a skip has grown 2^24 fold):
    their hard choices, and the gradient through them, are then not resolved; and a gated branch is quadratic, which
    ends beyond the floats.

    Raises: ValueError or TypeError for sizes that are not positive whole numbers (a width below 2 with a norm), heads
    that do not divide the width, an `mlp` with which there is no unit inside, neither attention nor MLP, an unknown
    name (the known ones are listed), a scaling without what it needs, a negative epsilon.
    Source: Vaswani et al. 2017; Shazeer 2020 (gated); Zhang & Sennrich 2019 (RMS); Xiong et al. 2020 (pre and post);
    Ding et al. 2021, Kim et al. 2025 (peri); Henry et al. 2020, Dehghani et al. 2023 (QK-norm); for the scalings De &
    Smith 2020, Bachlechner et al. 2021, Touvron et al. 2021, Zhang et al. 2019, Huang et al. 2020, Radford et al.
    2019, Wang et al. 2022, Hayou et al. 2021, Doshi et al. 2023.
    """
    position = arguments.choice("position", position, POSITIONS)
    skip = arguments.flag("skip", skip)
    scaling = arguments.choice("scaling", scaling, SCHEMES if skip else ("constant",))
    for name, needed in (("deepnorm", "post"), ("t_fixup", "none")):
        if scaling == name and position != needed:
            raise ValueError(
                f"position: got {position!r} with scaling={name!r}; pass position={needed!r}, or another scaling"
            )
    final_norm = arguments.flag("final_norm", final_norm)
    heads, mlp = arguments.size("heads", heads, minimum=0), _ratio(mlp)
    if not heads and not mlp:
        raise ValueError("mlp: got 0 with heads=0, which leaves nothing of a block; pass one of them of at least 1")
    return Transformer(
        width=arguments.size("width", width, minimum=1 if position == "none" and not final_norm else 2),
        heads=heads,
        tokens=arguments.size("tokens", tokens),
        mlp=mlp,
        activation=activations.get(activation),
        initializer=initializers.get(initializer),
        gated=arguments.flag("gated", gated),
        norm=arguments.choice("norm", norm, NORMS),
        position=position,
        qk_norm=arguments.flag("qk_norm", qk_norm),
        causal=arguments.flag("causal", causal),
        skip=skip,
        epsilon=checked_epsilon(epsilon),
        scaling=scaling,
        layers=checked_layers(scaling, layers, final_norm),
        final_norm=final_norm,
        tied=arguments.flag("tied", tied),
    )
