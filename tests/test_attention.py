"""Transformer blocks against autodiff and against Flax's own layers, and law A9."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import Array
from unrolled import assert_equal, jacobian, own_checks, unroll

import gradsim as gs
from gradsim import Network
from gradsim.engine.statistics import token_spread
from gradsim.networks.depth.attention import attention
from gradsim.networks.depth.scaling import deepnorm

NETWORKS = [
    attention(4, 1, 3, norm="none", skip=False),
    attention(4, 4, 3, 2, "tanh", "orthogonal", scaling="inverse_sqrt_depth", layers=4, tied=True),
]  # test_block_equals_flax has the rest


@pytest.mark.sampled(1)
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_product_equals_jacfwd_of_the_whole_network(network: Network) -> None:
    with jax.enable_x64(True):
        gains = {"sigma_b": 0.3} if "sigma_b" in network.gains else {}
        unrolled, product = unroll(network, gains)
        assert_equal(product, jacobian(unrolled.whole, unrolled.state))


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("norm", "causal", "scaling"),
    [("pre", False, "constant"), ("post", True, "constant"), ("none", False, "constant"), ("post", False, "deepnorm")],
)
def test_block_equals_flax(norm: str, causal: bool, scaling: str) -> None:
    layers = 4 if scaling == "deepnorm" else None
    alpha, beta = deepnorm(4) if layers else (1.0, 1.0)
    width, heads, tokens = 6, 3, 4
    gains = {"sigma_q": 1.5, "sigma_v": 1.2, "sigma_o": 0.8, "sigma_w": 1.3, "sigma_u": 0.9, "sigma_b": 0.2}
    with jax.enable_x64(True):
        network = attention(width, heads, tokens, 2, "gelu", norm=norm, causal=causal, scaling=scaling, layers=layers)
        unrolled, product = unroll(network, gains)
        layer: Any = linen.MultiHeadDotProductAttention(
            heads, use_bias=False, dtype=jnp.float64, param_dtype=jnp.float64
        )
        normalize: Any = linen.LayerNorm(
            epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, dtype=jnp.float64
        )
        mask = linen.make_causal_mask(jnp.ones(tokens)) if causal else None

        def attend(x: Array, weights: Any) -> Array:
            split = {"query": 1.5 * weights.q, "key": 1.5 * weights.k, "value": beta * 1.2 * weights.v}
            kernels = {name: {"kernel": w.reshape(width, heads, 2)} for name, w in split.items()}
            kernels["out"] = {"kernel": (beta * 0.8 * weights.o).reshape(heads, 2, width)}
            return layer.apply({"params": kernels}, x, mask=mask)

        def feed(x: Array, weights: Any) -> Array:
            hidden = jax.nn.gelu(x @ (beta * 1.3 * weights.w) + 0.2 * weights.b, approximate=False)
            return hidden @ (beta * 0.9 * weights.u)

        def step(x: Array, weights: Any) -> Array:
            for branch in (attend, feed):
                if norm == "pre":
                    x = x + branch(normalize.apply({}, x), weights)
                else:
                    x = alpha * x + branch(x, weights)
                    x = normalize.apply({}, x) if norm == "post" else x
            return x

        with jax.numpy_dtype_promotion("standard"):  # which Flax relies on
            assert_equal(product, jacobian(unrolled.chain(step), unrolled.state))


def test_law_A9_uniform_attention_with_a_skip() -> None:
    tokens, seeds = 6, 1500
    network = attention(8, 2, tokens, mlp=0, norm="none")
    data = gs.sweep(network, depth=4, seeds=seeds, sigma_q=0.0, sigma_v=[0.5, 1.0], dtype="float64")
    squares = np.exp(2 * data.log_gain)
    expected = 1 - 1 / tokens + (1 + data.sigma_v**2) ** data.depth / tokens
    assert float(expected.sel(sigma_v=1.0, depth=4)) == 3.5
    error = squares.std("seed") / math.sqrt(seeds)
    assert np.all(abs(squares.mean("seed") - expected) < 4.5 * error)


def test_law_A9_without_the_skip_one_layer_leaves_one_direction_of_the_tokens() -> None:
    with jax.enable_x64(True):
        unrolled, product = unroll(attention(5, 1, 4, mlp=0, norm="none", skip=False), {"sigma_q": 0.0}, depth=1)
        assert np.linalg.matrix_rank(product) == 5  # one for each feature: (1/n 1 1ᵀ) ⊗ W has rank 1 over tokens
        state = unrolled.whole(unrolled.state)
        assert np.linalg.matrix_rank(state) == 1
        assert float(token_spread(state)) < 1e-15
        assert 0.5 < float(token_spread(unrolled.state)) <= 1


@partial(jax.jit, static_argnames=("network", "steps"))
def spread_after(network: Network, key: Array, steps: int) -> Array:
    gains = {name: jnp.asarray(gain) for name, gain in network.gains.items()}

    def step(state: Array, key: Array) -> tuple[Array, None]:
        return network.step(network.draw(key, jnp.float32), gains, state, None)[0], None

    keys = jax.random.split(key, 1 + steps)
    return token_spread(jax.lax.scan(step, jax.random.normal(keys[0], network.input_shape), keys[1:])[0])


def test_attention_alone_collapses_the_tokens_and_a_skip_keeps_them_apart() -> None:
    spreads = {}
    for skip in (False, True):
        network = attention(16, 2, 6, mlp=0, norm="none", skip=skip)
        spreads[skip] = float(spread_after(network, jax.random.key(0), 8))
    assert spreads[False] < 1e-3
    assert spreads[True] > 0.1


def test_a_causal_block_reads_no_later_token() -> None:
    network = attention(4, 2, 3, causal=True)
    gains = {name: jnp.asarray(gain) for name, gain in network.gains.items()}
    weights = jax.jit(lambda: network.draw(jax.random.key(0), jnp.float32))()
    state = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32))
    product = jacobian(lambda x: network.step(weights, gains, x, None)[0], state)
    blocks = product.reshape(3, 4, 3, 4)
    for out in range(3):
        assert np.all(blocks[out, :, out + 1 :] == 0)
        assert np.all(np.any(blocks[out, :, : out + 1] != 0, axis=(0, 2)))


def test_logits_of_a_state_beyond_floats() -> None:
    # Each token grows by itself, so that tokens stay apart and every softmax becomes a hard choice.
    network = attention(4, 2, 3, mlp=1, activation="relu", norm="none", causal=True)
    gains = {"sigma_v": 0.01, "sigma_u": 30.0}
    names = ("log_gain", "log_length")
    found = gs.sweep(network, depth=80, seeds=2, statistics=names, **gains)  # type: ignore[arg-type]
    assert float(found.log_length.min("seed")[-1]) > 2 * 88 + 50  # squares of float32 end at e^88
    assert np.all(np.isfinite(found.log_gain))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"heads": 3}, ValueError, r"heads: got 3, which does not divide width=8; pass one of: \[1, 2, 4, 8\]"),
        ({"heads": 0}, ValueError, r"heads: got 0"),
        ({"tokens": 0}, ValueError, r"tokens: got 0"),
        ({"mlp": -1}, ValueError, r"mlp: got -1; pass a finite number of at least 0"),
        ({"norm": "rms"}, ValueError, r"norm: got 'rms'; pass one of: pre, post, none"),
        ({"causal": "yes"}, TypeError, r"causal: got 'yes'"),
        ({"skip": None}, TypeError, r"skip: got None"),
        ({"scaling": "deepnorm"}, ValueError, r"norm: got 'pre' with scaling='deepnorm'; pass norm='post'"),
        ({"scaling": "deepnorm", "norm": "post"}, ValueError, r"layers: got None; pass the depth"),
        ({"scaling": "inverse_depth", "layers": 3, "skip": False}, ValueError, r"scaling: got 'inverse_depth'"),
        ({"width": 1, "heads": 1}, ValueError, r"width: got 1; pass a whole number of at least 2"),
        ({"activation": "rely"}, ValueError, r"activation: unknown name"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message):
        attention(**{"width": 8, **arguments})
