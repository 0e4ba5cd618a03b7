"""The measured critical gain against cases where it is known exactly."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
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


@pytest.mark.sampled(1)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_standard_error_is_the_spread_of_the_answer(activation: str) -> None:
    """Over many keys: root mean square deviation over reported error is 1, known to 1/√(2·keys) = 14 %."""
    options: dict[str, Any] = {"between": (1.0, 3.0), "depth": 16, "seeds": 24, "sigma_b": [0.2, 0.6]}
    found = [gs.critical(gs.feedforward(24, activation), key=key, **options) for key in range(24)]
    roots, errors = (np.array([getattr(one, name).values for one in found]) for name in ("sigma_w", "standard_error"))
    ratio = np.std(roots, axis=0, ddof=1) / np.sqrt(np.mean(errors**2, axis=0))
    assert np.all(np.abs(ratio - 1) < 4 / math.sqrt(2 * len(found)))


@pytest.mark.further
def test_tanh_edge_at_finite_width() -> None:
    """At σ_b = 0.3 and N = 128 the measured edge is that of theory with its first correction in 1/N."""
    width, depth, burn_in, sigma_b = 128, 40, 20, 0.3
    found = gs.critical(
        gs.feedforward(width), between=(1.2, 1.6), depth=depth, burn_in=burn_in, seeds=100, key=1, sigma_b=sigma_b
    )
    assert float(found.standard_error) < 0.005 * float(found.sigma_w)

    def growth(sigma_w: float) -> float:
        """Of the layers after the burn-in."""
        mean = gs.theory.log_gain("tanh", sigma_w, sigma_b, burn_in + depth, width=width).mean
        return float(mean[-1] - mean[burn_in - 1])

    expected = brentq(growth, 1.2, 1.6)
    assert expected - float(gs.theory.edge_of_chaos("tanh", sigma_b)) == pytest.approx(0.022, abs=0.01)
    assert abs(float(found.sigma_w) - expected) < 3 * float(found.standard_error)


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
