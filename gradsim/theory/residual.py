"""Residual networks at infinite width, block by block: the length of the state and the growth of the gradient."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.activations import Activation
from gradsim.networks.depth.residual import FORMS
from gradsim.theory import quadrature
from gradsim.theory.given import ActivationLike, Number, broadcast, layers
from gradsim.theory.moments import moments


class ResidualPath(NamedTuple):
    """What a residual network passes through; the last axis is the block, 1 to depth."""

    length: Float[np.ndarray, "*shape depth"]
    """E x_l², after block l."""
    chi: Float[np.ndarray, "*shape depth"]
    """χ_l, by which block l multiplies a squared gradient."""
    log_gain: Float[np.ndarray, "*shape depth"]
    """½ Σ ln χ up to block l: ½ ln E‖J u‖² of J = ∂x_l/∂x_0, in nats."""


def residual(
    activation: ActivationLike,
    sigma_w: Number,
    sigma_b: Number,
    depth: int,
    q0: Number = 1.0,
    form: str = "two_layer",
    branch_gain: Number = 1.0,
    sigma_v: Number = 1.0,
) -> ResidualPath:
    """Length and growth after each block of `gradsim.residual`, from Gaussian inputs of variance q0.

        form              block                      length q'                        χ
        two_layer         x + a σ_v φ(z) V           q + a² σ_v² V(r)                 1 + a² σ_v² σ_w² D(r)
        pre_activation    x + a (σ_w φ(x) W + σ_b b) q + a² (σ_w² V(q) + σ_b²)        1 + a² σ_w² D(q)
        post_activation   x + a φ(z)                 q + a² V(r) + 2 a m E φ(z)       1 + a² σ_w² D(r)

    with z = σ_w x W + σ_b b of variance r = σ_w² q + σ_b², and the mean over units m' = m + a E φ(z), from m = 0.
    `branch_gain` is a, times 1/√L or 1/L where the network scales its branches. Weights differ from block to block.
    For a ReLU of two layers without bias, E‖J u‖² = (1 + a² σ_v² σ_w²/2)^l at every width, too.

    Returns: ResidualPath(length, chi, log_gain), float64 [*shape, depth] for the gains and q0 broadcast to `shape`.
    Raises: TypeError or ValueError naming the argument; sigma_v other than 1 where the branch has one matrix.
    Source: Yang & Schoenholz 2017, arXiv:1712.08969.

    >>> print(f"{np.exp(2 * residual('relu', 1.0, 0.0, 6).log_gain[-1]):.6f}")
    11.390625
    """
    phi, form = activations.get(activation), arguments.choice("form", form, FORMS)
    depth, (w, b, q, a, v), shape = layers(
        depth, sigma_w=sigma_w, sigma_b=sigma_b, q0=q0, branch_gain=branch_gain, sigma_v=sigma_v
    )
    if form != "two_layer" and np.any(v != 1):
        raise ValueError(f"sigma_v: got {v[v != 1][0]} with form={form!r}, which has one matrix; leave it out")
    table, before = moments(phi), form == "pre_activation"
    shifts = form == "post_activation" and not table.odd
    log_q, log_chi = np.empty((2, depth, w.size))
    mean = np.zeros(w.size)  # m / √q
    with np.errstate(divide="ignore", over="ignore"):
        w, b, a, now = 2 * np.log(w), 2 * np.log(b), 2 * np.log(a * v), np.log(q)
        for layer in range(depth):
            # The tables go on as straight lines: this far out they are exact, and ∞ · 0 does not arise.
            z = np.clip(now if before else np.logaddexp(w + now, b), -1e3, 1e6)
            branch = a + (np.logaddexp(w + table.log_v(z), b) if before else table.log_v(z))
            log_chi[layer] = np.logaddexp(0.0, a + w + table.log_d(z))
            after = np.logaddexp(now, branch)
            if shifts:
                ratio = mean_ratio(phi, z)
                # Shares of the old and the new part in √q', if m = 0.
                old, new = (np.exp((part - np.maximum(after, -1e300)) / 2) for part in (now, branch))
                overlap = 2 * mean * ratio * old * new
                mean = (mean * old + ratio * new) / np.sqrt(1 + overlap)
                after = after + np.log1p(overlap)
            log_q[layer] = now = after
        fields = (np.exp(log_q), np.exp(log_chi), np.cumsum(log_chi, axis=0) / 2)
    return ResidualPath(*(np.moveaxis(field, 0, -1).reshape(*shape, depth) for field in fields))


def tanh_residual_growth(sigma_w: Number, depth: Number) -> Float[np.ndarray, "*shape"]:
    """ln E‖J u‖² of x + σ_w tanh(x) W after L blocks, up to a constant: slower than any exponential.

    (8/3) σ_w √(L/2π) + [4/(3π) − 4σ_w²/(9π)] ln L + C + O(ln L / √L), where σ_w² L is large against 1 and √L against
    σ_w ln L; 0 at σ_w = 0, where every block is the identity. With a branch gain a, pass a σ_w.

    Returns: float64 array of the broadcast shape. Raises: TypeError or ValueError naming the argument.
    Source: Yang & Schoenholz 2017, arXiv:1712.08969, for the leading term.
    """
    (sigma_w, length), shape = broadcast(sigma_w=sigma_w, depth=depth)
    if np.any(length < 1):
        raise ValueError(f"depth: got {length[length < 1][0]:g}; pass depths of at least 1")
    logarithmic = (4 / 3 - 4 / 9 * sigma_w**2) / np.pi
    growth = 8 / 3 * sigma_w * np.sqrt(length / (2 * np.pi)) + logarithmic * np.log(length)
    return np.where(sigma_w > 0, growth, 0.0).reshape(shape)


def mean_ratio(activation: Activation, log_q: np.ndarray) -> np.ndarray:
    """E φ / √V; beyond e^38 and below e^-56 as at those ends."""
    with jax.enable_x64(True):
        return np.asarray(_mean_ratios(activation)(np.exp(np.clip(log_q, -56.0, 38.0))))


@lru_cache(maxsize=64)
def _mean_ratios(activation: Activation) -> Any:
    def one(q: jax.Array) -> jax.Array:
        mean = quadrature.expectation(activation, q, quadrature.panels(activation))
        return mean / jnp.sqrt(quadrature.mean_square(activation, q))

    return jax.jit(lambda q: jax.lax.map(one, q))
