"""A sweep that was kept on disk, read again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gradsim import arguments

if TYPE_CHECKING:
    import xarray


def open_store(path: str | os.PathLike[str]) -> xarray.Dataset:
    """The Dataset of a sweep that `gradsim.sweep(…, store=path)` keeps, its numbers read when they are asked for.

        one = gs.open("map.zarr")
        one.attrs["done"]  # 1.0 when it is finished
        one.log_gain.sel(depth=100)  # reads no more than the chunks that hold it

    It holds what `gradsim.sweep` returns. A sweep that is not finished, or is still running, is NaN where there is
    nothing yet; the attribute `done` is the share that there was when it was opened. Each number comes with a checksum,
    and nothing in a store is run as code.

    Args:
        path: the folder of the store.

    Raises: ValueError for a folder that holds none; and, where numbers are read, for a chunk that is damaged, which the
        same call of `gradsim.sweep` measures anew.
    """
    import xarray  # 0.3 s: not at import

    from gradsim.sweeps.stores.lazy import Backend

    return xarray.open_dataset(checked("path", path), engine=Backend)


def checked(name: str, value: object) -> Path:
    """`value` as the path of a store.

    Raises: TypeError or ValueError naming the argument.
    """
    wanted = "the path of a folder, such as 'map.zarr'"
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: {arguments.got(value)}; pass {wanted}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{name}: got {arguments.shown(text)}; pass {wanted}")
    return Path(text)
