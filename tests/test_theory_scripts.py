"""The scripts that lay finite networks over theory: tiny runs end to end, exact laws, and what they refuse."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from script_modules import load

import gradsim as gs
from gradsim import cli
from gradsim.theory.edge import EXISTS

FOLDER = Path(__file__).parents[1] / "scripts"
TINY = {
    "critical_lines": (
        "--activations", "tanh", "relu", "--widths", "24", "12", "--depth", "12", "--burn-in", "4", "--seeds", "300",
        "--points", "2",
    ),
    "finite_width": ("--widths", "4", "2", "--seeds", "400"),
}  # fmt: skip
FIGURES = {
    "critical_lines": ["critical_lines.png", "finite_width_scaling.png"],
    "finite_width": ["finite_width.png"],
}
names = pytest.mark.parametrize("name", list(TINY))


def refuse(*args: Any, **options: Any) -> None:
    raise AssertionError("something was computed")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of one tiny run of each script."""
    folders = {name: tmp_path_factory.mktemp(name) for name in TINY}
    for name, folder in folders.items():
        files = load(name).main([*TINY[name], "--out", str(folder)])
        assert [file.name for file in files] == FIGURES[name]
    return folders


@names
def test_a_script_redraws_what_it_saved(
    name: str, results: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for function in ("sweep", "critical"):
        monkeypatch.setattr(gs, function, refuse)
    monkeypatch.setattr(gs.theory, "log_gain", refuse)
    again = load(name).main(["--data", str(results[name] / f"{name}.zarr"), "--out", str(tmp_path)])
    assert [file.name for file in again] == FIGURES[name]
    assert [file.read_bytes() for file in again] == [(results[name] / file.name).read_bytes() for file in again]
    said = capsys.readouterr().out
    assert all(str(file) in said for file in again)
    assert "nan" not in said


def test_the_critical_lines_are_those_of_theory(results: dict[str, Path]) -> None:
    datasets = cli.load(results["critical_lines"] / "critical_lines.zarr")
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


def test_law_A4_living_networks_of_two_and_four_units(results: dict[str, Path]) -> None:
    """Narrow ReLU networks die often; mean and variance of the living, and the share of the dead, are exact."""
    datasets = cli.load(results["finite_width"] / "finite_width.zarr")
    assert list(datasets) == ["relu 2", "relu 4", "identity 2", "identity 4"]
    for one in map(load("finite_width").summary, datasets.values()):
        for name in ("mean", "variance"):
            residual = (one[name] - one[f"exact_{name}"]) / one[f"{name}_error"]
            assert float(np.abs(residual).max()) < 4.5
        share = one["exact_dead"]
        error = np.sqrt(share * (1 - share) / one.sizes["seed"]) + 1e-12
        assert float((np.abs(one["dead"] - share) / error).max()) < 4.5


@names
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        load(name).main(["--help"])
    said = capsys.readouterr().out
    assert "?" in said  # the question that it answers
    for wanted in (f"python scripts/{name}.py", "--preset", "--out", "--data", "--formats", "--key", "quick"):
        assert wanted in said


@names
def test_a_preset_yields_to_what_is_given(name: str) -> None:
    module = load(name)
    for preset in ("quick", "paper", "accelerator"):
        options = cli.parse(module.PRESETS, ["--preset", preset, "--key", "7"])
        assert options == type(options)(**{**vars(module.PRESETS[preset]), "preset": preset, "key": 7})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("critical_lines", ["--activations", "tanhh"], "activation: unknown name 'tanhh'; known names: identity"),
        ("critical_lines", ["--widths", "8", "0"], "widths: got 0; pass a whole number of at least 1"),
        ("critical_lines", ["--widths", *map(str, range(1, 9))], "widths: got 8; pass at most 7"),
        ("critical_lines", ["--widths"], "widths: got none; pass one or more"),
        ("critical_lines", ["--activations"], "activations: got none"),
        ("critical_lines", ["--seeds", "1"], "seeds: got 1; pass at least 2"),
        ("critical_lines", ["--depth", "0"], "depth: got 0"),
        ("critical_lines", ["--points", "1"], "points of sigma_b: got 1"),
        ("critical_lines", ["--sigma-b", "2", "1"], "sigma_b: got the range 2 to 1"),
        ("critical_lines", ["--data", "nowhere.zarr"], "data: nothing at nowhere.zarr"),
        ("finite_width", ["--widths", "1"], "widths: got 1; pass 2 units or more"),
        ("finite_width", ["--activations"], "activations: got none; pass one or more"),
        ("finite_width", ["--seeds", "9"], "seeds: got 9; pass at least 10"),
        ("finite_width", ["--ratio", "0"], "ratio: got 0"),
        ("finite_width", ["--data", "nowhere.zarr"], "data: nothing at nowhere.zarr"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    name: str, arguments: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("sweep", "critical"):
        monkeypatch.setattr(gs, function, refuse)
    monkeypatch.setattr(gs.theory, "log_gain", refuse)
    with pytest.raises(SystemExit) as stopped:
        load(name).main([*arguments, "--out", str(tmp_path)])
    assert str(stopped.value).startswith(f"error: {message}")
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())
