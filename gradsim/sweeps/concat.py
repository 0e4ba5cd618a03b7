"""Runs of one experiment joined into one Dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.sweeps import dataset

if TYPE_CHECKING:
    import xarray

# What two runs must share to be one experiment; the first of each must be there.
OF_SWEEPS = ("direction", "dtype", "key", "depth", "burn_in", "inputs", "gradient_from", "precision")
OF_TRAINING = ("optimizer", "dtype", "key", "depth", "steps", "batch", "data", "data_digest", "held_out", "loss")
BEFORE = {"precision": "highest"}  # of runs from before there was a choice
NETWORKS = ("network", "width")
RUNS = "what gradsim.sweep or gradsim.train returned"
STEPS = ("depth", "time", "start", "input", "parameter", "singular_value", "step")


def concat(datasets: Sequence[xarray.Dataset], along: str | None = None) -> xarray.Dataset:
    """Join runs of the same experiment along the one axis in which they differ, its points in rising order.

        gs.concat([gs.sweep(network, seeds=8, …), gs.sweep(network, seeds=range(8, 16), …)])

    equals, up to rounding, one sweep with seeds=16. A gain that was one number in each run becomes an axis.

    Args:
        datasets: two or more that `gradsim.sweep` returned, or `gradsim.train`.
        along: the axis (seed, network, width, learning_rate or a gain); unless given, the only one that differs.

    Returns: a Dataset with the runs' `lost` counts added up and the first one's provenance; `created` and `command`
        of the others stand beside it, one a line.
    Raises: ValueError where runs overlap, or differ in anything but that axis; TypeError for anything but Datasets.
    """
    import xarray  # 0.3 s: not at import

    runs = _checked(datasets)
    along = _axis(runs, along)
    runs = [run.expand_dims(along) if along not in run.dims else run for run in runs]
    points = np.concatenate([run[along].values for run in runs])
    unique, counts = np.unique(points, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"datasets: {along} {unique[counts > 1][0]!s} is in more than one run; pass each point once")
    _refuse_differences(runs, along)
    flags = sorted({str(name) for run in runs for name in run.data_vars if str(name).endswith("_lost")})
    joined = xarray.concat(
        [_with_flags(run, flags) for run in runs], along, data_vars="all", coords="different", compat="equals",
        join="exact", combine_attrs="override",
    )  # fmt: skip
    if points.dtype.kind in "iuf":
        joined = joined.sortby(along)
    for flag in flags:
        joined[flag].attrs = next(run[flag].attrs for run in runs if flag in run)
    for name, values in joined.data_vars.items():
        for count in {"lost", "networks"} & values.attrs.keys():
            values.attrs[count] = sum(run[name].attrs[count] for run in runs)
    for text in ("created", "command"):
        joined.attrs[text] = "\n".join(dict.fromkeys(str(run.attrs.get(text, "")) for run in runs))
    if along in NETWORKS:
        held = {name: one for run in runs for name, one in dataset.described(run).items()}
        in_order = {str(name): held[str(name)] for name in joined[along].values.tolist()}
        joined.attrs["network"] = json.dumps(in_order, ensure_ascii=False)
    return joined


def _checked(datasets: Any) -> list[xarray.Dataset]:
    import xarray

    if isinstance(datasets, xarray.Dataset) or not isinstance(datasets, Sequence) or isinstance(datasets, str):
        raise TypeError(f"datasets: got a {type(datasets).__name__}; pass a list of {RUNS}")
    for one in datasets:
        if not isinstance(one, xarray.Dataset):
            raise TypeError(f"datasets: it holds a {type(one).__name__}; pass {RUNS}")
        missing = [name for name in _same(one)[:3] if name not in one.attrs]
        if missing:
            raise ValueError(f"datasets: one has no attribute {missing[0]!r}; pass {RUNS}")
    if len(datasets) < 2:
        raise ValueError(f"datasets: got {len(datasets)}; pass two or more")
    return list(datasets)


def _same(run: xarray.Dataset) -> tuple[str, ...]:
    return OF_TRAINING if OF_TRAINING[0] in run.attrs else OF_SWEEPS


def _axis(runs: Sequence[xarray.Dataset], along: str | None) -> str:
    """The axis of the join: every coordinate of one point or of an axis is a candidate."""
    first = runs[0]
    known = [str(name) for name in first.coords if name not in STEPS and first[name].dims in ((), (name,))]
    differ = [
        name
        for name in known
        if any(name not in run.coords or not np.array_equal(run[name].values, first[name].values) for run in runs[1:])
    ]
    if along is not None:
        return arguments.choice("along", along, known)
    if len(differ) != 1:
        what = ", ".join(differ) if differ else "nothing"
        raise ValueError(
            f"datasets: the runs differ in {what}; pass runs that differ in one axis of: {', '.join(known)}"
        )
    return differ[0]


def _refuse_differences(runs: Sequence[xarray.Dataset], along: str) -> None:
    first = runs[0]
    same = dict.fromkeys(name for run in runs for name in _same(run) + ("network",) * (along not in NETWORKS))
    for run in runs[1:]:
        for name in same:
            one, other = (some.attrs.get(name, BEFORE.get(name)) for some in (first, run))
            if one != other:
                raise ValueError(
                    f"datasets: {name} is {one!r} in one run and {other!r} in another; pass runs of one experiment"
                )
        names = [{str(name) for name in one.data_vars if not str(name).endswith("_lost")} for one in (first, run)]
        if names[0] != names[1]:
            only = ", ".join(sorted(names[0] ^ names[1]))
            raise ValueError(f"datasets: {only} is not in all runs; pass runs of the same statistics")
        for name in {*first.coords, *run.coords} - {along}:
            if not (name in first.coords and name in run.coords and _agree(first[name], run[name], along)):
                raise ValueError(f"datasets: the runs differ in {name} as well as in {along}; pass one difference")


def _agree(one: xarray.DataArray, other: xarray.DataArray, along: str) -> bool:
    """Equal, but for what goes with the axis of the join."""
    return along in one.dims or bool(one.equals(other))


def _with_flags(run: xarray.Dataset, flags: Sequence[str]) -> xarray.Dataset:
    """Nothing was lost where the flag is missing."""
    none = {flag: run[flag.removesuffix("_lost")].isnull() & False for flag in flags if flag not in run}
    return run.assign({flag: values.drop_attrs() for flag, values in none.items()})
