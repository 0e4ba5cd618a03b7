"""What a map says: the growth of the gradient a layer, and the gain at which it changes sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


def growth(dataset: xarray.Dataset, statistic: str = "log_gain", since: int | None = None) -> xarray.DataArray:
    """Growth a layer, (s(L) − s(l₀)) / (L − l₀), averaged over the living networks, in nat per layer.

    s is the statistic, L the last depth and l₀ = `since`. Unless given, l₀ is 0 where a burn-in has let the
    length settle, and L/2 otherwise, which drops the transient. NaN where every network is dead.

    Raises: ValueError naming what the dataset lacks, or a `since` outside 0 … L − 1.
    """
    if statistic not in dataset:
        raise ValueError(f"statistic: the dataset holds no {statistic!r}; it holds: {', '.join(map(str, dataset))}")
    values = dataset[statistic]
    axis = next((name for name in ("depth", "time") if name in values.dims), None)
    if axis is None:
        raise ValueError(
            f"dataset: {statistic} has no axis depth or time; its axes: {', '.join(map(str, values.dims))}"
        )
    last = int(values[axis][-1])
    if since is None:
        since = 0 if dataset.attrs.get("burn_in", 0) else last // 2
    if not 0 <= since < last:
        raise ValueError(f"since: got {since}; pass a depth from 0 to {last - 1}")
    start = values.sel({axis: since}, drop=True) if since else 0.0
    slope = (values.isel({axis: -1}, drop=True) - start) / (last - since)
    slope = slope.mean("seed") if "seed" in slope.dims else slope
    slope.attrs = {"long_name": "growth of the log gain", "units": f"nat/{values[axis].attrs.get('units', 'step')}"}
    return slope.rename("growth")


def zero_crossing(growth: xarray.DataArray, gain: str = "sigma_w") -> xarray.DataArray:
    """The value of `gain` at which the growth first rises through zero, by linear interpolation; else NaN.

    Raises: ValueError where the growth has no axis `gain`.
    """
    import xarray  # 0.3 s: not at import

    if gain not in growth.dims:
        raise ValueError(f"gain: the growth has no axis {gain!r}; its axes: {', '.join(map(str, growth.dims))}")
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
