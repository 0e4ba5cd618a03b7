"""Laws of transformers: attention alone, whole blocks, and the norms in them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradsim import theory
from gradsim.laws.limits import EXACT, ROOT2, at_infinity, exactly, in_the_limit
from gradsim.laws.record import Check, Law, estimated, sampled
from gradsim.laws.residual_scalings import gated, lengths, linear_residual, normalized_mlps, scaled_relu, weighted_skip
from gradsim.networks.depth.norm import standardize
from gradsim.networks.depth.transformer import Transformer, transformer
from gradsim.sweeps.sweep import sweep


def uniform(position: str, tokens: int, c: float, power: float, correlation: float) -> Callable[..., list[Check]]:
    """Attention alone, without queries: what theory says of 4 blocks, and networks of two widths and 8 blocks."""

    def measure(effort: int, key: int) -> list[Check]:
        path = theory.transformer(tokens, 8, mlp=False, sigma_q=0.0, position=position, c0=c)
        limits = at_infinity(
            lambda width: transformer(width, 1, tokens, mlp=0, position=position, **EXACT), (64, 128), 1.0,
            (100 * effort, 50 * effort), 8, ("log_gain", "token_spread"), c, key, sigma_q=0.0,
        )  # fmt: skip
        size = f"n = {tokens}, c₀ = {c:g}, L = "
        return [
            exactly(f"theory: c and P, {size}4", (path.correlation[3], path.power[3]), (correlation, power), 1e-12),
            in_the_limit(f"E‖J‖²/(n d), {size}8", limits["log_gain"], float(path.power[-1])),
            in_the_limit(f"correlation of tokens, {size}8", limits["token_spread"], float(path.correlation[-1])),
        ]

    return measure


BLOCKS = {
    ("pre", 0.0): 7.428238245298, ("pre", 1.0): 9.735096109588,
    ("post", 0.0): 0.852145677894, ("post", 1.0): 1.137979659185,
}  # fmt: skip


def blocks(effort: int, key: int) -> list[Check]:
    """Heads as many as they are large. What their size changes is small beside what the width does, as 1/d."""
    taus, checks = (0.0, 1.0), []
    for position in ("pre", "post"):

        def make(width: int, position: str = position) -> Transformer:
            return transformer(width, math.isqrt(width), 2, 1, "relu", position=position, **EXACT)

        limit, error = at_infinity(
            make, (64, 256), 1.0, (240 * effort, 40 * effort), 4, key=key, sigma_q=taus, sigma_w=ROOT2
        )["log_gain"]
        path = theory.transformer(2, 4, sigma_q=taus, sigma_w=ROOT2, position=position)
        for i, tau in enumerate(taus):
            target = BLOCKS[position, tau]
            checks.append(exactly(f"theory: {position}-norm, τ = {tau:g}, L = 4", path.power[i, -1], target, 1e-12))
            checks.append(estimated(f"{position}-norm: E‖J‖²/(n d), τ = {tau:g}", limit[i], error[i], target))
    four = [theory.transformer(4, 6, sigma_q=0.0, sigma_w=ROOT2, position=one) for one in ("pre", "post")]
    found = (four[0].power[-1], four[0].correlation[-1], four[1].power[-1])
    return [
        *checks,
        exactly("theory: n = 4, τ = 0, L = 6", found, (8.952444330737, 0.687622369447, 0.594268477535), 1e-12),
    ]


def causal(effort: int, key: int) -> list[Check]:
    network = transformer(4, 1, 4, mlp=0, position="none", causal=True)
    data = sweep(network, depth=3, seeds=2000 * effort, key=key, sigma_q=0.0).log_gain
    each = theory.fixed_attention(np.tri(4) / np.arange(1, 5)[:, None], 3)
    found = (each.sum() / 4, each[:, 0].sum() / each.sum())
    return [
        exactly("theory: P and the first token's share", found, (5.154898686664, 0.7176018008), 1e-10),
        sampled("E‖J‖²/(n d), d = n = 4, L = 3", np.exp(2 * data.sel(depth=3)), 5.154898686664),
    ]


def softmax_alone(effort: int, key: int) -> list[Check]:
    """Orthogonal tokens; means of one block are the same for any number of heads of one size."""
    taus = np.array([0.5, 1.0])
    targets = np.array([[0.550753264013, 0.636838153968], [0.653478298094, 0.933051050654]])
    limits = at_infinity(
        lambda width: transformer(width, 1, 2, mlp=0, skip=False, position="none"), (32, 64), 1.0,
        (2000 * effort, 1000 * effort), 1, ("length", "log_gain"), key=key, sigma_q=np.sqrt(taus),
    )  # fmt: skip
    moments = theory.softmax_moments(2, taus**2)
    closed = (moments.square, moments.square + 2 * taus**2 * moments.slope)
    checks = [exactly("theory: E y², P at τ = ½, 1", closed, targets, 1e-12)]
    for name, quantity, target in zip(("length", "log_gain"), ("E y²", "E‖J‖²/(n d)"), targets, strict=True):
        limit, error = limits[name]
        checks += [estimated(f"{quantity}, τ = {taus[i]:g}, n = 2", limit[i], error[i], target[i]) for i in range(2)]
    return checks


def gauges(effort: int, key: int) -> list[Check]:
    """What norms take away, in every single network; and a normalized logit, from the network's own draws."""
    options: dict[str, Any] = {"depth": 3, "seeds": 3, "key": key, "dtype": "float64"}
    queries = transformer(8, 2, 3, 1, "relu", qk_norm=True, epsilon=0.0)
    around = transformer(8, 0, 1, 2, "relu", position="peri", epsilon=0.0)
    one, other = sweep(queries, **options, sigma_q=[0.5, 3.0]).log_gain.transpose("sigma_q", ...)
    small, large = sweep(around, **options, sigma_w=[0.4, 2.0]).log_gain.transpose("sigma_w", ...)
    size, count = 8, 4000 * effort

    @jax.jit  # one program, where each operation would be one
    def dots(key: Array) -> Array:
        q, k = standardize(jax.random.normal(key, (2, count, size)), -1, 0.0, False)
        return jnp.sum(q * k, axis=-1)

    logits = np.asarray(dots(jax.random.key(key))) / math.sqrt(size)
    return [
        exactly("QK-norm: change of log gain, σ_q = ½, 3", abs(one - other).max(), 0.0, 1e-12),
        exactly("peri-norm ReLU: change of log gain, σ_w = 0.4, 2", abs(small - large).max(), 0.0, 1e-12),
        sampled("fourth moment of a logit, d_k = 8", logits**4, 2.4),
    ]


