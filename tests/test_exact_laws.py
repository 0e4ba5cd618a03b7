"""Laws without randomness: they hold in every run, to rounding."""

import math
from typing import Any

import numpy as np
import pytest

import gradsim as gs

# A7, A14: no randomness left


def test_law_A7_orthogonal_linear_keeps_every_singular_value_at_depth_10000() -> None:
    """Every ln σ within 1e-9 of L ln σ_w.

    Root mean square and largest singular value agree to 4e-11, so the smallest of the 8 lies within
    8 × 4e-11 of them; random directions are checked beside.
    """
    n, depth = 8, 10_000
    sweep = gs.sweep(
        gs.feedforward(n, "identity", "orthogonal"), depth=depth, seeds=4, key=8, dtype="float64",
        statistics=("log_gain", "log_jvp", "log_spectral"), sigma_w=[0.5, 1.0, 1.1],
    )  # fmt: skip
    wanted = depth * np.log(sweep.sigma_w) + 0 * sweep.seed
    final = sweep.sel(depth=depth)
    for name in ("log_gain", "log_spectral", "log_jvp"):
        np.testing.assert_allclose(final[name], wanted, rtol=0, atol=4e-11, err_msg=name)
    everywhere = sweep.depth * np.log(sweep.sigma_w) + 0 * sweep.seed
    np.testing.assert_allclose(sweep.log_gain, everywhere.transpose(*sweep.log_gain.dims), rtol=0, atol=4e-11)


@pytest.mark.parametrize("where", ["gain", "slope"])
def test_law_A14_a_tenth_to_the_fiftieth_in_float32(where: str) -> None:
    """0.1^50 = 1e-50 lies below the smallest float32, 1e-45: a plain product reads 0, and its logarithm −inf."""
    if where == "gain":
        network, gain = gs.feedforward(1, "identity", "identity"), 0.1
    else:
        network, gain = gs.feedforward(1, lambda z: 0.1 * z, "identity"), 1.0
    sweep = gs.sweep(
        network, depth=50, seeds=1, sigma_w=gain, statistics=("log_gain", "log_jvp", "log_spectral"), dtype="float32"
    ).isel(seed=0)  # fmt: skip
    for name in ("log_gain", "log_jvp", "log_spectral"):
        assert float(sweep[name].sel(depth=50)) == pytest.approx(-115.1292546497, abs=1e-5), name
    np.testing.assert_allclose(sweep.log_gain, sweep.depth * math.log(0.1), atol=1e-5)
    assert not sweep.dead.any()
    assert np.prod(np.full(50, 0.1, np.float32)) == 0


# E4: a hard inequality in every run


@pytest.mark.parametrize(("activation", "slope"), [("tanh", 1.0), ("sigmoid", 0.25), ("relu", 1.0)])
def test_law_E4_a_chain_of_one_matrix_is_bounded_by_powers_of_its_norm(activation: str, slope: float) -> None:
    """‖J_T … J_1‖₂ ≤ (γ ‖W‖₂)^T. A tied linear network of the same key gives ‖W‖₂, as its first step."""
    options: dict[str, Any] = {"seeds": 20, "key": 9, "statistics": "log_spectral", "sigma_w": [0.5, 1.0, 3.0]}
    w = gs.sweep(gs.feedforward(16, "identity", tied=True), depth=1, **options).log_spectral.isel(depth=0)
    chain = gs.sweep(gs.feedforward(16, activation, tied=True), depth=12, at=range(1, 13), **options).log_spectral
    assert np.all(chain <= chain.depth * (w + math.log(slope)) + 1e-4)
    assert np.isfinite(chain).all()
