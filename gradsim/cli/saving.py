"""Datasets on disk: each a group of one Zarr store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsim.arguments import reason

if TYPE_CHECKING:
    import xarray

Datasets = Mapping[str, "xarray.Dataset"]


def writable(folder: Path) -> Path:
    """The folder, made if missing. Raises: ValueError where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(
            f"out: cannot write into {folder} ({error.strerror}); pass a folder that you may write to"
        ) from error


def save(datasets: Datasets, store: Path, script: str = "", measured: str = "") -> Path:
    """Write each Dataset as a group of one Zarr store, in place of what was there, with the name of the script.

    Their names and the fingerprint of how they were `measured` come last, when all is there.
    """
    import zarr

    group = zarr.open_group(store, mode="w")
    for name, dataset in datasets.items():
        # Fixed-width strings have no place in the Zarr 3 specification, those of any length do.
        strings = {key: values.astype(object) for key, values in dataset.variables.items() if values.dtype.kind == "U"}
        files: dict[str, Any] = {}  # many and small: Zarr takes twice as long on disk as in memory
        dataset.assign(strings).to_zarr(zarr.storage.MemoryStore(files), group=name, mode="a", consolidated=False)
        for path, content in files.items():
            (store / path).parent.mkdir(parents=True, exist_ok=True)
            (store / path).write_bytes(content.to_bytes())
    group.attrs.update({"datasets": list(datasets), "script": script, "measured": measured})
    return store


def load(store: Path, script: str = "") -> dict[str, xarray.Dataset]:
    """Every Dataset of a store that `save` wrote. Raises: ValueError where there is none, or one of another script."""
    import xarray
    import zarr

    if not store.exists():
        raise ValueError(f"data: nothing at {store}; pass a NAME.zarr that an earlier run saved")
    try:
        attributes: Any = zarr.open_group(store, mode="r").attrs
        names = attributes["datasets"]  # in the order in which they were saved
        datasets = {name: xarray.open_zarr(store, group=name, consolidated=False).load() for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"data: {store} cannot be read as Zarr ({reason(error)})") from error
    wrote = attributes.get("script", "")
    if script and wrote and wrote != script:
        raise ValueError(f"data: {store} was saved by {wrote}.py; pass what {script}.py has saved")
    return datasets
