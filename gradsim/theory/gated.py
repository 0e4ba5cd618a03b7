"""Gated MLPs: the exact size of their Jacobian at any width, and the power of depth that they make."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.activations import Activation
from gradsim.theory import quadrature
from gradsim.theory.given import ActivationLike, Number, broadcast


class GatedMLP(NamedTuple):
    """Of f(x) = σ_o W_o (φ(σ_g W_g x) ∘ σ_u W_u x)."""

    square: Float[np.ndarray, "*shape"]
    """E‖∂f/∂x‖_F²/n over σ_o²σ_u²."""
    exponent: Float[np.ndarray, "*shape"]
    """ζ of E‖J‖² ~ L^ζ where such a branch follows a norm, at infinite width."""


def gated_mlp(activation: ActivationLike, r: Number, width: int | None = None) -> GatedMLP:
    """The size of a gated MLP's Jacobian for n inputs and any number of hidden units, exact for Gaussian weights.

        E‖∂f/∂x‖_F²/n = σ_o²σ_u² {(1 − 1/n) [V(r) + r D(r)] + E (φ + g φ')²/n},   g ~ N(0, r)
        ζ = 1 + r D(r)/V(r)

    with r = σ_g² ‖x‖²/n. A ReLU's ζ is 2 (ReGLU): twice that of an MLP without a gate.

    Args:
        activation: φ, of the gate.
        r: the variance of the gate's argument, σ_g² after a norm.
        width: n; None is infinite.

    Returns: GatedMLP(square, exponent), float64 in the shape of r; NaN exponents at r = 0.
    Raises: TypeError or ValueError naming the argument.
    Source: Shazeer 2020, arXiv:2002.05202, for the network; law G12 of the project's law book.

    >>> print("{:.12f} {:.12f}".format(*gated_mlp("silu", 1.0, 8)))
    0.856802308972 2.066634241242
    """
    phi = activations.get(activation)
    share = 0.0 if width is None else 1 / arguments.whole("width", width)
    (variance,), shape = broadcast({"r": (0.0, 1e12)}, r=r)
    with jax.enable_x64(True):
        v, slope, both = np.asarray(_moments(phi)(variance)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(variance > 0, 1 + variance * slope / v, np.nan)
    square = (1 - share) * (v + variance * slope) + share * both
    return GatedMLP(square.reshape(shape), exponent.reshape(shape))


@lru_cache(maxsize=64)
def _moments(phi: Activation) -> Any:
    """V, D and E (φ + g φ')² at each r, one after the other."""

    def integrands(g: Array) -> Array:
        value, slope = phi(g), phi.derivative(g)
        return jnp.stack([value**2, slope**2, (value + g * slope) ** 2])

    edges = quadrature.panels(phi)
    return jax.jit(lambda r: jax.lax.map(lambda one: quadrature.expectation(integrands, one, edges), r))
