"""The page of the atlas holds the numbers of its Dataset, and asks nothing of any network."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import xarray
from script_modules import load, measured

from gradsim.cli import atlas


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
    (one,), tanh = book["maps"], data["tanh"].transpose("sigma_w", "sigma_b", "seed", "depth")
    assert (one["name"], book["width"], book["depth"], book["seeds"]) == ("tanh", 8, 4, 2)
    np.testing.assert_array_equal(one["sigma_w"], tanh.sigma_w)
    np.testing.assert_allclose(one["growth"], tanh.growth.values.ravel(), rtol=1e-5)
    np.testing.assert_allclose(one["chi"], tanh.chi.values.ravel(), rtol=1e-5)
    shape = (5, 3, 4)
    np.testing.assert_allclose(held(one["mean"], shape), tanh.log_gain.mean("seed"), atol=0.51 * atlas.UNIT)
    apart = abs(tanh.log_gain.isel(seed=1) - tanh.log_gain.isel(seed=0)) / 2  # the standard error of two
    np.testing.assert_allclose(held(one["error"], shape), apart, atol=0.51 * atlas.UNIT)
    np.testing.assert_allclose(held(one["theory"], shape), tanh.theory, atol=0.51 * atlas.UNIT)


def test_what_is_no_number_is_missing() -> None:
    values = xarray.DataArray([1.23456789, -2.0, np.nan, np.inf, 1e9])
    expected = [1.2346, -2.0, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(held(atlas.integers(values), (5,)), expected, rtol=1e-15)
    assert atlas.numbers(values) == [1.23457, -2.0, None, "inf", 1e9]
