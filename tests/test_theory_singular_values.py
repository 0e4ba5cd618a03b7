"""Densities of the singular values at infinite width: closed forms, moments, and products of sampled matrices."""

from typing import Any

import numpy as np
import pytest
import wrong

from gradsim import theory
from gradsim.theory.free_product import Law, Product, atom, spectrum

TANH = {"sigma_w": 1.3270097, "sigma_b": 0.2236068}  # the edge of chaos at σ_b² = 0.05


def fuss_catalan(layers: int, log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln λ and the density of ln λ of a product of Gaussian matrices, at the angles φ = π/(L+1) · (1/(1 + e^−log)).

    λ = sin^{L+1}((L+1)φ) / (sin φ sin^L(Lφ)); Forrester & Liu 2014, arXiv:1404.5783.
    """
    phi = np.pi / (layers + 1) / (1 + np.exp(-log))
    top, bottom = np.log(np.sin((layers + 1) * phi)), np.log(np.sin(layers * phi))
    log_lambda = (layers + 1) * top - np.log(np.sin(phi)) - layers * bottom
    density = 2 * np.log(np.sin(phi)) + (layers - 1) * bottom - layers * top
    return log_lambda[::-1], (np.exp(density + log_lambda) / np.pi)[::-1]


@pytest.mark.parametrize("layers", [1, 2, 8, 1000])
def test_law_C2_linear_gaussian_networks_have_the_fuss_catalan_density(layers: int) -> None:
    log, density = fuss_catalan(layers, np.linspace(-2.5, 5, 16))  # nearer to the edge the closed form itself cancels
    found = theory.singular_values("identity", 1.0, 0.0, layers, log_sigma=log / 2)
    np.testing.assert_allclose(found.density / 2, density, rtol=1e-10)
    largest = (layers + 1) * np.log(layers + 1) - layers * np.log(layers)
    np.testing.assert_allclose(2 * found.log_max, largest, rtol=1e-13)
    assert found.log_min == -np.inf
    assert (found.zero, found.isometric) == (0, 0)


def test_one_layer_has_the_quarter_circle_and_two_projections_the_arcsine() -> None:
    sigma = np.linspace(0.05, 1.95, 9)
    quarter = theory.singular_values("identity", 1.0, 0.0, 1, log_sigma=np.log(sigma))
    np.testing.assert_allclose(quarter.density, sigma * np.sqrt(4 - sigma**2) / np.pi, rtol=1e-11)
    share = (sigma * np.sqrt(4 - sigma**2) / 4 + np.arcsin(sigma / 2)) * 2 / np.pi
    np.testing.assert_allclose(1 - quarter.above, share, rtol=1e-11)
    arcsine = theory.singular_values("relu", np.sqrt(2), 0.0, 2, orthogonal=True, log_sigma=np.log(sigma))
    np.testing.assert_allclose(arcsine.density, 1 / (np.pi * np.sqrt(4 / sigma**2 - 1)), rtol=1e-9)
    np.testing.assert_allclose(arcsine.above, 0.5 - np.arcsin(sigma / 2) / np.pi, rtol=1e-9)
    np.testing.assert_allclose(arcsine.zero, 0.5, rtol=1e-14)


def test_orthogonal_relu_networks_end_where_their_closed_form_says() -> None:
    """σ_max² = L^L / (L − 1)^{L−1}, from 1 + w = (x − ½)/(x − 1) at x = L/2."""
    depth = np.array([3, 8, 1000])
    found = theory.singular_values("relu", np.sqrt(2), 0.0, depth, orthogonal=True, points=5)
    np.testing.assert_allclose(2 * found.log_max, depth * np.log(depth) - (depth - 1) * np.log(depth - 1), rtol=1e-12)
    np.testing.assert_allclose(found.zero, 0.5, rtol=1e-14)


def test_law_A7_orthogonal_linear_networks_are_isometric_at_any_scale() -> None:
    found = theory.singular_values("identity", 1e-3, 0.0, [2, 10**6], orthogonal=True, points=4)
    np.testing.assert_array_equal(found.isometric, 1)
    for value in (found.log_isometric, found.log_min, found.log_max):
        np.testing.assert_allclose(value, np.array([2, 10**6]) * np.log(1e-3), rtol=1e-14)
    np.testing.assert_array_equal(found.density, 0)
    np.testing.assert_array_equal(found.above[0], [1, 1, 0, 0])


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("activation", "gains"), [("tanh", TANH), ("selu", {"sigma_w": 1.0, "sigma_b": 0.0})])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_law_C1_the_density_has_the_moments_that_theory_gives(activation: str, gains: Any, orthogonal: bool) -> None:
    """Mean and variance of σ² by integrating the density with splines; and the density is the slope of the share."""
    from scipy.interpolate import CubicSpline

    depth = 5
    found = theory.singular_values(activation, **gains, depth=depth, orthogonal=orthogonal, points=300)
    log_sigma, density = np.append(found.log_sigma, found.log_max), np.append(found.density, 0.0)
    square = np.exp(2 * log_sigma - found.log_mean_square)
    root = np.sqrt(log_sigma[-1] - log_sigma)[::-1]  # in which the density is smooth at its edge

    def integral(power: int) -> float:
        return float(CubicSpline(root, 2 * root * (density * square**power)[::-1]).integrate(0.0, root[-1]))

    mean, second = integral(1), integral(2)
    assert mean == pytest.approx(1, abs=1e-6)
    assert second - 1 == pytest.approx(float(found.variance), rel=1e-6)
    expected = theory.spectrum_variance(activation, **gains, depth=depth, q0=1.0, orthogonal=orthogonal)
    at_start = theory.transient(activation, **gains, depth=depth).q[0]
    given = theory.singular_values(activation, **gains, depth=1 if not orthogonal else 2, q=at_start,
                                   orthogonal=orthogonal, points=2)  # fmt: skip
    np.testing.assert_allclose(given.variance, expected[0] * (2 if orthogonal else 1), rtol=1e-9)
    slope = np.diff(found.above) / np.diff(found.log_sigma)
    between = (found.density[1:] + found.density[:-1]) / 2
    np.testing.assert_allclose(-slope[25:275], between[25:275], rtol=3e-3)


def test_law_C1_of_tanh_at_its_edge() -> None:
    edge = theory.edge_of_chaos("tanh", np.sqrt(0.05))
    for orthogonal, rate in ((False, 1.34225608), (True, 0.34225608)):
        found = theory.singular_values("tanh", edge, np.sqrt(0.05), 1000, orthogonal=orthogonal, points=2)
        np.testing.assert_allclose(found.variance / 1000, rate, rtol=1e-8)
        np.testing.assert_allclose(found.log_mean_square, 0, atol=1e-9)


CASES = [("tanh", 1.3, False, 1), ("tanh", 1.3, True, 4), ("hard_tanh", 1.2, True, 2), ("relu", 1.4, False, 4),
         ("leaky_relu", 1.4, True, 3), ("softplus", 1.0, True, 2)]  # fmt: skip


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("activation", "sigma_w", "orthogonal", "layers"), CASES)
def test_products_of_sampled_matrices_have_the_density(
    activation: str, sigma_w: float, orthogonal: bool, layers: int
) -> None:
    """Shares beyond σ of one product of 400 × 400, with slopes at the quantiles of their law in random order."""
    from scipy.special import ndtri

    n, random = 400, np.random.default_rng(7)
    z = ndtri((np.arange(n) + 0.5) / n)
    slopes = {
        "tanh": 1 / np.cosh(z) ** 2, "hard_tanh": np.abs(z) < 1, "relu": z > 0, "leaky_relu": np.where(z > 0, 1, 0.01),
        "softplus": 1 / (1 + np.exp(-z)),
    }[activation]  # fmt: skip
    product = np.eye(n)
    for _ in range(layers):
        matrix = random.standard_normal((n, n)) / np.sqrt(n)
        if orthogonal:
            q, r = np.linalg.qr(matrix)
            matrix = q * np.sign(np.diagonal(r))
        product = random.permutation(slopes)[:, None] * (sigma_w * matrix @ product)
    sampled = np.linalg.svd(product, compute_uv=False)
    log_sigma = np.linspace(-12, np.log(sampled[0]) + 0.3, 30)
    found = theory.singular_values(activation, sigma_w, 0.3, layers, 1.0, orthogonal=orthogonal, log_sigma=log_sigma)
    share = (sampled[:, None] > np.exp(log_sigma)).mean(0)
    # A few eigenvalues of 400: they repel each other, so that counts of them hardly vary; slopes do so at their edges.
    assert np.max(np.abs(share - found.above)) < 6 / n
    assert found.log_max == pytest.approx(np.log(sampled[0]), abs=0.1)


def test_a_hard_tanh_that_seldom_saturates_is_isometric_in_part() -> None:
    """1 − L (1 − p) of all directions meet no saturated unit, and between them and the others there is a gap."""
    from scipy.special import erf

    linear = erf(1 / np.sqrt(2 * 0.861))
    log_sigma = np.array([0.3, 0.4666667, 0.52, 0.53])
    found = theory.singular_values("hard_tanh", 1.3, 0.2, 2, 0.861, orthogonal=True, log_sigma=log_sigma)
    np.testing.assert_allclose([found.zero, found.isometric], [1 - linear, 2 * linear - 1], rtol=1e-10)
    np.testing.assert_allclose([found.log_isometric, found.log_max], 2 * np.log(1.3), rtol=1e-8)
    np.testing.assert_allclose(found.above[1:], [2 * linear - 1, 2 * linear - 1, 0], atol=1e-10)
    np.testing.assert_allclose(found.density[1:], 0, atol=1e-10)
    three = Product(Law(np.array([0.0, 1.25]), np.array([0.2, 0.8])), 3.0, 0.0)
    np.testing.assert_allclose(atom(three), (0.4, 3 * np.log(1.25)))
    assert np.all(np.diff(spectrum(three, True, 50)[0].log) > 0)


def test_edges_where_slopes_come_down_to_zero_or_have_no_bound() -> None:
    def lowest(activation: Any, layers: int = 3, orthogonal: bool = True) -> Any:
        return theory.singular_values(activation, 1.2, 0.3, layers, 1.0, orthogonal=orthogonal, points=3)

    assert lowest("leaky_relu").log_min > 3 * np.log(1.2 * 0.01) - 1e-6
    assert lowest("relu", 1, orthogonal=False).log_min > -3
    for name in ("tanh", "sin", "relu", "softplus", "hard_swish"):
        assert lowest(name).log_min == -np.inf
    assert lowest(lambda x: x**2).log_max == np.inf


def test_singular_values_where_nothing_or_no_length_is() -> None:
    found = theory.singular_values("relu", [0.0, 2.0], 0.5, 3, log_sigma=[-1.0, 0.0])
    assert found.density.shape == (2, 2)
    assert np.isnan(found.density[1]).all()
    assert np.isnan(found.zero[1])
    assert found.zero[0] == 1
    np.testing.assert_array_equal(found.above[0], 0)
    wrong.refused("depth", lambda: theory.singular_values("tanh", 1.0, 0.0, [1, 2], orthogonal=True))
    wrong.refused("depth", lambda: theory.singular_values("tanh", 1.0, 0.0, 2.5))
    wrong.refused("log_sigma", lambda: theory.singular_values("tanh", 1.0, 0.0, 2, log_sigma=[1.0, 0.0]))


@pytest.mark.parametrize(("activation", "layers"), [("identity", 5), ("tanh", 3)])
def test_the_tail_towards_zero_goes_on_as_a_power(activation: str, layers: int) -> None:
    """Below all slopes 1 + w = −x E 1/φ'², whence λ^{1/(L+1)}: a hundred nats further down to the last digits."""
    far = np.array([-500.0, -400.0, -300.0])
    found = theory.singular_values(activation, 1.0, 0.0, layers, 0.2, log_sigma=far)
    np.testing.assert_allclose(np.diff(np.log(found.density)), 200 / (layers + 1), rtol=1e-9)
    np.testing.assert_allclose(found.above, 1, rtol=1e-14)
