"""Exponents and their errors -> xarray.Dataset, with what is made of them: dimension and entropy rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.engine.plan import Plan
from gradsim.sweeps import dataset, grid

if TYPE_CHECKING:
    import xarray


def dimension(exponents: np.ndarray, complete: np.ndarray | bool = True) -> np.ndarray:
    """The Kaplan–Yorke dimension of exponents [..., k], taken in falling order; NaN where it needs more of them.

    j + (λ_1 + … + λ_j) / |λ_{j+1}| for the largest j whose sum is not negative; k where `complete` and no sum is.
    """
    k, exponents = exponents.shape[-1], -np.sort(-exponents, axis=-1)  # NaN last
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = np.cumsum(np.where(np.isnan(exponents), -np.inf, exponents), axis=-1)
        j = np.sum(sums >= 0, axis=-1)
        total = np.take_along_axis(sums, np.maximum(j - 1, 0)[..., None], -1)[..., 0]
        after = np.abs(np.take_along_axis(exponents, np.minimum(j, k - 1)[..., None], -1)[..., 0])
        found = np.where(j == 0, 0.0, j + total / after)
    found = np.where(j == k, np.where(complete, float(k), np.nan), found)
    return np.where(np.isnan(exponents[..., 0]), np.nan, found)


def entropy_rate(exponents: np.ndarray, complete: np.ndarray | bool = True) -> np.ndarray:
    """The sum of the positive exponents [..., k], NaN where more of them may be positive."""
    rate = np.where(exponents > 0, exponents, 0).sum(-1)
    unknown = np.isnan(exponents[..., 0]) | (~np.asarray(complete) & (exponents.min(-1) > 0))
    return np.where(unknown, np.nan, rate)


def labelled(
    several: grid.Networks,
    axes: Mapping[str, np.ndarray],
    planned: list[Plan],
    arrays: list[dict[str, np.ndarray]],
    seeds: np.ndarray,
    steps: tuple[int, ...],
    settings: Mapping[str, Any],
) -> xarray.Dataset:
    """The Dataset; the exponents that a smaller network lacks are NaN."""
    import xarray  # 0.3 s: not at import

    units, axis = f"nat/{planned[0].network.axis_units}", planned[0].network.axis
    for plan, one in zip(planned, arrays, strict=True):
        exponents = one["lyapunov"]
        complete = exponents.shape[-1] == plan.state_size()
        one["lost"] = np.count_nonzero(exponents == -np.inf, axis=-1)
        one["dead"] = np.all(exponents == -np.inf, axis=-1)
        one["kaplan_yorke"] = dimension(exponents, complete)
        one["entropy_rate"] = entropy_rate(exponents, complete)
    about = {
        "lyapunov": ("Lyapunov exponent λ", units),
        "standard_error": ("standard error of λ over time", units),
        "drift": ("λ of the last half less that of the whole", units),
        "rounding": ("relative error of an R_ii through rounding, the largest", "1"),
        "lost": ("directions mapped to zero", "1"),
        "dead": ("are all directions mapped to zero?", ""),
        "kaplan_yorke": ("Kaplan–Yorke dimension", "1"),
        "entropy_rate": ("entropy rate Σ λ > 0", units),
        "covariant_vector": ("covariant Lyapunov vector", "1"),
    }
    own = {"exponent": ("lyapunov", "standard_error", "drift", "rounding"), "vector": ("covariant_vector",)}
    dims = [several.axis] * several.named + [name for name, one in axes.items() if one.ndim] + ["seed"]
    variables: dict[str, Any] = {}
    for name in arrays[0]:
        every = dims + ["exponent"] * (name in own["exponent"])
        every += ["at", "exponent", "component"] * (name in own["vector"])
        values = _stacked([one[name] for one in arrays]) if several.named else arrays[0][name]
        said = {"long_name": about[name][0], **({"units": about[name][1]} if about[name][1] else {})}
        variables[name] = (every, values, said)
    k = variables["lyapunov"][1].shape[-1]
    coordinates: dict[str, Any] = {
        "seed": ("seed", seeds, {"long_name": "independent network"}),
        "exponent": ("exponent", np.arange(1, k + 1), {"long_name": "number of the exponent"}),
        **dataset.gain_coordinates(several, axes),
    }
    if several.axis:
        coordinates[several.axis] = (several.axis, list(several.each), {"long_name": several.axis})
    if steps:
        coordinates["at"] = ("at", np.asarray(steps), {"long_name": axis, "units": planned[0].network.axis_units})
    unknown = {name: int(np.count_nonzero(np.isnan(variables[name][1]))) for name in ("kaplan_yorke", "entropy_rate")}
    for name, count in unknown.items():
        variables[name][2]["unknown"] = count  # networks whose value needs more exponents, or which left the floats
    _warn_of_broken([one["lyapunov"] for one in arrays])
    choices = {"dtype": planned[0].dtype, "depth": planned[0].depth, "burn_in": planned[0].burn_in, "axis": axis}
    attrs = {**dataset.provenance(), **choices, **settings, "network": dataset.description(several.each)}
    return xarray.Dataset(variables, coordinates, attrs=attrs)


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays on a new first axis, the shorter ones with NaN at their ends."""
    shape = np.max([one.shape for one in arrays], axis=0)
    if all(one.shape == tuple(shape) for one in arrays):
        return np.stack(arrays)
    wide = np.full((len(arrays), *shape), np.nan)
    for place, one in zip(wide, arrays, strict=True):
        place[tuple(slice(size) for size in one.shape)] = one
    return wide


def _warn_of_broken(exponents: list[np.ndarray]) -> None:
    broken = sum(int(np.count_nonzero(np.isnan(one).any(-1))) for one in exponents)
    if broken:
        arguments.warn(
            f"lyapunov: {broken} of {sum(one[..., 0].size for one in exponents)} networks left the range of floats; "
            "their exponents are NaN. Lower the gains or the depth, or take dtype='float64'"
        )
