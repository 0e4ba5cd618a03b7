"""The depth at which half of a gradient is lost: closed forms, networks of which some are dead or lost, wrong calls."""

import math
from typing import Any

import numpy as np
import pytest
import xarray
from unrolled import own_checks

import gradsim as gs
from gradsim.engine.formats import FORMATS

LAGS = np.arange(1, 41)


def falling(rates: Any, first: float = 0.0, *, direction: str = "forward") -> xarray.Dataset:
    """ln of the median after each of 40 layers, which falls by a rate in each of the networks."""
    values = first - np.asarray(rates)[:, None] * LAGS
    values = values if direction == "forward" else values[:, ::-1]
    return xarray.Dataset(
        {"log_median": (("seed", "depth"), values, {"units": "nat"})},
        {"depth": ("depth", LAGS, {"units": "layer"})},
        {"direction": direction, "depth": 40},
    )


def lost_at(name: str, scale: float = 1.0) -> float:
    """ln of the size that is half the smallest number, over the loss scale."""
    return math.log(2) * (FORMATS[name].subnormal - 1) - math.log(scale)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("name", FORMATS)
def test_an_exponential_decay_is_met_exactly(name: str, direction: str) -> None:
    found = gs.precision_horizon(falling([0.6, 0.7], 1.0, direction=direction), name, 8.0)
    expected = (1.0 - lost_at(name, 8.0)) / 0.65
    assert float(found.horizon_fit) == pytest.approx(expected, rel=1e-12)
    assert bool(found.crossed) == (expected <= 40)
    if expected <= 40:
        assert float(found.horizon_crossing) == pytest.approx(expected, rel=1e-12)
        # The seeds differ by their rates alone: (0.05/√2)/0.65 of it, and the bootstrap of two is exact in the mean.
        assert float(found.horizon_crossing_error) == pytest.approx(expected * 0.05 / math.sqrt(2) / 0.65, rel=0.2)
    else:
        assert np.isnan(found.horizon_crossing)
    assert float(found.slope) == pytest.approx(-0.65, rel=1e-12)
    assert float(found.misfit) == pytest.approx(0, abs=1e-12)
    assert found.horizon_fit.attrs["units"] == "layer"
    assert (found.attrs["format"], found.attrs["horizon_loss_scale"]) == (name, 8.0)


def test_what_does_not_fall_is_never_lost_and_what_is_lost_at_once_at_the_first_lag() -> None:
    rising = gs.precision_horizon(falling([-0.1, -0.2]), "float16")
    assert float(rising.horizon_fit) == math.inf
    assert not rising.decays
    assert np.isnan(rising.horizon_fit_error)
    at_once = gs.precision_horizon(falling([1.0, 1.2], -30.0), "float16")
    assert float(at_once.horizon_crossing) == 1
    assert float(at_once.horizon_fit) < 0
    assert np.isnan(gs.precision_horizon(falling([1.0]), "float16").horizon_crossing_error)


def test_dead_networks_count_as_lost_where_all_are_and_lost_ones_nowhere() -> None:
    data = falling([0.1, 0.1])
    data["log_median"][:, 20:] = np.nan
    data["dead"] = (("seed", "depth"), np.isnan(data.log_median.values))
    found = gs.precision_horizon(data, "float16")
    assert float(found.horizon_crossing) == 21
    assert float(found.horizon_fit) == pytest.approx(-lost_at("float16") / 0.1)
    data = falling([1.0, 1.0, 9.0])
    data["log_median_lost"] = data.log_median < -300
    data["log_median"][2, 33:] = np.nan
    with pytest.warns(RuntimeWarning, match=r"the horizon: 1 of 3 networks left the range of floats"):
        found = gs.precision_horizon(data, "float16", max_lost=0.5)
    assert float(found.horizon_crossing) == pytest.approx(-lost_at("float16"))
    with pytest.raises(ValueError, match=r"^max_lost: 1 of 3 networks"):
        gs.precision_horizon(data, "float16")


def test_the_median_is_that_of_the_entries_that_are_not_zero() -> None:
    """Of u W diag φ'(z): half of them are exactly zero under ReLU, and all share 1/n where the weights are 1."""
    data = gs.sweep(gs.feedforward(64, "relu", "orthogonal"), depth=2, seeds=64, statistics=["log_median", "log_jvp"])
    ratio = (data.log_median - data.log_jvp).sel(depth=1)  # 32 entries are left, Gaussian
    expected = math.log(0.674489750196 / math.sqrt(32))
    assert float(ratio.mean()) == pytest.approx(expected, abs=4.5 * float(ratio.std()) / 8)


def test_one_rounding_of_the_exact_gradient_equals_the_cast() -> None:
    """One network of one unit: a gradient of one entry, 0.3^l, whose casts are known."""
    name = "float8_e5m2"
    network = gs.feedforward(1, "identity", "identity")
    statistics = (*gs.rounded_once(name), *gs.rounded_once(name, 2.0**10), *gs.rounded_once(name, flush=True))
    data = gs.sweep(network, depth=16, seeds=1, sigma_w=0.3, statistics=statistics).isel(seed=0)
    exact = 0.3 ** np.arange(1, 17)
    for scale, ending in ((1.0, ""), (2.0**10, "_x1024")):
        held = (exact * scale).astype(np.float32).astype(FORMATS[name].dtype).astype(float) / scale
        np.testing.assert_array_equal(data[f"zeros_{name}{ending}"], held == 0)
        np.testing.assert_allclose(data[f"energy_kept_{name}{ending}"], (held / exact) ** 2, rtol=1e-5)
        np.testing.assert_allclose(data[f"noise_{name}{ending}"], (held / exact - 1) ** 2, rtol=1e-3, atol=1e-9)
    np.testing.assert_array_equal(data[f"zeros_{name}_flushed"], exact < 2.0 ** FORMATS[name].lowest)
    assert not data[f"overflow_{name}"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "int8"}, "format: got 'int8'; pass one of: bfloat16"),
        ({"loss_scale": 0.0}, "loss_scale: got 0.0; pass a positive finite number"),
        ({"loss_scale": math.inf}, "loss_scale: got inf; pass a positive finite number"),
        ({"between": (5, 99)}, r"between: got \(5, 99\)"),
        ({"resamples": 0}, "resamples: got 0"),
        (
            {"dataset": falling([1.0]).rename(log_median="log_gain")},
            "dataset: it holds log_gain; pass what gradsim.sweep",
        ),
        ({"dataset": falling([1.0]).mean("seed", keep_attrs=True)}, "dataset: log_median has no axis seed"),
    ],
)
def test_wrong_calls_are_refused(options: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises(ValueError, match=f"^{message}"):
        gs.precision_horizon(**{"dataset": falling([1.0, 1.1]), "format": "float16", **options})
    with own_checks(), pytest.raises(TypeError, match=r"^dataset: got a list; pass the Dataset"):
        gs.precision_horizon([], "float16")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "flush", "name"), [(-1.0, False, "loss_scale"), (1.0, 1, "flush")])
def test_wrong_roundings_are_refused(scale: float, flush: Any, name: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=f"^{name}: got"):
        gs.rounded_once("float16", scale, flush=flush)
