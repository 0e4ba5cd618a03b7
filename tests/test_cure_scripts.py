"""The scripts of the cures: the numbers in their tables and figures."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from script_modules import load, measured

import gradsim as gs
from gradsim.analysis.growth import growth
from gradsim.networks.depth.residual import residual
from gradsim.plot import remedies as remedies_plot
from gradsim.plot.explosion import batchnorm_explosion as batchnorm_explosion_plot
from gradsim.theory.normalized import batchnorm_growth, pre_norm_exponent

remedies, residual_phase_diagram, batchnorm_explosion = map(
    load, ("remedies", "residual_phase_diagram", "batchnorm_explosion")
)


def deep(log_gain: Any, **attributes: Any) -> xarray.Dataset:
    """What a sweep returns, with these log gains [seed, depth]."""
    values = np.asarray(log_gain, float)
    dims = ("seed", "depth")
    variables = {"log_gain": (dims, values), "dead": (dims, np.isnan(values))}
    steps = xarray.DataArray(np.arange(1, values.shape[1] + 1), dims="depth", attrs={"units": "layer"})
    return xarray.Dataset(variables, {"depth": steps, "seed": np.arange(len(values))}, attributes)


def test_law_D1_closed_forms() -> None:
    np.testing.assert_allclose(batchnorm_growth("relu", [8, 32]), [1.7881899767, 1.5219528306], rtol=1e-10)
    np.testing.assert_allclose(batchnorm_growth("relu", 1e9), math.pi / (math.pi - 1), rtol=1e-6)
    np.testing.assert_allclose(batchnorm_growth("identity", 8), 6 / 5, rtol=1e-14)


def test_law_D3_exponents() -> None:
    np.testing.assert_allclose(pre_norm_exponent("relu", [0.5, 1, 2]), 1, rtol=1e-9)
    np.testing.assert_allclose(pre_norm_exponent("tanh", 1.3), 1.1778072, rtol=1e-7)
    assert pre_norm_exponent("tanh", 1.0, 1.0) < 1.1778072


@pytest.mark.parametrize(("activation", "batch"), [("tanh", 8), ("relu", 3), ("identity", [8, 2])])
def test_batchnorm_growth_refuses_what_has_no_closed_form(activation: str, batch: Any) -> None:
    with pytest.raises(ValueError, match=r"^(activation|batch): got"):
        batchnorm_growth(activation, batch)


@pytest.mark.further
def test_remedies_writes_its_table(tmp_path: Path) -> None:
    datasets = measured("remedies")
    assert str(tmp_path / "remedies.csv") in remedies.report(datasets, folder=tmp_path)
    rows = {row["network"]: row for row in csv.DictReader((tmp_path / "remedies.csv").read_text().splitlines())}
    assert list(rows) == ["sigmoid, Glorot", "ReLU, He", "tanh RNN"]
    assert float(rows["sigmoid, Glorot"]["growth"]) == pytest.approx(-1.5, abs=0.3)
    assert rows["sigmoid, Glorot"]["change"] == rows["tanh RNN"]["change"] == "falls"
    assert rows["tanh RNN"]["axis"] == "time"


def test_every_network_of_remedies_builds_and_has_a_kind() -> None:
    options = remedies.Options(width=4, batch=4)
    for name, (kind, build, gains) in remedies.NETWORKS.items():
        assert set(gains) <= set(build(options).gains), name
        assert kind in {
            remedies.BASELINE, remedies.START, remedies.NORM, remedies.SKIP, remedies.GATE, remedies.LINEAR,
            remedies.BOUND,
        }  # fmt: skip


def test_the_table_leaves_out_lost_networks_of_one_row_alone() -> None:
    falling = -np.outer(np.linspace(0.9, 1.1, 40), np.arange(1, 21))
    lost = np.zeros(falling.shape, bool)
    lost[0, 15:] = True
    some = deep(np.where(lost, np.nan, falling)).assign(dead=(("seed", "depth"), lost & False))
    with pytest.warns(RuntimeWarning, match=r"1 of 80 networks left the range of floats"):
        found = remedies.table({"whole": deep(falling), "some": some.assign(log_gain_lost=(some.dead.dims, lost))})
    np.testing.assert_allclose(found["growth"], [-1, falling[1:, 0].mean()], rtol=1e-12)
    assert found["dead"].values.tolist() == [0, 0]


def test_the_table_of_known_decays() -> None:
    depth = np.arange(1, 21)
    falling, growing = (sign * np.outer([0.9, 1.1], depth) for sign in (-1, 1))
    dead = np.where(np.array([[False], [True]]) & (depth > 5), np.nan, -falling * 0)
    found = remedies.table({"falls": deep(falling), "grows": deep(growing), "dies": deep(dead)}, factor=10)
    np.testing.assert_allclose(found["growth"], [-1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found["growth_error"][:2], 0.1, rtol=1e-12)
    np.testing.assert_allclose(found["horizon"][:2], math.log(10), rtol=1e-12)
    assert found["change"].values.tolist() == ["falls", "grows", "holds"]
    assert found["dead"].values.tolist() == [0, 0, 0.5]


def test_names_are_pushed_apart_and_stay_in_order() -> None:
    places = remedies_plot._apart(np.array([0.0, 0.1, 0.2, 5.0]), 1.0)
    assert np.all(np.diff(places) >= 1 - 1e-12)
    assert places[-1] == 5
    assert places[:3].mean() == pytest.approx(0.1)


def test_the_residual_diagram_has_no_vanishing_phase_with_the_skip() -> None:
    maps = measured("residual_phase_diagram")
    assert float(growth(maps["without skip"]).min()) < -0.5
    assert float(growth(maps["with skip"]).min()) > -0.05


def test_the_growth_with_the_skip_is_that_of_theory() -> None:
    """A linear network's squared gradient grows by 1 + σ_w² a layer at every width: here once from theory."""
    axes = {"sigma_w": [0.5, 2.0], "sigma_b": [0.0, 1.0], "depth": np.arange(1, 9)}
    grown = residual_phase_diagram.growth_with_skip("identity", xarray.Dataset(coords=axes))
    assert grown.dims == ("sigma_w", "sigma_b")
    np.testing.assert_allclose(grown.T, [np.log1p([0.25, 4.0]) / 2] * 2, rtol=1e-9)


