"""How sizes go with a width or a depth: fitted powers, with a standard error over independent networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


QUANTITIES = ("activation", "activation_change", "output", "output_change", "update")
RECORDED = ("log_length", "log_change", "log_output", "log_output_change", "log_update")  # by gradsim.train


def sizes_of(trained: xarray.Dataset) -> xarray.Dataset:
    """ln of the sizes that a coordinate check compares, after the last step that `gradsim.train` recorded by layer.

    Root mean squares of the states (over `layer`) and of the read-out, and of what has changed in them since the start;
    `update` is ‖ΔW‖/‖W‖ of the layer.
    """
    one = trained.isel(step=-1).rename({"depth" if "depth" in trained.dims else "time": "layer"})
    halves = {name: one[old] / 2 for name, old in zip(QUANTITIES, RECORDED, strict=True)}
    found = one[[]].assign({**halves, "update": one["log_update"]})  # the others are of mean squares
    return found.drop_vars([name for name in found.coords if name not in found.dims])


def last_layers(
    datasets: Iterable[xarray.Dataset], axis: str, kind: str, kinds: Sequence[str]
) -> xarray.Dataset | None:
    """The last layer of each `sizes_of` whose attribute `axis` is this, over their `value` and these kinds.

    None where fewer than two values have all kinds and seeds.
    """
    import xarray  # 0.3 s: not at import

    several = [one for one in datasets if one.attrs["axis"] == axis]
    if not several:
        return None
    last = [one.isel(layer=-1, drop=True).expand_dims({axis: [one.attrs["value"]]}) for one in several]
    whole: Any = xarray.combine_by_coords(last, combine_attrs="override", join="outer")
    whole = whole.reindex({kind: list(kinds)}).dropna(axis, how="any")
    return whole.assign_attrs(layers=several[0].sizes["layer"]) if whole.sizes[axis] > 1 else None


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
