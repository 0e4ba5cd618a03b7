"""Mixing over tokens: softmax attention."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, nn
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float

from gradsim import scaled
from gradsim.networks.depth.norm import standardize
from gradsim.networks.network import Gains

# Queries and keys of 2**40 have logits of 2**80: a hard choice to rounding, and still far from overflow.
LARGEST_EXPONENT = 40
# Of so many tokens, with pairs that are no more than the width, heads lie side by side in the products of tangents.
MOST_TOKENS = 16


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
    slopes = p[..., None] * (jnp.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])
    return p, (moved[..., None, :] @ slopes)[..., 0, :]


def _pairs(q: Float[Array, "tokens h c"], k: Float[Array, "tokens h c"]) -> Float[Array, "tokens h tokens"]:
    """q kᵀ in each head."""
    return jnp.einsum("thc,shc->ths", q, k)


def _mixed(p: Float[Array, "tokens h tokens"], v: Float[Array, "tokens h c"]) -> Float[Array, "tokens h c"]:
    """p v in each head."""
    return jnp.einsum("ths,shc->thc", p, v)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def side_by_side_logits(heads: int, scale: Array, x: Array, w_q: Array, w_k: Array) -> Float[Array, "tokens h tokens"]:
    """q kᵀ in each head, q = scale x W_q and k = scale x W_k; tangents of x meet k and q already in the weights.

    dx (W_q kᵀ) + (dx (W_k qᵀ))ᵀ has fewer columns than dx W_q and dx W_k, and none is brought into the order of heads.
    """
    return _pairs(*((scale * (x @ w)).reshape(len(x), heads, -1) for w in (w_q, w_k)))


@partial(side_by_side_logits.defjvp, symbolic_zeros=True)
def _(heads: int, primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    (scale, x, *weights), (dscale, dx, *others) = primals, tangents
    tokens, width = x.shape

    def moved(scale: Array, w: Array) -> Array:
        return (scale * (x @ w)).reshape(tokens, heads, -1)

    q, k = (moved(scale, w) for w in weights)
    total = jnp.zeros_like(_pairs(q, k))
    if not isinstance(dx, SymbolicZero):
        by_head = (w.reshape(width, heads, -1) for w in weights)
        met = [scale * jnp.einsum("dhc,shc->dhs", w, one) for w, one in zip(by_head, (k, q), strict=True)]
        both = (dx @ jnp.stack(met, axis=1).reshape(width, -1)).reshape(tokens, 2, heads, tokens)
        of_q, of_k = (half[:, 0] for half in jnp.split(both, 2, axis=1))
        total = of_q + of_k.transpose(2, 1, 0)
    pairs = (lambda dq: _pairs(dq, k)), (lambda dk: _pairs(q, dk))
    for w, dw, pair in zip(weights, others, pairs, strict=True):
        if not isinstance(dw, SymbolicZero):
            total = total + pair(moved(scale, dw))
        if not isinstance(dscale, SymbolicZero):
            total = total + pair(moved(dscale, w))
    return _pairs(q, k), total


@jax.custom_jvp
def side_by_side(p: Float[Array, "tokens h tokens"], v: Float[Array, "tokens h c"]) -> Float[Array, "tokens h c"]:
    """Σ_s p v in each head; tangents stay in the order of tokens, then heads.

    Those of p meet the values as one matrix of a block a head, those of v are weighted and summed token by token.
    """
    return _mixed(p, v)


@side_by_side.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (p, v), (dp, dv) = primals, tangents
    tokens, heads, size = v.shape
    blocks = jnp.eye(heads, dtype=v.dtype)[:, None, :, None] * v.transpose(1, 0, 2)[:, :, None]
    moved = dp.reshape(tokens, -1) @ blocks.reshape(heads * tokens, -1)
    weights = jnp.repeat(p.transpose(2, 0, 1), size, axis=-1)  # of each token s, [s, tokens, d]
    # Repeated by concatenation, and not broadcast: the transpose is then a sum of slices, which is one pass, where
    # XLA's reduction after a product takes ten times as long on a CPU.
    for weight, row in zip(weights, lax.split(dv.reshape(tokens, -1), [1] * tokens), strict=True):
        moved = moved + weight * jnp.concatenate([row] * tokens)
    return _mixed(p, v), moved.reshape(v.shape)


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
    small = tokens <= MOST_TOKENS and heads * tokens <= width
    # d_head^−¼ on each of q and k; and an unnormalized state may be as large as 2**94 in float32,
    # where a logit is its square: the softmax is a hard choice long before.
    shrink: Array | float = by_head[-1] ** -0.25
    if qk_norm is None:
        if not bounded:
            excess = jnp.maximum(scaled.binary_exponent(lax.stop_gradient(x)) - LARGEST_EXPONENT, 0)
            shrink = shrink * scaled.power_of_two(-excess, x.dtype)
        scale = gains["sigma_q"] * shrink
        if small:
            logits = side_by_side_logits(heads, jnp.asarray(scale), x, weights.q, weights.k)
        else:
            logits = _pairs(*((scale * (x @ w)).reshape(by_head) for w in (weights.q, weights.k)))
    else:
        q, k = (
            standardize((gains["sigma_q"] * (x @ w)).reshape(by_head), -1, qk_norm, False)
            for w in (weights.q, weights.k)
        )
        logits = _pairs((gains["logit_gain"] * shrink) * q, shrink * k)
    v = ((gains["sigma_v"] * factor) * (x @ weights.v)).reshape(by_head)
    if causal:
        logits = jnp.where(jnp.tri(tokens, dtype=bool)[:, None], logits, -jnp.inf)
    mixed = (side_by_side if small else _mixed)(softmax(logits), v).reshape(tokens, width)
    return (gains["sigma_o"] * factor) * (mixed @ weights.o)
