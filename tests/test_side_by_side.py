"""Chunks that the cores of a CPU measure side by side: the same numbers in the same places, and an end of any kind."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import jax
import numpy as np
import pytest
import xarray
from kills import contents
from stores import before_calls, interrupt, same

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, lyapunov
from gradsim.sweeps.calls import DeviceError
from gradsim.sweeps.compiling import Compiling

sweep = partial(gs.sweep, gs.feedforward(6), depth=4, seeds=4, sigma_w=[0.5, 1.0, 1.5, 2.0])  # 8 chunks
exponents = partial(
    gs.lyapunov_exponents, gs.vanilla_rnn(4), depth=64, seeds=5, sigma_w=[0.5, 1.0, 1.5], dtype="float64",
    tolerance=1e-10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4)))


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Chunks as if each took long, on a CPU of three cores; the threads that have called the device."""
    threads = set[str]()
    monkeypatch.setattr(chunks, "side_by_side", lambda *_, **__: 3)
    with monkeypatch.context() as patch:
        before_calls(patch, lambda *_: threads.add(current_thread().name))
        yield threads
    assert main_thread().name not in threads


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"direction": "backward", "dtype": "float64", "statistics": ("log_gain", "log_gradient")},
        {"inputs": np.ones((3, 6)), "statistics": ("length", "log_singular_values"), "at": [2, 4]},
    ],
)
def test_cores_change_no_bit(options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    expected = sweep(**options)
    threads = request.getfixturevalue("three_cores")
    same(sweep(**options), expected)
    assert threads


def test_a_store_is_the_same_and_goes_on_after_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    whole, one, other = (tmp_path / f"{name}.zarr" for name in ("whole", "one", "other"))
    sweep(store=whole)
    request.getfixturevalue("three_cores")
    sweep(store=one)
    assert contents(one) == contents(whole)
    with monkeypatch.context() as patch:
        before_calls(patch, interrupt)
        with pytest.raises(KeyboardInterrupt) as stopped:
            sweep(store=other)
    found: Any = stopped.value
    assert found.dataset.attrs["done"] < 1
    sweep(store=other)
    assert contents(other) == contents(whole)


def test_too_little_memory_is_said_once(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def small(_: int, networks: int) -> None:
        if networks > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes")

    expected = sweep()
    request.getfixturevalue("three_cores")
    before_calls(monkeypatch, small)
    with pytest.warns(RuntimeWarning, match="^device: out of memory with 2 cells x 1 seeds") as said:
        xarray.testing.assert_allclose(sweep(), expected, atol=2e-6)
    assert len(said) == 1


@pytest.mark.usefixtures("three_cores")
def test_an_error_of_the_device_ends_all_at_the_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: int) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: a link is down")

    before_calls(monkeypatch, fails)
    with pytest.raises(DeviceError, match=r"^device: it failed a chunk twice .*a link is down"):
        sweep()


@pytest.fixture(scope="module")
def alone() -> xarray.Dataset:
    """The exponents of all networks in one call, of one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lyapunov, "cores", lambda: 1)
        return exponents()


@pytest.mark.parametrize(("seeds", "most"), [(1, 4), (5, 2)])
def test_exponents_keep_their_places(
    seeds: int, most: int, alone: xarray.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of steps are chosen for the networks of a call: the same to the tolerance of a factor."""
    monkeypatch.setattr(lyapunov, "cores", lambda: most)
    beside, alone = exponents(seeds=seeds), alone.isel(seed=slice(seeds))
    np.testing.assert_allclose(beside.lyapunov, alone.lyapunov, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(beside.lost, alone.lost)


def test_ctrl_c_ends_exponents_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[float] = []

    def update(_: Compiling, amount: float) -> None:
        updates.append(amount)
        if len(updates) == 3:
            os.kill(os.getpid(), signal.SIGINT)  # as a terminal does, to the process
        if len(updates) >= 3:
            time.sleep(0.05)  # in which the main thread hears of it

    monkeypatch.setattr(lyapunov, "cores", lambda: 3)
    monkeypatch.setattr(Compiling, "update", update)
    with pytest.raises(KeyboardInterrupt):
        exponents(seeds=1)  # three calls, of one network each
    assert len(updates) < lyapunov.BATCHES  # of three times as many
