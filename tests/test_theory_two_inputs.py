"""Mean field of two inputs: closed forms, ∂k_L/∂k_0 by differences, published limits."""

import math
from typing import Any

import numpy as np
import pytest
from unrolled import own_checks

import gradsim as gs
from gradsim import theory
from gradsim.theory import correlation
from gradsim.theory.two_inputs import _slope_gaps

EDGE, BIAS = math.sqrt(1.760954639607), math.sqrt(0.05)


def slope(activation: str, q: Any, c: Any) -> Any:
    """E φ'(u₁)φ'(u₂) in closed form."""
    if activation == "relu":
        return (np.pi - np.arccos(c)) / (2 * np.pi)
    if activation == "erf":
        return 4 / np.pi / np.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    return np.exp(-q) * np.cosh(q * c)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_one_layer_is_the_closed_form(activation: str) -> None:
    """z of variance q = σ_w² q0, correlation c."""
    c, q0, sigma_w = np.array([-0.9, 0.0, 0.6, 1.0]), 0.7, 1.3
    found = theory.gradient_correlation(activation, sigma_w, 0.0, 1, c, q0)
    overlap = found.gradient_correlation * np.exp(2 * found.log_gain)
    np.testing.assert_allclose(overlap[:, 0], sigma_w**2 * slope(activation, sigma_w**2 * q0, c), rtol=0, atol=1e-11)


def test_a_sine_goes_through_its_series() -> None:
    q, epsilon = np.array([0.5, 3.0]), np.array([0.4, 1.3])
    found = correlation.chunked(_slope_gaps(gs.ACTIVATIONS["sin"]), q, epsilon)
    at = np.array([slope("sin", *pair) for pair in zip(q, 1 - epsilon, strict=True)])
    np.testing.assert_allclose(found, (1 + np.exp(-2 * q)) / 2 - at, rtol=0, atol=1e-12)


def test_relu_agrees_with_the_published_numbers() -> None:
    plain = theory.gradient_correlation("relu", math.sqrt(2), 0.0, 10)
    assert plain.correlation[-1] == pytest.approx(0.8715355160215, abs=1e-12)
    assert plain.gradient_correlation[-1] == pytest.approx(0.03365215097663, abs=1e-12)
    skips = theory.gradient_correlation("relu", 1.0, 0.0, 10, form="two_layer", sigma_v=math.sqrt(2))
    assert skips.gradient_correlation[-1] == pytest.approx(0.1401568038066, abs=1e-12)


def test_smooth_networks_on_the_edge_and_in_chaos() -> None:
    """Pre-activations at q*, uncorrelated: the rate tends to −1/ξ_c − ln χ."""
    start = {sigma_w: theory.feedforward("tanh", sigma_w, BIAS) for sigma_w in (EDGE, 2.0)}
    found = {}
    for sigma_w, point in start.items():
        settled = float(point.q) - BIAS**2
        found[sigma_w] = theory.gradient_correlation(
            "tanh", sigma_w, BIAS, 24, c0=-(BIAS**2) / settled, q0=settled / sigma_w**2
        )
        np.testing.assert_allclose(found[sigma_w].log_gain[0], np.log(point.chi) / 2, rtol=0, atol=1e-9)
    assert found[EDGE].gradient_correlation[9] == pytest.approx(0.2967753764, abs=1e-9)
    rate = np.diff(np.log(found[2.0].gradient_correlation))[-1]
    assert rate == pytest.approx(float(-1 / start[2.0].xi_c - np.log(start[2.0].chi)), abs=1e-3)


@pytest.mark.parametrize("form", ["plain", "layernorm", "two_layer", "pre_activation", "post_activation", "pre_norm"])
def test_overlap_is_the_derivative_of_the_product(form: str) -> None:
    """∂k_L/∂k_0 by central differences, at lengths held."""
    q0, step = 1.3, 1e-4
    options: dict[str, Any] = {"form": form, "q0": q0}
    if form not in ("plain", "layernorm"):
        options["branch_gain"] = 0.8
    at = theory.gradient_correlation("gelu", 1.3, 0.2, 3, 0.3 + step * np.array([-1.0, 0.0, 1.0]), **options)
    product = at.length * at.correlation
    overlap = at.gradient_correlation * np.exp(2 * at.log_gain)
    difference = (product[2] - product[0]) / (2 * step * q0)
    np.testing.assert_allclose(overlap[1], difference, rtol=2e-7)


def test_residuals_after_their_activation_are_as_measured() -> None:
    """Their states have a mean, which grows and makes them alike: within four standard errors, and 1/width."""
    width, depth, seeds = 192, 4, 64
    found = gs.sweep(
        gs.pair(gs.residual(width, "relu", form="post_activation")), depth=depth, seeds=seeds, sigma_w=1.2,
        sigma_b=0.4, branch_gain=0.7, statistics=("length", "correlation", "gradient_correlation", "log_gain"),
    )  # fmt: skip
    path = theory.gradient_correlation("relu", 1.2, 0.4, depth, form="post_activation", branch_gain=0.7)
    for name in ("length", "correlation", "gradient_correlation", "log_gain"):
        each = found[name].mean("input") if "input" in found[name].dims else found[name]
        error = 4 * each.std("seed", ddof=1) / math.sqrt(seeds) + 1 / width
        assert (abs(each.mean("seed") - getattr(path, name)) < error).all(), name


def test_equal_inputs_have_equal_gradients_and_lengths_are_those_of_one_input() -> None:
    found = theory.gradient_correlation("tanh", 1.5, 0.3, 3, c0=1.0)
    np.testing.assert_allclose(found.gradient_correlation, 1.0, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(found.decorrelation, 0.0)
    forms: dict[str, dict[str, Any]] = {"two_layer": {"sigma_v": 1.2}, "post_activation": {}}  # the mean of x grows
    for form, options in forms.items():
        alone = theory.residual("relu", 1.0, 0.2, 3, form=form, branch_gain=0.5, **options)
        both = theory.gradient_correlation("relu", 1.0, 0.2, 3, form=form, branch_gain=0.5, **options)
        np.testing.assert_allclose(both.length, alone.length, rtol=1e-12)
        np.testing.assert_allclose(both.log_gain, alone.log_gain, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c0": 1.5}, "c0: got 1.5; pass a number from -1 to 1"),
        ({"form": "dense"}, "form: got 'dense'; pass one of"),
        ({"branch_gain": 0.5}, "branch_gain: got 0.5 with form='plain', which has none"),
        ({"sigma_v": 0.5, "form": "pre_norm"}, "sigma_v: got 0.5 with form='pre_norm'"),
        ({"depth": 0}, "depth: got 0"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=message):
        theory.gradient_correlation(**{"activation": "relu", "sigma_w": 1.0, "sigma_b": 0.0, "depth": 2, **arguments})