def query_gradient(effort: int, key: int) -> list[Check]:
    """The derivative of the network's own step with respect to W_Q, at W_Q = 0."""
    n, d = 3, 4
    network = transformer(d, 1, n, mlp=0, position="none", skip=False)
    x = np.random.default_rng(0).standard_normal((n, d))
    gains = {name: jnp.asarray(value) for name, value in network.gains.items()}

    @jax.jit
    def squares(keys: Array) -> Array:
        def one(key: Array) -> Array:
            weights = network.draw(key, "float32")

            def output(q: Array, v: Array) -> Array:
                return network.step(weights._replace(q=q, v=v), gains, jnp.asarray(x, "float32"), None)[0]

            jacobians = jax.jacfwd(output, (0, 1))(jnp.zeros_like(weights.q), weights.v)
            return jnp.stack([jnp.sum(one**2) for one in jacobians])

        return jax.lax.map(one, keys, batch_size=500)

    found = np.asarray(squares(jax.random.split(jax.random.key(key), 4000 * effort)))
    centred = x - x.mean(axis=0)
    query = np.sum(x**2) * np.sum((centred.T @ centred) ** 2) * d / (n * d) ** 2
    value = n * np.sum(x.mean(axis=0) ** 2) * d  # of the values, through the same output weights
    return [
        sampled("E‖∂Y/∂W_Q‖², n = 3, d = 4", found[:, 0], query),
        sampled("E‖∂Y/∂W_V‖²", found[:, 1], value),
    ]


