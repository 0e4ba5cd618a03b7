"""The scripts about time and the way back run as a user runs them, and refuse what they cannot do in one line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from script_modules import load

from gradsim import cli, theory
from gradsim.plot.layers import layer_gradients
from gradsim.plot.memory import memory, power, with_error
from gradsim.plot.recurrent import recurrent_diagram

SMALL = {
    "sequence_memory": ["--width", "6", "--length", "12", "--seeds", "3", "--networks", "tanh RNN", "LSTM, chrono"],
    "recurrent_phase_diagram": [
        "--width", "6", "--lengths", "3", "6", "--seeds", "2", "--points", "4", "--families", "tanh RNN", "minimalRNN",
    ],
    "early_layers": [
        "--width", "6", "--depths", "3", "--deepest", "40", "--seeds", "2", "--activations", "sigmoid",
    ],
}  # fmt: skip


def refusal(main: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    message = str(stop.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SMALL)
def test_measures_draws_and_redraws(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load(name).main
    (figure,) = main([*SMALL[name], "--out", str(tmp_path)])
    first = figure.read_bytes()
    assert figure == tmp_path / f"{name}.png"
    said = capsys.readouterr().out
    figure.unlink()
    again = ["--data", str(tmp_path / f"{name}.zarr"), "--out", str(tmp_path)]
    if name == "recurrent_phase_diagram":
        again += ["--lengths", "3", "6"]
    assert main(again) == [figure]
    assert figure.read_bytes() == first
    assert capsys.readouterr().out.splitlines() == said.splitlines()[1:]  # the same report, no data saved


@pytest.mark.parametrize("name", SMALL)
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load(name).main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for word in ("examples:", "--preset", "--data", "--inputs", "independent networks"):
        assert word.lower() in said.lower()


@pytest.mark.parametrize("name", SMALL)
def test_presets_are_named_as_they_are(name: str) -> None:
    presets = load(name).PRESETS
    assert list(presets) == ["quick", "paper", "accelerator"]
    assert all(preset.preset == title for title, preset in presets.items())


@pytest.mark.parametrize(
    ("name", "inputs", "steps"),
    [("sequence_memory", "digits-pixels", 12), ("sequence_memory", "digits-rows", 8),
     ("recurrent_phase_diagram", "digits-rows", 6)],
)  # fmt: skip
def test_reads_digits(name: str, inputs: str, steps: int, tmp_path: Path) -> None:
    module = load(name)
    module.main([*SMALL[name], "--inputs", inputs, "--out", str(tmp_path)])
    for one in cli.load(tmp_path / f"{name}.zarr").values():
        assert one.sizes["time"] == steps
        assert one.attrs["inputs"].startswith("given, 1797 samples")


def test_digits_reach_a_minimal_rnn_through_a_fixed_matrix() -> None:
    widened = load("recurrent_phase_diagram").widened
    rows = np.arange(24.0).reshape(1, 3, 8)
    assert widened(rows, 8, 0) is rows
    np.testing.assert_array_equal(widened(rows, 5, 3), widened(rows, 5, 3))
    assert widened(rows, 5, 3).shape == (1, 3, 5)


def test_theory_is_beside_what_was_measured(tmp_path: Path) -> None:
    for name, wanted in (("sequence_memory", "theory"), ("recurrent_phase_diagram", "edge_of_chaos")):
        load(name).main([*SMALL[name], "--out", str(tmp_path), "--formats"])
        datasets = cli.load(tmp_path / f"{name}.zarr")
        assert [wanted in one for one in datasets.values()] == [True, False]
    assert "untied_edge" in datasets["minimalRNN"]
    figure = recurrent_diagram(datasets, [6])
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("weights drawn anew at each step" in text for text in said)


def test_theory_of_the_memory_is_a_line_from_the_last_step() -> None:
    module = load("sequence_memory")
    np.testing.assert_allclose(module.predicted("tanh RNN", 3), -0.45954857 * np.array([3, 2, 1]), rtol=1e-7)
    fall = xarray.DataArray([[-3.0, -2.0, -1.0]] * 2, {"time": [1, 2, 3]}, ("seed", "time"))
    one = xarray.Dataset({"log_gain": fall, "theory": fall[0]}, attrs={"direction": "backward"})
    ax: Any = memory({"RNN": one}).axes[0]
    line = next(line for line in ax.lines if line.get_color() == "black")
    np.testing.assert_allclose(line.get_ydata() * np.log(10), [-1, -2, -3])


@pytest.mark.parametrize(
    ("family", "gain", "network"),
    [
        ("LSTM", "forget_bias", lambda w, bias: theory.lstm(w, 1.0, forget_bias=bias)),
        ("GRU", "update_bias", lambda w, bias: theory.gru(w, 1.0, update_bias=bias)),
        ("minimalRNN", "sigma_v", theory.minimal_rnn),
        ("tanh RNN", "sigma_v", lambda w, v: theory.vanilla_rnn("tanh", w, v)),
    ],
)
def test_nothing_grows_on_the_edges_of_theory(family: str, gain: str, network: Any) -> None:
    gains = {"sigma_w": np.array([1.0]), gain: np.array([0.3, 1.0])}
    ((_, (other, line, _)),) = load("recurrent_phase_diagram").edge(family, gains).items()
    assert other == gain
    np.testing.assert_allclose(network(line, gains[gain]).chi, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sequence_memory", ["--networks", "ESN"], "networks: got ESN"),
        ("sequence_memory", ["--data", "missing.zarr"], "data: nothing at"),
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
    ],
)
def test_bad_options_are_refused(name: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in refusal(load(name).main, [*arguments, "--out", str(tmp_path)])
    assert not list(tmp_path.glob("*.png"))


def test_plots_name_what_is_missing(tmp_path: Path) -> None:
    tanh = ["--networks", "tanh RNN", "--formats", "--out", str(tmp_path)]
    load("sequence_memory").main([*SMALL["sequence_memory"], *tanh])
    assert not list(tmp_path.glob("*.png"))
    datasets = cli.load(tmp_path / "sequence_memory.zarr")
    with pytest.raises(ValueError, match="log_jvp"):
        memory(datasets, statistic="log_jvp")
    with pytest.raises(ValueError, match="lengths"):
        recurrent_diagram(datasets, [1000])
    with pytest.raises(ValueError, match="two gains"):
        recurrent_diagram(datasets, [10])
    with pytest.raises(ValueError, match="log_weight_gradient"):
        layer_gradients(datasets)


def test_dead_networks_are_drawn_as_far_as_they_live() -> None:
    seeds = np.where(np.arange(1, 9) > [[5], [6]], np.nan, -0.1 * np.arange(1, 9))
    time = ("time", np.arange(1, 9), {"units": "step"})
    dataset = xarray.Dataset({"log_gain": (["seed", "time"], seeds)}, {"time": time})
    dataset = dataset.assign(dead=dataset["log_gain"].isnull())
    texts = [text.get_text() for ax in memory({"RNN": dataset}).axes for text in ax.texts]
    assert "6.0 ± 0.5" in texts  # the horizon
    assert "0" in texts  # what is left


def test_numbers_are_written_to_their_errors() -> None:
    assert with_error(2.1349, 0.031) == "2.13 ± 0.03"
    assert with_error(956.2, 12.1) == "956 ± 12"
    assert with_error(956.2, float("nan")) == "956"
    assert power(-2.5) == "0.003"
    assert power(-674.6) == "$10^{-675}$"
    assert load("early_layers").power(-630.5) == "3.2e-631"
