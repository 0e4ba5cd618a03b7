"""A sweep as it is asked for, and whether a store is of the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradsim.engine.plan import Plan
from gradsim.engine.statistic import Statistic
from gradsim.engine.statistics import STATISTICS
from gradsim.networks.network import State
from gradsim.sweeps import dataset, flags, folder, grid
from gradsim.sweeps.course import result_shape
from gradsim.sweeps.sheet import Sheet, Told

BEFORE = {"precision": "highest"}  # what there was no choice of yet


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is asked for, every argument checked."""

    several: grid.Networks
    planned: Sequence[Plan]
    axes: Mapping[str, np.ndarray]
    seeds: np.ndarray
    key: int
    inputs: Any
    cotangent: State | None
    settings: Mapping[str, Any]  # as the Dataset has them

    @property
    def own(self) -> list[dict[str, np.ndarray]]:
        """The axes and numbers of each network's own gains."""
        return [grid.own(plan, self.axes) for plan in self.planned]


def sheet_of(asked: Sweep) -> Sheet:
    """What the store of this sweep would say, before its parts are planned."""
    plan = asked.planned[0]
    dims, coordinates, attrs = dataset.frame(asked.several, asked.axes, plan, asked.seeds, asked.settings)
    swept = {name: axis for name, axis in asked.axes.items() if axis.ndim}
    networks = {str(name): one.describe() for name, one in asked.several.each.items()}
    shapes = [result_shape(one) for one in asked.planned]
    inner, flagging = 1 + plan.pairs, flags.flagging(plan.statistics)
    return Sheet(
        arguments={
            "measure": "partial_products" if plan.pairs else "sweep",
            "depth": plan.depth,
            "key": asked.key,
            "direction": plan.direction,
            "statistics": [_named(one) for one in plan.statistics],
            "at": sorted(set(plan.at)) if any(one.costly for one in plan.statistics) else None,
            "burn_in": plan.burn_in,
            "inputs": asked.settings["inputs"],
            "loss or cotangent": asked.settings["gradient_from"],
            "dtype": plan.format or plan.dtype,
            "precision": plan.precision,
            **{name: float(axis) for name, axis in asked.axes.items() if not axis.ndim},
        },
        axis=asked.several.axis,
        networks=networks,
        own=tuple(tuple(name for name in swept if name in one) for one in asked.own),
        axes=swept,
        seeds=asked.seeds,
        depth=plan.depth,
        pairs=plan.pairs,
        dims=tuple(dims),
        coordinates=coordinates,
        attrs=attrs,
        statistics=tuple(
            Told(
                one.name,
                dataset.about(plan, one),
                tuple(flags.dims_of(plan, one)),
                plan.at if one.costly else None,
                one.infinite,
                one.undefined,
                flags.dead(one) if one is flagging else "",
                tuple(shape[one.name][inner:] for shape in shapes),
            )
            for one in plan.statistics
        ),
    )


def _named(one: Statistic) -> str:
    """Its name, and of one's own that of its function, by which alone it is known again."""
    if STATISTICS.get(one.name) == one:
        return one.name
    function = one.measure
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{one.name} by {getattr(function, '__module__', '')}.{name}"


def refuse_differences(path: Path, stored: Sheet, wanted: Sheet) -> None:
    """Raises: ValueError naming the first argument that differs in more than further points of an axis."""

    def refuse(name: str, one: Any, other: Any) -> None:
        raise ValueError(
            f"{name}: the store at {path} was made with {folder.shown(one)}, and {folder.shown(other)} came; pass what "
            "it was made with, or another store"
        )

    for name in {**wanted.arguments, **stored.arguments}:
        one, other = stored.arguments.get(name, BEFORE.get(name)), wanted.arguments.get(name)
        if one != other:
            refuse(name, one, other)
    if stored.axis != wanted.axis or (stored.axis is None and stored.networks != wanted.networks):
        refuse("network", stored.networks, wanted.networks)
    for name, one in stored.networks.items():
        if wanted.networks.get(name) != one:
            refuse("network", {name: one}, {name: wanted.networks.get(name)})
    if list(stored.axes) != list(wanted.axes):
        refuse(", ".join(stored.axes) or ", ".join(wanted.axes), list(stored.axes), list(wanted.axes))
    for name, points in {**stored.axes, "seed": stored.seeds}.items():
        new = {**wanted.axes, "seed": wanted.seeds}[name]
        if not np.isin(points, new).all():
            refuse("seeds" if name == "seed" else name, points.tolist(), new.tolist())
