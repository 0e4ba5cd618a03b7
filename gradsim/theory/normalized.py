"""Normalized networks at infinite width: batch norm's explosion, and the powers of depth of normalized branches."""

import numpy as np
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.theory.given import ActivationLike, Number, broadcast
from gradsim.theory.moments import moments


def batchnorm_growth(activation: str, batch: Number) -> Float[np.ndarray, "*shape"]:
    """The factor by which E‖gradient‖² grows a layer under batch norm, for batches of B ≥ 4 and every σ_w.

        identity   (B − 2) / (B − 3)
        relu       (B − 2 + J(c) + J'(c)) / [(B − 3) (1 − J(c))],   c = −1/(B − 1),
                   J(c) = [√(1 − c²) + c (π − arccos c)] / π,   J'(c) = (π − arccos c) / π

    A ReLU's tends to π/(π − 1) = 1.467 in large batches: no batch and no weight gain prevents the explosion.

    Raises: ValueError for another activation, or for batches below 4, where the mean does not exist.
    Source: Yang et al. 2019, arXiv:1902.08129, theorem 8.

    >>> print(f"{batchnorm_growth('relu', 32):.6f}")
    1.521953
    """
    arguments.choice("activation", activation, ("identity", "relu"))
    (sizes,), shape = broadcast(batch=batch)
    if np.any(sizes < 4):
        raise ValueError(f"batch: got {sizes[sizes < 4][0]:g}; pass sizes of at least 4")
    if activation == "identity":
        return ((sizes - 2) / (sizes - 3)).reshape(shape)
    c = -1 / (sizes - 1)
    slope = (np.pi - np.arccos(c)) / np.pi
    kernel = np.sqrt(1 - c**2) / np.pi + c * slope
    return ((sizes - 2 + kernel + slope) / ((sizes - 3) * (1 - kernel))).reshape(shape)


def pre_norm_exponent(
    activation: ActivationLike, sigma_w: Number, sigma_b: Number = 0.0
) -> Float[np.ndarray, "*shape"]:
    """ζ of the power law E‖J‖² ~ L^ζ in x + σ_w φ(LN x) W + σ_b b: ζ = σ_w² D(1) / (σ_w² V(1) + σ_b²).

    The state's mean square grows by v = σ_w² V(1) + σ_b² a block, and the norm divides the slopes by it, so that
    a branch gain a leaves E‖J‖² = (1 + a² v L)^ζ: exactly for a ReLU without bias, at large L otherwise. ζ = 0 at
    σ_w = 0, where J is the identity.

    Raises: TypeError or ValueError naming the argument. Source: Yang & Schoenholz 2017, arXiv:1712.08969,
    for the method.

    >>> print(f"{pre_norm_exponent('tanh', 1.0):.5f}")
    1.17781
    """
    table = moments(activations.get(activation))
    (sigma_w, sigma_b), shape = broadcast(sigma_w=sigma_w, sigma_b=sigma_b)
    slope, square = (np.exp(function(np.zeros(1))) for function in (table.log_d, table.log_v))
    # (σ_b/σ_w)² is ∞ at σ_w = 0, where J is the identity whatever the bias.
    with np.errstate(over="ignore"):
        bias = np.divide(sigma_b, sigma_w, out=np.full_like(sigma_w, np.inf), where=sigma_w > 0)
        return (slope / (square + bias**2)).reshape(shape)


def weighted_skip_growth(
    activation: ActivationLike, mu: Number, sigma_w: Number = 1.0, sigma_b: Number = 0.0
) -> Float[np.ndarray, "*shape"]:
    """χ, by which a block x' = μ x + σ_w φ(N x) W + σ_b b multiplies a squared gradient once its length is stationary.

        χ = μ² + (1 − μ²) σ_w² D(1)/(σ_w² V(1) + σ_b²),   0 ≤ μ ≤ 1

    μ = 1 is a pre-norm residual, where χ → 1 and a power of depth is left (`pre_norm_exponent`). A ReLU without bias
    has χ = 1 whatever μ and σ_w: critical everywhere.

    Raises: TypeError or ValueError naming the argument. Source: Doshi, He & Gromov 2023, arXiv:2304.09240.

    >>> print(f"{weighted_skip_growth('tanh', 0.5):.12f}")
    1.133355424228
    """
    (mu, sigma_w, sigma_b), shape = broadcast({"mu": (0.0, 1.0)}, mu=mu, sigma_w=sigma_w, sigma_b=sigma_b)
    return (mu**2 + (1 - mu**2) * pre_norm_exponent(activation, sigma_w, sigma_b)).reshape(shape)