def test_law_A8_the_mean_square_over_branch_gain() -> None:
    """E‖Ju‖² = (1 + a²/2)^L at every width, against the mean over many small networks."""
    gains = np.array([0.3, 0.7])
    one = gs.sweep(residual(8, "relu"), depth=6, seeds=2000, branch_gain=gains, statistics="log_jvp")
    squares: xarray.DataArray = xarray.ufuncs.exp(2 * one["log_jvp"])
    error = squares.std("seed") / np.sqrt(one.sizes["seed"])
    predicted = np.exp(2 * residual_phase_diagram.mean_square("residual", one))
    assert float((np.abs(squares.mean("seed") - predicted) / error).max()) < 4.5


@pytest.mark.further
def test_the_explosion_is_that_of_theory() -> None:
    found = batchnorm_explosion.rates(measured("batchnorm_explosion")["relu"], "relu")
    assert found["batch"].values.tolist() == [6, 12]
    np.testing.assert_allclose(found["mean_square"], found["theory"], atol=0.15)


def test_the_explosion_shows_residuals_in_standard_errors() -> None:
    values = {"typical": 0.3, "typical_error": 0.1, "mean_square": 0.4, "mean_square_error": 0.1, "theory": 0.2}
    one = xarray.Dataset({name: ("batch", [value, value]) for name, value in values.items()}, {"batch": [6, 12]})
    curve = xarray.DataArray(np.ones(6), {"size": np.arange(6, 12)})
    last: Any = batchnorm_explosion_plot({"relu": one.assign(curve=curve)}).axes[2]
    np.testing.assert_allclose(last.lines[0].get_ydata(), 2)
    np.testing.assert_allclose(last.lines[1].get_ydata(), 1)


def test_rates_of_a_known_growth() -> None:
    slopes = np.array([0.1, 0.3])
    log_jvp = slopes[:, None] * np.arange(1, 9)
    one = xarray.Dataset({"log_jvp": (("batch", "seed", "depth"), log_jvp[None])}, {"depth": np.arange(1, 9)})
    found = batchnorm_explosion.rates(one.assign_coords(batch=[8]), "identity")
    assert found["typical"].item() == pytest.approx(0.2)
    assert found["typical_error"].item() == pytest.approx(0.1)
    mean = [np.log(np.mean(np.exp(2 * slopes * depth))) for depth in (2, 8)]
    assert found["mean_square"].item() == pytest.approx((mean[1] - mean[0]) / 12)


def test_the_table_of_todays_recurrences_is_that_of_the_figure(tmp_path: Path) -> None:
    time = [1, 10, 100]
    logs = xarray.DataArray(np.log([[0.5, 0.3, 0.1], [0.5, 0.4, 1e-9]]), {"time": time}, ("seed", "time"))
    one = xarray.Dataset({"log_gain": logs, "dead": xarray.zeros_like(logs, bool)}, attrs={"dtype": "float32"})
    closed = one.assign(theory=("time", np.log([0.5, 0.36, 0.1])))
    load("modern_memory").report({"one": one, "closed": closed}, tmp_path)
    with (tmp_path / "modern_memory.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["network"], row["time"]): row for row in csv.DictReader(file)}
    assert list(rows) == [("one", "10"), ("one", "100"), ("closed", "10"), ("closed", "100")]
    assert float(rows["one", "10"]["left"]) == pytest.approx(0.5 * math.log((0.3**2 + 0.4**2) / 2))
    # One of two has all that is left after 100.
    assert [row["carried_by_few"] for row in rows.values()] == ["False", "True"] * 2
    assert rows["one", "10"]["theory"] == ""
    assert float(rows["closed", "100"]["theory"]) == pytest.approx(math.log(0.1))


def test_the_table_of_transformers_has_their_last_block() -> None:
    ends = {"a": 3.0, "b": 4.0}
    shown = {name: xarray.Dataset({"gain": ("depth", [0.0, end])}, {"depth": [1, 2]}) for name, end in ends.items()}
    rows = load("transformer_depth").table(shown).to_dataframe()
    assert rows.loc["b"].to_dict() == {"depth": 2.0, "gain": 4.0}
    assert rows.index.tolist() == ["a", "b"]
