"""Attention's own derivatives against those that JAX takes of the plain formulas; what a block's tangents cost."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from unrolled import assert_equal

import gradsim as gs
from gradsim.networks.depth import mixing

TOKENS, HEADS, WIDTH = 3, 2, 8


def plain_logits(scale: Array, x: Array, w_q: Array, w_k: Array) -> Array:
    q, k = ((scale * (x @ w)).reshape(TOKENS, HEADS, -1) for w in (w_q, w_k))
    return jnp.einsum("thc,shc->ths", q, k)


def plain_mixed(logits: Array, v: Array) -> Array:
    p = jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)
    return jnp.einsum("ths,shc->thc", p, v)


def test_derivatives_ahead_back_and_of_second_order_are_those_of_the_plain_formulas() -> None:
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape) for shape in ((), (TOKENS, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH))]
    along = [rng.normal(size=np.shape(one)) for one in given]
    v, matrix = rng.normal(size=(TOKENS, HEADS, WIDTH // HEADS)), rng.normal(size=(WIDTH, WIDTH))

    def own(*given: Array) -> Array:
        p = mixing.softmax(mixing.side_by_side_logits(HEADS, *given))
        return mixing.side_by_side(p, (given[1] @ matrix).reshape(v.shape))

    def plain(*given: Array) -> Array:
        return plain_mixed(plain_logits(*given), (given[1] @ matrix).reshape(v.shape))

    def derivatives(function: Callable[..., Array], given: list[Array], along: list[Array]) -> Any:
        def of_one(i: int) -> Array:
            one = jax.linearize(lambda one: function(*given[:i], one, *given[i + 1 :]), given[i])[1]
            return one(along[i])

        def ahead(*given: Array) -> Array:
            return jax.jvp(function, given, tuple(along))[1]

        first = [of_one(i) for i in range(len(given))]
        return function(*given), first, jax.vjp(function, *given)[1](v), jax.jvp(ahead, tuple(given), tuple(along))[1]

    with jax.enable_x64(True):
        found, expected = (jax.jit(partial(derivatives, one))(given, along) for one in (own, plain))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_equal(one, other)


def test_tangents_of_a_block_take_less_arithmetic_than_its_matrices_one_by_one() -> None:
    """12 n² products a token, of which queries and keys are n² each: their pairs are a quarter of it here."""
    width, tokens, tangents = 128, 8, 64
    network = gs.transformer(width, 4, tokens)
    gains = {name: jnp.float32(value) for name, value in network.gains.items()}
    weights = jax.eval_shape(lambda: network.draw(jax.random.key(0), "float32"))
    x = jax.ShapeDtypeStruct((tokens, width), "float32")
    moving = jax.ShapeDtypeStruct((tangents, tokens, width), "float32")

    def ahead(weights: Any, x: Array, moving: Array) -> Array:
        return jax.vmap(jax.linearize(lambda x: network.step(weights, gains, x, None)[0], x)[1])(moving)

    def back(weights: Any, x: Array, moving: Array) -> Array:
        return jax.vmap(jax.vjp(lambda x: network.step(weights, gains, x, None)[0], x)[1])(moving)[0]

    for direction in (ahead, back):
        cost: Any = jax.jit(direction).lower(weights, x, moving).cost_analysis()
        assert cost["flops"] < 0.97 * 2 * 12 * width**2 * tokens * (tangents + 1)
