"""Attention whose weights do not depend on the tokens, with a skip: which token a gradient reaches, at every width."""

import numpy as np
import scipy
from jaxtyping import Float

from gradsim import arguments
from gradsim.theory.given import LAYERS


def fixed_attention(weights: Float[np.ndarray, "n n"], depth: int, share: float = 1.0) -> Float[np.ndarray, "n n"]:
    """E‖J_ij‖_F²/d of the map from token j to token i in L blocks X + A X W, for fixed attention weights A.

        Σ_k C(L, k) σ_a^k (A^k)_ij²

    for W = σ_v W_v σ_o W_o of Gaussian weights: exact at every d and any number of heads that share A. Its mean over i
    and sum over j is E‖J‖_F²/(n d). Causal uniform attention, A_ij = 1/i for j ≤ i, gives it all to the first token.

    Args:
        weights: A, a row for each token that reads.
        depth: L.
        share: σ_a = σ_v²σ_o².

    Returns: [n, n].
    Raises: TypeError or ValueError naming the argument.
    Source: law G9 of the project's law book.

    >>> print(f"{fixed_attention(np.tri(4) / np.arange(1, 5)[:, None], 3).sum() / 4:.12f}")
    5.154898686664
    """
    wanted = "a square array [n, n]"
    a = arguments.numbers("weights", weights, wanted)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or a.size == 0 or not np.all(np.isfinite(a)):
        raise ValueError(f"weights: got {arguments.shown(weights)}; pass {wanted} of finite numbers")
    depth = arguments.whole("depth", depth, maximum=LAYERS)
    share = arguments.number("share", share, "a number of at least 0", -1e-300)
    total, power, norm = np.eye(len(a)), np.eye(len(a)), 0.0
    for k in range(1, depth + 1):
        power = power @ a
        largest = np.abs(power).max()
        if largest == 0 or share == 0:
            break
        power, norm = power / largest, norm + np.log(largest)
        log_binomial = -np.log(depth + 1) - scipy.special.betaln(k + 1, depth - k + 1)
        total = total + np.exp(log_binomial + k * np.log(share) + 2 * norm) * power**2
    return total