def deepnorm(effort: int, key: int) -> list[Check]:
    n, depth = 4, 16
    limits = at_infinity(
        lambda width: transformer(
            width, 1, n, 1, "relu", position="post", scaling="deepnorm", layers=depth, **EXACT
        ), (32, 64), 1.0, (200 * effort, 100 * effort), depth, ("log_gain", "token_spread"), 0.0, key,
        sigma_q=0.0, sigma_w=ROOT2,
    )  # fmt: skip
    path = theory.transformer(n, depth, sigma_q=0.0, sigma_w=ROOT2, position="post", scaling="deepnorm")
    alone = theory.transformer(n, 900, mlp=False, sigma_q=0.0, position="post", scaling="deepnorm")
    return [
        exactly("theory: P, c, L = 16", (path.power[-1], path.correlation[-1]), (0.9999454567, 0.0125419595), 1e-10),
        exactly("theory: 8√2 n √L c_L, attention alone, L = 900", alone.correlation[-1] * 960 * ROOT2, 1.0, 3e-3),
        in_the_limit("E‖J‖²/(n d), n = 4, L = 16", limits["log_gain"], 0.9999454567),
        in_the_limit("correlation of tokens", limits["token_spread"], 0.0125419595),
    ]


LAWS = (
    Law("G1", "x + aWx: ‖Ju‖² a block is (a²/n) χ'²_n(n/a²)", "noncentral χ²", linear_residual),
    Law("G3", "ReLU residual: E‖Ju‖² = Π(1 + s a_l²) at every width", "Hayou et al. 2021", scaled_relu),
    Law("G4", "Pre-norm E‖x_L‖²/n = q₀ + Ls; peri-norm q₀ + L(1 − 2^−n)", "Gaussian weights", lengths),
    Law("G5", "MLPs: pre-norm P = q_L/q₀, peri-norm 1 + L/q₀; gradients 1/(q₀ + ls)", "mean field", normalized_mlps),
    Law("G6", "Post-norm, uniform attention: P → 1/(nρ₀), no exponential", "mean field",
        uniform("post", 4, 0.5, 0.457831325301, 0.951807228916)),
    Law("G7", "Pre-norm, uniform attention: tokens collapse as 1/L", "mean field",
        uniform("pre", 8, 0.0, 2.182345934432, 0.541777504555)),
    Law("G8", "Whole blocks: a recursion in q, k, P and R", "Cowsik et al. 2024", blocks),
    Law("G9", "Fixed attention: E‖J_ij‖²/d = Σ C(L,k) σ_a^k (A^k)_ij²", "Gaussian values", causal),
    Law("G10", "Softmax attention: P = σ_a E[S₂ + 2τ²(S₂ − 2S₃ + S₂²)]", "mean field", softmax_alone),
    Law("G11", "QK-norm and peri-norm take gains out of J", "scale invariance", gauges),
    Law("G12", "Gated MLP: (1 − 1/n)(V + rD) + E(φ + gφ')²/n", "Gaussian weights", gated),
    Law("G13", "At W_Q = 0: E‖∂Y/∂W_Q‖² = ‖X‖²‖X̃ᵀX̃‖² d_v/(nd)²", "Noci et al. 2022", query_gradient),
    Law("G14", "DeepNorm: J → I, tokens stay apart", "Wang et al. 2022", deepnorm),
    Law("G15", "μx + σ_w φ(Nx)W: χ = μ² + (1 − μ²) σ_w²D/(σ_w²V + σ_b²)", "Doshi et al. 2023", weighted_skip),
)  # fmt: skip
