"""Blocks against their papers' equations written out in NumPy and against Flax's layers; starts; the final norm."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf
from unrolled import assert_equal, own_checks, unmeasured, unroll

import gradsim as gs
from gradsim.networks.depth.scaling import record
from gradsim.networks.depth.transformer import Transformer, transformer

TOKENS, WIDTH, NUMBER = 3, 6, 3  # the last of four blocks
ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: z * (1 + erf(z / math.sqrt(2))) / 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
}


def block(heads: int = 2, mlp: float | int = 2, activation: str = "relu", **options: Any) -> Transformer:
    return transformer(WIDTH, heads, TOKENS, mlp, activation, **options)


BLOCKS = {
    "GPT-2": block(activation="gelu", causal=True, scaling="gpt2", layers=4, final_norm=True),
    "LLaMA": block(2, 8 / 3, "silu", gated=True, norm="rms", causal=True, epsilon=0.1),
    "Gemma": block(activation="gelu", gated=True, norm="rms", position="peri", qk_norm=True, epsilon=0.01),
    "DeepNet": block(position="post", scaling="deepnorm", layers=4),
    "CaiT": block(1, activation="gelu", scaling="layerscale"),
    "ReZero": block(3, position="none", scaling="rezero"),
    "SkipInit": block(position="none", scaling="skipinit", final_norm=True, layers=7),
    "attention alone": block(6, 0, qk_norm=True, position="post", skip=False),
    "ReGLU alone": block(0, gated=True, position="none", skip=False),
    "by number": block(2, 0, scaling="inverse_sqrt_index"),
    "weighted skip": block(position="peri", scaling="weighted_skip"),
    "MLP by number": block(0, position="peri", scaling="inverse_index", norm="rms"),
    "by depth": block(position="post", scaling="inverse_sqrt_depth", layers=4),
}


def some(network: Transformer) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    """Weights, gains and a state, in float64."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: network.draw(jax.random.key(0), jnp.dtype("float32")))

    def entries(leaf: Any) -> np.ndarray:
        return rng.normal(size=leaf.shape) / max(leaf.shape, default=1) ** 0.5

    weights = jax.tree.map(entries, shapes)
    gains = {name: np.asarray(rng.uniform(0.5, 2)) for name in network.gains}
    return weights, gains, 2 * rng.normal(size=network.input_shape)


