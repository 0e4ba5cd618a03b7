"""Scripts: each runs from its options alone, saves what it draws from, and refuses what is wrong in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray
from script_modules import load

import gradsim as gs
from gradsim import cli

FOLDER = Path(__file__).parents[1] / "scripts"
TINY = {
    "phase_diagram": (
        "--activations", "tanh", "--rows", "tanh", "--schemes", "lecun_normal", "he_normal", "--width", "8",
        "--scheme-width", "8", "--depth", "4", "--burn-in", "2", "--seeds", "2", "--points-w", "5", "--points-b", "3",
        "--scheme-depth", "3",
    ),
    "depth_profile": (
        "--activations", "tanh", "--schemes", "lecun_normal", "he_normal", "torch_linear", "--width", "8",
        "--depth", "4", "--seeds", "3",
    ),
    "derivatives": ("--activations", "sigmoid", "tanh", "--points", "101"),
}  # fmt: skip
FIGURES = {
    "phase_diagram": ["phase_diagram.png", "schemes.png"],
    "depth_profile": ["depth_profile.png"],
    "derivatives": ["derivatives.png"],
}
names = pytest.mark.parametrize("name", list(TINY))


def refuse(*args: Any, **options: Any) -> None:
    raise AssertionError("something was computed")


@names
def test_a_script_draws_and_redraws(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = load(name).main([*TINY[name], "--out", str(tmp_path / "new")])
    assert [file.name for file in files] == FIGURES[name]
    said = capsys.readouterr().out
    assert f"{name}.zarr" in said
    assert all(str(file) in said for file in files)

    monkeypatch.setattr(gs, "sweep", refuse)
    again = load(name).main(["--data", str(tmp_path / "new" / f"{name}.zarr"), "--out", str(tmp_path / "again")])
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]
    assert not (tmp_path / "again" / f"{name}.zarr").exists()


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


@names
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{file}"], "error: out: cannot write into"),
        (["--out", "{file}/below"], "error: out: cannot write into"),
        (["--data", "{folder}/missing.zarr"], "error: data: nothing at"),
        (["--data", "{file}"], "cannot be read as Zarr"),
        (["--activations", "tanhh"], "error: activation: unknown name 'tanhh'; known names: identity"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    name: str, arguments: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gs, "sweep", refuse)
    file = tmp_path / "file"
    file.write_text("not a folder")
    filled = [argument.format(file=file, folder=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        load(name).main(["--out", str(tmp_path), *filled])
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("phase_diagram", ["--points-w", "1"], "points of sigma_w: got 1"),
        ("phase_diagram", ["--sigma-b", "2", "1"], "sigma_b: got the range 2 to 1"),
        ("phase_diagram", ["--sigma-w", "-1", "1"], "sigma_w: got -1.0; pass a finite non-negative"),
        ("phase_diagram", ["--width", "0"], "width: got 0"),
        ("phase_diagram", ["--schemes", "heh"], "initializer: unknown name 'heh'"),
        ("phase_diagram", ["--rows", "heh"], "activation: unknown name 'heh'"),
        ("phase_diagram", ["--seeds", "0"], "seeds: got 0"),
        (
            "phase_diagram",
            ["--inputs", "digits", "--width", "32"],
            "width: got 32; the digits have 8 x 8 pixels, pass 64",
        ),
        ("phase_diagram", ["--burn-in", "-1"], "burn_in: got -1"),
        ("phase_diagram", ["--scheme-depth", "0"], "scheme_depth: got 0"),
        ("depth_profile", ["--schemes", *"abcdefgh"], "schemes: got 8; pass at most 7"),
        ("depth_profile", ["--schemes", "orthogonal", "orthogonal"], "schemes: got 'orthogonal' more than once"),
        ("depth_profile", ["--activations", "tanh", "tanh"], "activations: got 'tanh' more than once; pass each once"),
        ("phase_diagram", ["--sigma-b", "0", "inf"], "sigma_b: got the range 0 to inf"),
        ("depth_profile", ["--schemes", "heh"], "initializer: unknown name 'heh'"),
        ("depth_profile", ["--depth", "-3"], "depth: got -3"),
        ("derivatives", ["--factors", "0.5", "1.5"], "factors: got (0.5, 1.5)"),
        ("derivatives", ["--depth", "0"], "depth: got 0"),
        ("phase_diagram", ["--schemes"], "schemes: got none; pass one or more"),
        ("depth_profile", ["--activations"], "activations: got none; pass one or more"),
    ],
)
def test_wrong_options_are_refused(
    name: str, arguments: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax.random, "fold_in", refuse)  # every draw starts with it
    with pytest.raises(SystemExit) as stopped:
        load(name).main(["--out", str(tmp_path), *arguments])
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_data_of_another_script_are_refused(tmp_path: Path) -> None:
    store = cli.save({"schemes": xarray.Dataset({"log_gain": (("seed", "depth"), [[0.0]])})}, tmp_path / "other.zarr")
    named = cli.save({"schemes": xarray.Dataset()}, tmp_path / "named.zarr", "remedies")
    for name in ("depth_profile", "derivatives"):
        with pytest.raises(SystemExit) as stopped:
            load(name).main(["--data", str(named), "--out", str(tmp_path)])
        assert stopped.value.code == f"error: data: {named} was saved by remedies.py; pass what {name}.py has saved"
        with pytest.raises(SystemExit, match=f"error: data: {store} holds no .*; pass what {name}.py has saved"):
            load(name).main(["--data", str(store), "--out", str(tmp_path)])


@pytest.mark.parametrize("name", ["remedies", "sequence_memory", "finite_width", "critical_lines", "early_layers"])
def test_foreign_data_without_a_name_are_refused_in_a_line(name: str, tmp_path: Path) -> None:
    store = cli.save({"one": xarray.Dataset({"log_gain": (("seed", "depth"), [[0.0]])})}, tmp_path / "other.zarr")
    with pytest.raises(SystemExit) as stopped:
        load(name).main(["--data", str(store), "--out", str(tmp_path)])
    assert str(stopped.value.code).startswith(f"error: data: {store} ")
    assert "\n" not in str(stopped.value.code)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("depth_profile", ["--width", "32"], "width: --data redraws what was measured; leave it out"),
        ("derivatives", ["--key=3", "--depth", "2"], "key, depth: --data redraws what was measured; leave them out"),
        ("phase_diagram", ["--points_w", "32"], "points_w: --data redraws what was measured; leave it out"),
        ("remedies", ["--factor", "2", "--width", "8"], "width: --data redraws what was measured; leave it out"),
    ],
)
def test_what_is_not_read_beside_data_is_refused(name: str, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(name).main(["--data", "any.zarr", *arguments])
    assert stopped.value.code == f"error: {message}"


def test_an_unknown_preset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load("derivatives").main(["--preset", "slow", "--out", str(tmp_path)])
    assert "slow" in capsys.readouterr().err


def test_digits_go_in(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    arguments = [
        "--inputs",
        "digits",
        "--activations",
        "tanh",
        "--schemes",
        "he_normal",
        "--depth",
        "2",
        "--seeds",
        "2",
    ]
    load("depth_profile").main([*arguments, "--out", str(tmp_path), "--formats"])
    assert [file.name for file in tmp_path.iterdir()] == ["depth_profile.zarr"]
    dataset = cli.load(tmp_path / "depth_profile.zarr")["schemes"]
    assert dataset.attrs["inputs"].startswith("given, 1797 samples")


def test_schemes_are_those_of_the_networks_that_bear_their_names() -> None:
    chosen = ("lecun_normal", "glorot_uniform", "he_normal", "torch_linear")
    options: Any = {"depth": 3, "seeds": 2, "key": 1}
    together = cli.schemes(("tanh", "relu"), chosen, width=8, **options)
    for scheme in chosen:
        alone = gs.sweep(gs.feedforward(8, "tanh", scheme), **options)
        here = together.sel(activation="tanh", initializer=scheme)
        np.testing.assert_allclose(here["log_gain"], alone["log_gain"], rtol=1e-6)
        assert here["sigma_w"] == alone["sigma_w"]
        assert here["sigma_b"] == alone["sigma_b"]


def test_the_measured_edge_of_tanh_is_that_of_theory(tmp_path: Path) -> None:
    """The first map of the quick preset: the zero contour lies within 3 % of the edge of chaos in sigma_w."""
    module = load("phase_diagram")
    module.main(["--activations", "tanh", "--rows", "--out", str(tmp_path)])
    apart = module.deviation(cli.load(tmp_path / "phase_diagram.zarr")["tanh"])
    assert apart.size == module.PRESETS["quick"].points_b
    assert np.all(np.abs(apart) < 0.03)


def test_random_directions_fall_as_theory_of_the_first_order_says() -> None:
    module = load("depth_profile")
    names = ["--activations", "tanh", "relu", "--schemes", "orthogonal", "he_normal", "identity"]
    options = cli.parse(module.PRESETS, [*names, "--width", "32", "--depth", "8", "--seeds", "400"])
    one = module.measure(options)["schemes"]
    assert one["log_jvp_theory"].sel(initializer="identity").isnull().all()
    log_jvp = one["log_jvp"].drop_sel(initializer="identity")
    residual = (log_jvp.mean("seed") - one["log_jvp_theory"]) / (log_jvp.std("seed") / 20)
    assert float(abs(residual).max()) < 4
    from_infinite = (log_jvp.mean("seed") - one["theory"]) / (log_jvp.std("seed") / 20)
    assert float(from_infinite.sel(initializer="he_normal", depth=8).max()) < -4


def test_the_figure_of_derivatives_says_what_it_must(tmp_path: Path) -> None:
    module = load("derivatives")
    datasets = module.measure(cli.parse(module.PRESETS, []))
    slope = datasets["activations"]["slope"]
    assert slope.sel(activation="sigmoid").max() == 0.25
    assert slope.sel(activation="tanh").max() == 1
    last = datasets["chain"].sel(sigma_w=0.1).isel(depth=-1, seed=0)
    assert last["log_gain"] == pytest.approx(-115.12925, abs=1e-5)
    assert last["float32_product"] == 0
    figure = module.draw(datasets)["derivatives"]
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "0 from layer 46" in said
    assert "$10^{-50}$" in said
