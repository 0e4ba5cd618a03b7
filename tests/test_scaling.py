"""What a sweep costs: a step's bytes against a count by hand, times of the roofline, and what is called measured."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from script_modules import load

import gradsim as gs
from gradsim.cli import growing
from gradsim.cli.roofline import MACHINES, WAYS, Machine, Map, Step, crossing, seconds_of, share_of_rate, step_of
from gradsim.sweeps import calls

# Products of 8 s at a rate of 2, 2 · 3 s at a bandwidth of 1: of 20 bytes 6 are the product's, one is of its weights.
STEP, RATE, BANDWIDTH = Step(4, 16.0, 6.0, 1.0, 20.0), 2.0, 1.0


@pytest.mark.parametrize("width", [32, 64])
def test_a_compiled_step_passes_five_times_over_the_tangents(width: int) -> None:
    """The product reads and writes them, rescaling likewise, and the norm reads them once more; the rest is small."""
    cells = 256
    found = step_of(gs.feedforward(width), cells)
    tangents, weights = 4.0 * cells * width**2, 4.0 * (width**2 + width)
    assert found.products == 2.0 * cells * width**3
    assert found.product_bytes == 2 * tangents + weights
    beside = found.all_bytes - 5 * tangents  # state, slopes, gains and weights
    assert 0 < beside < 16 * 4 * cells * width + 2 * weights


@pytest.mark.parametrize(("way", "seconds"), [*zip(WAYS, (8.0 + 14.0, 8.0, 8.0), strict=True)])
def test_where_products_bound_a_step_passes_come_after(way: str, seconds: float) -> None:
    assert seconds_of(STEP, way, RATE, BANDWIDTH) == seconds
    assert share_of_rate(STEP, way, RATE, BANDWIDTH) == 8.0 / seconds


@pytest.mark.parametrize(("way", "seconds"), [*zip(WAYS, (6.0 + 14.0, 6.0, 1.0), strict=True)])
def test_where_bytes_bound_a_step(way: str, seconds: float) -> None:
    assert seconds_of(STEP, way, 1e9, BANDWIDTH) == seconds


def test_products_and_passes_meet_at_the_crossing() -> None:
    """2 n³ c / rate = 3 · 4 n² c / bandwidth where the passes are three: n = 6 · rate / bandwidth."""
    cells, n, rate, bandwidth = 10, 1000, 67e12, 3.35e12
    three = Step(cells, 2.0 * cells * n**3, 8.0 * cells * n**2, 0.0, 20.0 * cells * n**2)
    assert crossing(Machine(rate, bandwidth, 1, ""), {n: three}) == pytest.approx(6 * rate / bandwidth)


def test_a_map_is_shared_among_devices_and_no_network_is_cut() -> None:
    one, many, few = Machine(RATE, BANDWIDTH, 1, ""), Machine(RATE, BANDWIDTH, 8, ""), Map(2, 2, 3, 5)
    alone = Map(8, 3, 3, 5).seconds(STEP, WAYS[1], one)
    assert alone == 8 * 3 / STEP.cells * 5 * 8.0
    assert Map(8, 3, 3, 5).seconds(STEP, WAYS[1], many) == alone / 8
    assert few.seconds(STEP, WAYS[1], many) == few.seconds(STEP, WAYS[1], one) / 4


def test_the_memory_told_is_that_of_the_program_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def memory(*given: Any, look: Any = calls.memory) -> int:
        told.append(look(*given))
        return told[-1]

    monkeypatch.setattr(calls, "memory", memory)
    assert growing.program_bytes(growing.sweeping(4, 2, 1, 2)) == max(told) > 0


def measured() -> dict[str, xarray.Dataset]:
    """What a run may have measured, in round numbers: at width 64 half, at 128 all of 1 TFLOP/s."""
    base = {"seeds": 2, "depth": 50, "cells": 8}
    widths = np.array([64, 128])
    seconds = 2.0 * widths**3 * 8 * 2 * 50 / np.array([0.5e12, 1e12])
    width = {
        "seconds": (("width", "turn"), np.outer(seconds, [3.0, 1.0])), "memory": ("width", [1e6, 4e6]),
        "rate": (("width", "turn"), np.full((2, 2), 1e12)), "cells": ("width", [8, 8]),
    }  # fmt: skip
    cells = {"seconds": (("cells", "turn"), [[1.0, 2.0], [2.0, 4.0]]), "memory": ("cells", [1e6, 2e6])}
    return {
        "cells": xarray.Dataset(cells, {"cells": [8, 16]}, base),
        "width": xarray.Dataset(width, {"width": widths}, base),
        "map": xarray.Dataset({"seconds": ("turn", [0.3, 0.2])}),
        "step": load("scaling").steps(),
    }


def test_only_what_ran_here_is_called_measured(tmp_path: Path) -> None:
    script, datasets = load("scaling"), measured()
    said = script.report(datasets, tmp_path)
    with (tmp_path / "scaling.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["machine"] for row in rows} == {script.CPU, *MACHINES}
    assert [(row["map"], row["machine"]) for row in rows if row["label"] == "measured"] == [("small", script.CPU)]
    assert all(row["source"] for row in rows if row["label"] == "computed")
    times = {(row["map"], row["machine"], row["label"]): row for row in rows}
    assert float(times["small", script.CPU, "measured"][WAYS[0]]) == 0.2
    small = 2.0 * 256 * 4 * 64**3 * 50 / 0.5e12
    assert float(times["small", script.CPU, "computed"][WAYS[0]]) == pytest.approx(small, rel=1e-3)
    gpu, fused, kept = (float(times["64 × 64", "H100", "computed"][way]) for way in WAYS)
    least = 2.0 * 4096 * 16 * 100 * 128**3 / MACHINES["H100"].rate
    assert least == pytest.approx(kept, rel=1e-3)
    assert kept <= fused < gpu < 3 * kept
    assert "H100                     120" in said
    np.testing.assert_allclose(script.shares(datasets), [0.5, 1.0])


def test_the_figure_fills_what_was_measured() -> None:
    figure = load("scaling").draw(measured())["scaling"]
    time, memory, rate, maps = figure.axes
    assert [line.get_markerfacecolor() for line in memory.lines] == ["white"] * 2
    np.testing.assert_allclose(time.lines[0].get_ydata(), [1.0, 2.0])
    np.testing.assert_allclose(rate.lines[-1].get_ydata(), [0.5, 1.0])
    filled = [line for line in maps.lines if line.get_markerfacecolor() != "white"]
    assert [line.get_xdata()[0] for line in filled] == [0.2]


@pytest.mark.further
def test_virtual_devices_share_a_sweep_in_a_process_of_their_own() -> None:
    found = growing.over_devices((1, 2), width=4, cells=2, depth=2, turns=1)
    assert found.seconds.shape == (2, 1)
    assert (found.seconds > 0).all()
