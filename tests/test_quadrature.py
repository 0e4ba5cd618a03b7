"""Gaussian expectations against closed forms and against mpmath, an independent integrator."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mpmath as mp  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gradsim import activations
from gradsim.activations import Activation
from gradsim.theory import quadrature

VARIANCES = 10.0 ** np.arange(-8, 7)
AT_ONCE = 5  # variances of a call, whatever their number: one program an activation
REFERENCE_VARIANCES = (1e-8, 0.3, 17.0, 1e6)


@functools.cache
def moments(name: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """V, D, μ₂, V' of a built-in activation over an array of variances."""
    phi = activations.get(name)

    def at(q: jax.Array) -> dict[str, jax.Array]:
        return {
            "V": quadrature.mean_square(phi, q),
            "D": quadrature.slope_moment(phi, q),
            "mu2": quadrature.slope_moment(phi, q, 2),
            "V'": quadrature.mean_square_derivative(phi, q),
        }

    compiled = jax.jit(lambda q: jax.lax.map(at, q))

    def evaluate(q: np.ndarray) -> dict[str, np.ndarray]:
        calls = np.resize(q, (-(-q.size // AT_ONCE), AT_ONCE))
        with jax.enable_x64(True):
            found = [compiled(jnp.asarray(some, jnp.float64)) for some in calls]
        return {key: np.concatenate([one[key] for one in found])[: q.size] for key in found[0]}

    return evaluate


CLOSED_FORMS: dict[str, tuple[Callable, Callable]] = {
    "identity": (lambda q: q, np.ones_like),
    "relu": (lambda q: q / 2, lambda q: 0.5 + 0 * q),
    "leaky_relu": (lambda q: q * (1 + 0.01**2) / 2, lambda q: (1 + 0.01**2) / 2 + 0 * q),
    "erf": (lambda q: 2 / np.pi * np.arctan2(2 * q, np.sqrt(1 + 4 * q)), lambda q: 4 / np.pi / np.sqrt(1 + 4 * q)),
    "sin": (lambda q: -np.expm1(-2 * q) / 2, lambda q: (1 + np.exp(-2 * q)) / 2),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_law_B4_closed_forms(name: str) -> None:
    v, d = CLOSED_FORMS[name]
    found = moments(name)(VARIANCES)
    np.testing.assert_allclose(found["V"], v(VARIANCES), rtol=1e-12)
    np.testing.assert_allclose(found["D"], d(VARIANCES), rtol=1e-12)


def test_law_B4_hard_tanh() -> None:
    q = np.array([1e-8, 1e-3, 0.1, 1.0, 7.0, 100.0])  # the closed form of V cancels at larger q
    found = moments("hard_tanh")(q)
    p = special.erf(1 / np.sqrt(2 * q))
    np.testing.assert_allclose(found["D"], p, rtol=1e-12)
    np.testing.assert_allclose(
        found["V"], q * p - np.sqrt(2 * q / np.pi) * np.exp(-1 / (2 * q)) + special.erfc(1 / np.sqrt(2 * q)), rtol=1e-12
    )


def test_law_B4_selu_has_zero_mean_and_unit_square() -> None:
    phi = activations.get("selu")
    with jax.enable_x64(True):
        mean = quadrature.expectation(phi, 1.0, quadrature.panels(phi))
    found = moments("selu")(np.ones(1))
    # JAX states the constants of SELU to 1e-17, so the law holds to rounding.
    np.testing.assert_allclose(mean, 0, atol=1e-10)
    np.testing.assert_allclose(found["V"], 1, rtol=1e-10)
    np.testing.assert_allclose(found["D"], 1.071574992456, rtol=1e-10)


def test_law_B4_sigmoid_slope_without_bias() -> None:
    # q* at σ_w² = 1 by plain iteration of the length map
    q = 0.3
    for _ in range(60):
        q = float(moments("sigmoid")(np.array([q]))["V"][0])
    np.testing.assert_allclose(moments("sigmoid")(np.array([q]))["D"], 0.0557207068, rtol=1e-8)


def _softplus(x: mp.mpf) -> mp.mpf:
    return mp.log1p(mp.exp(x)) if x < 40 else x + mp.exp(-x)


def _logistic(x: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-x))


def _mish_slope(x: mp.mpf) -> mp.mpf:
    t = mp.tanh(_softplus(x))
    return t + x * (1 - t) * (1 + t) * _logistic(x)


_SELU_SCALE, _SELU_ALPHA = mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")

# φ and φ' as one would write them in a textbook
TEXTBOOK: dict[str, tuple[Callable, Callable]] = {
    "sigmoid": (_logistic, lambda x: _logistic(x) * _logistic(-x)),
    "tanh": (mp.tanh, lambda x: mp.sech(x) ** 2),
    "hard_tanh": (lambda x: max(-1, min(1, x)), lambda x: 1 if abs(x) < 1 else 0),
    "elu": (lambda x: x if x > 0 else mp.expm1(x), lambda x: 1 if x > 0 else mp.exp(x)),
    "celu": (lambda x: x if x > 0 else mp.expm1(x), lambda x: 1 if x > 0 else mp.exp(x)),
    "selu": (
        lambda x: _SELU_SCALE * (x if x > 0 else _SELU_ALPHA * mp.expm1(x)),
        lambda x: _SELU_SCALE * (1 if x > 0 else _SELU_ALPHA * mp.exp(x)),
    ),
    "gelu": (lambda x: x * mp.ncdf(x), lambda x: mp.ncdf(x) + x * mp.npdf(x)),
    "silu": (lambda x: x * _logistic(x), lambda x: _logistic(x) * (1 + x * _logistic(-x))),
    "mish": (lambda x: x * mp.tanh(_softplus(x)), _mish_slope),
    "softplus": (_softplus, _logistic),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "hard_sigmoid": (lambda x: max(0, min(6, x + 3)) / mp.mpf(6), lambda x: mp.mpf(1) / 6 if abs(x) < 3 else 0),
    "hard_swish": (
        lambda x: x * max(0, min(6, x + 3)) / mp.mpf(6),
        lambda x: 0 if x < -3 else (1 if x > 3 else (2 * x + 3) / mp.mpf(6)),
    ),
    "relu6": (lambda x: max(0, min(6, x)), lambda x: 1 if 0 < x < 6 else 0),
}


def by_mpmath(function: Callable, kinks: tuple[float, ...], q: float) -> float:
    """E f(√q ζ) by tanh-sinh quadrature split at the kinks and at both scales."""
    scale = mp.sqrt(q)
    reach = 11 * scale
    inner = [0, *kinks, *(sign * x for x in (1, 4, 16, 64, 256) for sign in (-1, 1)), *(scale * t for t in (-3, 3))]
    points = sorted({mp.mpf(x) for x in inner if abs(x) < reach} | {-reach, reach})
    return float(mp.quad(lambda x: function(x) * mp.npdf(x / scale) / scale, points))


def test_every_builtin_activation_has_a_reference() -> None:
    assert set(TEXTBOOK) | set(CLOSED_FORMS) == set(activations.ACTIVATIONS)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", TEXTBOOK)
def test_moments_equal_mpmath(name: str) -> None:
    phi, slope = TEXTBOOK[name]
    kinks = activations.get(name).kinks
    found = moments(name)(np.array(REFERENCE_VARIANCES))
    with mp.workdps(20):
        for index, q in enumerate(REFERENCE_VARIANCES):
            v, d = (by_mpmath(function, kinks, q) for function in (lambda x: phi(x) ** 2, lambda x: slope(x) ** 2))
            np.testing.assert_allclose(found["V"][index], v, rtol=1e-10, err_msg=f"V at q={q}")
            np.testing.assert_allclose(found["D"][index], d, rtol=1e-10, err_msg=f"D at q={q}")
        mu2 = by_mpmath(lambda x: slope(x) ** 4, kinks, REFERENCE_VARIANCES[1])
        np.testing.assert_allclose(found["mu2"][1], mu2, rtol=1e-10)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "selu", "gelu", "sigmoid", "softsign"])
def test_derivative_in_q_by_stein_equals_autodiff(name: str) -> None:
    phi = activations.get(name)
    q = np.array([1e-6, 0.04, 1.0, 30.0, 1e5])
    with jax.enable_x64(True):
        gradient = jax.jit(jax.vmap(jax.grad(lambda q: quadrature.mean_square(phi, q))))(jnp.asarray(q))
    np.testing.assert_allclose(gradient, moments(name)(q)["V'"], rtol=1e-9)


def test_derivative_of_a_discontinuous_slope() -> None:
    # d/dq erf(1/√(2q)), although φ'² of the hard-tanh jumps; q = 1 puts a kink on a round number
    phi = activations.get("hard_tanh")
    q = np.array([0.1, 1.0, 4.0, 1e3])
    with jax.enable_x64(True):
        gradient = jax.jit(jax.vmap(jax.grad(lambda q: quadrature.slope_moment(phi, q))))(jnp.asarray(q))
    np.testing.assert_allclose(gradient, -np.exp(-1 / (2 * q)) * q**-1.5 / np.sqrt(2 * np.pi), rtol=1e-9)


def test_a_scale_nobody_declared_is_found() -> None:
    # tanh(40 x) changes within 1/40 and |x − 0.3| has an undeclared kink: both against closed forms
    steep = Activation("steep", lambda x: jax.lax.erf(40 * x))
    bent = Activation("bent", lambda x: jnp.abs(x - 0.3))
    with jax.enable_x64(True):
        slope = jax.jit(lambda q: quadrature.slope_moment(steep, q))(1e4)
        square = jax.jit(lambda q: quadrature.mean_square(bent, q))(2.0)
        mean = jax.jit(lambda q: quadrature.expectation(bent, q, quadrature.panels(bent)))(2.0)
    np.testing.assert_allclose(slope, 1600 * 4 / np.pi / np.sqrt(1 + 4 * 1600 * 1e4), rtol=1e-12)
    np.testing.assert_allclose(square, 2.09, rtol=1e-12)
    folded = np.sqrt(4 / np.pi) * np.exp(-0.09 / 4) + 0.3 * special.erf(0.3 / 2)
    np.testing.assert_allclose(mean, folded, rtol=1e-10)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, None, 0))
