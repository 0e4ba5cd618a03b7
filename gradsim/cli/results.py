"""Results that come whole, such as exponents and critical gains, kept beside the stores of sweeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from gradsim.cli.saving import load, save

# What the script was asked for, by the names of its options, as JSON holds it.
asked: ContextVar[Mapping[str, Any] | None] = ContextVar("asked", default=None)
OPTIONS, RESULT = "options.json", "result"


def kept_result(path: Path, job: Callable[[], Any]) -> Any:
    """What is at the path, or else what the job gives, which is put there if it is a Dataset: whole or not at all.

    Raises: ValueError naming the first option that differs from those with which it was made.
    """
    told = dict(asked.get() or {})
    if (path / OPTIONS).exists():
        made = json.loads((path / OPTIONS).read_text(encoding="utf-8"))
        for name in {**told, **made}:
            if made.get(name) != told.get(name):
                raise ValueError(
                    f"{name}: {path} was made with {made.get(name)}, and {told.get(name)} came; pass what it was made "
                    "with, or another store"
                )
        return load(path)[RESULT]
    found = job()
    import xarray  # 0.3 s: not at import

    if isinstance(found, xarray.Dataset):
        begun = path.with_name(f"{path.name}.partial")
        shutil.rmtree(begun, ignore_errors=True)  # of one that was killed
        path.parent.mkdir(parents=True, exist_ok=True)
        save({RESULT: found}, begun)
        (begun / OPTIONS).write_text(json.dumps(told), encoding="utf-8")
        begun.rename(path)
    return found
