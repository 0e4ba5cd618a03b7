"""The page of the atlas holds the numbers of its Dataset, and asks nothing of any network."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from script_modules import load, measured

import gradsim as gs
from gradsim.cli import atlas
from gradsim.cli.families import FAMILIES, predicted


def held(text: str, shape: tuple[int, ...]) -> np.ndarray:
    whole = np.frombuffer(base64.b64decode(text), "<i4").reshape(shape)
    return np.where(whole == atlas.MISSING, np.nan, whole * atlas.UNIT)


def test_the_page_holds_what_was_measured(tmp_path: Path) -> None:
    data = measured("atlas")
    said = load("atlas").report(data, tmp_path)
    text = (tmp_path / "atlas.html").read_text("utf-8")
    assert str(tmp_path / "atlas.html") in said
    assert not re.search(r"https?://|src=|@import|url\(", text)
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text)
    assert found is not None
    book = json.loads(found[1])
    assert [one["name"] for one in book["maps"]] == ["tanh", "tanh RNN", "RetNet"]
    one, tanh = book["maps"][0], data["tanh"].transpose("sigma_w", "sigma_b", "seed", "depth")
    assert [axis["name"] for axis in one["axes"]] == ["sigma_w", "sigma_b"]
    np.testing.assert_array_equal(one["axes"][0]["values"], tanh.sigma_w)
    assert one["steps"] == [1, 2, 3, 4]
    np.testing.assert_allclose(one["growth"], tanh.growth.values.ravel(), rtol=1e-5)
    np.testing.assert_allclose(one["chi"], tanh.chi.values.ravel(), rtol=1e-5)
    shape = (5, 3, 4)
    np.testing.assert_allclose(held(one["mean"], shape), tanh.log_gain.mean("seed"), atol=0.51 * atlas.UNIT)
    apart = abs(tanh.log_gain.isel(seed=1) - tanh.log_gain.isel(seed=0)) / 2  # the standard error of two
    np.testing.assert_allclose(held(one["error"], shape), apart, atol=0.51 * atlas.UNIT)
    np.testing.assert_allclose(held(one["theory"], shape), tanh.theory, atol=0.51 * atlas.UNIT)
    for one in book["maps"]:
        assert remeasured(one, 3, 1) == pytest.approx(held(one["mean"], (-1, 4))[3 * 3 + 1], abs=1e-4)


def remeasured(one: dict[str, Any], across: int, up: int) -> list[float]:
    """The call of that point, run as the page shows it."""
    at = [f"{axis['name']}={axis['values'][place]}" for axis, place in zip(one["axes"], (across, up), strict=True)]
    found: list[float] = eval(f'{one["call"]}, {", ".join(at)}).log_gain.mean("seed")', {"gs": gs}).values.tolist()
    return found


def test_theory_of_families_is_where_it_exists(tmp_path: Path) -> None:
    data = measured("atlas", "--families", "tanh RNN", "RetNet", "delta rule", "minGRU")
    np.testing.assert_allclose(
        data["tanh RNN"]["edge_of_chaos"], gs.theory.edge_of_chaos("tanh", data["tanh RNN"].sigma_v)
    )
    closed = gs.theory.log_memory(gs.retnet(16), data["RetNet"].time.values, time_scale=0.1)
    np.testing.assert_allclose(data["RetNet"]["theory"][0, 0], closed)
    np.testing.assert_allclose(data["RetNet"].log_gain.mean("seed"), data["RetNet"]["theory"], atol=1e-7)
    there = data["delta rule"]["theory"].notnull().all("time")
    np.testing.assert_array_equal(there, np.broadcast_to([True, False, False], (4, 3)))  # at sigma_beta = 0
    assert "theory" not in data["minGRU"]


def test_theory_over_depth_is_that_of_the_law_book() -> None:
    weight, branch = np.array([0.5, 1.0]), np.array([0.3, 2.0])
    axes = {"sigma_w": weight, "branch_gain": branch}
    path = predicted(FAMILIES["residual"], gs.residual(16), axes, 3)["theory"][1]
    share = (weight[:, None] * branch) ** 2 / 2  # law G3, of a ReLU
    np.testing.assert_allclose(path, 0.5 * np.arange(1, 4) * np.log1p(share)[..., None], rtol=1e-9)
    for title, power in (("pre-norm", 8.952444330737), ("post-norm", 0.594268477535)):  # law G8: n = 4, τ = 0
        family = FAMILIES[title]
        axes = {"sigma_q": np.zeros(1), "sigma_w": np.array([2**0.5])}
        path = predicted(family, family.build(16), axes, 6)["theory"][1]
        assert np.exp(2 * path[0, 0, -1]) == pytest.approx(power, rel=1e-9)


def test_theory_of_norms_and_shared_weights_is_that_of_the_law_book() -> None:
    axes = {"sigma_w": np.array([0.8, 2.0]), "sigma_b": np.array([0.0, 0.5])}
    family = FAMILIES["batch norm"]
    chi = predicted(family, family.build(16), axes, 3)["chi"][1]
    np.testing.assert_array_equal(chi, gs.theory.batchnorm_growth("relu", 8) * np.array([[1, np.nan]] * 2))
    found = predicted(FAMILIES["convolution"], gs.convolutional(8, 4), axes, 3)
    weight, bias = axes["sigma_w"][:, None], axes["sigma_b"]
    np.testing.assert_allclose(found["theory"][1], gs.theory.log_gain("tanh", weight, bias, 3).mean)
    np.testing.assert_allclose(found["chi"][1], gs.theory.feedforward("tanh", weight, bias).chi)
    axes = {"sigma_q": np.zeros(1), "branch_gain": np.ones(1)}
    path = predicted(FAMILIES["attention"], gs.attention(16, 4, 4, mlp=0), axes, 3)["theory"][1]
    q, power = 1.0, 1.0  # law G7: uniform attention before which a norm stands, n = 4
    for _ in range(3):
        power *= 1 + 1 / q
        q += 1 - (1 - 1 / 4) / q
    assert np.exp(2 * path[0, 0, -1]) == pytest.approx(1 - 1 / 4 + power / 4, rel=1e-9)


def test_a_scalar_memory_of_constant_gates_is_its_closed_form() -> None:
    """Where it reads no input nothing is random."""
    family = FAMILIES["sLSTM"]
    axes = {"sigma_v": np.array([0.0, 1.0]), "forget_bias": np.array([-3.0, 9.0])}
    network = family.build(16)
    found = predicted(family, network, axes, 5)["theory"][1]
    assert np.isnan(found[1]).all()
    one = gs.sweep(network, depth=5, seeds=1, sigma_v=0.0, forget_bias=axes["forget_bias"])
    np.testing.assert_allclose(one.log_gain.isel(seed=0).transpose("forget_bias", "time"), found[0], atol=1e-5)


@pytest.mark.parametrize("title", FAMILIES)
def test_the_call_of_a_family_builds_it(title: str) -> None:
    family = FAMILIES[title]
    network = eval(family.call(16), {"gs": gs})
    assert network.describe() == family.build(16).describe()
    assert {*family.gains, *family.others} <= set(network.gains)


def test_what_cannot_be_mapped_is_refused() -> None:
    atlas = load("atlas")
    with pytest.raises(ValueError, match="families: got Elman; pass some of: residual, highway"):
        atlas.measure(atlas.Options(families=("Elman",)))
    with pytest.raises(ValueError, match="activations: got none, and no families"):
        atlas.measure(atlas.Options(activations=(), families=()))
    with pytest.raises(ValueError, match="family_width: got 24; pass a multiple of 16"):
        atlas.measure(atlas.Options(family_width=24))
    with pytest.raises(ValueError, match="seeds: got 1; pass at least 2"):
        atlas.measure(atlas.Options(seeds=1))


def test_many_steps_are_thinned() -> None:
    np.testing.assert_array_equal(atlas.kept(60), np.arange(1, 61))
    few = atlas.kept(1000)
    assert (few[0], few[-1]) == (1, 1000)
    assert len(few) <= atlas.MOST


def test_what_is_no_number_is_missing() -> None:
    values = xarray.DataArray([1.23456789, -2.0, np.nan, np.inf, 1e9])
    expected = [1.2346, -2.0, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(held(atlas.integers(values), (5,)), expected, rtol=1e-15)
    assert atlas.numbers(values) == [1.23457, -2.0, None, "inf", 1e9]
