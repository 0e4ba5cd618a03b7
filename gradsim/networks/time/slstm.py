"""The scalar memory of xLSTM, whose gates are exponential: sLSTM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, nn
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import arguments, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import Part, together
from gradsim.initializers import Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time.gated import GAIN_OF
from gradsim.networks.time.recurrent import Recurrent, checked

SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]
OF = ("state", "hidden", "cell", "unstabilized")
LOWEST = -1e4  # of ln n: e to this is 0 in every dtype, and so is the derivative of all that it is added to


class SLSTMState(NamedTuple):
    """Cell and normalizer in units of e^m, with the stabilizer m = ln n: c/n and 1; and the hidden state."""

    ratio: Float[Array, " n"]  # c/n
    m: Float[Array, " n"]
    h: Float[Array, " n"]


class Unstabilized(NamedTuple):
    """Cell, normalizer and hidden state as they are."""

    c: Float[Array, " n"]
    n: Float[Array, " n"]
    h: Float[Array, " n"]


class SLSTMWeights(NamedTuple):
    """The draw of the gates i, f, o and of the candidate z."""

    w_i: Float[Array, "heads d d"]
    w_f: Float[Array, "heads d d"]
    w_z: Float[Array, "heads d d"]
    w_o: Float[Array, "heads d d"]
    v_i: Float[Array, "features n"]
    v_f: Float[Array, "features n"]
    v_z: Float[Array, "features n"]
    v_o: Float[Array, "features n"]
    b_i: Float[Array, " n"]
    b_f: Float[Array, " n"]
    b_z: Float[Array, " n"]
    b_o: Float[Array, " n"]


@dataclass(frozen=True)
class SLSTM(Recurrent):
    """See `slstm`."""

    heads: int
    forget: str
    of: str
    layer: float
    family: ClassVar[str] = "slstm"
    parameters: ClassVar[Mapping[str, str]] = {name: GAIN_OF[name[0]] for name in SLSTMWeights._fields}

    def __post_init__(self) -> None:  # a sweep over widths makes networks too
        arguments.divisor("heads", self.heads, "width", self.width)

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "sigma_w": 0.0, "forget_bias": 0.0, "input_bias": 0.0, "initial_normalizer": 1.0}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, self.width)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SIGMOID,) * (self.forget == "sigmoid") + (TANH, SIGMOID)

    def draw(self, key: Array, dtype: DTypeLike) -> SLSTMWeights:
        size, copies = self.width // self.heads, 4
        _, v, b = self.parts(copies)
        own = Part(self.initializer.draw, (size, size), copies * self.heads)
        drawn, of_input, biases = together(key, dtype, own, v, b)
        return SLSTMWeights(*drawn.reshape(copies, self.heads, size, size), *of_input, *biases)

    def initial_state(self, gains: Gains, inputs: Float[Array, "2 n"]) -> SLSTMState | Unstabilized:
        first, h = super().initial_state(gains, inputs)
        n = jnp.broadcast_to(gains["initial_normalizer"].astype(h.dtype), h.shape)
        if self.of == "unstabilized":
            return Unstabilized(n * first, n, h)
        return SLSTMState(first, jnp.maximum(jnp.log(n), LOWEST), h)

    def step(
        self, weights: SLSTMWeights, gains: Gains, state: Any, inputs: Array | None
    ) -> tuple[Any, tuple[Float[Array, " n"], ...]]:
        assert inputs is not None
        z_i, z_f, z_z, z_o = self._arguments(weights, gains, state.h, inputs)
        log_f, seen = (-nn.softplus(-z_f), (z_f,)) if self.forget == "sigmoid" else (z_f, ())
        z, o = TANH(z_z), SIGMOID(z_o)
        if self.of == "unstabilized":
            f, i = jnp.exp(log_f), jnp.exp(z_i)
            c, n = f * state.c + i * z, f * state.n + i
            return Unstabilized(c, _within(n), o * (c / n)), (*seen, z_z, z_o)
        kept = log_f + state.m
        # i/n is a sigmoid, whether or not f n and i are floats.
        ratio = state.ratio + SIGMOID(z_i - kept) * (z - state.ratio)
        return SLSTMState(ratio, jnp.logaddexp(kept, z_i), o * ratio), (*seen, z_z, z_o)

    def _arguments(self, weights: SLSTMWeights, gains: Gains, h: Array, inputs: Array) -> list[Array]:
        """Those of i, f, z and o."""
        v, b = (jnp.concatenate(weights[4 * k : 4 * k + 4], axis=-1) for k in (1, 2))
        of_input = jnp.split(gains["sigma_v"] * (inputs @ v) + gains["sigma_b"] * b, 4)
        of_input[0] += gains["input_bias"]
        of_input[1] += jnp.asarray(forget_start(self.width, self.layer), h.dtype) + gains["forget_bias"]
        by_head = h.reshape(self.heads, -1)
        of_state = [jnp.einsum("hi,hij->hj", by_head, w).ravel() for w in weights[:4]]
        return [gains["sigma_w"] * a + x for a, x in zip(of_state, of_input, strict=True)]

    def output(self, state: SLSTMState | Unstabilized) -> Array:
        return state.h

    def observed(self, state: Any) -> Any:
        if self.of == "cell":
            return state.ratio
        return state.h if self.of == "hidden" else state


def forget_start(width: int, layer: float) -> np.ndarray:
    """b_f of each unit: 5 − 12 (j/(width − 1))^(0.3 + 1.3 layer)."""
    return 5 - 12 * (np.arange(width) / max(width - 1, 1)) ** (0.3 + 1.3 * layer)


def _within(n: Array) -> Array:
    """NaN of a normalizer so large that the engine would bring the state into range, of which h knows nothing."""
    return jnp.where(n < 2.0 ** (2 * jnp.finfo(n.dtype).nmant), n, jnp.nan)


def slstm(
    width: int,
    heads: int = 1,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    forget: str = "sigmoid",
    of: str = "state",
    layer: float = 0.0,
    features: int | None = None,
    input_initializer: str | initializers.Draw | Initializer = "gaussian",
    initial: str = "zero",
    tied: bool = True,
) -> SLSTM:
    """The scalar memory of xLSTM: c_t = f c_{t−1} + i z, n_t = f n_{t−1} + i, h_t = o c_t/n_t.

    i = exp(a + input_bias), f = sigmoid(a + b_f + forget_bias), or exp of it with forget="exp", z = tanh(a) and
    o = sigmoid(a), each with its own a = σ_w h_{t−1} W + σ_v x_t V + σ_b b, W in blocks, one a head. b_f is
    5 − 12 (j/(width − 1))^(0.3 + 1.3 layer) in unit j, for a layer at this place of its stack, 0 for the first, 1 for
    the last.
    A stabilizer m is carried along, in whose units the state is c e^−m and n e^−m, as the source does, that no gate may
    leave the floats: here m = ln n. It changes no h and no derivative. The Jacobian is

        of="state"         ∂(c/n, ln n, h)_T/∂(c/n, ln n, h)_0
        of="hidden"        ∂h_T/∂h_0, the others held;  of="cell"  ∂(c/n)_T/∂(c/n)_0, the others held
        of="unstabilized"  ∂(c, n, h)_T/∂(c, n, h)_0, carried without m: NaN where n outgrows 2^46 (float64: 2^104)

    With σ_w = 0 and constant gates that of "cell" is f^T n_0/(f^T n_0 + i (1 − f^T)/(1 − f)), and never vanishes at
    f > 1.
    Gains: sigma_w (0, the start), sigma_v, sigma_b (the initializers' own unless given), forget_bias (0), input_bias
    (0), initial_normalizer n_0 (1; of n_0 = 0 no c_0/n_0 is left after a step). c_0/n_0 and h_0 are "zero", or
    "gaussian" of unit variance. All else is as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does, and for an unknown `of` or `forget`, heads that do not divide
    the width, a layer outside of [0, 1].
    Source: Beck et al. 2024.
    """
    return SLSTM(
        **checked(width, features, initializer, input_initializer, initial, tied),
        heads=arguments.size("heads", heads),
        forget=arguments.choice("forget", forget, ("sigmoid", "exp")),
        of=arguments.choice("of", of, OF),
        layer=arguments.share("layer", layer),
    )
