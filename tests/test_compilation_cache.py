"""The compilation cache: what was compiled once is loaded, whatever happened to the folder in between."""

import errno
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
import pytest
import wrong
from jax.experimental.compilation_cache import compilation_cache as jax_cache
from wrong import refused_each

import gradsim as gs
from gradsim import cli, compilation_cache
from gradsim.cores import cores

DIR, SIZE = "jax_compilation_cache_dir", "jax_compilation_cache_max_size"
SECONDS, ENABLED = "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache"
settings: Any = jax.config


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """No folder chosen and every program kept, for one test."""
    before = {name: getattr(settings, name) for name in (DIR, SIZE, SECONDS, ENABLED)}
    jax.config.update(DIR, None)
    jax.config.update(SECONDS, 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def compiled(options: dict[str, Any] | None = None) -> np.ndarray:
    """What a program gives that is compiled or loaded anew; it has a name of its own and takes its argument over."""

    def own_program(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ x) * jnp.exp(-x)

    jax.clear_caches()
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    return np.asarray(jax.jit(own_program, donate_argnums=0, compiler_options=options)(jnp.asarray(x)))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("jit_own_program-*-cache"))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("options", [None, {"xla_backend_optimization_level": 1}])
def test_a_program_that_was_kept_is_the_same_to_the_bit(tmp_path: Path, options: dict[str, Any] | None) -> None:
    plain = compiled(options)
    assert gs.enable_compilation_cache(tmp_path) == tmp_path
    np.testing.assert_array_equal(compiled(options), plain)
    (kept,) = entries(tmp_path)
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(compiled(options), plain)
    assert [file.stat().st_mtime_ns for file in entries(tmp_path)] == [written]


def test_it_lies_in_the_users_cache_folder_with_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name, appauthor: tmp_path / name)
    jax.config.update(SECONDS, 1.0)  # as jax has it
    jax.config.update(SIZE, -1)
    folder = tmp_path / "gradsim" / f"compiled-{cores()}"
    assert gs.enable_compilation_cache() == folder == Path(getattr(settings, DIR))
    assert getattr(settings, SIZE) == 2**28
    assert getattr(settings, SECONDS) == 0.1
    assert gs.enable_compilation_cache() == folder
    if os.name == "posix":
        assert folder.stat().st_mode & 0o077 == 0  # programs that others may not replace


def test_ones_own_settings_stand(tmp_path: Path) -> None:
    jax.config.update(DIR, str(tmp_path / "own"))
    jax.config.update(SIZE, 10**6)
    assert gs.enable_compilation_cache() == tmp_path / "own"
    assert not (tmp_path / "own").exists()
    assert gs.enable_compilation_cache(tmp_path / "given") == tmp_path / "given"
    assert (getattr(settings, SIZE), getattr(settings, SECONDS)) == (10**6, 0.0)
    jax.config.update(ENABLED, False)
    assert gs.enable_compilation_cache(tmp_path / "other") is None
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("left", [slice(0), slice(100), slice(None, None, -1)], ids=["none", "a part", "garbage"])
def test_a_damaged_entry_is_compiled_anew_with_one_warning(tmp_path: Path, left: slice) -> None:
    gs.enable_compilation_cache(tmp_path)
    plain = compiled()
    (kept,) = entries(tmp_path)
    whole = kept.read_bytes()
    kept.write_bytes(whole[left])
    with pytest.warns(RuntimeWarning, match="1 damaged in") as warned:
        gs.enable_compilation_cache(tmp_path)
    assert [one.filename for one in warned] == [__file__]
    np.testing.assert_array_equal(compiled(), plain)
    (kept,) = entries(tmp_path)
    assert abs(len(kept.read_bytes()) - len(whole)) < 100
    gs.enable_compilation_cache(tmp_path)
    np.testing.assert_array_equal(compiled(), plain)


