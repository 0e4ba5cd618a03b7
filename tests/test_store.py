"""Sweeps kept on disk: what `gs.open` gives is what `gs.sweep` returns; they go on, extend, and refuse what differs."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
import zarr
from stores import same
from unrolled import own_checks
from wrong import problem, refused, refused_each

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, loop

NETWORK = gs.feedforward(6)
SMALL: dict[str, Any] = {"depth": 4, "seeds": 3, "sigma_w": [0.5, 1.0, 2.0]}


def planned(plan: Any, **_: int) -> chunks.Chunk:
    """Two cells and two seeds at once, in whatever memory."""
    return chunks.Chunk(2, 2, Tiling(2 * (plan.depth if plan.pairs else 1), 3))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "plan_chunk", planned)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds and cells of each call of the device."""
    calls: list[int] = []
    chosen = loop.program

    def program(*choice: Any) -> Any:
        def call(plan: Any, tiling: Any, gains: Any, drawn: Any, *others: Any) -> Any:
            calls.append(len(drawn.normals) * len(next(iter(gains.values()))))
            return chosen(*choice)(plan, tiling, gains, drawn, *others)

        return call

    monkeypatch.setattr(loop, "program", program)
    return calls


SEQUENCES = np.random.default_rng(0).normal(size=(2, 5, 4))
RNN, SKIP = gs.vanilla_rnn(4), gs.residual(6, "tanh", form="post_activation")
CASES: dict[str, Callable[..., xarray.Dataset]] = {
    "a map": partial(gs.sweep, NETWORK, **SMALL, sigma_b=[0.5, 0.0]),
    "one cell": partial(gs.sweep, NETWORK, depth=4, seeds=range(3, 8, 2), statistics=("length", "log_gain")),
    "networks that lack a gain": partial(
        gs.sweep, {"plain": NETWORK, "skip": SKIP}, **SMALL, branch_gain=[0.5, 1.0], sigma_b=0.3
    ),
    "backward, float64": partial(
        gs.sweep, NETWORK, **SMALL, direction="backward", loss=jnp.sum, dtype="float64",
        statistics=("log_weight_gradient", "log_gradient"),
    ),
    "over time, of data": partial(gs.sweep, RNN, **SMALL, burn_in=1, inputs=SEQUENCES),
    "pairs of steps": partial(gs.partial_products, NETWORK, **SMALL),
    "spectra": partial(gs.sweep, NETWORK, depth=3, seeds=3, widths=[1, 2], statistics="log_singular_values", at=[1, 3]),
}  # fmt: skip


@pytest.mark.sampled(5)
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("case", CASES)
def test_a_store_holds_what_is_returned_without_one(case: str, tmp_path: Path) -> None:
    """Every number and attribute, to the last bit; and any part of it is read by itself."""
    kept, whole = CASES[case](store=tmp_path / "a.zarr"), CASES[case]()
    statistic = next(name for name in kept.data_vars if name not in ("dead", "rank"))
    some = {dim: [-1, 0] if kept.sizes[dim] > 1 else 0 for dim in kept[statistic].dims}
    xarray.testing.assert_equal(kept[statistic][some].load(), whole[statistic][some])
    assert kept.attrs["done"] == 1.0
    same(kept, whole)
    same(gs.open(str(tmp_path / "a.zarr")), whole)


@pytest.mark.usefixtures("small_chunks")
def test_what_was_lost_and_what_is_dead_is_told_from_the_store(tmp_path: Path) -> None:
    options: dict[str, Any] = {"depth": 12, "seeds": 6, "sigma_w": [0.5, 1e20], "statistics": ("log_gain", "length")}
    relu = partial(gs.sweep, gs.feedforward(4, "relu"), **options)
    for store in (None, tmp_path / "a.zarr"):
        with pytest.warns(RuntimeWarning) as said:
            found = relu(store=store)
        if store is None:
            whole, first = found, str(said[0].message)
            assert whole.dead.any()
            assert whole.length.attrs["lost"] > 0
        assert str(said[0].message) == first
    same(found, whole)


@pytest.mark.usefixtures("small_chunks")
def test_the_same_call_measures_nothing_again(tmp_path: Path, counted: list[int]) -> None:
    first = gs.sweep(NETWORK, **SMALL, store=tmp_path).load()
    calls = len(counted)
    assert calls == 4
    xarray.testing.assert_identical(gs.sweep(NETWORK, **SMALL, store=tmp_path).load(), first)
    assert len(counted) == calls


