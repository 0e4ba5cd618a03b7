"""Data that an earlier run of a script has measured with the same options, by the same code."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from gradsim.cli.saving import Datasets, load

PACKAGE = Path(__file__).parents[1]
DRAWING = PACKAGE / "plot"  # of which no number depends
LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "flax", "optax")


def fingerprint(script: Path, options: Mapping[str, Any]) -> str:
    """A hash of what numbers depend on: these options, the script, gradsim but for its plots, libraries, the machine.

    By its name too, for some scripts measure how long it takes.
    """
    versions = {name: metadata.version(name) for name in LIBRARIES}
    told = [dict(options), versions, platform.node(), jax.default_backend(), jax.devices()[0].device_kind]
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for source in [script, *sorted(PACKAGE.rglob("*.py"))]:
        if DRAWING not in source.parents:
            found.update(source.read_bytes())
    return found.hexdigest()


def measured_before(store: Path, script: str, wanted: str) -> Datasets | None:
    """The Datasets of a store that `save` has marked with this fingerprint; None where it has not, or is damaged."""
    import zarr

    try:
        there = store.exists() and zarr.open_group(store, mode="r").attrs.get("measured") == wanted
        return load(store, script) if there else None
    except (OSError, KeyError, ValueError):
        return None
