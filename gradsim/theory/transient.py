"""Depth by depth from a given input: lengths, growth of the gradient and its spectrum, at infinite width."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.theory.given import ActivationLike, Number, layers
from gradsim.theory.moments import moments


class Transient(NamedTuple):
    """What a network passes through on its way; the last axis is the layer, 1 to depth."""

    q: Float[np.ndarray, "*shape depth"]
    """q_l, the variance of the pre-activations of layer l."""
    chi: Float[np.ndarray, "*shape depth"]
    """χ_l = σ_w² D(q_l), by which layer l multiplies a squared gradient."""
    kurtosis: Float[np.ndarray, "*shape depth"]
    """κ_l = E φ'⁴ / (E φ'²)² at q_l: 1 for the identity, 2 for the ReLU."""


def transient(activation: ActivationLike, sigma_w: Number, sigma_b: Number, depth: int, q0: Number = 1.0) -> Transient:
    """q_l, χ_l and the kurtosis of the slopes in every layer, from inputs of mean square q0.

    q_1 = σ_w² q0 + σ_b²,  q_{l+1} = σ_w² V(q_l) + σ_b²,  χ_l = σ_w² D(q_l).
    Iterated in ln q, so that a diverging length ends as inf with the χ that it should have.

    Returns: Transient(q, chi, kurtosis), float64 [*shape, depth] for σ_w, σ_b and q0 broadcast to `shape`.
    Raises: TypeError or ValueError naming the argument. Source: Poole et al. 2016, arXiv:1606.05340.
    """
    phi = activations.get(activation)
    depth, (sigma_w, sigma_b, q0), shape = layers(depth, sigma_w=sigma_w, sigma_b=sigma_b, q0=q0)
    table = moments(phi)
    with np.errstate(divide="ignore", over="ignore"):
        weight, bias = 2 * np.log(sigma_w), 2 * np.log(sigma_b)
        log_q = np.empty((depth, sigma_w.size))
        log_q[0] = np.logaddexp(weight + np.log(q0), bias)
        for layer in range(1, depth):
            log_q[layer] = np.logaddexp(weight + table.log_v(_bounded(log_q[layer - 1])), bias)
        at = _bounded(log_q)
        log_d = table.log_d(at)
        fields = (np.exp(log_q), np.exp(weight + log_d), np.exp(table.log_mu2(at) - 2 * log_d))
    return Transient(*(np.moveaxis(field, 0, -1).reshape(*shape, depth) for field in fields))


def spectrum_variance(
    activation: ActivationLike,
    sigma_w: Number,
    sigma_b: Number,
    depth: int,
    q0: Number = 1.0,
    orthogonal: bool = False,
) -> Float[np.ndarray, "*shape depth"]:
    """Variance over squared mean of the squared singular values of J at every depth: Σ_l (κ_l − 1 − s₁).

    s₁ = −1 for Gaussian and 0 for orthogonal weights; L (μ₂/μ₁² − 1 − s₁) at a fixed point, where a tanh at
    σ_b² = 0.05 adds 1.342 or 0.342 a layer.

    Raises: TypeError or ValueError naming the argument.
    Source: Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735, equation 22.
    """
    shift = 1 if arguments.flag("orthogonal", orthogonal) else 0
    return np.cumsum(transient(activation, sigma_w, sigma_b, depth, q0).kurtosis - shift, axis=-1)


def _bounded(log_q: np.ndarray) -> np.ndarray:
    # The tables go on as straight lines: this far out they are exact, and ∞ · 0 does not arise.
    return np.clip(log_q, -1e5, 1e6)