def test_a_chunk_plan_is_kept_whatever_the_memory(
    tmp_path: Path, small_chunks: None, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another machine would have planned in one piece goes on as it began, to the last bit."""
    whole = gs.sweep(NETWORK, **SMALL, store=tmp_path / "whole")
    gs.sweep(NETWORK, **SMALL, store=tmp_path / "some")
    file = tmp_path / "some" / "done"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    monkeypatch.undo()
    part = gs.open(tmp_path / "some")
    assert part.attrs["done"] == 6 / 9
    assert np.isnan(part.log_gain.values).sum() == 3 * 4
    assert not part.dead.any()
    same(gs.sweep(NETWORK, **SMALL, store=tmp_path / "some"), whole)
    for name in ("done", "part0/log_gain/c.0.1.0", "part0/log_gain/c.1.1.0"):
        assert (tmp_path / "some" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_other_versions_are_said(tmp_path: Path) -> None:
    gs.sweep(NETWORK, **SMALL, store=tmp_path)
    sheet = tmp_path / "zarr.json"
    sheet.write_text(sheet.read_text().replace('"jax_version": "', '"jax_version": "older than '))
    with pytest.warns(RuntimeWarning, match="begun with jax version older than"):
        gs.sweep(NETWORK, **SMALL | {"seeds": 4}, store=tmp_path)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "more",
    [
        {"seeds": 5},
        {"sigma_w": [0.25, 0.5, 2.0, 1.0]},
        {"seeds": range(5, -1, -1), "sigma_w": [0.5, 1.0, 1.5, 2.0], "sigma_b": [0.0, 1.0, 0.5]},
        {"network": {"a": NETWORK, "c": gs.feedforward(4), "b": NETWORK}},
    ],
)
def test_an_extended_sweep_measures_what_is_new(more: dict[str, Any], tmp_path: Path, counted: list[int]) -> None:
    """The rest stays as it is, bit for bit, and the whole is the sweep of all of it within rounding."""
    options: dict[str, Any] = {"network": {"a": NETWORK, "b": NETWORK}, **SMALL, "sigma_b": [0.0, 0.5]}
    first = gs.sweep(**options, store=tmp_path).load()
    counted.clear()
    extended = gs.sweep(**options | more, store=tmp_path)
    points, new = first.log_gain[..., 0].size, extended.log_gain[..., 0].size
    spare = 4  # of chunks whose last cell and seed are repeated
    assert 0 < sum(counted) <= spare * (new - points)
    back = extended.sel({dim: first[dim] for dim in first.dims}).load()
    xarray.testing.assert_equal(back, first)
    same(extended, gs.sweep(**options | more), partial(xarray.testing.assert_allclose, atol=2e-6))
    assert len(extended.attrs["created"].splitlines()) == 2


def test_a_result_may_be_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 800 GB, of which the first chunks are measured, and a part of one is read."""
    axis = np.linspace(0.5, 4, 100)
    options: dict[str, Any] = {"depth": 100, "seeds": 100_000, "sigma_w": axis, "sigma_b": axis}
    refused(("sigma_w", "sigma_b", "seeds", "depth"), partial(gs.sweep, gs.feedforward(2), **options))
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(1000, 10, Tiling(1000, 64)))
    chosen, calls = loop.program, []

    def program(*choice: Any) -> Any:
        def call(*args: Any) -> Any:
            calls.append(1)
            if len(calls) > 3:
                raise KeyboardInterrupt
            return chosen(*choice)(*args)

        return call

    monkeypatch.setattr(loop, "program", program)
    with pytest.raises(KeyboardInterrupt):
        gs.sweep(gs.feedforward(2), **options, store=tmp_path)
    opened = gs.open(tmp_path)
    assert opened.nbytes > 8e11
    there = opened.log_gain[:, 0, 9, -1].values
    assert np.isfinite(there[:30]).all()
    assert np.isnan(there[30:]).all()
    assert np.isnan(opened.log_gain[-1, -1, -1].values).all()


