"""Two inputs through one infinitely wide network: how alike their states and their gradients are, layer by layer.

E tr J(x)ᵀJ(x')/n = ∂k_L/∂k_0 where k = ⟨x, x'⟩/n goes from layer to layer by its map, the lengths held. So each layer
multiplies it by the map's slope: where a squared gradient meets E φ'², two gradients meet E φ'(u₁)φ'(u₂).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from gradsim import activations, arguments
from gradsim.activations import Activation
from gradsim.theory import correlation, quadrature
from gradsim.theory.given import ActivationLike, Number, layers
from gradsim.theory.moments import Moments, moments
from gradsim.theory.residual import mean_ratio

FORMS = ("plain", "layernorm", "two_layer", "pre_activation", "post_activation", "pre_norm")
SKIPS = FORMS[2:]


class TwoInputs(NamedTuple):
    """What two inputs pass through; the last axis is the layer, 1 to depth."""

    length: Float[np.ndarray, "*shape depth"]
    """E x², of both states."""
    correlation: Float[np.ndarray, "*shape depth"]
    """c, the cosine of the two states."""
    decorrelation: Float[np.ndarray, "*shape depth"]
    """1 − c, with all its digits."""
    gradient_correlation: Float[np.ndarray, "*shape depth"]
    """E tr J(x)ᵀJ(x') / E‖J‖², J = ∂x_l/∂x_0."""
    log_gain: Float[np.ndarray, "*shape depth"]
    """½ ln E‖J‖²/n, in nats."""


class _Layer(NamedTuple):
    """How one layer of a form takes lengths q = E x² and distances q − k to those of the next.

    u, of variance `seen` and distance `apart` between the inputs, enters φ; V and V − E φφ' come back `times` that,
    `kept` of the state stays, and `bias` comes to both. A gradient takes `kept` and `slope` E φ'φ'.
    """

    seen: np.ndarray
    apart: np.ndarray
    kept: float
    times: np.ndarray
    bias: np.ndarray
    slope: np.ndarray


def gradient_correlation(
    activation: ActivationLike,
    sigma_w: Number,
    sigma_b: Number,
    depth: int,
    c0: Number = 0.0,
    q0: Number = 1.0,
    form: str = "plain",
    branch_gain: Number = 1.0,
    sigma_v: Number = 1.0,
) -> TwoInputs:
    """How alike the states and gradients of two inputs are after each layer, of lengths E x² = q0 and cosine c0.

        form            layer                            network
        plain           φ(z)                             feedforward
        two_layer       x + a σ_v φ(z) V                 residual(form="two_layer")
        pre_activation  x + a (σ_w φ(x) W + σ_b b)       residual(form="pre_activation")
        post_activation x + a φ(z)                       residual(form="post_activation")
        layernorm       φ(N(z))                          layernorm(form="plain")
        pre_norm        x + a (σ_w φ(N(x)) W + σ_b b)    layernorm(form="pre")

    with z = σ_w x W + σ_b b. `branch_gain` is a, times 1/√L or 1/L where the network scales its branches. Weights
    differ from layer to layer. At large depth a He ReLU network, with skips or without, has a gradient correlation
    g ~ L^−3, a smooth one on its edge g ~ L^−2; in chaos g falls by e^(−1/ξ_c) / χ a layer. With a = 1/√L it has a
    limit.

    Returns: TwoInputs(length, correlation, decorrelation, gradient_correlation, log_gain), float64 [*shape, depth] for
        the arguments broadcast to `shape`; NaN where a state has length 0, or is too long for an oscillating φ.
    Raises: TypeError or ValueError naming the argument; −1 ≤ c0 ≤ 1.
    Source: Poole et al. 2016 and Schoenholz et al. 2017 for the states, Jacot et al. 2018 for the slopes.

    >>> print(f"{gradient_correlation('relu', np.sqrt(2), 0.0, 10).gradient_correlation[-1]:.6f}")
    0.033652
    """
    phi, form = activations.get(activation), arguments.choice("form", form, FORMS)
    depth, (w, b, c, q, a, v), shape = layers(
        depth, {"c0": (-1.0, 1.0)}, sigma_w=sigma_w, sigma_b=sigma_b, c0=c0, q0=q0, branch_gain=branch_gain,
        sigma_v=sigma_v,
    )  # fmt: skip
    for name, values, forms in (("branch_gain", a, SKIPS), ("sigma_v", v, SKIPS[:1])):
        if form not in forms and np.any(values != 1):
            raise ValueError(f"{name}: got {values[values != 1][0]:g} with form={form!r}, which has none; leave it out")
    table, apart = moments(phi), q * (1 - c)
    sign, log_overlap, log_square = np.ones(w.size), np.zeros(w.size), np.zeros(w.size)
    mean = np.zeros(w.size)  # m = E x, which adds 2 a m E φ to both q and k
    shifts = form == "post_activation" and not table.odd
    found = np.empty((5, depth, w.size))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for layer in range(depth):
            one = _layer(form, w, b, a, v, q, apart)
            square, gap, slope, slope_gap = _moments_of_two(phi, table, one.seen, one.apart)
            overlap = one.kept + one.slope * (slope - slope_gap)
            sign, log_overlap = sign * np.sign(overlap), log_overlap + np.log(np.abs(overlap))
            log_square = log_square + np.log(one.kept + one.slope * slope)
            q, apart = one.kept * q + one.times * square + one.bias, one.kept * apart + one.times * gap
            if shifts:
                shift = a * mean_ratio(phi, np.log(one.seen)) * np.sqrt(square)
                q, mean = q + 2 * mean * shift, mean + shift
            distance = apart / q
            found[:, layer] = q, 1 - distance, distance, sign * np.exp(log_overlap - log_square), log_square / 2
    return TwoInputs(*(np.moveaxis(field, 0, -1).reshape(*shape, depth) for field in found))


def _layer(
    form: str, w: np.ndarray, b: np.ndarray, a: np.ndarray, v: np.ndarray, q: np.ndarray, apart: np.ndarray
) -> _Layer:
    """The layer of this form, for states of length q and distance `apart`."""
    one, none = np.ones_like(q), np.zeros_like(q)
    weight, bias = w**2, b**2
    z = weight * q + bias
    if form == "plain":
        return _Layer(z, weight * apart, 0.0, one, none, weight)
    if form == "layernorm":
        return _Layer(one, weight * apart / z, 0.0, one, none, weight / z)
    if form in ("two_layer", "post_activation"):
        branch = (a * v) ** 2
        return _Layer(z, weight * apart, 1.0, branch, none, branch * weight)
    branch = a**2
    if form == "pre_activation":
        return _Layer(q, apart, 1.0, branch * weight, branch * bias, branch * weight)
    return _Layer(one, apart / q, 1.0, branch * weight, branch * bias, branch * weight / q)


def _moments_of_two(phi: Activation, table: Moments, q: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, ...]:
    """V, V − E φφ', D and D − E φ'φ' of Gaussians of variance q, q − k apart."""
    log_q = np.maximum(np.log(q), -1e3)
    epsilon = np.clip(apart / q, 0.0, 2.0)
    gap, slope_gap = correlation.gaps(phi, q, epsilon), correlation.chunked(_slope_gaps(phi), q, epsilon)
    return np.exp(table.log_v(log_q)), gap, np.exp(table.log_d(log_q)), slope_gap


@lru_cache(maxsize=64)
def _slope_gaps(activation: Activation) -> Callable[[np.ndarray, np.ndarray], Array]:
    """D(q) − E φ'(u₁)φ'(u₂) = ½ E (φ'(u₁) − φ'(u₂))²; by Mehler's series where φ oscillates."""

    def square(u: Array, v: Array) -> Array:
        return (activation.derivative(u) - activation.derivative(v)) ** 2 / 2

    def row(pair: tuple[Array, Array]) -> Array:
        q, epsilon = pair
        if quadrature.oscillates(activation):
            squares = quadrature.hermite_coefficients(activation, q) ** 2
            order = jnp.arange(1, squares.shape[0], dtype=squares.dtype)
            return quadrature.decorrelation_series(order * squares[1:] / q, epsilon)
        return quadrature.pair_expectation(square, q, epsilon, activation)

    return jax.jit(lambda q, epsilon: jax.lax.map(row, (q, epsilon)))
