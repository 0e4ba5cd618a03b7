"""The memory of a device: known from the compiled program, as much as is really taken, and bounded by max_memory."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from unrolled import own_checks
from wrong import refused, refused_each

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import calls, chunks, machine

NETWORK = gs.feedforward(32)
GRID: dict[str, Any] = {"depth": 12, "seeds": 2, "sigma_w": np.linspace(0.5, 1.5, 512)}


@pytest.fixture
def needed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each program before it is run."""
    found: list[int] = []
    look = calls.memory

    def memory(program: Any, *given: Any) -> int | None:
        said = look(program, *given)
        assert said is not None
        found.append(said)
        return said

    monkeypatch.setattr(calls, "memory", memory)
    return found


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak of a part of a process is told here"
)
def test_what_a_program_says_it_needs_is_what_it_takes() -> None:
    """Within a quarter; backwards the allocation has a part that is never touched."""
    command = [sys.executable, str(Path(__file__).with_name("peak_memory.py"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3
    for name, (predicted, measured) in found.items():
        assert measured == pytest.approx(predicted, rel=0.25), name


def test_what_is_asked_for_its_memory_is_compiled_once(caplog: pytest.LogCaptureFixture, needed: list[int]) -> None:
    import jax

    with caplog.at_level(logging.WARNING), jax.log_compiles():
        gs.sweep(gs.feedforward(7), depth=3, seeds=3, sigma_w=[0.5, 1.0, 1.5], statistics="length")
    said = [record.getMessage() for record in caplog.records]
    assert sum("Finished XLA compilation of jit(_measure)" in line for line in said) == 1
    assert len(needed) == 1


@pytest.mark.parametrize(
    "options", [{}, {"direction": "backward", "statistics": ("log_gain", "log_weight_gradient")}], ids=["to", "fro"]
)
def test_max_memory_bounds_what_is_used(options: dict[str, Any], needed: list[int]) -> None:
    """Without a word, and without another number."""
    found = gs.sweep(NETWORK, **GRID, **options, max_memory="1.5 MiB")
    assert needed
    assert max(needed) <= 1.5 * 2**20
    whole = gs.sweep(NETWORK, **GRID, **options, max_memory=2**30)
    assert needed[-1] > 1.5 * 2**20
    xarray.testing.assert_allclose(found, whole, atol=2e-6)


def test_a_chunk_that_was_planned_too_large_is_halved(needed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a store that was begun where there was more memory."""
    expected = gs.sweep(NETWORK, **GRID)
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(512, 2, Tiling(512, 12)))
    with pytest.warns(
        RuntimeWarning, match=r"^device: .* GiB are needed, and .* GiB may be used, with 512 cells x 2"
    ) as said:
        found = gs.sweep(NETWORK, **GRID, max_memory="6MiB")
    assert len(said) == 1
    assert needed[-1] <= 6 * 2**20 < needed[-2]
    xarray.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_network_beyond_max_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("width", lambda: gs.sweep(gs.feedforward(512), depth=2, seeds=1, max_memory="2MiB"))
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(1, 1, Tiling(1, 2)))
    refused("max_memory", lambda: gs.sweep(gs.feedforward(512), depth=2, seeds=1, max_memory="2MiB"))


@pytest.mark.parametrize(
    ("memory", "size"),
    [(2**21, 2**21), ("2MiB", 2**21), ("1.5 GiB", 3 * 2**29), ("2g", 2**31), ("3000000", 3_000_000), ("1 TB", 2**40)],
)
def test_memory_in_words(memory: Any, size: int) -> None:
    with machine.used(max_memory=memory) as using:
        assert using.max_memory == size
    assert machine.at_hand().max_memory is None


def test_what_is_no_memory() -> None:
    wrong: list[Any] = [
        0,
        -1,
        1000,
        2.5,
        True,
        "much",
        "",
        "-1GiB",
        "1 PiB",
        "1000 B",
        "1e9",
        "9" * 400,
        [2**30],
        b"1GiB",
    ]
    with own_checks():
        refused_each("max_memory", wrong, lambda one: gs.sweep(NETWORK, depth=2, seeds=1, max_memory=one))
