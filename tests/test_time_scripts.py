"""The scripts about time and the way back: what they measure, the theory beside it, and their figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from script_modules import load, measured

from gradsim import theory
from gradsim.plot.layers import layer_gradients
from gradsim.plot.memory import memory, power, with_error
from gradsim.plot.recurrent import recurrent_diagram


def test_reads_digits() -> None:
    for one in measured("sequence_memory", "--inputs", "digits-rows").values():
        assert one.sizes["time"] == 8  # not the 12 that were asked for
        assert one.attrs["inputs"].startswith("given, 1797 samples")


@pytest.fixture(scope="module")
def memories() -> dict[str, xarray.Dataset]:
    return dict(measured("sequence_memory"))


def test_digits_reach_a_minimal_rnn_through_a_fixed_matrix() -> None:
    widened = load("recurrent_phase_diagram").widened
    rows = np.arange(24.0).reshape(1, 3, 8)
    assert widened(rows, 8, 0) is rows
    np.testing.assert_array_equal(widened(rows, 5, 3), widened(rows, 5, 3))
    assert widened(rows, 5, 3).shape == (1, 3, 5)


def test_theory_is_beside_what_was_measured(memories: dict[str, xarray.Dataset]) -> None:
    maps = measured("recurrent_phase_diagram")
    assert ["theory" in one for one in memories.values()] == [True, False]
    assert ["edge_of_chaos" in one for one in maps.values()] == [True, False]
    assert "untied_edge" in maps["minimalRNN"]
    said = [text.get_text() for text in recurrent_diagram(maps, [6]).legends[0].get_texts()]
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


def test_no_format_saves_the_data_only(tmp_path: Path) -> None:
    assert load("derivatives").main(["--formats", "--out", str(tmp_path)]) == []
    assert [file.name for file in tmp_path.iterdir()] == ["derivatives.zarr"]


def test_plots_name_what_is_missing(memories: dict[str, xarray.Dataset]) -> None:
    with pytest.raises(ValueError, match="log_jvp"):
        memory(memories, statistic="log_jvp")
    with pytest.raises(ValueError, match="lengths"):
        recurrent_diagram(memories, [1000])
    with pytest.raises(ValueError, match="two gains"):
        recurrent_diagram(memories, [10])
    with pytest.raises(ValueError, match="log_weight_gradient"):
        layer_gradients(memories)


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
    assert with_error(-8.2e-9, 9e-10) == "-8e-09 ± 9e-10"
    assert power(-2.5) == "0.003"
    assert power(-674.6) == "$10^{-675}$"
    assert load("early_layers").power(-630.5) == "3.2e-631"
