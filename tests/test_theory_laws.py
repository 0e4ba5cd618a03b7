"""The laws B and C of the mean field of feed-forward networks, as published."""

import numpy as np
import pytest

from gradsim import theory

# LAWS.md B1: tanh, σ_b² -> σ_w², q*
TANH_EDGE = [
    (0.05**2, 1.260093817229, 0.153691935821),
    (0.1**2, 1.424205290489, 0.273300913458),
    (0.3**2, 1.947654631709, 0.763474766910),
    (0.5**2, 2.401489235108, 1.317938998972),
    (0.05, 1.760954639607, 0.570047881641),
]


def test_law_B1_edge_of_chaos_of_tanh() -> None:
    bias, weight, length = np.array(TANH_EDGE).T
    sigma_w = theory.edge_of_chaos("tanh", np.sqrt(bias))
    np.testing.assert_allclose(sigma_w**2, weight, rtol=1e-9)
    point = theory.feedforward("tanh", sigma_w, np.sqrt(bias))
    np.testing.assert_allclose(point.q, length, rtol=1e-9)
    np.testing.assert_allclose(point.chi, 1, rtol=1e-12)


def test_law_B2_edge_of_chaos_of_erf() -> None:
    found = theory.edge_of_chaos("erf", [0, np.sqrt(0.05)]) ** 2
    np.testing.assert_allclose(found, [np.pi / 4, 1.375839007347], rtol=1e-9)


def test_law_B3_tanh_fixed_points_and_depth_scales() -> None:
    weight = np.array([1.0, 1.5, 2.0, 4.0])
    point = theory.feedforward("tanh", np.sqrt(weight), np.sqrt(0.05))
    # half a unit of the last digit that LAWS.md states: 1e-10 for χ, 1e-6 for the depth scales
    np.testing.assert_allclose(point.chi, [0.7590316472, 0.9386362682, 1.0476659996, 1.3424024144], rtol=0, atol=5e-11)
    np.testing.assert_allclose(point.xi_q, [1.747626, 1.682828, 1.387976, 0.873293], rtol=0, atol=5.1e-7)
    np.testing.assert_allclose(point.xi_c, [3.626976, 15.790994, 25.213415, 6.980274], rtol=0, atol=5.1e-7)
    np.testing.assert_array_equal(point.c[:2], 1)


def test_law_B3_correlation_by_plain_iteration() -> None:
    # In the chaotic phase: iterate the map of ε = 1 − c, with the integral instead of the table.
    sigma_w, sigma_b = np.sqrt(4.0), np.sqrt(0.05)
    point = theory.feedforward("tanh", sigma_w, sigma_b)
    epsilon = [0.5]
    for _ in range(80):
        epsilon.append(float(theory.decorrelation_map("tanh", epsilon[-1], point.q, sigma_w, sigma_b)))
    limit = float(1 - point.c)
    np.testing.assert_allclose(epsilon[-1], limit, rtol=1e-5)
    # late steps measure ξ_c, once the square of the distance no longer counts
    rate = np.log(abs(epsilon[60] - limit) / abs(epsilon[75] - limit)) / 15
    np.testing.assert_allclose(1 / rate, point.xi_c, rtol=1e-3)
    np.testing.assert_allclose(theory.decorrelation_map("tanh", limit, point.q, sigma_w, sigma_b), limit, rtol=1e-9)


def test_law_B4_sigmoid() -> None:
    np.testing.assert_allclose(theory.feedforward("sigmoid", 1.0, 0.0).chi, 0.0557207068, rtol=0, atol=5e-11)
    np.testing.assert_allclose(theory.edge_of_chaos("sigmoid", 0.0) ** 2, 103.007554, rtol=0, atol=5e-7)


def test_law_B4_selu_keeps_unit_length() -> None:
    point = theory.feedforward("selu", 1.0, 0.0)
    np.testing.assert_allclose([point.q, point.chi], [1, 1.071574992456], rtol=1e-10)
    assert point.c == pytest.approx(0, abs=1e-9)  # E φ = 0: orthogonal inputs stay orthogonal


