"""The mean field of feed-forward networks against published values, plain iteration and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from unrolled import own_checks

from gradsim import activations, theory
from gradsim.activations import ACTIVATIONS
from gradsim.theory import edge, quadrature

# Activations with an edge of chaos at every bias, and what is known of the others.
BOUNDED_OR_BENT = (
    "sigmoid tanh hard_tanh elu selu celu softsign erf sin hard_sigmoid relu6".split()  # noqa: SIM905
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", BOUNDED_OR_BENT)
def test_edge_of_chaos_exists_and_is_one(name: str) -> None:
    sigma_b = np.array([1e-3, 0.1, 0.5, 1.0, 3.0])
    sigma_w = theory.edge_of_chaos(name, sigma_b)
    assert np.all(np.isfinite(sigma_w))
    assert np.all(np.diff(sigma_w) > 0)
    np.testing.assert_allclose(theory.feedforward(name, sigma_w, sigma_b).chi, 1, rtol=1e-9)
    below, above = theory.transient(name, np.array([[0.999], [1.001]]) * sigma_w, sigma_b, 2000).chi[..., -1]
    assert np.all(below < 1)
    assert np.all(above > 1)
    assert np.all(theory.explain_edge(name, sigma_b) == edge.EXISTS)


@pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu"])
def test_homogeneous_edge_is_a_point(name: str) -> None:
    slope = {"identity": 1.0, "relu": 0.5, "leaky_relu": (1 + 0.01**2) / 2}[name]
    found = theory.edge_of_chaos(name, [0.0, 0.1])
    np.testing.assert_allclose(found, [1 / np.sqrt(slope), np.nan], rtol=1e-7)  # 0.01 is a float32 in JAX
    assert theory.explain_edge(name, 0.1) == edge.NO_LENGTH


@pytest.mark.parametrize(
    ("name", "weight", "bias"), [("gelu", 1.98305826, 0.17292239), ("silu", 1.98800468, 0.55514317)]
)
def test_half_stable_point_of_gelu_and_silu(name: str, weight: float, bias: float) -> None:
    # Roberts, Yaida & Hanin 2022, section 5.3.4: the one point where χ_∥ = χ_⊥ = 1; the edge ends there.
    phi = activations.get(name)
    with jax.enable_x64(True):
        of = (quadrature.mean_square, quadrature.slope_moment, quadrature.mean_square_derivative)
        moments = jax.jit(lambda q: jnp.stack([one(phi, q) for one in of]))
        q = optimize.brentq(lambda q: float(np.asarray(moments(q)) @ [0, -1, 1]), 2.0, 40.0, xtol=1e-13)
        v, d, _ = np.asarray(moments(q))
    np.testing.assert_allclose([1 / d, q - v / d], [weight, bias], rtol=0, atol=6e-9)
    inside, outside = theory.edge_of_chaos(name, np.sqrt(bias) * np.array([1.01, 0.99]))
    assert inside**2 < weight
    assert np.isnan(outside)
    assert theory.explain_edge(name, np.sqrt(bias) * 0.99) == edge.UNSTABLE


def test_softplus_has_no_edge() -> None:
    assert np.all(theory.explain_edge("softplus", [0.0, 0.5, 2.0]) == edge.NO_LENGTH)
    assert np.all(np.isnan(theory.edge_of_chaos("softplus", [0.0, 0.5, 2.0])))


def iterated_length(name: str, sigma_w: float, sigma_b: float) -> float:
    """q* by 400 steps of the length map from q = 50, with the integral instead of the table."""
    phi = activations.get(name)

    def step(q: jax.Array, _: None) -> tuple[jax.Array, None]:
        return sigma_w**2 * quadrature.mean_square(phi, q) + sigma_b**2, None

    with jax.enable_x64(True):
        return float(jax.jit(lambda q: jax.lax.scan(step, q, None, length=400)[0])(jnp.asarray(50.0)))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"sin"}))
def test_length_equals_plain_iteration(name: str) -> None:
    sigma_w, sigma_b = {"identity": 0.8, "sigmoid": 3.0}.get(name, 1.1), 0.4
    point = theory.feedforward(name, sigma_w, sigma_b)
    np.testing.assert_allclose(point.q, iterated_length(name, sigma_w, sigma_b), rtol=1e-11)
    np.testing.assert_allclose(theory.length_map(name, point.q, sigma_w, sigma_b), point.q, rtol=1e-12)
    path = theory.transient(name, sigma_w, sigma_b, 400, q0=3.0)
    np.testing.assert_allclose(path.q[-1], point.q, rtol=1e-9)
    np.testing.assert_allclose(path.chi[-1], point.chi, rtol=1e-9)
    eps = 1e-5  # ξ_q is how fast the length forgets
    slope = np.diff(theory.length_map(name, point.q * np.array([1 - eps, 1 + eps]), sigma_w, sigma_b))[0]
    np.testing.assert_allclose(-1 / np.log(slope / (2 * eps * point.q)), point.xi_q, rtol=1e-6)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "sigma_w"), [("hard_tanh", 2.0), ("selu", 1.15), ("relu6", 2.5), ("softsign", 5.0)])
def test_chaotic_correlation_of_bent_activations(name: str, sigma_w: float) -> None:
    point = theory.feedforward(name, sigma_w, 0.3)
    assert point.chi > 1
    assert 0 < point.c < 1
    np.testing.assert_allclose(theory.correlation_map(name, point.c, point.q, sigma_w, 0.3), point.c, rtol=1e-9)
    eps = 1e-4
    ends = theory.correlation_map(name, point.c + np.array([-eps, eps]), point.q, sigma_w, 0.3)
    np.testing.assert_allclose(-1 / np.log(np.diff(ends)[0] / (2 * eps)), point.xi_c, rtol=1e-5)


def test_many_networks_equal_one_by_one() -> None:
    # Many lengths go through a table in q, one does not.
    sigma_w, sigma_b = np.linspace(1.5, 3.0, 20)[:, None], np.linspace(0.05, 0.5, 20)
    grid = theory.feedforward("tanh", sigma_w, sigma_b)
    for i, j in ((0, 0), (7, 3), (19, 19)):
        single = theory.feedforward("tanh", sigma_w[i, 0], sigma_b[j])
        np.testing.assert_allclose([f[i, j] for f in grid], [f[()] for f in single], rtol=1e-9)


def test_odd_activation_without_bias() -> None:
    point = theory.feedforward("tanh", [0.5, 1.0, 1.0001, 2.0], 0.0)
    np.testing.assert_allclose(point.q[:2], 0)
    np.testing.assert_allclose(point.c, [1, 1, 0, 0])
    np.testing.assert_allclose(point.chi[:2], [0.25, 1])
    assert np.isinf(point.xi_c[1])
    # to second order in q: σ_w² = 1 + 2q, 1/ξ_c = 2q²/3, by expanding tanh
    np.testing.assert_allclose(point.q[2], 1.00005e-4, rtol=2e-4)
    np.testing.assert_allclose(point.xi_c[2], 1.5 / point.q[2] ** 2, rtol=1e-3)


def test_no_fixed_point_is_nan() -> None:
    point = theory.feedforward("relu", [1.0, np.sqrt(2), np.sqrt(2), 1.6], [0.3, 0.3, 0.0, 0.0])
    for name, field in point._asdict().items():
        np.testing.assert_array_equal(np.isnan(field), [False, True, False, True], err_msg=name)
    assert (point.q[2], point.c[2], point.chi[2]) == (1.0, 1.0, pytest.approx(1, abs=1e-12))
    assert np.isinf(point.xi_q[2])
    assert np.isinf(point.xi_c[2])
    assert np.isnan(theory.feedforward("gelu", 1.6, 0.0).q)


def test_zero_gains() -> None:
    point = theory.feedforward("tanh", 0.0, [0.0, 0.5])
    np.testing.assert_array_equal(point.q, [0, 0.25])
    np.testing.assert_array_equal(point.chi, 0)
    np.testing.assert_array_equal(point.xi_c, 0)
    assert np.all(theory.log_gain("tanh", 0.0, 0.0, 3).mean == -np.inf)


def test_transient_by_hand() -> None:
    sigma_w, sigma_b, q = 1.7, 0.2, 0.6
    path = theory.transient("erf", sigma_w, sigma_b, 6, q0=q)
    expected_q, expected_chi = [], []
    q = sigma_w**2 * q + sigma_b**2
    for _ in range(6):
        expected_q.append(q)
        expected_chi.append(sigma_w**2 * 4 / np.pi / np.sqrt(1 + 4 * q))
        q = sigma_w**2 * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + sigma_b**2
    np.testing.assert_allclose(path.q, expected_q, rtol=1e-12)
    np.testing.assert_allclose(path.chi, expected_chi, rtol=1e-12)
    gain = theory.log_gain("erf", sigma_w, sigma_b, 6, q0=0.6)
    np.testing.assert_allclose(gain.mean, np.cumsum(np.log(expected_chi)) / 2, rtol=1e-12)
    np.testing.assert_array_equal(gain.variance, 0)


def test_transient_of_a_diverging_length() -> None:
    path = theory.transient("relu", 100.0, 1.0, 1000)
    assert np.isinf(path.q[-1])
    np.testing.assert_allclose(path.chi, 5000, rtol=1e-8)


@settings(max_examples=10, deadline=None)
@given(sigma_w=st.floats(0.01, 30), sigma_b=st.just(0.0) | st.floats(1e-150, 5), scale=st.floats(0.1, 10))
def test_algebra_of_fixed_points(sigma_w: float, sigma_b: float, scale: float) -> None:
    tanh = theory.feedforward("tanh", sigma_w, sigma_b)
    assert sigma_b**2 * (1 - 1e-12) <= tanh.q <= (sigma_w**2 + sigma_b**2) * (1 + 1e-12)
    assert (tanh.c < 1) == (tanh.chi > 1 + 1e-12)
    # the length of a homogeneous network is proportional to the bias' variance
    one, other = theory.feedforward("relu", min(sigma_w, 1.4), np.array([1.0, scale]) * sigma_b).q
    np.testing.assert_allclose(other, scale**2 * one, rtol=1e-12)


@pytest.mark.parametrize("enabled", [False, True])
def test_float64_whatever_the_mode(enabled: bool) -> None:
    with jax.enable_x64(enabled):
        point = theory.feedforward("tanh", np.float32(2.0), 0.3)
    assert {field.dtype for field in point} == {np.dtype("float64")}
    np.testing.assert_allclose(point.q, iterated_length("tanh", 2.0, 0.3), rtol=1e-11)


def test_any_callable() -> None:
    def bent(x: jax.Array) -> jax.Array:
        return jnp.maximum(x, 0.2 * x)

    point = theory.feedforward(bent, 1.1, 0.3)
    np.testing.assert_allclose([point.q, point.chi], [0.09 / (1 - 1.21 * 0.52), 1.21 * 0.52], rtol=1e-12)


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("feedforward", {"activation": "tahn"}, ValueError, "tanh"),
    ("feedforward", {"activation": 3}, TypeError, "activation"),
    ("feedforward", {"sigma_w": -1.0}, ValueError, "sigma_w"),
    ("feedforward", {"sigma_w": np.nan}, ValueError, "sigma_w"),
    ("feedforward", {"sigma_w": "two"}, TypeError, "sigma_w"),
    ("feedforward", {"sigma_w": None}, TypeError, "sigma_w"),
    ("feedforward", {"sigma_w": 1j}, TypeError, "sigma_w"),
    ("feedforward", {"sigma_w": True}, TypeError, "sigma_w"),
    ("feedforward", {"sigma_w": [[1.0], [1.0, 2.0]]}, TypeError, "sigma_w"),
    ("feedforward", {"sigma_b": [0.1, np.inf]}, ValueError, "sigma_b"),
    ("feedforward", {"sigma_w": [1.0, 2.0], "sigma_b": [1.0, 2.0, 3.0]}, ValueError, "broadcast"),
    ("edge_of_chaos", {"sigma_w": None, "sigma_b": -0.1}, ValueError, "sigma_b"),
    ("edge_of_chaos", {"sigma_w": None, "activation": "nope"}, ValueError, "nope"),
    ("length_map", {"q": -1.0}, ValueError, "q"),
    ("correlation_map", {"q": 1.0, "c": 1.5}, ValueError, "c: got 1.5"),
    ("decorrelation_map", {"q": 1.0, "epsilon": 2.5}, ValueError, "epsilon"),
    ("transient", {"depth": 0}, ValueError, "depth"),
    ("transient", {"depth": 2.5}, ValueError, "depth"),
    ("transient", {"depth": 2, "q0": -1.0}, ValueError, "q0"),
    ("log_gain", {"depth": 2, "width": 0}, ValueError, "width"),
    ("log_gain", {"depth": 2, "width": 8, "orthogonal": "yes"}, TypeError, "orthogonal"),
    ("spectrum_variance", {"depth": "deep"}, TypeError, "depth"),
]


@pytest.mark.parametrize(("function", "arguments", "error", "words"), WRONG)
def test_bad_input_is_named(function: str, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    call = {"activation": "tanh", "sigma_w": 1.0, "sigma_b": 0.1} | arguments
    if function in ("edge_of_chaos", "explain_edge"):
        del call["sigma_w"]
    with own_checks(), pytest.raises(error, match=words):
        getattr(theory, function)(**call)


def test_a_dead_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation"):
        theory.feedforward(jnp.zeros_like, 1.0, 0.1)
