"""The measured critical gain against cases where it is known exactly."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import digamma
from unrolled import own_checks

import gradsim as gs


def test_orthogonal_linear_networks_are_critical_at_one() -> None:
    """Law A7: every singular value is σ_w a layer, in every network; the error is rounding alone."""
    found = gs.critical(gs.feedforward(8, "identity", "orthogonal"), between=(0.3, 2.9), depth=20, seeds=4)
    assert float(found.sigma_w) == pytest.approx(1, abs=1e-5)
    assert float(found.standard_error) < 1e-5
    assert float(found.slope) == pytest.approx(1, rel=1e-3)  # d ln σ / dσ at 1


def test_law_A1_gives_the_critical_gain_of_gaussian_linear_networks() -> None:
    """A layer grows by ½ [ln(2σ²/N) + ψ(N/2)], which is zero at σ² = (N/2) e^−ψ(N/2)."""
    n = 16
    found = gs.critical(gs.feedforward(n, "identity"), between=(0.5, 2), depth=40, seeds=200, burn_in=0)
    exact = math.sqrt(n / 2 * math.exp(-float(digamma(n / 2))))
    error = float(found.standard_error)
    assert error < 0.005
    assert abs(float(found.sigma_w) - exact) < 4.5 * error


def test_other_gains_become_axes_and_a_bracket_without_a_change_of_sign_says_so() -> None:
    network = gs.feedforward(24, "tanh")
    options: dict[str, Any] = {"depth": 20, "seeds": 16, "sigma_b": [0.1, 1.0]}
    found = gs.critical(network, between=(0.5, 4), **options)
    assert found.sigma_w.dims == ("sigma_b",)
    assert list(found.status.values) == ["bracketed", "bracketed"]
    assert float(found.sigma_w[0]) < float(found.sigma_w[1])
    below = gs.critical(network, between=(0.1, 0.2), **options)
    above = gs.critical(network, between=(6, 8), **options)
    assert set(below.status.values) == {"vanishing throughout"}
    assert set(above.status.values) == {"exploding throughout"}
    assert np.isnan(below.sigma_w).all()
    assert np.isnan(above.standard_error).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"between": (2, 1)}, "between: got"),
        ({"between": 1.0}, "between: got"),
        ({"between": (-1, 1)}, "between: got"),
        ({"gain": "sigma_x"}, "gain: got 'sigma_x'"),
        ({"sigma_w": 1.0}, "sigma_w: it is what is sought"),
        ({"statistic": "length"}, "statistic: got 'length'"),
        ({"seeds": 1}, "seeds: got 1"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises(ValueError, match=message):
        gs.critical(gs.feedforward(4), **{"between": (1, 2), "depth": 2, "seeds": 2, **options})
