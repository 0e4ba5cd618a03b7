"""A store of many chunks: what is opened to read it, and to go on with it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradsim as gs
from gradsim.cli.stores import filled

WATCHED: list[list[str]] = []  # the files that are opened, while there is a list of them
HOOKS: list[Any] = []  # there is no way to remove one


def watch(event: str, args: tuple[Any, ...]) -> None:
    if WATCHED and event in ("open", "os.listdir", "os.scandir"):
        WATCHED[-1].append(str(args[0]))


@contextmanager
def opened_files(folder: Path) -> Iterator[list[str]]:
    """The names of those in the folder that are opened in its course; of folders those that are listed."""
    found: list[str] = []
    if not HOOKS:
        sys.addaudithook(watch)
        HOOKS.append(watch)
    WATCHED.append([])
    try:
        yield found
    finally:
        found += [name.removeprefix(str(folder)) for name in WATCHED.pop() if name.startswith(str(folder))]


def test_what_is_opened_does_not_grow_with_the_chunks(tmp_path: Path) -> None:
    """Going on reads each chunk that is done, once, to see that it is whole; `benchmark.py --parts store` times it."""
    looked, went = [], []
    for count in (20, 200):
        store = tmp_path / f"{count}.zarr"
        sweep = filled(store, count)
        with opened_files(store) as found:
            opened = gs.open(store)
            opened.log_gain[:, :1].isel(sigma_w=[7]).load()
        assert opened.attrs["done"] == (count - 1) / count
        looked.append(found)
        with opened_files(store) as found:
            sweep()
        chunks_read = [name for name in found if "/c." in name]
        assert len(chunks_read) - len(set(chunks_read)) <= 3  # the one that is written is also synced and summed
        assert len(set(chunks_read) - {name for name in chunks_read if name.endswith(".partial")}) == count
        went.append([name for name in found if "/c." not in name])
    assert looked[0] == looked[1]
    assert went[0] == went[1]
