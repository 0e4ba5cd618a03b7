"""The benchmark: honest arithmetic, and a figure of whatever parts were measured."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from families import FAMILIES
from script_modules import load

import gradsim as gs
from gradsim.cli import compiling, matmul_rate, timing
from gradsim.engine.plan import planned
from gradsim.plot.benchmark import PANELS, benchmark
from gradsim.sweeps.course import course

RESULTS = json.loads((Path(__file__).parents[1] / "figures/benchmarks/benchmark-cpu.json").read_text())
LABELS = {
    "rates": "share of the dense matrix-product rate",
    "baselines": "time over that of gradsim",
    "memory": "layers, seeds and cells, one below the other",
    "compile": "seconds until a program is compiled",
}


@pytest.mark.parametrize("parts", [tuple(PANELS), ("rates",), ("memory", "compile"), ("baselines",)])
def test_the_figure_has_a_panel_for_each_part_measured(parts: tuple[str, ...]) -> None:
    figure = benchmark({name: value for name, value in RESULTS.items() if name not in PANELS or name in parts})
    assert sorted(ax.get_xlabel() for ax in figure.axes) == sorted(LABELS[part] for part in parts)
    bars: dict[str, Any] = {ax.get_xlabel(): ax.patches for ax in figure.axes}
    if "rates" in parts:
        shares = [bar.get_width() for bar in bars[LABELS["rates"]]]
        np.testing.assert_allclose(shares, [row["share"] for row in RESULTS["rates"]])


def test_rates_are_those_of_long_sweeps() -> None:
    """Which are compiled with more effort than those of a moment."""
    depth = load("benchmark").Options().depth
    for row in matmul_rate.shapes():
        plan = planned(row.network, depth=depth, direction=row.direction, statistics="log_gain")
        assert course(plan, cells=row.cells, seeds=1).chunk.effort == "level 1", row.name


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="results: none of the parts rates"):
        benchmark({"device": "none"})


def test_shares_count_the_products_of_the_tangents_alone() -> None:
    """One step takes the tangents of a state, rows of its width, through the matrices of a layer."""
    for shape in matmul_rate.shapes():
        network: Any = shape.network
        assert shape.rows % network.width == 0
        assert shape.matrix[0] == network.width
        gates = {"lstm": 4, "gru": 3, "residual": 2, "transformer": 12}.get(network.family, 1)
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


def test_parts_measured_before_are_kept_until_they_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, path = load("benchmark"), tmp_path / "benchmark-cpu.json"
    turns = count()
    for part in ("store", "models"):
        monkeypatch.setitem(script.MEASURES, part, lambda options: next(turns))

    def measured(*parts: str) -> dict[str, Any]:
        script.main(["--out", str(tmp_path), "--parts", *parts])
        return json.loads(path.read_text())

    path.write_text("{")
    assert measured("store")["store"] == 0
    both = measured("models")
    assert (both["store"], both["models"], list(both["runs"])) == (0, 1, ["store", "models"])
    assert both["runs"]["store"].keys() == {"created", "gradsim_commit", "jax_version", "command"}
    again = measured("store")
    assert (again["store"], again["models"], again["runs"]["models"]) == (2, 1, both["runs"]["models"])
    path.write_text(json.dumps({**again, "device": "another"}))
    assert list(measured("store")["runs"]) == ["store"]


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


@pytest.mark.further
def test_a_family_is_traced_lowered_and_compiled_as_a_sweep_would(monkeypatch: pytest.MonkeyPatch) -> None:
    network = gs.feedforward(4)
    jitted, given = compiling.program(network, depth=2)
    assert set(jitted(*given)) == {"log_gain"}
    clocks = {"perf_counter": count(0.0, 1.0).__next__, "process_time": count(0.0, 2.0).__next__}
    monkeypatch.setattr(compiling, "time", SimpleNamespace(**clocks))  # compiling itself looks at the clock
    monkeypatch.setattr(compiling, "program", lambda *_, **__: (jitted, given))
    assert compiling.phases(network) == {phase: [1.0, 2.0] for phase in compiling.PHASES}


def test_every_family_has_a_row_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {one.family for one in compiling.families()} == {one.family for one in FAMILIES.values()}
    seen: list[tuple[str, Any]] = []

    def phases(network: Any, **way: Any) -> dict[str, list[float]]:
        seen.append((network.family, way.get("statistics")))
        return {}

    monkeypatch.setattr(compiling, "phases", phases)
    rows = compiling.rows()
    assert [(row["name"], row["direction"]) for row in rows] == [
        (one.family, direction) for direction in ("forward", "backward") for one in compiling.families()
    ]
    assert seen[-1] == ("slstm", ("log_gradient", "log_weight_gradient"))


def test_phases_are_medians_over_fresh_processes_without_a_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, turn = load("benchmark"), count(1)

    def process(code: str, **environment: str) -> str:
        assert environment == {"JAX_ENABLE_COMPILATION_CACHE": "0"}
        k = next(turn)
        return json.dumps([{"name": "lstm", "direction": "forward", **{p: [k, 10 * k] for p in compiling.PHASES}}])

    monkeypatch.setattr(module, "fresh_process", process)
    (row,) = module.compilation(module.Options(repeats=7))
    assert row["seconds"] == dict.fromkeys(compiling.PHASES, 2.0)
    assert row["cpu_seconds"] == dict.fromkeys(compiling.PHASES, 20.0)
    assert "trace  2.00, lower  2.00, compile  2.00:   6.00 s,  60.00 CPU s" in capsys.readouterr().out


def test_a_first_figure_is_drawn_with_an_empty_and_with_a_full_cache(tmp_path: Path) -> None:
    """A script that keeps a file in the cache, in place of a program."""
    said = tmp_path / "said"
    code = f"""
import os, pathlib, sys
kept = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / "program"
print(kept.exists(), sys.argv[2].startswith(str(kept.parent)), file=open({str(said)!r}, "a"))
kept.touch()
"""
    for script in compiling.SCRIPTS:
        (tmp_path / f"{script}.py").write_text(code)
    table = compiling.first_figures(tmp_path)
    assert [(row["script"], row["cache"]) for row in table] == [
        (script, state) for script in compiling.SCRIPTS for state in ("empty", "full")
    ]
    assert said.read_text().split() == 2 * ["False", "True", "True", "True"]
    assert all(row["seconds"] > 0 for row in table)
    (tmp_path / "phase_diagram.py").write_text("raise ValueError('broken')")
    with pytest.raises(SystemExit, match=r"error: phase_diagram.py failed: ValueError: broken"):
        compiling.first_figures(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats: got 0; pass a whole number of at least 1"),
        (["--depth", "0"], "depth: got 0; pass a whole number of at least 1"),
        (["--parts"], "parts: got none; pass one or more"),
        (["--parts", "rates", "rates"], "parts: got 'rates' more than once"),
        (["--out", __file__], "out: cannot write into"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("benchmark")
    monkeypatch.setattr(module, "MEASURES", {})
    with pytest.raises(SystemExit) as stopped:
        module.main(["--out", str(tmp_path), *arguments])
    assert str(stopped.value).startswith(f"error: {message}")
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_ratios_are_taken_turn_by_turn() -> None:
    """The ratio of the medians would be 5."""
    seconds = {"a": np.array([1.0, 2.0, 10.0]), "b": np.array([3.0, 20.0, 10.0])}
    middle, ratios = timing.medians(seconds, "a")
    assert middle == {"a": 2.0, "b": 10.0}
    assert ratios == {"a": 1.0, "b": 3.0}
