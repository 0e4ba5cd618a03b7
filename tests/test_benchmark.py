"""The benchmark: honest arithmetic, and a figure of whatever parts were measured."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_modules import load

from gradsim.cli import timing
from gradsim.plot.benchmark import PANELS, benchmark

RESULTS = json.loads((Path(__file__).parents[1] / "figures/benchmarks/benchmark-cpu.json").read_text())
LABELS = {
    "rates": "share of the dense matrix-product rate",
    "baselines": "time over that of gradsim",
    "scaling": "times as many",
    "memory": "layers, seeds and cells, one below the other",
}


@pytest.mark.parametrize("parts", [tuple(PANELS), ("rates",), ("scaling", "memory"), ("baselines",)])
def test_the_figure_has_a_panel_for_each_part_measured(parts: tuple[str, ...]) -> None:
    figure = benchmark({name: value for name, value in RESULTS.items() if name not in PANELS or name in parts})
    assert sorted(ax.get_xlabel() for ax in figure.axes) == sorted(LABELS[part] for part in parts)
    bars: dict[str, Any] = {ax.get_xlabel(): ax.patches for ax in figure.axes}
    if "rates" in parts:
        shares = [bar.get_width() for bar in bars[LABELS["rates"]]]
        np.testing.assert_allclose(shares, [row["share"] for row in RESULTS["rates"]])


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="results: none of the parts rates"):
        benchmark({"device": "none"})


def test_shares_count_the_products_of_the_tangents_alone() -> None:
    """One step takes the tangents of a state, rows of its width, through the matrices of a layer."""
    for shape in load("benchmark").shapes():
        network: Any = shape.network
        assert shape.rows % network.width == 0
        assert shape.matrix[0] == network.width
        gates = {"lstm": 4, "gru": 3, "residual": 2}.get(network.family, 1)
        assert shape.matrix[1] == gates * network.width


def test_the_plain_product_is_taken_as_often_as_asked() -> None:
    product = np.asarray(timing.matmul(3, (4, 5), 2)()[1])
    assert product.shape == (3, 5)
    np.testing.assert_array_equal(product[1:], 4.0)
    np.testing.assert_array_equal(product[0], 3 + 3.0)  # the first factor is the entry of the product before


def test_a_turn_times_the_second_call_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender's call takes 100 s after another's call, which it cleans up after, and 1 or 2 s after its own."""
    clock, before = [0.0], [""]

    def contender(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            clock[0] += seconds if before[0] == name else 100
            before[0] = name

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    seconds = timing.timed({"a": contender("a", 1), "b": contender("b", 2)}, repeats=3)
    assert {name: turns.tolist() for name, turns in seconds.items()} == {"a": [1] * 3, "b": [2] * 3}


def test_peaks_are_medians_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two grids, three turns of four processes each: peaks (turn + 1)² times those of the first turn."""
    module, calls = load("benchmark"), count()

    def process(code: str) -> str:
        turn, size = divmod(next(calls) % 12, 4)
        return f"{(turn + 1) ** 2 * (size + 1)} {size}"

    monkeypatch.setattr(module, "fresh_process", process)
    table = module.memory(module.Options(repeats=7))
    assert [(row["peak_bytes"], row["result_bytes"]) for row in table] == 2 * [(4 * (k + 1), k) for k in range(4)]
    assert [row["cells"] for row in table] == 4 * [256] + 4 * [512]


def test_ratios_are_taken_turn_by_turn() -> None:
    """The ratio of the medians would be 5."""
    seconds = {"a": np.array([1.0, 2.0, 10.0]), "b": np.array([3.0, 20.0, 10.0])}
    middle, ratios = timing.medians(seconds, "a")
    assert middle == {"a": 2.0, "b": 10.0}
    assert ratios == {"a": 1.0, "b": 3.0}
