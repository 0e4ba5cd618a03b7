"""The horizon against decays of known rate, and against networks whose memory is known in closed form."""

import math
from typing import Any

import numpy as np
import pytest
import xarray
from unrolled import own_checks

import gradsim as gs
from gradsim.analysis.horizon import by_lag, horizon

ROUNDING = 2e-5  # of a float32 log gain over some dozens of steps


def made(values: Any, direction: str = "forward", axis: str = "time") -> xarray.Dataset:
    """A Dataset of log gains [..., seed, step], as `sweep` would return it."""
    values = np.asarray(values, float)
    dims = ["sigma_w", "seed", axis][-values.ndim :]
    steps = (axis, np.arange(1, values.shape[-1] + 1), {"units": "step"})
    return xarray.Dataset({"log_gain": (dims, values)}, {axis: steps}, {"direction": direction})


LAG = np.arange(1, 101)


@pytest.mark.parametrize("fraction", [1 / math.e, 0.5, 1e-3])
def test_of_an_exponential_is_its_time(fraction: float) -> None:
    rate = 0.083
    found = horizon(made(np.stack([-rate * LAG] * 3)), fraction)
    for name in ("horizon_fit", "horizon_crossing"):
        np.testing.assert_allclose(found[name], -math.log(fraction) / rate, rtol=1e-12)
        np.testing.assert_allclose(found[f"{name}_error"], 0, atol=1e-10)
        assert found[name].attrs["units"] == "step"
    assert found["decays"]
    assert found["crossed"]
    np.testing.assert_allclose(found["misfit"], 0, atol=1e-12)


def test_lag_counts_from_the_end_of_a_backward_sweep() -> None:
    fall = -0.1 * LAG
    forward, backward = horizon(made([fall] * 2)), horizon(made([fall[::-1]] * 2, "backward"))
    np.testing.assert_array_equal(by_lag(made([fall[::-1]] * 2, "backward"))["lag"], LAG)
    for name in ("horizon_fit", "horizon_crossing"):
        np.testing.assert_allclose(forward[name], backward[name], rtol=1e-12)


@pytest.mark.further
def test_errors_are_those_of_repeated_experiments() -> None:
    rng = np.random.default_rng(1)
    rates = rng.normal(0.05, 0.01, (400, 16))  # 400 experiments of 16 seeds
    found = horizon(made(-rates[..., None] * LAG))
    for name in ("horizon_fit", "horizon_crossing"):
        scatter, claimed = float(found[name].std()), float(found[f"{name}_error"].mean())
        # 16 seeds know their own spread to 18 %, and the bootstrap claims √(15/16) of it.
        assert 0.85 < claimed / scatter < 1.15


def test_says_where_there_is_none() -> None:
    found = horizon(made([[0.01 * LAG] * 2, [-0.001 * LAG] * 2, [np.full(100, np.nan)] * 2]))
    np.testing.assert_array_equal(found["decays"], [False, True, False])
    np.testing.assert_array_equal(found["crossed"], [False, False, True])
    np.testing.assert_allclose(found["horizon_fit"], [np.inf, 1000, np.nan], rtol=1e-9)
    np.testing.assert_array_equal(found["horizon_crossing"], [np.nan, np.nan, 0])  # the dead forget at once
    np.testing.assert_array_equal(np.isnan(found["horizon_fit_error"]), [True, False, True])


def test_dead_networks_are_left_to_the_living_and_cross_when_all_are_dead() -> None:
    living, dies = -0.001 * LAG, np.where(LAG > 20, np.nan, -0.001 * LAG)
    for values, crossed in (([living, dies], False), ([dies, dies], True)):
        dataset = made(values)
        found = horizon(dataset.assign(dead=dataset["log_gain"].isnull()))
        np.testing.assert_allclose(found["horizon_fit"], 1000, rtol=1e-9)
        assert bool(found["crossed"]) is crossed
        if crossed:
            np.testing.assert_allclose(found["horizon_crossing"], 20)


def test_one_seed_has_no_error_and_a_start_of_its_own_shifts_the_crossing() -> None:
    found = horizon(made([3 - 0.1 * LAG]), start=None)
    np.testing.assert_allclose(found["horizon_crossing"], 11)  # ten steps after lag 1, where it starts
    np.testing.assert_allclose(found["horizon_fit"], 10)
    assert np.isnan(found["horizon_fit_error"])
    assert np.isnan(found["horizon_crossing_error"])