INPUTS = np.random.default_rng(1).normal(size=(2, 6))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("depth", {"depth": 3}),
        ("key", {"key": 1}),
        ("seeds", {"seeds": range(1, 9)}),
        ("sigma_w", {"sigma_w": [0.5, 1.0]}),
        ("sigma_w", {"sigma_w": 0.5}),
        ("sigma_b", {"sigma_b": 0.1}),
        ("statistics", {"statistics": ("log_gain", "length")}),
        ("burn_in", {"burn_in": 1}),
        ("inputs", {"inputs": INPUTS}),
        ("dtype", {"dtype": "float64"}),
        ("precision", {"precision": "high"}),
        ("direction", {"direction": "backward"}),
        ("network", {"network": gs.feedforward(7)}),
        ("network", {"network": gs.feedforward(6, "erf")}),
        ("network", {"network": {"a": NETWORK}}),
        ("network", {"widths": [6]}),
    ],
)
def test_another_sweep_is_refused_by_the_name_of_what_differs(name: str, other: Any, kept: Path) -> None:
    refused(name, lambda: gs.sweep(**{"network": NETWORK, **SMALL, **other}, store=kept))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a small sweep, which nothing changes."""
    path = tmp_path_factory.mktemp("kept") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "plan_chunk", planned)
        gs.sweep(NETWORK, **SMALL, store=path)
    return path


@pytest.mark.usefixtures("small_chunks")
def test_other_data_a_loss_or_a_measurement_of_another_kind_is_refused(tmp_path: Path) -> None:
    backward: dict[str, Any] = {"network": NETWORK, **SMALL, "direction": "backward", "statistics": "log_gradient"}
    gs.sweep(**backward, inputs=INPUTS, loss=jnp.sum, store=tmp_path)
    refused("inputs", lambda: gs.sweep(**backward, inputs=INPUTS + 1e-9, loss=jnp.sum, store=tmp_path))
    refused("loss", lambda: gs.sweep(**backward, inputs=INPUTS, loss=jnp.mean, store=tmp_path))
    refused("loss", lambda: gs.sweep(**backward, inputs=INPUTS, cotangent=np.ones(6), store=tmp_path))
    refused("measure", lambda: gs.partial_products(NETWORK, **SMALL, store=tmp_path))


NO_PATHS: list[Any] = [None, 3, True, b"x", ["a"], "", "a\0b"]


def test_what_is_no_path_is_refused() -> None:
    with own_checks():
        refused_each("path", NO_PATHS, gs.open)
        refused_each("store", NO_PATHS[1:], lambda wrong: gs.sweep(NETWORK, **SMALL, store=wrong))


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """One line, and nothing of it is changed."""
    (tmp_path / "thesis.tex").write_text("\\begin")
    (tmp_path / "file").write_text("")
    xarray.Dataset({"a": 1}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    for folder in (tmp_path, tmp_path / "file", tmp_path / "other.zarr"):
        before = sorted(tmp_path.rglob("*"))
        refused("store", partial(gs.sweep, NETWORK, **SMALL, store=folder))
        refused("store", partial(gs.open, folder))
        assert sorted(tmp_path.rglob("*")) == before
    refused("path", partial(gs.open, tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"attributes": {"gradsim": {"format": 2}}}', "[" * 100_000, "\0"])
def test_a_sheet_of_another_kind_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text(text)
    refused("store", partial(gs.open, tmp_path))
    refused("store", lambda: gs.sweep(NETWORK, **SMALL, store=tmp_path))


LIES: list[Any] = [None, "x", -1, 10**30, [], {}, [[]], [None], {"range": [0, 10**15, 1]}, "../../etc"]


def test_a_sheet_that_lies_is_refused_or_reads_as_nothing(kept: Path, tmp_path: Path) -> None:
    """Whatever of its fields is exchanged: never another exception, never a file outside the store."""
    good = json.loads((kept / "zarr.json").read_text())
    for field in good["attributes"]["gradsim"]:
        for lie in LIES:
            bad = json.loads(json.dumps(good))
            bad["attributes"]["gradsim"][field] = lie
            (tmp_path / "zarr.json").write_text(json.dumps(bad))
            found = problem("store", partial(gs.open, tmp_path))
            if found == "accepted":
                assert gs.open(tmp_path).attrs["done"] == 0.0
            else:
                assert not found


def test_no_code_is_run_from_a_store(kept: Path, tmp_path: Path) -> None:
    """Arrays are of plain numbers: one that asks for another codec, or kind of data, is not read."""
    for change in ({"data_type": "float32"}, {"codecs": [{"name": "numcodecs.pickle"}]}, {"shape": [3, 3, 5]}):
        store = tmp_path / next(iter(change))
        (store / "part0" / "log_gain").mkdir(parents=True)
        for file in ("zarr.json", "done", "part0/log_gain/zarr.json", "part0/log_gain/c.0.0.0"):
            (store / file).write_bytes((kept / file).read_bytes())
        array = store / "part0" / "log_gain" / "zarr.json"
        array.write_text(json.dumps(json.loads(array.read_text()) | change))
        refused("store", gs.open(store).log_gain.load)


def test_the_arrays_are_plain_zarr(kept: Path) -> None:
    array: Any = zarr.open_array(kept / "part0" / "log_gain", mode="r")
    values = gs.open(kept).log_gain
    np.testing.assert_array_equal(array[:], values)
