"""A finished sweep that is asked for more depth: in place, its steps as they were, or refused with the reason."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from stores import same
from wrong import problem

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, effort, loop

NETWORK = gs.feedforward(4, "relu")
# Also what the tests below run at 5 steps and at 7, lest they compile other programs.
SMALL: dict[str, Any] = {"depth": 5, "seeds": 3, "sigma_w": [0.5, 1.0, 1e38], "statistics": ("log_gain", "length")}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells and two seeds at once, in whatever memory; no step beyond the depth."""
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 2, Tiling(2, 4)))
    monkeypatch.setattr(chunks, "SPARE", 0.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], list[int]]:
    """The calls of the device, whose results are multiplied by what is made of their number."""
    chosen = loop.program

    def install(factor: Callable[[int], float]) -> list[int]:
        made: list[int] = []

        def program(*choice: Any) -> Any:
            def call(*args: Any) -> Any:
                made.append(1)
                by = np.float32(factor(len(made)))
                found = chosen(*choice)(*args)
                return {name: one._replace(mantissa=one.mantissa * by) for name, one in found.items()}

            return call

        monkeypatch.setattr(loop, "program", program)
        return made

    return install


def files(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.glob("part0/*/c.*")}


@pytest.mark.filterwarnings("ignore:length")
def test_more_depth_is_compiled_with_the_effort_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its first steps would have other last digits; what is new beside it is compiled as its own size pays."""
    monkeypatch.setattr(effort, "FEW", 1.0)
    with monkeypatch.context() as patched:
        patched.setattr(effort, "FEW", np.inf)
        gs.sweep(NETWORK, **SMALL | {"statistics": "length"}, store=tmp_path)
    chosen, efforts = loop.program, list[str]()

    def program(chunk: chunks.Chunk, *devices: Any) -> Any:
        efforts.append(chunk.effort)
        return chosen(chunk, *devices)

    monkeypatch.setattr(loop, "program", program)
    gs.sweep(NETWORK, **SMALL | {"statistics": "length", "depth": 7, "seeds": 4}, store=tmp_path)
    assert efforts == ["brief", "level 1"]


@pytest.mark.filterwarnings("ignore:length")
def test_more_depth_keeps_the_steps_that_are_there(tmp_path: Path, calls: Any) -> None:
    """To the last bit the sweep of the whole depth: what is lost and dead with it; twice, and then more seeds."""
    first = gs.sweep(NETWORK, **SMALL, store=tmp_path).load()
    assert first.length.attrs["lost"]
    before = files(tmp_path)
    made = calls(lambda _: 1.0)
    for depth in (7, 8):
        deeper = SMALL | {"depth": depth}
        same(gs.sweep(NETWORK, **deeper, store=tmp_path), gs.sweep(NETWORK, **deeper))
    assert len(made) == 2 * 2 * 4
    assert files(tmp_path) == before
    more: dict[str, Any] = SMALL | {"depth": 9, "seeds": 4, "sigma_w": [0.5, 0.7, 1.0, 1e38]}
    found = gs.sweep(NETWORK, **more, store=tmp_path)
    same(found, gs.sweep(NETWORK, **more), partial(xarray.testing.assert_allclose, atol=2e-6))
    known = {name: first[name] for name in ("seed", "sigma_w", "depth")}
    xarray.testing.assert_equal(found[["log_gain", "length"]].sel(known).load(), first[["log_gain", "length"]])
    np.testing.assert_array_equal(found.log_gain[1, -1, [8, 2, 5]], found.log_gain.values[1, -1, [8, 2, 5]])
    file = tmp_path / "part0" / "length" / "c.1.0.0"
    file.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="1 of 20 chunks"):
        same(gs.sweep(NETWORK, **more, store=tmp_path), found.load())
    assert files(tmp_path) == before


def test_ctrl_c_while_it_grows_keeps_all(tmp_path: Path, calls: Any) -> None:
    def end(call: int) -> float:
        if call == 2:
            raise KeyboardInterrupt
        return 1.0

    options: dict[str, Any] = {"depth": 3, "seeds": 3, "statistics": "log_singular_values"}
    first = gs.sweep(NETWORK, **options, at=[1, 3], store=tmp_path).load()
    calls(end)
    with pytest.raises(KeyboardInterrupt):
        gs.sweep(NETWORK, **options | {"depth": 5}, at=[1, 3, 5], store=tmp_path)
    there = gs.open(tmp_path)
    assert there.attrs["done"] == pytest.approx((3 * 3 / 5 + 2 * 2 / 5) / 3)
    xarray.testing.assert_equal(there.log_singular_values[:, :3].load(), first.log_singular_values)
    assert np.isfinite(there["rank"].values).sum() == 3 * 2 + 2
    calls(lambda _: 1.0)
    found = gs.sweep(NETWORK, **options | {"depth": 5}, at=[1, 3, 5], store=tmp_path)
    same(found, gs.sweep(NETWORK, **options | {"depth": 5}, at=[1, 3, 5]))


def test_numbers_that_come_out_otherwise_are_refused_and_the_store_stays(tmp_path: Path, calls: Any) -> None:
    """As on another device, whose last bits differ."""
    options: dict[str, Any] = SMALL | {"sigma_w": [0.5, 1.0, 1.5]}

    def sweep(depth: int) -> xarray.Dataset:
        return gs.sweep(NETWORK, **options | {"depth": depth}, store=tmp_path)

    first = sweep(depth=5).load()
    calls(lambda _: 1 + 2e-7)
    with pytest.raises(ValueError, match=r"^depth: log_gain of the first 5 steps comes out otherwise here than in"):
        sweep(depth=7)
    xarray.testing.assert_identical(sweep(depth=5).load(), first)
    calls(lambda call: 1 + 2e-7 * (call > 2))
    with pytest.raises(ValueError, match=r"^depth: log_gain of the first 5 steps comes out otherwise"):
        sweep(depth=7)
    assert gs.open(tmp_path).attrs["done"] > 5 / 7
    calls(lambda _: 1.0)
    same(sweep(depth=7), gs.sweep(NETWORK, **options | {"depth": 7}))


SCALED = partial(gs.residual, 4, scaling="inverse_sqrt_depth")
REFUSED: dict[str, tuple[str, Callable[..., Any]]] = {
    "counted from the last": ("backward", partial(gs.sweep, NETWORK, direction="backward")),
    "the starts grow": ("partial products", partial(gs.partial_products, NETWORK)),
    "scaled by the depth": (
        "branches",
        lambda depth, **more: gs.sweep(SCALED(layers=depth), depth=depth, statistics="length", **more),
    ),
    "at another depth; pass at=[2, 4]": ("costly", partial(gs.sweep, NETWORK, statistics="log_spectral")),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_further_steps_would_change_is_refused_with_the_reason(why: str, tmp_path: Path) -> None:
    reason, sweep = REFUSED[why]
    sweep(depth=2, seeds=1, store=tmp_path)
    with pytest.raises(ValueError, match=r"^depth: the store at .* with 2, and 4 came, which does not extend") as said:
        sweep(depth=4, seeds=1, store=tmp_path)
    assert why.split("; pass")[0] in str(said.value)
    assert reason in str(said.value)


def test_only_a_finished_sweep_grows_and_none_shrinks(tmp_path: Path) -> None:
    sweep = partial(gs.sweep, NETWORK, seeds=3, statistics=SMALL["statistics"], store=tmp_path)
    sweep(depth=5)
    assert not problem("depth", lambda: sweep(depth=1))
    journal = tmp_path / "done"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    with pytest.raises(
        ValueError, match=r"^depth: 1 of 2 chunks of the store .* finish them with depth=5, and pass more"
    ):
        sweep(depth=7)
    sweep(depth=5)
    assert sweep(depth=7).attrs["done"] == 1.0
