"""What may befall a sweep on disk, each really done: a full disk, damaged bytes, Ctrl-C, a device that fails."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray
from kills import contents
from stores import Before, before_calls, interrupt
from wrong import refused

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks
from gradsim.sweeps.calls import DeviceError, halved
from gradsim.sweeps.stores import folder

NETWORK = gs.feedforward(6)
SMALL: dict[str, Any] = {"depth": 4, "seeds": 4, "sigma_w": [0.5, 1.0, 1.5, 2.0]}  # 8 chunks
sweep = partial(gs.sweep, NETWORK, **SMALL)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4)))


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Before:
    return partial(before_calls, monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a sweep that nothing has befallen."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4)))
        sweep(store=path)
    return path


def test_reading_goes_on_while_it_is_measured(tmp_path: Path, before: Before) -> None:
    shares = []

    def look(call: int, _: int) -> None:
        if call > 1:
            opened = gs.open(tmp_path)
            shares.append(opened.attrs["done"])
            assert np.isfinite(opened.log_gain.values).mean() == opened.attrs["done"]

    before(look)
    sweep(store=tmp_path)
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] < 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_keeps_what_is_done(disk: Path, whole: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(224 * 1024))
    with pytest.raises(OSError, match=r"cannot write into .* of 8 chunks are done, and the same call goes on") as full:
        sweep(store=disk / "a.zarr")
    assert full.value.errno == errno.ENOSPC
    assert 0 < gs.open(disk / "a.zarr").attrs["done"] < 1
    filler.unlink()
    sweep(store=disk / "a.zarr")
    assert contents(disk / "a.zarr") == contents(whole)


@pytest.mark.parametrize("at", range(0, 24, 3))
def test_no_room_at_any_write_is_said_and_gone_on_from(
    at: int, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the sheet, or an array's metadata, does not fit any more."""
    written, sync = [], folder.sync

    def full(path: Path) -> None:
        written.append(path)
        if len(written) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(folder, "sync", full)
    with pytest.raises((OSError, ValueError), match="No space left"):
        sweep(store=tmp_path)
    monkeypatch.setattr(folder, "sync", lambda path: None)
    sweep(store=tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_folder_made_read_only(disk: Path) -> None:
    """What is finished is still returned; what is not, or is not there, is refused in a line."""
    sweep(store=disk / "done")
    sweep(store=disk / "part")
    (disk / "part" / "done").write_text("")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert sweep(store=disk / "done").attrs["done"] == 1.0
    assert gs.open(disk / "part").attrs["done"] == 0.0
    refused("store", lambda: sweep(store=disk / "part"))
    refused("store", lambda: sweep(store=disk / "new"))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_chunk_is_found_said_and_measured_anew(
    damage: Callable[[Path], None], tmp_path: Path, whole: Path, before: Before
) -> None:
    sweep(store=tmp_path)
    damage(tmp_path / "part0" / "log_gain" / "c.1.2.0")
    refused("store", gs.open(tmp_path).log_gain.load)
    calls: list[int] = []
    before(lambda call, _: calls.append(call))
    with pytest.warns(
        RuntimeWarning, match=r"1 of 8 chunks of .* are damaged, the first in .*c\.1\.2\.0; measured anew"
    ):
        mended = sweep(store=tmp_path)
    assert calls == [1]
    xarray.testing.assert_equal(mended.load(), gs.open(whole).load())
    assert contents(tmp_path).keys() == contents(whole).keys()
    sweep(store=tmp_path)  # without a warning


NO_MARKS = [b"[0,0,[1", b"\xff\xfe\n", b"\n\n[[]]\n[0,99,[1],{}]\n[0,1,[],{}]\n[1,0,[1],{}]\n[-1,-1,[1],{}]\n"]


@pytest.mark.parametrize("text", NO_MARKS)
def test_a_damaged_journal_counts_for_nothing(text: bytes, tmp_path: Path, whole: Path) -> None:
    sweep(store=tmp_path)
    journal = tmp_path / "done"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + text)
    assert gs.open(tmp_path).attrs["done"] == 0.5
    xarray.testing.assert_equal(sweep(store=tmp_path).load(), gs.open(whole).load())


def test_ctrl_c_hands_over_what_is_measured(before: Before) -> None:
    before(interrupt)
    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep(statistics=("log_gain", "length"))
    found: Any = stopped.value
    there = np.isfinite(found.dataset.log_gain.values)
    assert found.dataset.attrs["done"] == there.mean() == 3 / 8
    assert found.dataset.log_gain.attrs["lost"] == 0
    partly = sweep(statistics=("log_gain", "length")).where(there).drop_vars("dead")
    xarray.testing.assert_equal(found.dataset.drop_vars("dead"), partly)


def test_ctrl_c_finishes_the_write_and_says_how_to_go_on(
    tmp_path: Path, whole: Path, before: Before, capsys: pytest.CaptureFixture[str]
) -> None:
    before(interrupt)
    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep(store=tmp_path)
    found: Any = stopped.value
    assert found.dataset.attrs["done"] == 3 / 8
    assert f"{tmp_path}: 38% of it is done; the same call goes on from there" in capsys.readouterr().err
    before(lambda *_: None)
    sweep(store=tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_out_of_memory_halves_the_chunk_and_says_so_once(before: Before, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds first, then cells; every number keeps its place."""
    expected = sweep(statistics=("log_gain", "length"))
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(4, 3, Tiling(4, 4)))

    def small(_: int, networks: int) -> None:
        if networks > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes")

    before(small)
    with pytest.warns(RuntimeWarning) as said:
        found = sweep(statistics=("log_gain", "length"))
    assert len(said) == 1
    assert str(said[0].message).startswith("device: out of memory with 4 cells x 3 seeds at once; goes on with half")
    xarray.testing.assert_allclose(found, expected, atol=2e-6)


def test_halves_of_chunks() -> None:
    chunk = chunks.Chunk(6, 3, Tiling(20, 4))  # blocks of two cells, with ten starts each
    sizes = []
    while chunk[:2] != (1, 1):
        chunk = halved(chunk, starts=10)
        assert chunk.cells * 10 % chunk.tiling.cells == 0
        sizes.append(chunk[:2])
    assert sizes == [(6, 2), (6, 1), (4, 1), (2, 1), (1, 1)]


def test_an_error_of_the_device_is_tried_once_more(before: Before, tmp_path: Path, whole: Path) -> None:
    def fails(calls: set[int]) -> None:
        def act(call: int, _: int) -> None:
            if call in calls:
                raise jax.errors.JaxRuntimeError("INTERNAL: a link is down")

        before(act)

    fails({3})
    xarray.testing.assert_equal(sweep(), gs.open(whole).load())
    fails({3, 4})
    with pytest.raises(RuntimeError, match=r"^device: it failed a chunk twice .*a link is down") as failed:
        sweep()
    assert isinstance(failed.value, DeviceError)
    error: Any = failed.value
    assert error.dataset.attrs["done"] == 2 / 8
    fails({3, 4})
    with pytest.raises(DeviceError) as failed:
        sweep(store=tmp_path)
    error = failed.value
    assert error.dataset.attrs["done"] == 2 / 8
    before(lambda *_: None)
    sweep(store=tmp_path)
    assert contents(tmp_path) == contents(whole)