def written_out(c: Transformer, w: Any, g: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Block number l = 4 of the papers."""

    def rms(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.epsilon)

    def norm(x: np.ndarray) -> np.ndarray:
        return rms(x - x.mean(-1, keepdims=True)) if c.norm == "layer" else rms(x)

    def attention(x: np.ndarray) -> np.ndarray:
        heads = []
        for part in np.split(np.arange(WIDTH), c.heads):
            q, k, v = (g[gain] * x @ w[:, part] for gain, w in (("sigma_q", w.q), ("sigma_q", w.k), ("sigma_v", w.v)))
            logits = (g["logit_gain"] * rms(q) @ rms(k).T if c.qk_norm else q @ k.T) / math.sqrt(len(part))
            p = np.exp(logits) * (np.tri(TOKENS) if c.causal else 1)
            heads.append(p / p.sum(-1, keepdims=True) @ (beta * v))
        return np.concatenate(heads, axis=1) @ (beta * g["sigma_o"] * w.o)

    def mlp(x: np.ndarray) -> np.ndarray:
        phi, up, bias = ACTIVATIONS[c.activation.name], beta * g["sigma_w"] * x @ w.w, g["sigma_b"] * w.b
        hidden = phi(g["sigma_g"] * x @ w.g + bias) * up if c.gated else phi(up + bias)
        return hidden @ (beta * g["sigma_u"] * w.u)

    def scale(place: int) -> Any:
        if c.scaling in ("rezero", "layerscale", "skipinit"):
            return w.scale if c.scaling == "rezero" else w.scale[place]
        return {"inverse_sqrt_depth": 1 / 2, "inverse_sqrt_index": 1 / 2, "inverse_index": 1 / 4}.get(c.scaling, 1)

    alpha, beta = (8**0.25, 32**-0.25) if c.scaling == "deepnorm" else (1.0, 1.0)  # 2L and 8L
    alpha = float(g["skip_gain"]) if c.scaling == "weighted_skip" else alpha
    for place, branch in enumerate([attention] * bool(c.heads) + [mlp] * bool(c.mlp)):
        f = branch(norm(x) if c.position in ("pre", "peri") else x)
        f = norm(f) if c.position == "peri" else f
        x = alpha * x + g["branch_gain"] * scale(place) * f if c.skip else f
        x = norm(x) if c.position == "post" else x
    return norm(x) if c.final_norm and c.layers == NUMBER + 1 else x


@pytest.mark.sampled(6)
@pytest.mark.parametrize("network", BLOCKS.values(), ids=BLOCKS)
def test_a_block_is_its_equations(network: Transformer) -> None:
    weights, gains, x = some(network)
    with jax.enable_x64(True):
        number = jnp.int32(NUMBER) if network.numbered else None
        drawn, values, state = jax.tree.map(jnp.asarray, (weights, gains, x))
        new, seen = jax.jit(network.step)(drawn, values, state, number)
    assert_equal(new, written_out(network, weights, gains, x), 1e-14)
    assert len(seen) == len(network.activations)


def test_a_block_equals_the_layers_of_flax_nnx() -> None:
    """Causal attention after a layer norm, SwiGLU after an RMS norm: one block each, in float32."""
    heads, mixing = 2, block(mlp=0, causal=True)
    feeding = block(0, 3, "silu", gated=True, norm="rms")
    with jax.numpy_dtype_promotion("standard"):  # which Flax relies on
        rngs = nnx.Rngs(0)
        attention = nnx.MultiHeadAttention(heads, WIDTH, use_bias=False, decode=False, rngs=rngs)
        up, gate, down = (
            nnx.Linear(*sizes, use_bias=False, rngs=rngs)
            for sizes in ((WIDTH, 3 * WIDTH), (WIDTH, 3 * WIDTH), (3 * WIDTH, WIDTH))
        )
        norms = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)
        x = np.random.default_rng(1).normal(size=(TOKENS, WIDTH)).astype(np.float32)

        @nnx.jit
        def layers_of_flax(attention: Any, norms: Any, up: Any, gate: Any, down: Any, x: Any) -> Any:
            middle = x + attention(norms[0](x), mask=nnx.make_causal_mask(jnp.ones(TOKENS)))
            normed = norms[1](middle)
            return middle, middle + down(nnx.silu(gate(normed)) * up(normed))

        middle, end = layers_of_flax(attention, norms, up, gate, down, x)
    of_attention = (attention.query, attention.key, attention.value, attention.out)
    kernels = [np.asarray(layer.kernel[...]).reshape(WIDTH, WIDTH) for layer in of_attention]
    maps = dict(zip("qkvo", kernels, strict=True))
    zeros = np.zeros(3 * WIDTH, np.float32)
    layers = {"w": up.kernel[...], "b": zeros, "u": down.kernel[...], "g": gate.kernel[...]}
    for network, found, before, after in ((mixing, maps, x, middle), (feeding, layers, middle, end)):
        weights = record(*found)(**found)
        gains = {name: jnp.asarray(value, jnp.float32) for name, value in network.gains.items()}
        step = jax.jit(lambda weights, gains, x, network=network: network.step(weights, gains, x, None)[0])
        np.testing.assert_allclose(step(weights, gains, before), after, rtol=0, atol=1e-5)


def test_starts_are_those_of_their_papers() -> None:
    """With L = 16 blocks, of two branches or of one."""

    def gains(**options: Any) -> dict[str, float]:
        options = {"layers": 16, **options}
        return transformer(64, 4, **options).gains

    small, last = 0.02 * 8, 0.02 * 8 / math.sqrt(32)  # √64, and 2L branches
    gpt2 = {
        "sigma_q": small,
        "sigma_v": small,
        "sigma_o": last,
        "branch_gain": 1,
        "sigma_w": small,
        "sigma_u": 2 * last,
    }
    assert gains(scaling="gpt2") == pytest.approx({**gpt2, "sigma_b": 0})
    assert gains(scaling="gpt2", mlp=0)["sigma_o"] == pytest.approx(0.02 * 8 / 4)
    t_fixup = 0.67 / 2
    found = gains(scaling="t_fixup", position="none", gated=True)
    assert found == pytest.approx(
        {"sigma_q": 1, "sigma_v": t_fixup, "sigma_o": t_fixup, "branch_gain": 1, "sigma_w": t_fixup, "sigma_u": t_fixup,
         "sigma_b": 0, "sigma_g": 1}
    )  # fmt: skip
    fixup = gains(scaling="fixup", initializer="he_normal")
    assert (fixup["sigma_o"], fixup["sigma_u"]) == (0, 0)
    assert (fixup["sigma_v"], fixup["sigma_w"]) == pytest.approx((math.sqrt(2 / 32), math.sqrt(2 / 32)))
    gated = gains(scaling="fixup", gated=True)
    assert (gated["sigma_w"], gated["sigma_g"], gated["sigma_u"]) == pytest.approx((32**-0.25, 32**-0.25, 0))
    for scaling, start in (("rezero", 0), ("skipinit", 0), ("layerscale", 1e-5), ("inverse_index", 1)):
        assert gains(scaling=scaling, layers=None)["branch_gain"] == start
        assert gs.residual(8, scaling=scaling).gains["branch_gain"] == start
    two = gs.residual(8, scaling="fixup", layers=16).gains
    assert (two["sigma_w"], two["sigma_v"]) == (1 / 4, 0)
    assert gs.residual(8, form="post_activation", scaling="fixup", layers=16).gains["sigma_w"] == 0


def test_an_mlp_of_any_ratio_has_the_nearest_width() -> None:
    assert [transformer(64, mlp=mlp).hidden for mlp in (4, 8 / 3, 0.01)] == [256, 171, 1]
    assert transformer(5, 1, mlp=2.5).hidden == 13
    assert transformer(64, mlp=4.0).describe() == transformer(64).describe()
    message = r"^mlp: got 0.1, with which an MLP has 0 units inside at width=4; pass a number that gives at least 1"
    with pytest.raises(ValueError, match=message):
        gs.sweep(transformer(8, 2, mlp=0.1), depth=2, seeds=1, widths=[8, 4])


def test_products_equal_jacfwd_of_the_whole_with_its_final_norm() -> None:
    """Weights shared by all blocks, which still know their number."""
    with jax.enable_x64(True):
        network = block(position="pre", norm="rms", final_norm=True, layers=4, tied=True)
        unrolled, product = unroll(network, {"sigma_b": 0.3})
        expected, end = jax.jit(jax.jacfwd(lambda x: (unrolled.whole(x),) * 2, has_aux=True))(unrolled.state)
        assert_equal(product, np.asarray(expected).reshape(product.shape))
        np.testing.assert_allclose(jnp.mean(end**2, axis=-1), 1, rtol=1e-6)


def test_gradients_of_trained_branch_gains_are_those_of_the_whole() -> None:
    """Of blocks that do nothing yet (a = 0): all other gradients are zero."""
    network = block(0, 1, "silu", gated=True, position="none", scaling="skipinit")
    measured = gs.sweep(
        network, depth=2, seeds=1, direction="backward", statistics="log_weight_gradient", dtype="float64", loss=energy
    ).log_weight_gradient.isel(seed=0, depth=0)
    with jax.enable_x64(True):
        unrolled = unmeasured(network, depth=2)

        @jax.jit
        @jax.grad
        def loss(change: jax.Array) -> jax.Array:
            gains = {**unrolled.gains, "branch_gain": jnp.ones(())}
            weights = unrolled.weights._replace(scale=change)
            return energy(unrolled._replace(weights=weights, gains=gains).whole(unrolled.state))

        expected = np.linalg.norm(loss(jnp.zeros((2, 1)))[0])
    np.testing.assert_allclose(measured.sel(parameter=["all", "scale"]), np.log(expected), rtol=0, atol=1e-12)
    assert np.all(np.isnan(measured.sel(parameter=["w", "b", "u", "g"])))


def energy(state: jax.Array) -> jax.Array:
    return jnp.sum(state**3) / 3


def test_a_stack_is_as_deep_as_its_layers() -> None:
    with pytest.raises(ValueError, match=r"^layers: the branches of transformer are scaled for 4 layers, and .* is 5"):
        gs.sweep(block(final_norm=True, layers=4), depth=5, seeds=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"heads": 3}, ValueError, r"heads: got 3, which does not divide width=8; pass one of: \[1, 2, 4, 8\]"),
        ({"heads": 0, "mlp": 0}, ValueError, r"mlp: got 0 with heads=0, which leaves nothing of a block"),
        ({"heads": -1}, ValueError, r"heads: got -1; pass a whole number of at least 0"),
        ({"norm": "batch"}, ValueError, r"norm: got 'batch'; pass one of: layer, rms"),
        ({"position": "rms"}, ValueError, r"position: got 'rms'; pass one of: pre, post, peri, none"),
        ({"gated": "silu"}, TypeError, r"gated: got 'silu'"),
        ({"qk_norm": 1}, TypeError, r"qk_norm: got 1"),
        ({"final_norm": True}, ValueError, r"layers: got None; pass the depth L that final_norm=True is made for"),
        ({"layers": 3, "scaling": "rezero"}, ValueError, r"layers: got 3 with scaling='rezero'; leave it out"),
        ({"scaling": "gpt2"}, ValueError, r"layers: got None; pass the depth L that scaling='gpt2' is made for"),
        ({"scaling": "gpt2", "layers": 3, "skip": False}, ValueError, r"scaling: got 'gpt2'; pass one of: constant"),
        ({"scaling": "t_fixup", "layers": 3}, ValueError, r"position: got 'pre' with scaling='t_fixup'; pass pos"),
        ({"scaling": "deepnorm", "layers": 3}, ValueError, r"position: got 'pre' with scaling='deepnorm'; pass pos"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message):
        transformer(**{"width": 8, **arguments})
