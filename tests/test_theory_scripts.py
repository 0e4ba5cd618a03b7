"""The scripts that lay finite networks over theory: small runs against it, and exact laws."""

import math

import numpy as np
import pytest
import xarray
from script_modules import load, measured

import gradsim as gs
from gradsim.theory.edge import EXISTS


@pytest.mark.further
def test_the_critical_lines_are_those_of_theory() -> None:
    datasets = measured("critical_lines", "--activations", "tanh", "relu")
    assert list(datasets) == ["tanh", "relu"]
    assert set(datasets["relu"]["reason"].values) == {gs.theory.explain_edge("relu", 0.5).item()}
    assert set(datasets["tanh"]["reason"].values) == {EXISTS}
    assert datasets["relu"]["edge_of_chaos"].isnull().all()
    np.testing.assert_allclose(datasets["relu"]["no_growth"], math.sqrt(2), rtol=1e-3)
    for one in datasets.values():
        assert one["sigma_w"].dims == ("width", "sigma_b")
        assert one["width"].values.tolist() == [12, 24]
        assert set(one["status"].values.ravel()) == {"bracketed"}
        apart = load("critical_lines").distances(one)
        # First order leaves 1/N² and a standard error of 2 %; infinite width is off by 5 to 15 %.
        wide = apart.sel(width=24)
        np.testing.assert_allclose(wide["distance"], wide["expected"], atol=0.08)
        assert (apart["distance"] > 0).all()


def test_law_B7_gives_the_first_order_of_relu() -> None:
    """½ ln(σ²/2) = 5/4N, as the lengths of a ReLU's layers do not matter."""
    options = load("critical_lines").Options(depth=10, burn_in=2, points=2)
    widths = xarray.DataArray([32, 512], dims="width", coords={"width": [32, 512]})
    found = load("critical_lines").expect("relu", widths, options)["first_order"]
    exact = math.sqrt(2) * np.exp(5 / (4 * widths.values[:, None]))
    np.testing.assert_allclose(found, np.broadcast_to(exact, found.shape), rtol=1e-4)


def test_no_two_networks_share_a_key() -> None:
    own_key = load("critical_lines").own_key
    assert len({own_key(key, place, width) for key in range(3) for place in range(3) for width in (8, 16)}) == 18


@pytest.mark.parametrize(
    ("activation", "width", "mean", "variance"),
    [
        ("identity", 64, -0.0078531861, 0.0079358416),
        ("identity", 128, -0.0039164223, 0.0039369265),
        ("relu", 64, -0.020054299, 0.020749338),
        ("relu", 128, -0.009893201, 0.010058498),
    ],
)
def test_law_A1_A4_moments_of_a_layer(activation: str, width: int, mean: float, variance: float) -> None:
    module = load("finite_width")
    np.testing.assert_allclose(module.layer_law(activation, width), (mean, variance), rtol=1e-7)
    rate = module.RATE[activation] / width
    np.testing.assert_allclose((-mean, variance), rate, rtol=5 / width)


@pytest.mark.further
def test_law_A4_living_networks_of_two_and_four_units() -> None:
    """Narrow ReLU networks die often; mean and variance of the living, and the share of the dead, are exact."""
    datasets = measured("finite_width")
    assert list(datasets) == ["relu 2", "relu 4", "identity 2", "identity 4"]
    for one in map(load("finite_width").summary, datasets.values()):
        for name in ("mean", "variance"):
            residual = (one[name] - one[f"exact_{name}"]) / one[f"{name}_error"]
            assert float(np.abs(residual).max()) < 4.5
        share = one["exact_dead"]
        error = np.sqrt(share * (1 - share) / one.sizes["seed"]) + 1e-12
        assert float((np.abs(one["dead"] - share) / error).max()) < 4.5
