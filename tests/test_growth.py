"""Growth a layer, and where it is zero."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray

import gradsim as gs
from gradsim.analysis.growth import growth, zero_crossing


def dataset(values: np.ndarray, burn_in: int = 0) -> xarray.Dataset:
    seeds, depth = values.shape
    coordinates = {"seed": np.arange(seeds), "depth": ("depth", np.arange(1, depth + 1), {"units": "layer"})}
    return xarray.Dataset({"log_gain": (("seed", "depth"), values)}, coordinates, attrs={"burn_in": burn_in})


def test_the_transient_is_left_out_unless_a_burn_in_has_done_so() -> None:
    settled = np.array([[5.0, 6.0, 6.5, 7.0]])
    assert growth(dataset(settled)) == pytest.approx(0.5)
    assert growth(dataset(settled, burn_in=10)) == pytest.approx(7 / 4)
    assert growth(dataset(settled), since=3) == pytest.approx(0.5)
    assert growth(dataset(settled)).attrs["units"] == "nat/layer"


def test_growth_is_that_of_the_living_networks() -> None:
    one_dead = np.array([[1.0, 2.0], [np.nan, np.nan]])
    assert growth(dataset(one_dead, burn_in=1)) == pytest.approx(1.0)
    assert np.isnan(growth(dataset(one_dead[1:], burn_in=1)))


@pytest.mark.parametrize("order", [1, -1])
def test_zero_crossing_is_exact_on_straight_lines(order: int) -> None:
    weight = np.linspace(0.5, 2, 7)[::order]
    bias = np.array([0.0, 0.3, 5.0])
    map_ = xarray.DataArray(weight[:, None] - 1 - bias, {"sigma_w": weight, "sigma_b": bias})
    found = zero_crossing(map_)
    np.testing.assert_allclose(found, [1.0, 1.3, np.nan], rtol=1e-14)
    assert found.dims == ("sigma_b",)


@pytest.fixture(scope="module")
def both_ways() -> dict[str, xarray.Dataset]:
    """Linear orthogonal networks: the log gain of l layers is l ln σ_w in every one of them, whichever the way."""
    network = gs.feedforward(5, "identity", "orthogonal")
    options: dict[str, Any] = {"depth": 8, "seeds": 2, "sigma_w": [0.5, 0.9, 1.25], "sigma_b": [0.0, 0.1]}
    statistics = {"forward": ("log_gain", "log_spectral"), "backward": "log_gain"}
    return {way: gs.sweep(network, direction=way, statistics=some, **options) for way, some in statistics.items()}


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_growth_is_along_the_gradients_own_way(both_ways: dict[str, xarray.Dataset], way: str) -> None:
    one = both_ways[way]
    exact = np.log(one["sigma_w"])
    for since in (None, 0, 3):
        np.testing.assert_allclose(growth(one, since=since).mean("sigma_b"), exact, atol=1e-6)
    np.testing.assert_allclose(zero_crossing(growth(one)), 1.0, atol=0.02)
    assert growth(one).attrs["units"] == "nat/layer"


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_parts_of_a_sweep_have_the_growth_of_the_whole(both_ways: dict[str, xarray.Dataset], way: str) -> None:
    """Reversed, or some depths alone: the lag is counted from the end of the whole network."""
    one = both_ways[way]
    for part in (one.isel(depth=slice(None, None, -1)), one.sel(depth=[1, 2, 6]), one.isel(depth=[0, -1])):
        np.testing.assert_allclose(growth(part).isel(sigma_b=0), np.log(one["sigma_w"]), atol=1e-6)
    np.testing.assert_allclose(growth(one.isel(depth=[-1])).isel(sigma_b=0), np.log(one["sigma_w"]), atol=1e-6)


def test_growth_of_the_spectral_norm_is_taken_where_it_was_measured(both_ways: dict[str, xarray.Dataset]) -> None:
    everywhere = both_ways["forward"]
    np.testing.assert_allclose(
        growth(everywhere, "log_spectral").mean("sigma_b"), np.log(everywhere.sigma_w), atol=1e-6
    )
    network = gs.feedforward(5, "identity", "orthogonal")
    for options in ({"at": [2, 7]}, {"direction": "backward", "at": [1, 4]}):
        one = gs.sweep(network, depth=8, seeds=2, sigma_w=0.5, statistics="log_spectral", **options)
        assert float(growth(one, "log_spectral")) == pytest.approx(np.log(0.5), abs=1e-6)


def test_growth_of_partial_products_is_from_their_start() -> None:
    pairs = gs.partial_products(gs.feedforward(5, "identity", "orthogonal"), depth=6, seeds=2, sigma_w=0.5)
    for start in (0, 3):
        assert float(growth(pairs.sel(start=start), since=0)) == pytest.approx(np.log(0.5), abs=1e-6)
    with pytest.raises(ValueError, match="partial products; choose a start"):
        growth(pairs)


def test_a_gradient_of_a_loss_has_no_known_size_before_the_first_step() -> None:
    network = gs.feedforward(5, "identity", "orthogonal")
    one = gs.sweep(
        network, depth=4, seeds=2, burn_in=2, sigma_w=0.5, direction="backward", loss=lambda h: 7 * h[0],
        statistics=("log_gradient", "log_weight_gradient"),
    )  # fmt: skip
    assert float(growth(one, "log_gradient")) == pytest.approx(np.log(0.5), abs=1e-6)
    with pytest.raises(ValueError, match="since: got 0; pass a lag that was measured: 1, 2, 3"):
        growth(one, "log_gradient", since=0)
    for burn_in in (0, 2):
        of_bias = growth(one.assign_attrs(burn_in=burn_in), "log_weight_gradient").sel(parameter="b")
        assert float(of_bias) == pytest.approx(np.log(0.5), abs=1e-6)


def square(z: jax.Array) -> jax.Array:
    return z * z


def test_networks_that_left_the_floats_are_counted_and_refused(tmp_path: Path) -> None:
    """x² squares the state with each layer: some networks have left the floats, and they are not passed over."""
    network = gs.feedforward(3, square)
    with pytest.warns(RuntimeWarning, match=r"log_gain: \d of 16 networks left the range of floats") as caught:
        one = gs.sweep(network, depth=8, seeds=16, sigma_w=1.3)
    assert caught[0].filename == __file__  # the user's line
    lost = int(one["log_gain_lost"].any("depth").sum())
    assert 0 < lost < 16
    assert (one["log_gain"].attrs["lost"], one["log_gain"].attrs["networks"]) == (lost, 16)
    one.to_zarr(tmp_path / "one.zarr", consolidated=False)
    for held in (one, xarray.open_zarr(tmp_path / "one.zarr", consolidated=False)):
        with pytest.raises(ValueError, match=f"max_lost: {lost} of 16 networks"):
            growth(held)
        with pytest.warns(RuntimeWarning, match=f"{lost} of 16 networks"):
            growth(held, max_lost=1.0)
    kept = one.isel(seed=~one["log_gain_lost"].any("depth").values)
    assert np.isfinite(growth(kept))
    with pytest.raises(ValueError, match=r"max_lost: .* networks left the range of floats \(log_gain\)"):
        gs.critical(network, between=(1.0, 3.0), depth=30, seeds=8, statistic="log_gain")


def test_a_statistic_that_is_no_logarithm_does_not_grow() -> None:
    one = gs.sweep(gs.feedforward(4), depth=4, seeds=1, statistics=("length", "log_length"))
    with pytest.raises(ValueError, match="statistic: 'length' is no logarithm"):
        growth(one, "length")
    assert growth(one, "log_length").attrs["long_name"] == "growth of log_length"


def test_errors_name_what_is_missing() -> None:
    one = dataset(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="no 'log_jvp'; it holds: log_gain"):
        growth(one, "log_jvp")
    with pytest.raises(ValueError, match="no axis time or depth"):
        growth(one.isel(depth=0))
    with pytest.raises(ValueError, match="since: got 4; pass a lag that was measured: 0, 1, 2, 3"):
        growth(one, since=4)
    with pytest.raises(ValueError, match="no axis 'sigma_w'"):
        zero_crossing(growth(one))
    with pytest.raises(ValueError, match="growth: it has an axis 'depth', so it is no growth"):
        zero_crossing(one["log_gain"])