def test_fit_between_lags_knows_only_those() -> None:
    broken = np.where(LAG < 50, -0.1 * LAG, -4.9 - 0.01 * (LAG - 49))
    np.testing.assert_allclose(horizon(made([broken] * 2), between=(50, 100))["horizon_fit"], 100, rtol=1e-9)


def test_law_E7_time_scale_of_an_lstm_without_weights() -> None:
    found = horizon(gs.sweep(gs.lstm(5, of="cell"), depth=40, seeds=2, sigma_w=0, sigma_v=0, forget_bias=[1.0, 2.0]))
    for name in ("horizon_fit", "horizon_crossing"):
        np.testing.assert_allclose(found[name], [3.1922, 7.8785], rtol=ROUNDING)
    assert found["horizon_fit"].dims == ("forget_bias",)


def test_of_a_linear_recurrence_on_a_circle() -> None:
    network = gs.linear_recurrence(6, ring=(0.9, 0.9))
    for direction in ("forward", "backward"):
        found = horizon(gs.sweep(network, depth=40, seeds=2, direction=direction, radius=[1.0, 0.5]))
        np.testing.assert_allclose(found["horizon_fit"], [-1 / math.log(r) for r in (0.9, 0.45)], rtol=ROUNDING)


def test_memory_of_an_identity_start_is_the_arcsine_law() -> None:
    """Each unit is a random walk reflected at zero: it remembers what came after its lowest point (Lévy 1939).

    E‖J_T … J_{k+1}‖²/n = P(the lowest of S_0 … S_T lies at k or before) = Σ_{j ≤ k} u_j u_{T−j}, u_j = C(2j, j)/4^j.
    """
    length, width = 24, 32
    network = gs.vanilla_rnn(width, "relu", "identity", initial="zero")
    gains = by_lag(gs.sweep(network, depth=length, seeds=400, direction="backward"))
    squares = gains.copy(data=np.exp(2 * gains.values))
    u = [math.comb(2 * j, j) / 4**j for j in range(length + 1)]
    until = np.cumsum([u[j] * u[length - j] for j in range(length + 1)])
    error = squares.std("seed", ddof=1) / math.sqrt(400)
    for lag in (1, 8, 16, 24):
        apart = squares.mean("seed").sel(lag=lag) - until[length - lag]
        assert abs(float(apart)) < 4.5 * float(error.sel(lag=lag)), lag


def test_lag_of_a_part_of_a_backward_sweep_is_that_of_the_whole() -> None:
    """In any order, and with depths left out: the Dataset says how deep the network is."""
    whole = made([-0.1 * LAG[::-1]] * 2, "backward").assign_attrs(depth=100)
    expected = by_lag(whole)
    for part in (whole.isel(time=slice(None, None, -1)), whole.isel(time=slice(10, 50)), whole.isel(time=[7, 3, 90])):
        lags = by_lag(part)
        assert list(lags["lag"].values) == sorted(101 - part["time"].values)
        np.testing.assert_array_equal(lags, expected.sel(lag=lags["lag"]))
    unsaid = made([-0.1 * LAG[::-1]] * 2, "backward")  # of an older file: the largest step held
    np.testing.assert_array_equal(by_lag(unsaid.isel(time=slice(None, None, -1)))["lag"], LAG)


def test_lag_of_partial_products_counts_from_their_start() -> None:
    found = gs.partial_products(gs.feedforward(5, "identity", "orthogonal"), depth=12, seeds=2, sigma_w=0.5)
    for start in (0, 4, 9):
        some = by_lag(found.sel(start=start))
        np.testing.assert_array_equal(some["lag"], np.arange(1, 13 - start))
        np.testing.assert_allclose(some, math.log(0.5) * np.broadcast_to(some["lag"], some.shape), rtol=ROUNDING)
    np.testing.assert_allclose(horizon(found.sel(start=4))["horizon_fit"], 1 / math.log(2), rtol=ROUNDING)


