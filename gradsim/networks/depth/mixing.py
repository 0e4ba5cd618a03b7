"""Mixing over tokens: softmax attention."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, nn
from jaxtyping import Float

from gradsim import scaled
from gradsim.networks.depth.norm import standardize
from gradsim.networks.network import Gains

# Queries and keys of 2**40 have logits of 2**80: a hard choice to rounding, and still far from overflow.
LARGEST_EXPONENT = 40


@jax.custom_jvp
def softmax(logits: Array) -> Array:
    """softmax over the last axis."""
    return nn.softmax(logits, axis=-1)


@softmax.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # dp = p (ds − Σ p ds) cancels where one token takes all: what should be 0 is rounding times ds, and times
    # the values it outgrows the whole Jacobian. Counted from the largest logit's own ds nothing cancels.
    (logits,), (ds,) = primals, tangents
    p = softmax(logits)
    top = nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    moved = jnp.where(top, 0, ds - jnp.sum(jnp.where(top, ds, 0), axis=-1, keepdims=True))
    return p, p * (moved - jnp.sum(p * moved, axis=-1, keepdims=True))


def attend(
    weights: Any,
    gains: Gains,
    x: Float[Array, "tokens d"],
    heads: int,
    *,
    causal: bool,
    qk_norm: float | None = None,
    bounded: bool = True,
    factor: float = 1.0,
) -> Float[Array, "tokens d"]:
    """Σ_heads softmax(q kᵀ / √d_head) v, times the output weights; values and output are times `factor`.

    With `qk_norm`, an epsilon, queries and keys are divided by their root mean square in each head, and logit_gain
    multiplies their products. `bounded` says that x has the size of a normalized state.
    """
    tokens, width = x.shape
    by_head = (tokens, heads, width // heads)
    # d_head^−¼ on each of q and k; and an unnormalized state may be as large as 2**94 in float32,
    # where a logit is its square: the softmax is a hard choice long before.
    shrink: Array | float = by_head[-1] ** -0.25
    if qk_norm is None:
        if not bounded:
            excess = jnp.maximum(scaled.binary_exponent(lax.stop_gradient(x)) - LARGEST_EXPONENT, 0)
            shrink = shrink * scaled.power_of_two(-excess, x.dtype)
        q = ((gains["sigma_q"] * shrink) * (x @ weights.q)).reshape(by_head)
        k = ((gains["sigma_q"] * shrink) * (x @ weights.k)).reshape(by_head)
    else:
        q, k = (
            standardize((gains["sigma_q"] * (x @ w)).reshape(by_head), -1, qk_norm, False)
            for w in (weights.q, weights.k)
        )
        q, k = (gains["logit_gain"] * shrink) * q, shrink * k
    v = ((gains["sigma_v"] * factor) * (x @ weights.v)).reshape(by_head)
    logits = jnp.einsum("thc,shc->hts", q, k)
    if causal:
        logits = jnp.where(jnp.tri(tokens, dtype=bool), logits, -jnp.inf)
    mixed = jnp.einsum("hts,shc->thc", softmax(logits), v).reshape(tokens, width)
    return (gains["sigma_o"] * factor) * (mixed @ weights.o)