def every_gap(phi: Activation, q: jax.Array, epsilon: jax.Array) -> jax.Array:
    return quadrature.decorrelation(phi, q, epsilon)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, None, 0))
def every_slope(phi: Activation, q: jax.Array, epsilon: jax.Array) -> jax.Array:
    return quadrature.pair_expectation(lambda u, v: phi.derivative(u) * phi.derivative(v), q, epsilon, phi)


def gaps(phi: Activation, q: float, epsilon: np.ndarray) -> np.ndarray:
    """V(q) − E φ(u₁)φ(u₂) at each correlation 1 − ε."""
    with jax.enable_x64(True):
        return np.asarray(every_gap(phi, np.float64(q), epsilon))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("q", [1e-4, 1.0, 40.0, 1e6])
def test_pairs_equal_closed_forms(q: float) -> None:
    epsilon = np.array([1e-4, 0.03, 0.5, 1.0, 1.7, 2.0])
    theta = np.arccos(1 - epsilon)
    with mp.workdps(30):
        angle = [mp.acos(1 - mp.mpf(e)) for e in epsilon]
        relu = [float(q / 2 - q / (2 * mp.pi) * (mp.sin(t) + (mp.pi - t) * mp.cos(t))) for t in angle]
        ratio = 2 * mp.mpf(q) / (1 + 2 * mp.mpf(q))
        erf = [float(2 / mp.pi * (mp.asin(ratio) - mp.asin(ratio * mp.cos(t)))) for t in angle]
    with jax.enable_x64(True):
        for name, expected in (("relu", relu), ("erf", erf)):
            phi = activations.get(name)
            np.testing.assert_allclose(gaps(phi, q, epsilon), expected, rtol=1e-11, err_msg=name)
        slopes = every_slope(activations.get("relu"), np.float64(q), epsilon)
    np.testing.assert_allclose(slopes, (np.pi - theta) / (2 * np.pi), atol=1e-12)


