"""What a map says: the growth of the gradient a layer, and the gain at which it changes sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.analysis.horizon import by_lag
from gradsim.analysis.lost import checked

if TYPE_CHECKING:
    import xarray

# Logarithms of a product or a unit vector's norm: 0 before the first step.
NOT_CELLS = ("seed", "depth", "time")
START_AT_ZERO = ("log_gain", "log_jvp", "log_spectral", "log_gradient")


def growth(
    dataset: xarray.Dataset, statistic: str = "log_gain", since: int | None = None, *, max_lost: float = 0.05
) -> xarray.DataArray:
    """Growth of the gradient a layer along its own way, (s(L) − s(k₀)) / (L − k₀), in nat per layer.

    s is the statistic against the lag k: the depth of a forward sweep, and the steps from the end, L − l + 1, of
    a backward one, so that it is positive where gradients explode in both. L is the longest lag measured and
    k₀ = `since`; unless given, k₀ is 0 where a burn-in has let the length settle and else the longest lag up to
    L/2, which drops the transient. It is averaged over the seeds: a dead network does not count (NaN where all
    are), and one that has left the floats is not passed over unsaid.

    Args:
        dataset: what `gradsim.sweep` returned, or part of it.
        statistic: a logarithm that the Dataset holds.
        since: a lag that was measured, or 0 where s is 0 before the first step.
        max_lost: the share of the networks of a cell that may have left the range of floats.

    Raises: ValueError or TypeError naming what the dataset lacks, a `since` that was not measured, or how
        many networks were lost; RuntimeWarning where fewer were.
    """
    values = by_lag(dataset, statistic)
    lag = values["lag"].values
    if not lag.size:  # every network is dead at every depth
        return _named(
            dataset[statistic].mean([name for name in NOT_CELLS if name in dataset[statistic].dims]), statistic, values
        )
    known_start = statistic in START_AT_ZERO and dataset.attrs.get("gradient_from", "unit vector") == "unit vector"
    first = _since(since, lag, dataset, known_start)
    checked(dataset, statistic, max_lost, "growth")
    start = values.sel(lag=first, drop=True) if first else 0.0
    slope = (values.isel(lag=-1, drop=True) - start) / float(lag[-1] - first)
    return _named(slope.mean("seed") if "seed" in slope.dims else slope, statistic, values)


def _named(slope: xarray.DataArray, statistic: str, values: xarray.DataArray) -> xarray.DataArray:
    slope.attrs = {
        "long_name": "growth of the gradient" if statistic in START_AT_ZERO else f"growth of {statistic}",
        "units": f"nat/{values['lag'].attrs['units'].replace('1', 'step')}",
        "statistic": statistic,
    }
    return slope.rename("growth")


def _since(since: Any, lag: np.ndarray, dataset: xarray.Dataset, known_start: bool) -> int:
    """The lag from which on growth is taken."""
    last = int(lag[-1])
    usable = [0] * known_start + [int(one) for one in lag[:-1]]
    if not usable:
        raise ValueError(f"dataset: one lag, {last}, was measured, and growth needs two; pass more depths")
    if since is None:
        settled = dataset.attrs.get("burn_in", 0) and known_start
        return 0 if settled else max((one for one in usable if one <= last / 2), default=usable[0])
    since = arguments.whole("since", since, minimum=0)
    if since not in usable:
        few = ", ".join(map(str, usable)) if len(usable) < 8 else f"{usable[0]} to {usable[-1]}"
        raise ValueError(f"since: got {since}; pass a lag that was measured: {few}")
    return since


def zero_crossing(growth: xarray.DataArray, gain: str = "sigma_w") -> xarray.DataArray:
    """The value of `gain` at which the growth first rises through zero, by linear interpolation; else NaN.

    Args:
        growth: what `gradsim.growth` returned.
        gain: one of its axes.

    Raises: TypeError for anything but a DataArray; ValueError where it has no axis `gain`, or still one of depth.
    """
    import xarray  # 0.3 s: not at import

    if not isinstance(growth, xarray.DataArray):
        raise TypeError(f"growth: got a {type(growth).__name__}; pass what gradsim.growth returned")
    steps = [name for name in ("depth", "time", "lag", "start") if name in growth.dims]
    if steps:
        raise ValueError(f"growth: it has an axis {steps[0]!r}, so it is no growth; pass gradsim.growth of the Dataset")
    if not isinstance(gain, str):
        raise TypeError(f"gain: {arguments.got(gain)}; pass the name of an axis")
    if gain not in growth.dims:
        raise ValueError(
            f"gain: the growth has no axis {arguments.shown(gain)}; its axes: {', '.join(map(str, growth.dims))}"
        )
    if growth.sizes[gain] < 2 or growth[gain].dtype.kind not in "iuf":
        raise ValueError(
            f"gain: the axis {gain!r} has {growth.sizes[gain]} points; a crossing lies between two numbers"
        )
    growth = growth.sortby(gain)
    points = growth[gain].values

    def first(values: np.ndarray) -> float:
        rises = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
        if rises.size == 0:
            return np.nan
        low = rises[0]
        share = values[low] / (values[low] - values[low + 1])
        return float(points[low] + share * (points[low + 1] - points[low]))

    crossing: Any = xarray.apply_ufunc(first, growth, input_core_dims=[[gain]], vectorize=True)
    crossing.attrs = dict(growth[gain].attrs)
    return crossing.rename(gain)