def test_law_B7_correction_of_the_identity_and_the_relu() -> None:
    # Laws A1 and A4 to first order in 1/N
    linear = theory.log_gain("identity", 1.0, 0.0, 3, width=64)
    # ln D is differentiated numerically, so its vanishing slope is known to 1e-12 only
    np.testing.assert_allclose(linear.mean, -np.arange(1, 4) / 128, rtol=1e-10)
    np.testing.assert_allclose(linear.mean / np.arange(1, 4), -0.0078531861, rtol=6e-3)
    np.testing.assert_allclose(linear.variance / np.arange(1, 4), 0.0079358416, rtol=2e-2)
    for width, mean, variance in ((64, -0.020054299, 0.020749338), (128, -0.009893201, 0.010058498)):
        found = theory.log_gain("relu", np.sqrt(2), 0.0, 1, width=width)
        np.testing.assert_allclose(found.mean, -5 / (4 * width), rtol=1e-10)
        np.testing.assert_allclose([found.mean[0], found.variance[0]], [mean, variance], atol=6 / width**2)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_law_B7_finite_width_of_tanh(orthogonal: bool) -> None:
    # Given the state h and the tangent u, (h W, u W) are n independent pairs of Gaussians (on a sphere for
    # orthogonal W), so a network of fresh weights can be sampled exactly without a matrix.
    rng = np.random.default_rng(7)
    width, depth, samples, sigma_w, sigma_b = 128, 8, 12_000, np.sqrt(1.760954639607), np.sqrt(0.05)
    h, u = rng.normal(size=(2, samples, width))
    h *= np.sqrt(0.3 * width) / np.linalg.norm(h, axis=1, keepdims=True)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    log_jvp = np.zeros(samples)
    for _ in range(depth):
        along, across = rng.normal(size=(2, samples, width))
        if orthogonal:
            along *= np.sqrt(width) / np.linalg.norm(along, axis=1, keepdims=True)
            across -= along * np.mean(along * across, axis=1, keepdims=True)
            across *= np.sqrt(width) / np.linalg.norm(across, axis=1, keepdims=True)
        size = np.linalg.norm(h, axis=1, keepdims=True)
        overlap = np.sum(h * u, axis=1, keepdims=True) / size
        z = sigma_w / np.sqrt(width) * size * along + sigma_b * rng.normal(size=h.shape)
        pushed = sigma_w / np.sqrt(width) * (overlap * along + np.sqrt(1 - overlap**2) * across)
        h = np.tanh(z)
        pushed *= 1 - h**2
        norm = np.linalg.norm(pushed, axis=1, keepdims=True)
        log_jvp += np.log(norm[:, 0])
        u = pushed / norm
    found = theory.log_gain("tanh", sigma_w, sigma_b, depth, q0=0.3, width=width, orthogonal=orthogonal)
    error = np.std(log_jvp) / np.sqrt(samples)
    infinite = theory.log_gain("tanh", sigma_w, sigma_b, depth, q0=0.3).mean[-1]
    assert abs(np.mean(log_jvp) - infinite) > 10 * error  # the test can see the correction
    assert abs(np.mean(log_jvp) - found.mean[-1]) < 4 * error
    assert abs(np.var(log_jvp) / found.variance[-1] - 1) < 4 * np.sqrt(2 / samples) + 2 / width


def test_law_C1_spectrum_variance() -> None:
    sigma_b = np.sqrt(0.05)
    sigma_w = theory.edge_of_chaos("tanh", sigma_b)
    start = (theory.feedforward("tanh", sigma_w, sigma_b).q - sigma_b**2) / sigma_w**2  # so that q_1 = q*
    for orthogonal, a_layer in ((False, 1.34225608), (True, 0.34225608)):
        found = theory.spectrum_variance("tanh", sigma_w, sigma_b, 4, q0=start, orthogonal=orthogonal)
        np.testing.assert_allclose(found, a_layer * np.arange(1, 5), rtol=0, atol=3e-8)
    np.testing.assert_allclose(theory.spectrum_variance("identity", 1.0, 0.0, 5)[-1], 5)
    np.testing.assert_allclose(theory.spectrum_variance("relu", 1.0, 0.0, 5)[-1], 10)
    np.testing.assert_allclose(theory.spectrum_variance("relu", 1.0, 0.0, 5, orthogonal=True)[-1], 5)
