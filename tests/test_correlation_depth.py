"""The measured depth scale: made-up overlaps of a known rate, either way, with dead networks and noise."""

from typing import Any

import numpy as np
import pytest
import xarray
from unrolled import own_checks

import gradsim as gs


def overlaps(rate: float, noise: float = 0.0, floor: float = 0.0, seeds: int = 40, depth: int = 30) -> xarray.Dataset:
    """Two log gains of 0.1 nat a layer, and cosines that make the mean overlap fall by `rate`, to a floor of noise."""
    generator = np.random.default_rng(0)
    steps = np.arange(1, depth + 1)
    gains = np.broadcast_to(0.1 * steps[:, None], (seeds, depth, 2)).copy()
    cosines = np.exp((rate - 0.2) * steps) * (1 + noise * generator.standard_normal((seeds, depth)).cumsum(1))
    cosines += floor * generator.standard_normal((seeds, depth))
    about = {"units": "nat"}
    return xarray.Dataset(
        {
            "log_gain": (("seed", "depth", "input"), gains, about),
            "gradient_correlation": (("seed", "depth"), cosines, {"units": "1"}),
        },
        {"depth": ("depth", steps, {"units": "layer"}), "seed": np.arange(seeds)},
        {"direction": "forward", "burn_in": 0},
    )


def test_a_known_rate_is_found() -> None:
    found = gs.correlation_depth(overlaps(-0.25))
    assert float(found.rate) == pytest.approx(-0.25, abs=1e-12)
    assert float(found.xi_c) == pytest.approx(4, abs=1e-10)
    assert float(found.xi_c_error) < 1e-6
    assert int(found["last"]) == 30
    assert found.rate.attrs["units"] == "nat/layer"
    growing = gs.correlation_depth(overlaps(0.1))
    assert np.isinf(growing.xi_c)
    assert np.isnan(growing.xi_c_error)


def test_errors_cover_the_truth_and_noise_is_left_out() -> None:
    noisy = gs.correlation_depth(overlaps(-0.25, noise=0.1))
    assert abs(float(noisy.rate) + 0.25) < 4.5 * float(noisy.rate_error)
    assert 1e-4 < float(noisy.rate_error) < 0.02
    buried = gs.correlation_depth(overlaps(-0.6, floor=0.01))
    assert 4 <= int(buried["last"]) < 15
    assert abs(float(buried.rate) + 0.6) < 4.5 * float(buried.rate_error)
    assert np.isnan(gs.correlation_depth(overlaps(-0.6, floor=1.0)).rate)


def test_dead_networks_have_no_overlap_and_backward_sweeps_run_the_other_way() -> None:
    whole = overlaps(-0.25)
    dead = whole.copy(deep=True)
    dead["log_gain"][0], dead["gradient_correlation"][0] = np.nan, np.nan
    found = gs.correlation_depth(dead)
    assert float(found.rate) == pytest.approx(-0.25, abs=1e-12)  # a share of them changes no rate
    back = whole.isel(depth=slice(None, None, -1)).assign_coords(depth=whole.depth)
    back.attrs["direction"] = "backward"
    assert float(gs.correlation_depth(back, between=(2, 20)).rate) == pytest.approx(-0.25, abs=1e-12)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (overlaps(-0.1).drop_vars("gradient_correlation"), {}, "dataset: it lacks gradient_correlation"),
        (overlaps(-0.1).isel(input=0), {}, "dataset: it lacks log_gain of two inputs"),
        (overlaps(-0.1).isel(seed=[0]), {}, "dataset: the errors need an axis seed"),
        (overlaps(-0.1), {"between": 3}, "between: got 3; pass the first and the last lag"),
        (overlaps(-0.1), {"between": (3, 4)}, "between: got .*pass lags that hold 3"),
    ],
)
def test_bad_input(dataset: xarray.Dataset, options: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=message):
        gs.correlation_depth(dataset, **options)
