"""The precision horizon: over how many steps half of a gradient is lost to a narrow format, with errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.analysis.horizon import by_lag, fitted_lags, ratio
from gradsim.analysis.lost import checked, lost_networks
from gradsim.engine import formats

if TYPE_CHECKING:
    import xarray

STATISTIC = "log_median"


def precision_horizon(
    dataset: xarray.Dataset,
    format: str,
    loss_scale: float = 1.0,
    *,
    between: tuple[int, int] | None = None,
    resamples: int = 200,
    max_lost: float = 0.05,
) -> xarray.Dataset:
    """The number of steps after which half of the gradient's entries round to zero in a format.

    An entry g is lost where |g| · loss_scale ≤ η/2, η the smallest number of the format (2^−24 in float16, 2^−133 in
    bfloat16, 2^−9 in float8_e4m3, 2^−16 in float8_e5m2): half of them are where their median size is. So the exact
    `log_median` of one sweep answers for every format and every loss scale. By crossing: the first lag at which its
    mean over the seeds has fallen to ln(η/2) − ln(loss_scale), linear between lags; the shortest lag measured where it
    lies below from the start. By fit: where the line through that mean against the lag does, far beyond the lags
    measured or before them; it means what it says where the decay is exponential, and `misfit` is how far it is from
    that. The lag is L − t + 1 in a backward sweep, the steps from the end, and t in a forward one.

    Args:
        dataset: what `gradsim.sweep` returned with statistics="log_median", in any dtype, with the axis seed.
        format: "bfloat16", "float16", "float8_e4m3" or "float8_e5m2".
        loss_scale: a positive number by which the loss is multiplied.
        between: the first and last lag of the fit; all of them unless given.
        resamples: draws of the bootstrap over seeds that gives the errors.
        max_lost: the share of the networks of a cell that may have left the range of floats and not count.

    Returns: a Dataset over all other axes, in steps: horizon_crossing, NaN where it lies beyond the longest lag
        (`crossed` is False), and horizon_fit, inf where the gradient does not fall (`decays` is False); their standard
        errors, NaN where there is one seed or no horizon, or where a resample has none; slope (nat/step) and misfit
        (nat). The means are over the networks whose gradient is not exactly zero; all are lost where it is in all.
    Raises: ValueError or TypeError naming what the dataset lacks, which argument is out of range, or how many
        networks were lost.
    """
    import xarray  # 0.3 s: not at import

    to = formats.get(format)
    scale = arguments.number("loss_scale", loss_scale, "a positive finite number", 0.0, math.inf)
    resamples = arguments.whole("resamples", resamples)
    if isinstance(dataset, xarray.Dataset) and STATISTIC not in dataset:
        held = ", ".join(map(str, dataset)) or "nothing"
        raise ValueError(f"dataset: it holds {held}; pass what gradsim.sweep returned with statistics={STATISTIC!r}")
    values = by_lag(dataset, STATISTIC)
    if "seed" not in values.dims:
        raise ValueError(f"dataset: {STATISTIC} has no axis seed, which the errors need; pass all seeds, not a mean")
    lag = values["lag"].values.astype(float)
    fitted = fitted_lags(lag, between)
    checked(dataset, STATISTIC, max_lost, "the horizon")
    lost = lost_networks(dataset, STATISTIC)
    if lost is None:
        lost = xarray.zeros_like(values.isel(lag=0, drop=True), bool)
    height = values - (math.log(2) * (to.subnormal - 1) - math.log(scale))

    def found(array: np.ndarray, lost: np.ndarray) -> tuple[Any, ...]:
        """Of heights [..., seed, lag]; a lost network [..., seed] takes no part, not even before it was lost."""
        return _horizons(lag, fitted, np.where(lost[..., None], np.nan, array), ~lost, resamples)

    step = values["lag"].attrs["units"]
    words = f"{'step' if step == '1' else step}s until half of the gradient is lost to {format}"
    described: dict[str, tuple[str, str]] = {
        "horizon_crossing": (f"{words}, by crossing", step),
        "horizon_crossing_error": ("standard error of horizon_crossing", step),
        "crossed": ("is half of it lost at the longest lag?", "1"),
        "horizon_fit": (f"{words}, by fit", step),
        "horizon_fit_error": ("standard error of horizon_fit", step),
        "decays": ("does the fitted gradient fall?", "1"),
        "slope": (f"slope of {STATISTIC} against the lag", f"nat/{step}"),
        "misfit": ("root mean square distance from the fitted line", "nat"),
    }
    arrays: Any = xarray.apply_ufunc(
        found, height, lost, input_core_dims=[["seed", "lag"], ["seed"]], output_core_dims=[[]] * len(described)
    )
    result = xarray.Dataset(dict(zip(described, arrays, strict=True)))
    for name, (long_name, units) in described.items():
        result[name].attrs = {"long_name": long_name, "units": units}
    result.attrs = {**dataset.attrs, "format": format, "horizon_loss_scale": scale, "statistic": STATISTIC}
    return result


def _horizons(
    lag: np.ndarray, fitted: np.ndarray, height: np.ndarray, known: np.ndarray, resamples: int
) -> tuple[Any, ...]:
    """What `precision_horizon` returns, of heights above the threshold [..., seed, lag] of the `known` networks."""
    seeds = height.shape[-2]
    alive = np.isfinite(height)
    living = np.moveaxis(np.stack([np.where(alive, height, 0), alive]), -2, 1).copy()  # [2, seed, …, lag]
    there = np.moveaxis(known, -1, 0)[..., None].astype(float)

    def mean(weights: np.ndarray) -> np.ndarray:
        """−inf where all networks are dead, NaN where none is known."""
        total, count = (np.tensordot(weights, part, axes=(0, 0)) for part in living)
        none = np.where(np.tensordot(weights, there, axes=(0, 0)) > 0, -np.inf, np.nan)
        return np.where(count > 0, ratio(total, count), none)

    whole = mean(np.ones(seeds))
    crossing, (fit, slope, misfit) = _crossing(lag, whole), _line(lag[fitted], whole[..., fitted])
    errors = np.full((2, *crossing.shape), np.nan)
    if seeds > 1:
        # The resamples are few and their seed fixed: the same data gives the same error.
        draws = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(float)
        again = [(_crossing(lag, one), _line(lag[fitted], one[..., fitted])[0]) for one in map(mean, draws)]
        with np.errstate(invalid="ignore"):  # inf, or NaN: the horizon may as well lie elsewhere
            errors = np.std(again, axis=0, ddof=1 if resamples > 1 else 0)
    errors = np.where(np.isfinite([crossing, fit]) & np.isfinite(errors), errors, np.nan)
    return crossing, errors[0], np.isfinite(crossing), fit, errors[1], slope < 0, slope, misfit


def _crossing(lag: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The first lag at which the mean [..., lag] is not above 0, linear between lags; NaN where it is nowhere."""
    below = mean <= 0
    after = below.argmax(-1)[..., None]
    low, high = (np.take_along_axis(mean, index, -1)[..., 0] for index in (np.maximum(after - 1, 0), after))
    first, last = lag[np.maximum(after[..., 0] - 1, 0)], lag[after[..., 0]]
    with np.errstate(invalid="ignore"):
        share = np.where(np.isfinite(high) & (after[..., 0] > 0), ratio(low, low - high), 1.0)  # at once, if dead
    return np.where(below.any(-1), first + (last - first) * share, np.nan)


def _line(lag: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the line through the mean [..., lag] meets 0, inf where it does not fall; its slope; how far it is off."""
    there = np.isfinite(mean)
    count, values = there.sum(-1, keepdims=True), np.where(there, mean, 0)
    apart = lag - ratio((there * lag).sum(-1, keepdims=True), count)
    middle = ratio(values.sum(-1, keepdims=True), count)
    slope = ratio((there * apart * (values - middle)).sum(-1), (there * apart**2).sum(-1))
    misfit = np.asarray(
        np.sqrt(ratio((there * (values - middle - slope[..., None] * apart) ** 2).sum(-1), count[..., 0]))
    )
    centre = ratio((there * lag).sum(-1), count[..., 0])
    meets = centre - middle[..., 0] * ratio(1, np.where(slope < 0, slope, np.nan))
    return np.where(slope >= 0, np.inf, meets), slope, misfit