def test_an_entry_without_its_age_keeps_nothing_from_being_written(tmp_path: Path) -> None:
    gs.enable_compilation_cache(tmp_path)
    compiled()
    for file in tmp_path.glob("*-atime"):
        file.unlink()
    gs.enable_compilation_cache(tmp_path)
    compiled({"xla_backend_optimization_level": 1})
    assert len(entries(tmp_path)) == 2


def test_what_was_found_whole_is_not_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gs.enable_compilation_cache(tmp_path)
    compiled()
    gs.enable_compilation_cache(tmp_path)
    monkeypatch.setattr(compilation_cache, "_whole", lambda entry: pytest.fail("read again"))
    gs.enable_compilation_cache(tmp_path)


def test_entries_of_zstandard_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    magic = b"\x28\xb5\x2f\xfd"
    zstd: Any = ModuleType("zstandard")
    zstd.ZstdError, zstd.decompress = zlib.error, lambda entry: zlib.decompress(entry[4:])
    monkeypatch.setitem(sys.modules, "zstandard", zstd)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)  # Python's own, from 3.14 on
    assert compilation_cache._whole(magic + zlib.compress(b"program"))
    assert not compilation_cache._whole(magic)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert compilation_cache._whole(magic)


def test_the_least_recently_used_go_beyond_the_limit(tmp_path: Path) -> None:
    gs.enable_compilation_cache(tmp_path)
    compiled()
    (first,) = entries(tmp_path)
    jax.config.update(SIZE, first.stat().st_size * 3 // 2)
    for file in set(tmp_path.glob("*-*")) - set(tmp_path.glob("jit_own_program-*")):
        file.unlink()
    gs.enable_compilation_cache(tmp_path)
    compiled({"xla_backend_optimization_level": 1})
    assert len(entries(tmp_path)) == 1
    assert not first.exists()


def test_a_folder_that_takes_nothing_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="no compilation cache: cannot write into") as warned:
        assert gs.enable_compilation_cache(tmp_path / "file" / "folder") is None
    assert len(warned) == 1
    compiled()


def test_a_full_disk_costs_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(file: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match=r"\(No space left on device\)") as warned:
        assert gs.enable_compilation_cache(tmp_path) is None
    assert len(warned) == 1
    compiled()


def test_wrong_folders_are_refused() -> None:
    values = [3, True, ["a"], {"a": 1}, b"x", wrong.NAN, wrong.Opaque(), wrong.ARRAY, "", "a\0b"]
    with wrong.own_checks():
        refused_each("folder", values, gs.enable_compilation_cache)


CODE = """
import sys, warnings
import gradsim as gs
warnings.simplefilter("error")
gs.enable_compilation_cache(sys.argv[1])
print(gs.sweep(gs.feedforward(4), depth=3, seeds=2, sigma_w=[1.0, 2.0], progress=False).log_gain.values.tobytes().hex())
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Started together on a folder that does not exist, and then one after them."""
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", CODE, str(tmp_path / "shared")]
    started = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment) for _ in range(2)]
    said = [process.communicate() for process in started]
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "shared").glob("*-cache")}
    said.append(subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment).communicate())
    assert {error for _, error in said} == {""}
    assert len({out for out, _ in said}) == 1
    assert said[0][0].strip()
    assert written == {file: file.stat().st_mtime_ns for file in (tmp_path / "shared").glob("*-cache")}


@pytest.mark.parametrize("redrawn", [False, True])
def test_scripts_turn_it_on_where_they_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redrawn: bool) -> None:
    calls: list[None] = []
    module = sys.modules[cli.run.__module__]
    monkeypatch.setattr(module, "enable_compilation_cache", lambda: calls.append(None))
    monkeypatch.setattr(module, "load", lambda *_: {})
    options = cli.Options(out=tmp_path, data=tmp_path if redrawn else None)
    cli.run("name", options, lambda _: {}, lambda _: "", lambda _: {})
    assert len(calls) == (0 if redrawn else 1)
