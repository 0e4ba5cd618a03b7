"""A linear recurrence with a diagonal complex state: the linear recurrent unit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim import arguments
from gradsim.activations import Activation
from gradsim.draws import GAUSSIAN, Part, interval, together
from gradsim.networks.network import Gains
from gradsim.networks.time.driven import Driven, checked


class Complex(NamedTuple):
    """Complex numbers as pairs of real ones, so that tangents, norms and powers of two stay real."""

    re: Float[Array, "*shape"]
    im: Float[Array, "*shape"]


class Weights(NamedTuple):
    """The eigenvalues λ [n], the input weights V [features, n], and γ = √(1 − |λ|²) [n]."""

    eigenvalues: Complex
    v: Complex
    gamma: Float[Array, " n"]


@dataclass(frozen=True)
class LinearRecurrence(Driven):
    """See `linear_recurrence`."""

    ring: tuple[float, float]
    max_phase: float
    family: ClassVar[str] = "linear_recurrence"
    parameters: ClassVar[Mapping[str, str]] = {"eigenvalues": "radius", "v": "sigma_v"}

    @property
    def gains(self) -> dict[str, float]:
        return {"radius": 1.0, "sigma_v": 1.0}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, self.width)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return ()

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        n, (inner, outer) = self.width, self.ring
        # Uniform over the ring's area: |λ|² is uniform, as in appendix A of the source.
        ring, angle = interval(inner**2, outer**2), interval(0.0, self.max_phase)
        square, phase, v = together(
            key, dtype, Part(ring, (n,)), Part(angle, (n,)), Part(GAUSSIAN, (2, self.features, n))
        )
        modulus = jnp.sqrt(square)
        return Weights(
            eigenvalues=Complex(modulus * jnp.cos(phase), modulus * jnp.sin(phase)),
            v=Complex(*(v / math.sqrt(2 * self.features))),
            gamma=jnp.sqrt(1 - square),
        )

    def initial_state(self, gains: Gains, inputs: Float[Array, "2 n"]) -> Complex:
        return Complex(*super().initial_state(gains, inputs))

    def step(
        self, weights: Weights, gains: Gains, state: Complex, inputs: Array | None
    ) -> tuple[Complex, tuple[Array, ...]]:
        assert inputs is not None
        re, im = (gains["radius"] * part for part in weights.eigenvalues)
        drive = gains["sigma_v"] * weights.gamma
        return Complex(
            re=re * state.re - im * state.im + drive * (inputs @ weights.v.re),
            im=re * state.im + im * state.re + drive * (inputs @ weights.v.im),
        ), ()


def linear_recurrence(
    width: int,
    *,
    features: int | None = None,
    ring: tuple[float, float] = (0.0, 1.0),
    max_phase: float = 2 * math.pi,
    initial: str = "zero",
    tied: bool = True,
) -> LinearRecurrence:
    """The linear recurrent unit (LRU), h_t = radius λ ∘ h_{t−1} + σ_v γ ∘ x_t V, with complex λ, h and V.

    The eigenvalues λ = exp(−exp ν + iθ) are uniform over the ring r_min ≤ |λ| ≤ r_max, 0 ≤ θ ≤ max_phase;
    γ = √(1 − |λ|²) makes E|h|² = σ_v² E|x|² / features in the long run at radius 1.
    The Jacobian is that of the real pair (re h, im h), of size 2 width: a rotation by θ_i and a factor
    radius |λ_i| for every unit, so its singular values are (radius |λ_i|)^T, each twice.
    Gains: radius (1; it scales every eigenvalue, γ stays), sigma_v (1). There is no nonlinearity inside the
    recurrence. The first state is "zero", or "gaussian" of unit variance in both parts.

    Raises: ValueError or TypeError for sizes that are not positive whole numbers, a ring that is not two
    numbers 0 ≤ r_min ≤ r_max ≤ 1, a phase outside [0, 2π], an unknown `initial`.
    Source: Orvieto et al. 2023.
    """
    shared = checked(width, features, initial, tied)
    return LinearRecurrence(**shared, ring=_ring(ring), max_phase=_phase(max_phase))


def _ring(value: Any) -> tuple[float, float]:
    wanted = "two numbers (r_min, r_max) with 0 <= r_min <= r_max <= 1"
    if not isinstance(value, tuple | list) or not all(isinstance(r, int | float) for r in value):
        raise TypeError(f"ring: {arguments.got(value)}; pass {wanted}")
    if len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
        raise ValueError(f"ring: got {arguments.shown(value)}; pass {wanted}")
    return float(value[0]), float(value[1])


def _phase(value: Any) -> float:
    wanted = "a number from 0 to 2π"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"max_phase: {arguments.got(value)}; pass {wanted}")
    if not 0 <= value <= 2 * math.pi:
        raise ValueError(f"max_phase: got {arguments.shown(value)}; pass {wanted}")
    return float(value)
