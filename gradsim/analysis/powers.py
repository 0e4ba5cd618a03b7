"""Fitted powers: how a size goes with a width or a depth, with a standard error over independent networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray


def fitted_power(logarithms: xarray.DataArray, over: str) -> xarray.Dataset:
    """p of the law size ~ x^p, x the coordinate `over`: `power` and its standard `error`.

    Each seed has its own slope of ln size against ln x, by least squares. The power is the mean over the seeds and the
    error that of the mean: it holds whether or not a seed's networks of several sizes share draws. Seeds that lack a
    value count nowhere.

    Args:
        logarithms: natural logarithms over `over`, "seed" and what else there is.
        over: an axis with positive coordinates.

    Raises: ValueError for fewer than two values of x, or two seeds.
    """
    import xarray  # 0.3 s: not at import

    for axis in (over, "seed"):
        if logarithms.sizes.get(axis, 0) < 2:
            raise ValueError(f"{axis}: got {logarithms.sizes.get(axis, 0)}; a fitted power with its error needs two")
    x = np.log(logarithms[over].astype(float))
    x = x - x.mean()
    slopes = (logarithms * x).sum(over, skipna=False) / (x**2).sum()
    slopes = slopes.where(np.isfinite(slopes))
    count = slopes.notnull().sum("seed")
    error = slopes.std("seed", ddof=1) / np.sqrt(count)
    return xarray.Dataset({"power": slopes.mean("seed"), "error": error})
