"""Training kept on disk: what `gs.open` gives is what `gs.train` returns; it goes on, extends, refuses what differs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from stores import same
from wrong import refused

import gradsim as gs
from gradsim import cli
from gradsim.cli.jobs import Shared
from gradsim.cli.run import kept_in
from gradsim.engine.tiling import Tiling
from gradsim.sweeps.chunks import Chunk
from gradsim.sweeps.compiling import Compiling
from gradsim.training import loop

RANDOM = np.random.default_rng(0)
INPUTS, LABELS = RANDOM.normal(size=(20, 4)), np.arange(20) % 3
NETWORK = gs.feedforward(4)
BY_LAYER = ("log_gradient", "log_output")
SMALL: dict[str, Any] = {
    "data": (INPUTS, LABELS), "optimizer": optax.sgd, "learning_rate": [0.1, 1e30], "depth": 2, "seeds": 3, "steps": 4,
    "record": 2, "batch": 4, "by_layer": BY_LAYER, "sigma_w": [0.5, 1.0, 2.0],
}  # fmt: skip
small = partial(gs.train, NETWORK, **SMALL)


def rate_by_rate(rate: Any) -> Any:
    """One that asks in Python for the rate: so each has a program of its own."""
    return optax.sgd(rate, momentum=0.5 if rate > 0.05 else None)


def by_table(factors: list[float]) -> Callable[[Any], Any]:
    """All have one name, and differ in what they hold."""

    def of_table(rate: Any) -> Any:
        return optax.sgd(rate * jnp.asarray(factors, "float32")[jnp.int32(rate > 1)])

    return of_table


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells and two seeds at once, in whatever memory; one call after another."""
    monkeypatch.setattr(loop, "plan_chunk", lambda _: Chunk(2, 2, Tiling(4, 3)))
    monkeypatch.setattr(loop, "cores", lambda: 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The networks of each chunk that is begun; of the third of them where that is asked for Ctrl-C is pressed."""
    made: list[int] = []
    begun = loop.hashed_ahead

    def hashed(plan: Any, key: int, seeds: np.ndarray, *, given: bool) -> Any:
        made.append(seeds.size)
        if len(made) == 3:
            raise KeyboardInterrupt
        return begun(plan, key, seeds, given=given)

    monkeypatch.setattr(loop, "hashed_ahead", hashed)
    return made


CASES: dict[str, Callable[..., xarray.Dataset]] = {
    "networks that lack a gain, some of which diverge": partial(
        gs.train, {"plain": NETWORK, "skip": gs.residual(4)}, **SMALL, branch_gain=[0.5, 1.0], sigma_out=0.5
    ),
    "over time, float64, generated": partial(
        gs.train, gs.vanilla_rnn(3, features=9), data="copy", depth=3, seeds=3, steps=2, batch=2, optimizer=optax.adam,
        learning_rate=0.1, dtype="float64", by_layer="log_gradient", sigma_w=[0.5, 1.0, 2.0],
    ),
    "a program for each rate": partial(small, optimizer=rate_by_rate, learning_rate=[0.1, 0.01]),
    "one cell of a finished optimizer": partial(
        small, optimizer=optax.sgd(0.1), learning_rate=None, sigma_w=1.0, by_layer=False
    ),
}  # fmt: skip


@pytest.mark.sampled(1)
@pytest.mark.parametrize("case", CASES)
def test_a_store_holds_what_is_returned_without_one(case: str, tmp_path: Path) -> None:
    """Every number and attribute, to the last bit; and any part of it is read by itself."""
    kept, whole = CASES[case](store=tmp_path / "a.zarr"), CASES[case]()
    some = {dim: [-1, 0] if kept.sizes[dim] > 1 else 0 for dim in kept.loss.dims}
    xarray.testing.assert_equal(kept.loss[some].load(), whole.loss[some])
    assert kept.attrs["done"] == 1.0
    assert whole.diverged.any() == ("diverge" in case)
    same(kept, whole)
    same(gs.open(tmp_path / "a.zarr"), whole)


def files(store: Path) -> dict[str, bytes]:
    """Those that hold the numbers."""
    return {str(file.relative_to(store)): file.read_bytes() for file in store.glob("part*/*/c.*")}


def test_ctrl_c_keeps_what_is_finished_and_the_same_call_goes_on(
    tmp_path: Path, calls: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        small(store=tmp_path / "ended")
    partial_run = stopped.value.dataset  # type: ignore[attr-defined]
    assert f"the same call goes on from there, and gradsim.open({str(tmp_path / 'ended')!r})" in capsys.readouterr().err
    assert partial_run.attrs["done"] == 8 / 18  # two of six chunks
    assert np.isnan(partial_run.accuracy.values).sum() == 10 * 3
    assert not (partial_run.diverged & partial_run.accuracy.isnull()).any()
    resumed, whole = small(store=tmp_path / "ended"), small(store=tmp_path / "whole")
    assert len(calls) == 3 + 4 + 6
    assert files(tmp_path / "ended") == files(tmp_path / "whole")
    same(resumed, whole.load())
    small(store=tmp_path / "whole")
    assert len(calls) == 3 + 4 + 6


def test_without_a_store_ctrl_c_hands_over_what_there_is(calls: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        small()
    found = stopped.value.dataset  # type: ignore[attr-defined]
    assert found.attrs["done"] == 8 / 18
    assert np.isnan(found.accuracy.values).sum() == 10 * 3


def test_out_of_memory_halves_what_is_trained_at_once_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds first, then cells; every number keeps its place, and what was tried in vain counts for nothing."""
    whole, programs = small(record=[1, 4]), loop.programs
    tried, counted = list[int](), list[float]()

    def measure(run: Any, by_layer: Any, trained: Any, *others: Any) -> Any:
        tried.append(trained.step.size)
        if tried[-1] > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes")
        return programs().measure(run, by_layer, trained, *others)

    monkeypatch.setattr(loop, "programs", lambda devices: programs(devices)._replace(measure=measure))
    monkeypatch.setattr(Compiling, "update", lambda _, amount: counted.append(amount))
    with pytest.warns(RuntimeWarning, match=r"^device: out of memory in training 2 cells x 2 seeds at once") as said:
        found = small(record=[1, 4], store=tmp_path)
    assert len(said) == 1
    assert tried == [4, 2, *[1] * 2 * 18]
    assert sum(counted) == pytest.approx(18)
    same(found, whole, partial(xarray.testing.assert_allclose, atol=2e-6))


MORE: list[dict[str, Any]] = [{"seeds": 5}, {"learning_rate": [0.01, 0.1, 1e30]}, {"sigma_w": [0.5, 0.7, 1.0, 2.0]}]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("more", MORE)
def test_an_extended_run_trains_what_is_new(more: dict[str, Any], tmp_path: Path, calls: list[int]) -> None:
    calls += [0] * 3  # no Ctrl-C
    small(store=tmp_path)
    before = len(calls)
    found = small(**more, store=tmp_path)
    fresh = found.loss[..., 0].size - 18
    assert sum(calls[before:]) - 4 < 2 * fresh
    same(found.drop_attrs(), small(**more).drop_attrs())


def test_processes_share_a_run(tmp_path: Path) -> None:
    for process, share in ((1, 8 / 18), (0, 1.0)):
        assert small(store=tmp_path, process=process, processes=2).attrs["done"] == pytest.approx(share, abs=0.2)
    same(gs.open(tmp_path), small())
    refused("processes", partial(small, process=0, processes=2))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a small run, which nothing changes."""
    path = tmp_path_factory.mktemp("kept") / "a.zarr"
    small(store=path, optimizer=by_table([1.0, 2.0]))
    return path


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("depth", {"depth": 3}),
        ("key", {"key": 1}),
        ("steps", {"steps": 6, "record": [0, 2, 4]}),
        ("batch", {"batch": 5}),
        ("record", {"record": 1}),
        ("by_layer", {"by_layer": False}),
        ("optimizer", {"optimizer": optax.adam}),
        ("optimizer", {"optimizer": by_table([1.0, 3.0])}),
        ("data", {"data": (INPUTS + 1e-6, LABELS)}),
        ("data", {"data": (INPUTS, LABELS[::-1])}),
        ("classes", {"classes": 4}),
        ("held_out", {"held_out": 0.3}),
        ("dtype", {"dtype": "float64"}),
        ("seeds", {"seeds": range(1, 4)}),
        ("sigma_w", {"sigma_w": [0.5, 1.0]}),
        ("learning_rate", {"learning_rate": [0.1]}),
        ("sigma_out", {"sigma_out": 0.5}),
        ("network", {"network": gs.feedforward(4, "erf")}),
    ],
)
def test_another_run_is_refused_by_the_name_of_what_differs(name: str, other: dict[str, Any], kept: Path) -> None:
    options = {"network": NETWORK, **SMALL, "optimizer": by_table([1.0, 2.0]), **other}
    refused(name, lambda: gs.train(**options, store=kept))


def test_a_generated_task_is_known_by_its_sizes_and_a_sweep_is_no_training(tmp_path: Path, kept: Path) -> None:
    rnn = partial(
        gs.train, gs.vanilla_rnn(3, features=9), depth=3, seeds=1, steps=1, batch=2, optimizer=optax.sgd(0.1),
        by_layer=False, store=tmp_path,
    )  # fmt: skip
    rnn(data="copy")
    refused("data", partial(rnn, data=gs.copy_task(symbols=2)))
    refused("measure", partial(gs.sweep, NETWORK, depth=2, seeds=3, store=kept))


def test_the_scripts_of_training_go_on_and_share(tmp_path: Path, calls: list[int]) -> None:
    """By the folder of `--store`, with the numbers of processes as sweeps have them."""
    calls += [0] * 3  # no Ctrl-C
    options: dict[str, Any] = {"store": tmp_path / "kept"}

    def run(**more: Any) -> Any:
        with kept_in(cli.Options(**options, **more)):
            return cli.perform_training({"one": small, ("two", 2): partial(small, key=1)})

    with pytest.raises(Shared, match=r"process 1 of 2 is done, and \d\d% of all is there"):
        run(process=1, processes=2)
    found = run(devices=1)
    trained = len(calls)
    xarray.testing.assert_equal(found["one"].load(), run()["one"].load())
    assert len(calls) == trained
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["one.zarr", "two 2.zarr"]
    xarray.testing.assert_equal(found["one"], small())


def test_networks_alike_that_train_side_by_side_compile_once() -> None:
    compiled: list[str] = []

    def count(event: str, duration_secs: float, **of: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(str(of.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(count)
    runs = [partial(gs.train, gs.feedforward(5), **{**SMALL, "sigma_w": gain}) for gain in (1.0, 2.0)]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda run: run(), runs)
    jax.monitoring.unregister_event_duration_listener(count)
    assert not one.loss.equals(other.loss)
    programs = [name for name in compiled if any(of in name for of in ("_begin", "_advance", "_measure"))]
    assert sorted(programs) == ["jit(_advance)", "jit(_begin)", "jit(_measure)"]
