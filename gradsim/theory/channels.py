"""The covariance that an activation makes of two correlated inputs, and its slope: what a transformer's MLP mixes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gradsim.activations import Activation
from gradsim.theory import quadrature

Cells = Float[np.ndarray, " cells"]


class Kernel(NamedTuple):
    """C(c) = E φ(z)φ(z') for z, z' of variance r and correlation c, as functions of ε = 1 − c."""

    square: Cells
    """C(1) = V(r)."""
    gap: Callable[[Cells], Cells]
    """C(1) − C(c), without cancellation."""
    slope: Callable[[Cells], Cells]
    """dC/dc = r E φ'(z)φ'(z')."""


def kernel(activation: Activation, r: Cells) -> Kernel:
    """In closed form for the ReLU and the identity, else by Mehler's series, which ends for a smooth φ.

    Raises: ValueError for a kink, whose series does not end. NaN where it ends too late, as at a large variance.
    """
    if activation.name == "identity":
        return Kernel(r, lambda epsilon: r * epsilon, lambda epsilon: r * np.ones_like(epsilon))
    if activation.name == "relu":
        return Kernel(r / 2, lambda epsilon: r / 2 * _relu_gap(epsilon), lambda epsilon: r / 2 * relu_slope(epsilon))
    if activation.kinks:
        raise ValueError(
            f"activation: got {activation.name}, which has kinks; pass 'relu', 'identity' or a smooth activation"
        )
    variances, back = np.unique(r, return_inverse=True)
    with jax.enable_x64(True):
        squares = np.asarray(_coefficients(activation)(variances)) ** 2
    order = np.arange(squares.shape[1])
    late = (order * squares)[:, -squares.shape[1] // 16 :].sum(axis=1) > 1e-14 * (order * squares).sum(axis=1)
    squares = np.where(late[:, None], np.nan, squares)[back]

    def gap(epsilon: Cells) -> Cells:
        small = np.minimum(epsilon, 0.5)[:, None]
        powers = np.where(
            epsilon[:, None] <= 0.5, -np.expm1(order * np.log1p(-small)), 1 - (1 - epsilon[:, None]) ** order
        )
        return np.sum(squares * powers, axis=1)

    def slope(epsilon: Cells) -> Cells:
        return np.sum((order * squares)[:, 1:] * (1 - epsilon[:, None]) ** order[:-1], axis=1)

    return Kernel(squares.sum(axis=1), gap, slope)


def relu_slope(epsilon: Cells) -> Cells:
    """κ₀ = (π − θ)/π, cos θ = 1 − ε."""
    return 1 - _angle(epsilon) / np.pi


def _relu_gap(epsilon: Cells) -> Cells:
    """1 − κ₁ = ε − (sin θ − θ cos θ)/π."""
    theta = _angle(epsilon)
    # sin θ − θ cos θ cancels at small angles.
    series = theta**3 / 3 * (1 - theta**2 / 10 * (1 - theta**2 / 28 * (1 - theta**2 / 54)))
    return epsilon - np.where(theta < 0.05, series, np.sin(theta) - theta * np.cos(theta)) / np.pi


def _angle(epsilon: Cells) -> Cells:
    return 2 * np.arcsin(np.sqrt(np.clip(epsilon, 0.0, 2.0) / 2))


@lru_cache(maxsize=64)
def _coefficients(activation: Activation) -> Any:
    return jax.jit(lambda r: jax.lax.map(lambda one: quadrature.hermite_coefficients(activation, one), r))
