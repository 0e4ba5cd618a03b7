"""A recurrent network with a unitary matrix and a complex state: uRNN."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from gradsim.activations import Activation
from gradsim.draws import GAUSSIAN, Part, Shape, Transform, together
from gradsim.lapack import one_by_one
from gradsim.networks.network import Gains
from gradsim.networks.time.driven import Driven, checked
from gradsim.networks.time.linear_recurrence import Complex


def _unitary(z: Array, shape: Shape, dtype: DTypeLike) -> Array:
    """A unitary matrix [2, n, n], its real and imaginary parts, of the Haar measure, out of normal numbers."""
    re, im = z.reshape(shape).astype(dtype)
    q, r = one_by_one(jnp.linalg.qr)(lax.complex(re, im))
    diagonal = jnp.diagonal(r)
    q = q * (diagonal / jnp.abs(diagonal).astype(q.dtype))  # positive diagonals of R make Q unique, and Haar
    return jnp.stack([q.real, q.imag])


UNITARY = Transform(_unitary)


class Weights(NamedTuple):
    """The unitary matrix U [n, n], the input weights V [features, n] and the biases of modReLU [n]."""

    u: Complex
    v: Complex
    b: Float[Array, " n"]


@dataclass(frozen=True)
class UnitaryRNN(Driven):
    """See `unitary_rnn`."""

    family: ClassVar[str] = "unitary_rnn"
    parameters: ClassVar[Mapping[str, str]] = {"u": "sigma_w", "v": "sigma_v", "b": "sigma_b"}

    @property
    def gains(self) -> dict[str, float]:
        return {"sigma_w": 1.0, "sigma_v": 1.0, "sigma_b": 0.0}

    @property
    def initial_shape(self) -> tuple[int, ...]:
        return (2, self.width)

    @property
    def activations(self) -> tuple[Activation, ...]:
        return ()

    def draw(self, key: Array, dtype: DTypeLike) -> Weights:
        n = self.width
        u, v, b = together(
            key, dtype, Part(UNITARY, (2, n, n)), Part(GAUSSIAN, (2, self.features, n)), Part(GAUSSIAN, (n,))
        )
        return Weights(Complex(*u), Complex(*(v / math.sqrt(2 * self.features))), b)

    def initial_state(self, gains: Gains, inputs: Float[Array, "2 n"]) -> Complex:
        return Complex(*super().initial_state(gains, inputs))

    def step(
        self, weights: Weights, gains: Gains, state: Complex, inputs: Array | None
    ) -> tuple[Complex, tuple[Array, ...]]:
        assert inputs is not None
        (u_re, u_im), drive = weights.u, [gains["sigma_v"] * (inputs @ part) for part in weights.v]
        z = Complex(
            re=gains["sigma_w"] * (state.re @ u_re - state.im @ u_im) + drive[0],
            im=gains["sigma_w"] * (state.re @ u_im + state.im @ u_re) + drive[1],
        )
        return mod_relu(z, gains["sigma_b"] * weights.b), ()


def mod_relu(z: Complex, b: Float[Array, " n"]) -> Complex:
    """ReLU(|z| + b) z/|z|, which is z itself where b is 0."""
    square = z.re**2 + z.im**2
    there = square > 0
    modulus = jnp.sqrt(jnp.where(there, square, 1))  # whose derivative at 0 would be NaN
    longer = jnp.where(there, b / modulus, 0)
    factor = jnp.where(modulus + b > 0, 1 + longer, 0)
    return Complex(factor * z.re, factor * z.im)


def unitary_rnn(width: int, *, features: int | None = None, initial: str = "zero", tied: bool = True) -> UnitaryRNN:
    """The unitary recurrent network, h_t = modReLU(σ_w h_{t−1} U + σ_v x_t V; σ_b b), with complex h, U and V.

    U is a random unitary matrix (Haar), modReLU(z; b) = ReLU(|z| + b) z/|z|, so that at σ_b = 0 every singular value of
    ∂h_T/∂h_0 is σ_w^T, whatever the inputs. The Jacobian is that of the real pair (re h, im h), of size 2 width.
    Gains: sigma_w (1), sigma_v (1), sigma_b (0). Training moves U freely, off the unitary matrices.
    The first state is "zero", or "gaussian" of unit variance in both parts. `features`, `tied`: as in `vanilla_rnn`.

    Raises: ValueError or TypeError as `vanilla_rnn` does.
    Source: Arjovsky, Shah & Bengio 2016.
    """
    return UnitaryRNN(**checked(width, features, initial, tied))
