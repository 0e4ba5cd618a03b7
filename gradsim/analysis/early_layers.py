"""What training has come to, and what moved the first and the last layer of each network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray


def by_the_others(one: xarray.Dataset) -> xarray.Dataset:
    """Each network with the learning rate at which the others of its kind came out best: so none has chosen for itself.

    The rates become a coordinate over `seed`; `tried` is the mean accuracy at each rate that was tried. Of equal
    rates the first is taken; an accuracy that is missing counts as none.

    Args:
        one: what `gradsim.train` returns, over learning_rate, two or more seeds, and step.
    """
    reached = one["accuracy"].isel(step=-1, drop=True).fillna(0.0)
    others = (reached.sum("seed") - reached) / (reached.sizes["seed"] - 1)
    best = others.round(9).argmax("learning_rate")  # sums in another order are no better
    tried = reached.mean("seed").rename(learning_rate="rate")
    return one.isel(learning_rate=best).assign(tried=tried)


def table(datasets: Mapping[str, xarray.Dataset]) -> xarray.Dataset:
    """One entry a kind: accuracy and its standard error, the share that diverged, what moves the first layer.

    The learning rate is the one that most networks have. `log10_first` and `log10_last` are of the relative update
    ‖ΔW‖/‖W‖ of the first and the last layer, means over networks and training; over time, where all steps share their
    weights, of the gradient that the first and the last step give before training.
    """
    import xarray

    rows = []
    for one in datasets.values():
        reached = one["accuracy"].isel(step=-1).dropna("seed")
        axis = "time" if "time" in one.dims else "depth"
        moved = one["log_update"] if axis == "depth" else one["log_exact_gradient"].isel(step=[0])
        ends = (moved.isel({axis: place}).mean(("seed", "step")) for place in (0, -1))
        first, last = (float(end) / math.log(10) for end in ends)
        rows.append({
            "group": one.attrs["group"], "optimizer": one.attrs["kind"], "learning_rate": _most(one["learning_rate"]),
            "accuracy": float(reached.mean()), "networks": reached.size,
            "error": float(reached.std(ddof=1)) / math.sqrt(reached.size) if reached.size > 1 else math.nan,
            "diverged": float(one["diverged"].isel(step=-1).mean()), "log10_first": first, "log10_last": last,
        })  # fmt: skip
    return xarray.Dataset({key: ("network", [row[key] for row in rows]) for key in rows[0]}, {"network": [*datasets]})


def _most(values: xarray.DataArray) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()])
