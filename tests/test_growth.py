"""Growth a layer, and where it is zero."""

import numpy as np
import pytest
import xarray

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


def test_errors_name_what_is_missing() -> None:
    one = dataset(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="no 'log_jvp'; it holds: log_gain"):
        growth(one, "log_jvp")
    with pytest.raises(ValueError, match="no axis depth or time"):
        growth(one.isel(depth=0))
    with pytest.raises(ValueError, match="since: got 4; pass a depth from 0 to 3"):
        growth(one, since=4)
    with pytest.raises(ValueError, match="no axis 'sigma_w'"):
        zero_crossing(growth(one))
