"""The persistent compilation cache: compiled programs kept on disk from one process to the next."""

import os
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import jax

from gradsim import arguments
from gradsim.cores import cores

SIZE = 2**28  # bytes; a script adds some 4 MB, and beyond it goes what was used least recently
LEAST_SECONDS = 0.1  # a third of a script's programs compile faster, in 1 % of the time
_PROBE = 2**20  # bytes that must find room, more than a program of a sweep takes
_PATIENCE = 60.0  # seconds for other processes to let go of the folder
_ENTRY, _AGE = "-cache", "-atime"  # jax's names: a compressed program, and when it was last used
_LOCK, _CHECKED = ".lockfile", ".checked"  # jax's lock; what is older than the second file has been found whole
_ZSTD = b"\x28\xb5\x2f\xfd"
_settings: Any = jax.config  # whose options a checker of types does not know


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs on disk, so that another process, or the next run, loads what this one has compiled.

    At most 256 MiB, and only programs that took 0.1 s or more to compile. What one's own jax settings say
    (`JAX_COMPILATION_CACHE_DIR`, `jax_compilation_cache_max_size`, …) stands; only a `folder` given here replaces the
    folder. Several processes may share one. Damaged entries are removed with one warning and compiled anew; where
    nothing can be written there is one warning and no cache. Whoever can write into the folder can run code here.

    Args:
        folder: where, made if missing; the user's cache folder unless given.

    Returns: the folder in use; None where the cache stays off.
    Raises: TypeError or ValueError naming the argument.
    """
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder: {arguments.got(folder)}; pass a path, or None for the user's cache folder")
    if folder is not None and ("\0" in os.fsdecode(folder) or not os.fsdecode(folder)):
        raise ValueError(f"folder: got {arguments.shown(folder)}; pass a path, or None for the user's cache folder")
    chosen = _settings.jax_compilation_cache_dir
    if not _settings.jax_enable_compilation_cache:
        return None
    if folder is None and chosen:
        return Path(chosen)
    place = _user_folder() if folder is None else Path(folder).absolute()
    try:
        _prepare(place)
    except OSError as error:
        arguments.warn(f"no compilation cache: cannot write into {place} ({error.strerror or error})")
        return None
    _use(place)
    return place


def _user_folder() -> Path:
    """One for each number of cores: a program is compiled for those there are, and jax's keys do not tell them."""
    from platformdirs import user_cache_path

    return user_cache_path("gradsim", appauthor=False) / f"compiled-{cores()}"


def _prepare(folder: Path) -> None:
    """Make the folder, see that it takes an entry, and remove damaged ones, while no other process is at it."""
    from filelock import FileLock

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder / _LOCK, timeout=_PATIENCE):
        probe = folder / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(bytes(_PROBE))
        finally:
            probe.unlink(missing_ok=True)
        damaged = _tidy(folder)
    if damaged:
        arguments.warn(f"compilation cache: {damaged} damaged in {folder}, to be compiled anew")


def _tidy(folder: Path) -> int:
    """Remove what a killed process or a full disk has left; returns how many entries were damaged.

    jax would recompile a damaged entry in every run, since it overwrites none, and before 0.12 it wrote nothing any
    more beside an entry without its age.
    """
    checked = folder / _CHECKED
    since = checked.stat().st_mtime_ns if checked.exists() else 0
    damaged = 0
    for entry in folder.glob(f"*{_ENTRY}"):
        age, status = entry.with_name(entry.name.removesuffix(_ENTRY) + _AGE), entry.stat()
        changed = max(status.st_mtime_ns, status.st_ctime_ns) >= since
        if changed and not _whole(entry.read_bytes()):
            entry.unlink()
            age.unlink(missing_ok=True)
            damaged += 1
        elif not age.exists():
            age.write_bytes(bytes(8))  # used least recently
    checked.touch()
    return damaged


def _whole(entry: bytes) -> bool:
    """Whether an entry can be decompressed to its end, by zlib with a checksum."""
    if not entry.startswith(_ZSTD):
        try:
            return bool(zlib.decompress(entry))
        except zlib.error:
            return False
    for name in ("compression.zstd", "zstandard"):
        try:
            zstd = import_module(name)
        except ImportError:
            continue
        try:
            return bool(zstd.decompress(entry))
        except zstd.ZstdError:
            return False
    return True  # of an environment that has one of them; this one looks for no such entry


def _use(folder: Path) -> None:
    """Point jax there, with limits where there are none."""
    from jax.experimental.compilation_cache import compilation_cache

    if _settings.jax_compilation_cache_max_size == -1:
        jax.config.update("jax_compilation_cache_max_size", SIZE)
    if _settings.jax_persistent_cache_min_compile_time_secs == 1.0:  # jax's own
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    compilation_cache.set_cache_dir(str(folder))
    compilation_cache.reset_cache()  # of a folder used before
