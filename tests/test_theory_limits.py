"""Theory at the ends of its range: a right number, NaN that is documented, or one line that says the range."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from unrolled import own_checks

from gradsim import theory


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_states_of_length_zero_have_no_correlation(activation: str) -> None:
    assert np.isnan(theory.correlation_map(activation, 0.5, 0.0, 1.0, 0.0))
    assert np.isnan(theory.decorrelation_map(activation, 0.5, 1.0, 0.0, 0.0))
    assert theory.correlation_map(activation, 0.5, 0.0, 1.0, 0.3) == 1  # both are the bias


def test_correlations_of_short_states_are_those_of_the_linear_network() -> None:
    """A tanh is linear there, down to lengths that float64 barely holds: 600 nats on along the table's last line."""
    np.testing.assert_allclose(theory.correlation_map("tanh", 0.5, 1e-20, 1.0, 0.0), 0.5, rtol=1e-12)
    np.testing.assert_allclose(theory.correlation_map("tanh", 0.5, [1e-300, 1e-310], 1.0, 0.0), 0.5, rtol=1e-6)


def test_a_network_without_weights_neither_grows_nor_has_a_law() -> None:
    np.testing.assert_array_equal(theory.tanh_residual_growth(0.0, [1, 5, 1000]), 0.0)
    np.testing.assert_array_equal(theory.pre_norm_exponent("tanh", 0.0, [0.0, 1.0]), 0.0)
    point = theory.log_gain("tanh", 0.0, 0.1, 2, width=8)
    assert np.all(np.isneginf(point.mean))
    assert np.all(np.isnan(point.variance))


def test_a_bias_too_small_to_matter_has_the_edge_of_none() -> None:
    np.testing.assert_allclose(theory.edge_of_chaos("tanh", [0.0, 1e-30, 1e-20, 1e-15]), 1.0, rtol=1e-6)
    assert set(theory.explain_edge("tanh", [1e-30, 1e-20])) == {"exists"}


def test_an_oscillation_beyond_the_quadrature_has_no_correlation_rather_than_a_wrong_one() -> None:
    point = theory.feedforward("sin", 100.0, 0.3)
    assert point.q == pytest.approx(5000.09)
    assert np.isnan(point.c)
    assert np.isnan(point.xi_c)


def test_residual_growth_stays_finite_where_its_factor_does_not() -> None:
    """The squared gradient grows by more than float64 holds in one block, its logarithm by 691 nats."""
    path = theory.residual("relu", 1e100, 0.0, 1, branch_gain=1e100, sigma_v=1e100)
    assert path.log_gain[-1] == pytest.approx(300 * math.log(10) - math.log(2) / 2)


def test_a_batch_may_have_any_shape() -> None:
    once = theory.batchnorm_growth("relu", 8)
    np.testing.assert_array_equal(theory.batchnorm_growth("relu", [[8, 8], [8, 8]]), np.full((2, 2), once))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.feedforward("tanh", 1e200, 0.0), "sigma_w: got 1e+200; pass a number from 0 to 1e+20"),
        (lambda: theory.feedforward("tanh", 1.0, 1e30), "sigma_b: got 1e+30"),
        (lambda: theory.transient("tanh", 1e200, 0.0, 3), "sigma_w: got 1e+200; .*, at most 1e+150"),
        (lambda: theory.log_gain("tanh", 1e-200, 0.0, 3), "sigma_w: got 1e-200; .*, 0 or at least 1e-150"),
        (lambda: theory.edge_of_chaos("tanh", []), "sigma_b: got an empty array"),
        (lambda: theory.edge_of_chaos("tanh", 1e8), "sigma_b: got 100000000.0; pass a number from 0 to 1e+07"),
        (lambda: theory.transient("tanh", 1.0, 0.0, 10**9), "depth: got 1000000000; .* at most 1000000"),
        (lambda: theory.transient("tanh", np.ones(1000), 0.0, 10**6), "sigma_w, sigma_b, q0: got 1,000 cells"),
        (lambda: theory.length_map("tanh", np.ones((10**5, 1)), np.ones(10**5), 0.0), "q, sigma_w, sigma_b: got 10,0"),
        # Where rounding would decide: found by following each cell to the end of its precision.
        (lambda: theory.gru(1e8, 1.0), "sigma_w: got 100000000.0; pass a number from 0 to 1e+06"),
        (lambda: theory.lstm(1.0, 1.0, forget_bias=40.0), "forget_bias: got 40.0; pass a number from -300 to 30"),
        (lambda: theory.minimal_rnn(1.0, 1.0, update_bias=-1e3), "update_bias: got -1000"),
        (lambda: theory.recurrent_edge("lstm", 1.0, gate_bias=20.0), "gate_bias: got 20"),
        (lambda: theory.recurrent_edge("gru", 1e6), "sigma_v, sigma_b, input_variance: got R or"),
    ],
)
def test_what_lies_beyond_is_refused_with_the_range(call: Callable[[], Any], words: str) -> None:
    words = words.replace("+", "\\+")
    with own_checks(), pytest.raises(ValueError, match=f"^{words}"):
        call()


@pytest.mark.parametrize("cell", ["gru", "minimal_rnn", "lstm"])
def test_cells_are_precise_up_to_the_largest_gain(cell: str) -> None:
    """χ grows as σ_w there: ten times the gain, ten times χ, to the precision that the limit allows."""
    near, far = (getattr(theory, cell)(gain, 0.5, 0.3).chi for gain in (1e5, 1e6))
    assert far / near == pytest.approx(10, rel=3e-4)
