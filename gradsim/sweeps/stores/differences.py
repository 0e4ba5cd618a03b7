"""In what a call differs from the one that began its store: refused, or more of the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gradsim.sweeps.stores import folder
from gradsim.sweeps.stores.sheet import Sheet


class OtherNumbers(ValueError):
    """Steps that were measured before come out otherwise."""


def refuse_differences(path: Path, stored: Sheet, wanted: Sheet) -> None:
    """Raises: ValueError naming the first argument that differs in more than further points of an axis, or depth."""

    def refuse(name: str, one: Any, other: Any) -> None:
        raise ValueError(
            f"{name}: the store at {path} was made with {folder.shown(one)}, and {folder.shown(other)} came; pass what "
            "it was made with, or another store"
        )

    deeper = is_deeper(stored, wanted)
    if deeper:
        _refuse_depth(path, stored, wanted)
    if stored.axis != wanted.axis or (stored.axis is None and stored.networks != wanted.networks):
        refuse("network", stored.networks, wanted.networks)
    for name, one in stored.networks.items():
        if wanted.networks.get(name) != one:
            refuse("network", {name: one}, {name: wanted.networks.get(name)})
    for name in {**wanted.arguments, **stored.arguments}:
        one, other = stored.arguments.get(name), wanted.arguments.get(name)
        if deeper and name == "at" and one is not None and other is not None:
            other = [step for step in other if step <= stored.arguments["depth"]]
        if one != other and not (deeper and name == "depth"):
            refuse(name, one, other)
    if list(stored.axes) != list(wanted.axes):
        refuse(", ".join(stored.axes) or ", ".join(wanted.axes), list(stored.axes), list(wanted.axes))
    for name, points in {**stored.axes, "seed": stored.seeds}.items():
        new = {**wanted.axes, "seed": wanted.seeds}[name]
        if not np.isin(points, new).all():
            refuse("seeds" if name == "seed" else name, points.tolist(), new.tolist())


def is_deeper(stored: Sheet, wanted: Sheet) -> bool:
    """Whether the call asks for further steps of a sweep."""
    kinds = {sheet.arguments.get("measure") for sheet in (stored, wanted)}
    return kinds <= {"sweep", "partial_products"} and wanted.arguments["depth"] > stored.arguments["depth"]


def _refuse_depth(path: Path, stored: Sheet, wanted: Sheet) -> None:
    """Further steps must leave the first ones what they are.

    Raises: ValueError with the reason why they do not.
    """
    first, last = stored.arguments["depth"], wanted.arguments["depth"]
    if "partial_products" in (stored.arguments["measure"], wanted.arguments["measure"]):
        why = "of partial products the starts grow as well"
    elif "backward" in (stored.arguments["direction"], wanted.arguments["direction"]):
        why = "backward all steps are counted from the last one"
    elif any(one.get("layers") is not None for one in (*stored.networks.values(), *wanted.networks.values())):
        why = "its branches are scaled by the depth"
    elif stored.arguments["at"] == [first] and wanted.arguments["at"] == [last]:
        why = f"costly statistics would be taken at another depth; pass at=[{first}, {last}]"
    else:
        return
    raise ValueError(
        f"depth: the store at {path} was made with {first}, and {last} came, which does not extend it: {why}"
        + ("" if "pass" in why else "; pass another store")
    )
