"""State spaces: the diagonal S4D, and the selective steps of Mamba and Mamba-2."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, nn
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import arguments, initializers
from gradsim.activations import ACTIVATIONS, Activation
from gradsim.draws import Part, interval, together
from gradsim.initializers import INITIALIZERS, Initializer
from gradsim.networks.network import Gains
from gradsim.networks.time import driven
from gradsim.networks.time.driven import Driven
from gradsim.networks.time.linear_attention import LinearAttention, checked
from gradsim.networks.time.linear_recurrence import Complex

SOFTPLUS, GAUSSIAN_MATRIX = ACTIVATIONS["softplus"], INITIALIZERS["gaussian"].draw


@dataclass(frozen=True)
class StateSpace(Driven):
    """What both share: as many channels as inputs, with a memory of `order` numbers each."""

    order: int
    steps: tuple[float, float]

    def log_steps(self) -> Part:
        """ln Δ, uniform."""
        return Part(interval(*map(math.log, self.steps)), (self.width,))


class S4DWeights(NamedTuple):
    """The steps Δ [channels]."""

    step: Float[Array, " channels"]


@dataclass(frozen=True)
class S4D(StateSpace):
    """See `s4d`."""

    family: ClassVar[str] = "s4d"
    parameters: ClassVar[Mapping[str, str]] = {"step": "time_scale"}

    @property
    def gains(self) -> dict[str, float]:
        return {"sigma_v": 1.0, "time_scale": 1.0}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, self.width, self.order)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return ()

    def draw(self, key: Array, dtype: DTypeLike) -> S4DWeights:
        return S4DWeights(jnp.exp(together(key, dtype, self.log_steps())[0]))

    def initial_state(self, gains: Gains, inputs: Float[Array, "2 channels order"]) -> Complex:
        return Complex(*super().initial_state(gains, inputs))

    def step(
        self, weights: S4DWeights, gains: Gains, state: Complex, inputs: Array | None
    ) -> tuple[Complex, tuple[Array, ...]]:
        assert inputs is not None
        step = gains["time_scale"] * weights.step
        angle = step[:, None] * (math.pi * jnp.arange(self.order, dtype=step.dtype))
        decay = jnp.exp(-step / 2)[:, None]
        re, im = decay * jnp.cos(angle), decay * jnp.sin(angle)
        drive = (gains["sigma_v"] * step * inputs)[:, None]
        return Complex(re=re * state.re - im * state.im + drive, im=re * state.im + im * state.re), ()


class MambaWeights(NamedTuple):
    """The maps of the step and of B, and ln of the steps of no input."""

    w_delta: Float[Array, "channels channels"]
    w_b: Float[Array, "channels order"]
    log_step: Float[Array, " channels"]


@dataclass(frozen=True)
class Mamba(StateSpace):
    """See `mamba`."""

    family: ClassVar[str] = "mamba"
    parameters: ClassVar[Mapping[str, str]] = {"w_delta": "sigma_delta", "w_b": "sigma_v"}

    @property
    def gains(self) -> dict[str, float]:
        return {"sigma_delta": 1.0, "sigma_v": 1.0, "step_bias": 0.0}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (self.width, self.order)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SOFTPLUS,)

    def draw(self, key: Array, dtype: DTypeLike) -> MambaWeights:
        n = self.width
        maps = Part(GAUSSIAN_MATRIX, (n, n)), Part(GAUSSIAN_MATRIX, (n, self.order))
        return MambaWeights(*together(key, dtype, *maps, self.log_steps()))

    def step(
        self, weights: MambaWeights, gains: Gains, state: Float[Array, "channels order"], inputs: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        assert inputs is not None
        bias = inverse_softplus(weights.log_step) + gains["step_bias"]
        z = gains["sigma_delta"] * (inputs @ weights.w_delta) + bias
        delta = nn.softplus(z)[:, None]
        rates = 1 + jnp.arange(self.order, dtype=state.dtype)
        drive = delta * inputs[:, None] * (gains["sigma_v"] * (inputs @ weights.w_b))
        return jnp.exp(-delta * rates) * state + drive, (z,)


class Mamba2Weights(NamedTuple):
    """Maps of keys, values and steps, the rates A [heads], and ln of the steps of no input."""

    w_k: Float[Array, "features width"]
    w_v: Float[Array, "features values"]
    w_delta: Float[Array, "features heads"]
    rate: Float[Array, " heads"]
    log_step: Float[Array, " heads"]


@dataclass(frozen=True)
class Mamba2(LinearAttention):
    """See `mamba2`."""

    steps: tuple[float, float]
    family: ClassVar[str] = "mamba2"
    parameters: ClassVar[Mapping[str, str]] = {"w_k": "sigma_k", "w_v": "sigma_v", "w_delta": "sigma_delta"}

    @property
    def gains(self) -> dict[str, float]:
        return {**super().gains, "sigma_delta": 1.0, "step_bias": 0.0}

    @property
    def activations(self) -> tuple[Activation, ...]:
        return (SOFTPLUS,)

    def draw(self, key: Array, dtype: DTypeLike) -> Mamba2Weights:
        rate, log_step = interval(1.0, 16.0), interval(*map(math.log, self.steps))
        drawn = Part(rate, (self.heads,)), Part(log_step, (self.heads,))
        return Mamba2Weights(*together(key, dtype, *self.parts(), self.map_to(self.heads), *drawn))

    def transition(
        self, weights: Mamba2Weights, gains: Gains, state: Array, keys: Array, inputs: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        bias = inverse_softplus(weights.log_step) + gains["step_bias"]
        z = gains["sigma_delta"] * (inputs @ weights.w_delta) + bias
        step = nn.softplus(z)
        return jnp.exp(-step * weights.rate)[:, None, None] * state, step[:, None] * keys, (z,)


def inverse_softplus(log_y: Array) -> Array:
    """The x of softplus(x) = y."""
    y = jnp.exp(log_y)
    return y + jnp.log(-jnp.expm1(-y))


def _checked(width: Any, order: Any, steps: Any, initial: Any, tied: Any) -> dict[str, Any]:
    shared = driven.checked(width, None, initial, tied)
    return {**shared, "order": arguments.size("order", order), "steps": _steps(steps)}


def _steps(steps: Any) -> tuple[float, float]:
    wanted = "two numbers (Δ_min, Δ_max) with 0 < Δ_min <= Δ_max"
    if not isinstance(steps, tuple | list) or not all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in steps
    ):
        raise TypeError(f"steps: {arguments.got(steps)}; pass {wanted}")
    if len(steps) != 2 or not 0 < steps[0] <= steps[1] < math.inf:
        raise ValueError(f"steps: got {arguments.shown(steps)}; pass {wanted}")
    return float(steps[0]), float(steps[1])


def s4d(
    width: int,
    order: int = 16,
    *,
    steps: tuple[float, float] = (0.001, 0.1),
    initial: str = "zero",
    tied: bool = True,
) -> S4D:
    """The diagonal state space S4D-Lin, h_t = exp(Δ A) ∘ h_{t−1} + σ_v Δ x_t, h complex, `order` numbers a channel.

    A_n = −½ + iπn for n = 0 … order − 1, Δ = time_scale times a step log-uniform over `steps`, one a channel; there are
    `width` channels, each with its own input. The Jacobian is that of the real pair (re h, im h), of size
    2 width order: rotations by πnΔ and a factor e^(−Δ/2), so E‖J u‖² = [E₁(TΔ_min) − E₁(TΔ_max)]/ln(Δ_max/Δ_min).
    Gains: sigma_v (1), time_scale (1). The first state is "zero", or "gaussian" of unit variance in both parts.

    Raises: ValueError or TypeError for sizes that are not positive whole numbers, steps that are not two numbers
    0 < Δ_min ≤ Δ_max, an unknown `initial`.
    Source: Gu, Gupta, Goel & Ré 2022.
    """
    return S4D(**_checked(width, order, steps, initial, tied))


def mamba(
    width: int,
    order: int = 16,
    *,
    steps: tuple[float, float] = (0.001, 0.1),
    initial: str = "zero",
    tied: bool = True,
) -> Mamba:
    """Mamba's selective state space, h_t = exp(Δ_t A) ∘ h_{t−1} + (Δ_t ∘ x_t)(σ_v x_t B), A_n = −n for n = 1 … order.

    Δ_t = softplus(σ_Δ x_t W + b + step_bias), one a channel, softplus(b) log-uniform over `steps`; there are `width`
    channels, and B gives them all the same `order` numbers. W is dense, where the source's has low rank. The Jacobian
    ∂h_T/∂h_0, of size width order, is diagonal, exp(A ΣΔ_t).
    Gains: sigma_delta (1; at 0 the steps do not depend on the input), sigma_v (1), step_bias (0). The first state is
    "zero", or "gaussian" of unit variance.

    Raises: ValueError or TypeError as `s4d` does.
    Source: Gu & Dao 2023.
    """
    return Mamba(**_checked(width, order, steps, initial, tied))


def mamba2(
    width: int,
    heads: int = 1,
    initializer: str | initializers.Draw | Initializer = "gaussian",
    *,
    values: int = 1,
    steps: tuple[float, float] = (0.001, 0.1),
    features: int | None = None,
    initial: str = "zero",
    tied: bool = True,
) -> Mamba2:
    """Mamba-2's state space, one rate a head: S_t = exp(−Δ_t A) S_{t−1} + Δ_t k_t v_tᵀ, A uniform on [1, 16].

    Δ_t = softplus(σ_Δ x_t W + b + step_bias), one a head, softplus(b) log-uniform over `steps`; k is the source's B,
    and v its x. The Jacobian is exp(−A ΣΔ_t) I in each head.
    Gains: sigma_k, sigma_v (the initializer's own unless given), sigma_delta (1), step_bias (0).
    All else is as in `retnet`.

    Raises: ValueError or TypeError as `retnet` does and for steps as `s4d` does.
    Source: Dao & Gu 2024.
    """
    return Mamba2(**checked(width, heads, values, features, initializer, initial, tied), steps=_steps(steps))