def with_lost(lost: int, seeds: int = 40) -> xarray.Dataset:
    """Networks that fall by 0.1 a step, some of which explode and leave the floats after 20 steps."""
    values = np.broadcast_to(-0.1 * LAG, (seeds, 100)).copy()
    values[:lost] = np.where(LAG <= 20, 1.0 * LAG, np.nan)
    dataset = made(values)
    gone = dataset["log_gain"].isnull()
    return dataset.assign(dead=xarray.zeros_like(gone), log_gain_lost=gone)


def test_networks_that_left_the_floats_are_not_dead() -> None:
    with pytest.warns(RuntimeWarning, match="^the horizon: 1 of 40 networks left the range of floats"):
        found = horizon(with_lost(1))
    for name in ("horizon_fit", "horizon_crossing"):
        np.testing.assert_allclose(found[name], 10)  # of the others, at every lag
        np.testing.assert_allclose(found[f"{name}_error"], 0, atol=1e-12)
    with pytest.raises(ValueError, match=r"^max_lost: 4 of 40 networks of a cell left .* a share of at least 0\.1$"):
        horizon(with_lost(4))
    with pytest.warns(RuntimeWarning, match="4 of 40"):
        np.testing.assert_allclose(horizon(with_lost(4), max_lost=0.1)["horizon_fit"], 10)


def test_where_all_are_lost_there_is_no_horizon() -> None:
    """All dead networks have forgotten at once; of lost ones nothing is known."""
    with pytest.warns(RuntimeWarning, match="40 of 40"):
        found = horizon(with_lost(40), max_lost=1.0)
    assert not found["crossed"]
    assert not found["decays"]
    assert all(np.isnan(found[name]) for name in ("horizon_fit", "horizon_crossing", "horizon_crossing_error"))


def test_a_cell_that_loses_networks_is_refused_beside_one_that_loses_none() -> None:
    both = xarray.concat([with_lost(0), with_lost(3)], "sigma_w")
    with pytest.raises(ValueError, match=r"^max_lost: 3 of 40"):
        horizon(both)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (made([LAG] * 2), {"fraction": 1.0}, "fraction"),
        (made([LAG] * 2), {"fraction": 0.0}, "fraction"),
        (made([LAG] * 2), {"statistic": "log_jvp"}, "log_jvp"),
        (made([LAG] * 2), {"between": (200, 300)}, "between"),
        (made([LAG] * 2), {"between": (1, 101)}, "between: .* among 1 to 100"),
        (made([LAG] * 2), {"between": (1,)}, "between"),
        (made([LAG] * 2), {"between": 5}, "between"),
        (made([LAG] * 2), {"between": (5, 5)}, "between"),
        (made([LAG] * 2), {"start": math.nan}, "start: got nan"),
        (made([LAG] * 2), {"resamples": 0}, "resamples"),
        (made([LAG] * 2), {"max_lost": 1.5}, "max_lost: got 1.5"),
        (made([LAG] * 2).mean("seed"), {}, "dataset: log_gain has no axis seed"),
        (made([LAG] * 2).isel(time=-1), {}, "time or depth"),
        (made([LAG] * 2).isel(time=[-1]), {}, "dataset: 1 lags"),
        (made([LAG] * 2).isel(time=[]), {}, "dataset: its axis time is empty"),
        (made([LAG] * 2).expand_dims("start"), {}, "start"),
        (made([LAG] * 2).assign(length=made([LAG] * 2)["log_gain"].assign_attrs(units="1")), {"statistic": "length"},
         "statistic: 'length' is no logarithm"),
    ],
)  # fmt: skip
def test_bad_input_is_named(dataset: xarray.Dataset, options: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises(ValueError, match=message):
        horizon(dataset, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": "half"}, "fraction: got 'half'"),
        ({"start": "x"}, "start: got 'x'"),
        ({"start": np.zeros((2, 2))}, "start: got array"),
        ({"between": ("a", "b")}, "between: got"),
        ({"max_lost": "all"}, "max_lost: got 'all'"),
        ({"statistic": ["log_gain"]}, "statistic: got"),
        ({"dataset": made([LAG] * 2)["log_gain"]}, "dataset: got a DataArray"),
        ({"dataset": None}, "dataset: got a NoneType"),
    ],
)
def test_the_wrong_kind_of_thing_is_named(options: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"dataset": made([LAG] * 2), **options}
    with own_checks(), pytest.raises(TypeError, match=f"^{message}"):
        horizon(**call)