def test_pairs_of_a_sine() -> None:
    q, epsilon = 3.0, np.array([1e-9, 0.2, 1.0, 1.5])
    gap = gaps(activations.get("sin"), q, epsilon)
    expected = np.exp(-q) * 2 * np.cosh(q * (2 - epsilon) / 2) * np.sinh(q * epsilon / 2)
    np.testing.assert_allclose(gap, expected, rtol=1e-12)


def test_hermite_series_equals_the_integral() -> None:
    phi = activations.get("tanh")
    with jax.enable_x64(True):
        squares = jax.jit(lambda q: quadrature.hermite_coefficients(phi, q) ** 2)(2.0)
        np.testing.assert_allclose(jnp.sum(squares), moments("tanh")(np.array([2.0]))["V"][0], rtol=1e-13)
        epsilon = np.array([1e-8, 0.1, 0.9])
        series = jax.jit(jax.vmap(functools.partial(quadrature.decorrelation_series, squares)))(jnp.asarray(epsilon))
    np.testing.assert_allclose(series, gaps(phi, 2.0, epsilon), rtol=1e-10)


def test_float32_stays_float32() -> None:
    phi = activations.get("tanh")
    value = jax.jit(lambda q: quadrature.mean_square(phi, q))(jnp.float32(1.0))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, moments("tanh")(np.ones(1))["V"][0], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(q=st.floats(1e-6, 1e5), factor=st.floats(1e-2, 1e2))
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "identity"])
def test_homogeneous_activations_scale(name: str, q: float, factor: float) -> None:
    found = moments(name)(np.array([q, factor * q]))
    np.testing.assert_allclose(found["V"][1], factor * found["V"][0], rtol=1e-12)
    np.testing.assert_allclose(found["D"][1], found["D"][0], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(q=st.floats(1e-6, 1e5))
@pytest.mark.parametrize("name", ["tanh", "gelu", "relu6", "mish"])
def test_moments_obey_jensen(name: str, q: float) -> None:
    found = moments(name)(np.array([q]))
    assert found["mu2"][0] >= found["D"][0] ** 2 * (1 - 1e-12)
