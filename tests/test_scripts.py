"""Every script: what its --help teaches, its presets, and what it refuses in one line before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import pytest
import xarray
from script_modules import SIZES, load, refusal, refuse

import gradsim as gs
from gradsim import cli

names = pytest.mark.parametrize("name", list(SIZES))


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be drawn, every draw starts with fold_in, and no costly theory computed."""
    monkeypatch.setattr(jax.random, "fold_in", refuse)
    monkeypatch.setattr(gs.theory, "log_gain", refuse)


@names
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(name)
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "?" in said  # the question that it answers
    options = [field.name for field in fields(module.Options)]
    for wanted in (f"examples: python scripts/{name}.py", "quick", *options):
        assert wanted in said.replace("--", "").replace("-", "_") or wanted in said
    assert "seeds" not in options or "independent networks" in said.lower()


@names
def test_a_preset_yields_to_what_is_given(name: str) -> None:
    module = load(name)
    assert list(module.PRESETS) == ["quick", "paper", "accelerator"]
    for preset, values in module.PRESETS.items():
        assert values.preset == preset
        options = cli.parse(module.PRESETS, ["--preset", preset, "--key", "7"])
        assert options == type(options)(**{**vars(values), "key": 7})


@names
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{file}"], "error: out: cannot write into"),
        (["--out", "{file}/below"], "error: out: cannot write into"),
        (["--data", "{folder}/missing.zarr"], "error: data: nothing at {folder}/missing.zarr"),
        (["--data", "{file}"], "cannot be read as Zarr"),
        (["--data", "{foreign}"], "error: data: {foreign} "),
        (["--data", "{named}"], "error: data: {named} was saved by other.py; pass what {name}.py has saved"),
        (["--data", "{foreign}", "--key", "1"], "error: key: --data redraws what was measured; leave it out"),
    ],
)
@pytest.mark.usefixtures("idle")
def test_wrong_paths_are_refused(
    name: str, arguments: Sequence[str], message: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    known = {**stores, "folder": tmp_path, "name": name}
    said = refusal(load(name).main, ["--out", str(tmp_path), *(argument.format(**known) for argument in arguments)])
    assert message.format(**known) in said
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file, data that no script names as its own, and data of another script."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "file").write_text("not a folder")
    one = xarray.Dataset({"log_gain": (("seed", "depth"), [[0.0]])})
    return {
        "file": folder / "file",
        "foreign": cli.save({"one": one}, folder / "foreign.zarr"),
        "named": cli.save({"one": one}, folder / "named.zarr", "other"),
    }


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
        ("derivatives", ["--factors", "0.5", "0.5"], "factors: got (0.5, 0.5); pass numbers each once"),
        ("early_layers", ["--inputs", "digits", "--width", "8"], "width: got 8; the digits have 8 x 8 pixels, pass 64"),
        ("derivatives", ["--factors", "0.5", "1.5"], "factors: got (0.5, 1.5)"),
        ("derivatives", ["--depth", "0"], "depth: got 0"),
        ("phase_diagram", ["--schemes"], "schemes: got none; pass one or more"),
        ("depth_profile", ["--activations"], "activations: got none; pass one or more"),
        ("sequence_memory", ["--networks", "ESN"], "networks: got ESN"),
        ("sequence_memory", ["--networks"], "networks: got none; pass one or more"),
        ("sequence_memory", ["--length", "1"], "length: got 1; pass at least 2"),
        ("sequence_memory", ["--seeds", "0"], "seeds"),
        ("recurrent_phase_diagram", ["--families", "ESN"], "families: got ESN"),
        ("recurrent_phase_diagram", ["--lengths", "5", "0"], "lengths: got 0; pass a whole number of at least 1"),
        ("recurrent_phase_diagram", ["--families"], "families: got none; pass one or more"),
        ("recurrent_phase_diagram", ["--points", "1"], "points"),
        ("early_layers", ["--depths", "5", "5"], "depths"),
        ("early_layers", ["--activations", "step"], "activation: unknown name 'step'"),
        ("early_layers", ["--schemes", "magic"], "initializer: unknown name 'magic'"),
        ("remedies", ["--networks", "ResNet"], "networks: got ResNet"),
        ("remedies", ["--factor", "1"], "factor: got 1"),
        ("remedies", ["--depth", "1"], "depth, length: got 1"),
        ("residual_phase_diagram", ["--branch-gain", "0", "1"], "branch_gain: got the range 0 to 1"),
        ("residual_phase_diagram", ["--branch-gain", "1", "inf"], "branch_gain: got the range 1 to inf"),
        ("residual_phase_diagram", ["--max-depth", "1"], "max_depth: got 1; pass at least 2"),
        ("residual_phase_diagram", ["--points", "1"], "points of sigma_w: got 1"),
        ("batchnorm_explosion", ["--batches", "3"], "batches: got (3,)"),
        ("batchnorm_explosion", ["--seeds", "1"], "depth, seeds: got 32, 1"),
        ("critical_lines", ["--activations", "tanhh"], "activation: unknown name 'tanhh'; known names: identity"),
        ("critical_lines", ["--widths", "8", "0"], "widths: got 0; pass a whole number of at least 1"),
        ("critical_lines", ["--widths", *map(str, range(1, 9))], "widths: got 8; pass at most 7"),
        ("critical_lines", ["--widths"], "widths: got none; pass one or more"),
        ("critical_lines", ["--activations"], "activations: got none"),
        ("critical_lines", ["--seeds", "1"], "seeds: got 1; pass at least 2"),
        ("critical_lines", ["--depth", "0"], "depth: got 0"),
        ("critical_lines", ["--points", "1"], "points of sigma_b: got 1"),
        ("critical_lines", ["--sigma-b", "2", "1"], "sigma_b: got the range 2 to 1"),
        ("finite_width", ["--widths", "1"], "widths: got 1; pass 2 units or more"),
        ("finite_width", ["--activations"], "activations: got none; pass one or more"),
        ("finite_width", ["--seeds", "9"], "seeds: got 9; pass at least 10"),
        ("finite_width", ["--ratio", "0"], "ratio: got 0"),
        ("phase_diagram", ["--activations", "tanhh"], "activation: unknown name 'tanhh'; known names: identity"),
        ("depth_profile", ["--activations", "tanhh"], "activation: unknown name 'tanhh'"),
        ("derivatives", ["--activations", "tanhh"], "activation: unknown name 'tanhh'"),
        ("trainability", ["--cases", "tanhh"], "cases: got tanhh; pass some of: tanh; tanh, Adam; tanh, orthogonal"),
        ("trainability", ["--points", "1"], "points of sigma_w: got 1"),
        ("trainability", ["--depths", "4", "0"], "depths: got 0; pass a whole number of at least 1"),
        ("trainability", ["--sgd-rates", "0"], "sgd_rates: got 0; pass finite numbers above 0"),
        ("early_layers_training", ["--networks", "ResNet"], "networks: got ResNet; pass some of: sigmoid; ReLU, He"),
        ("early_layers_training", ["--adam-rates", "-1"], "adam_rates: got -1; pass finite numbers above 0"),
        (
            "early_layers_training",
            ["--seeds", "1"],
            "seeds: got 1; pass at least 2, the others choose the rate of each",
        ),
        ("modern_training", ["--networks", "S5"], "networks: got S5; pass some of: pre-norm; post-norm"),
        ("modern_training", ["--rates", "0"], "rates: got 0; pass finite numbers above 0"),
        ("modern_training", ["--seeds", "1"], "seeds: got 1; pass at least 2, the others choose the rate of each"),
        ("trainability_boundary", ["--activation", "tanhh"], "activation: unknown name 'tanhh'"),
        ("trainability_boundary", ["--center", "0", "1"], "center: got 0; pass finite numbers above 0"),
        ("trainability_boundary", ["--zooms", "1", "inf"], "zooms: got inf; pass finite numbers above 0"),
        ("trainability_boundary", ["--zooms"], "zooms: got none"),
        ("trainability_boundary", ["--points", "63"], "points: got 63; pass at least 64"),
        ("trainability_boundary", ["--steps", "20"], "steps: got 20; pass more than 20"),
        ("trainability_boundary", ["--batch", "33"], "batch: got 33; pass at most samples=32"),
        ("coordinate_check", ["--widths", "8"], "widths: got (8,); pass two or more, each once"),
        ("coordinate_check", ["--depths", "8", "8"], "depths: got (8, 8); pass two or more, each once"),
        ("coordinate_check", ["--widths", "--depths"], "widths: got none, and depths neither"),
        ("coordinate_check", ["--seeds", "1"], "seeds: got 1; pass at least 2"),
        ("coordinate_check", ["--learning-rate", "0"], "learning_rate: got 0; pass a finite number above 0"),
        ("coordinate_check", ["--activation", "heh"], "activation: unknown name 'heh'"),
    ],
)
@pytest.mark.usefixtures("idle")
def test_wrong_options_are_refused(name: str, arguments: Sequence[str], message: str, tmp_path: Path) -> None:
    assert refusal(load(name).main, ["--out", str(tmp_path), *arguments]).startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("depth_profile", ["--width", "32"], "width: --data redraws what was measured; leave it out"),
        ("derivatives", ["--key=3", "--depth", "2"], "key, depth: --data redraws what was measured; leave them out"),
        ("phase_diagram", ["--points_w", "32"], "points_w: --data redraws what was measured; leave it out"),
        ("derivatives", ["--preset", "paper"], "preset: --data redraws what was measured; leave it out"),
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


def test_a_choice_of_yes_and_no_is_refused_beside_data(tmp_path: Path) -> None:
    presets = {"quick": Truthful()}
    assert not cli.parse(presets, ["--no-norm"]).norm
    for flag in ("--no-norm", "--norm"):
        said = refusal(lambda arguments: cli.parse(presets, arguments), ["--data", "any.zarr", flag])
        assert said == "error: norm: --data redraws what was measured; leave it out"


def test_the_preset_is_read_beside_data_where_it_says_what_is_shown() -> None:
    options = cli.parse(load("recurrent_phase_diagram").PRESETS, ["--data", "any.zarr", "--preset", "paper"])
    assert options.lengths == (10, 100, 1000)


@dataclass(frozen=True)
class Truthful(cli.Options):
    norm: bool = True
    """Whether."""
