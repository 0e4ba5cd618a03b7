"""The horizon: over how many steps a gradient falls to a fraction of what it was, with errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.analysis.lost import checked, lost_networks

if TYPE_CHECKING:
    import xarray


def horizon(
    dataset: xarray.Dataset,
    fraction: float = 1 / math.e,
    *,
    statistic: str = "log_gain",
    between: tuple[int, int] | None = None,
    start: float | None = 0.0,
    resamples: int = 200,
    max_lost: float = 0.05,
) -> xarray.Dataset:
    """The number of steps over which the gradient falls to `fraction` of what it was, by fit and by crossing.

    By fit: s(k) = a + b k through the log norm s against the lag k, in each network; the horizon is
    ln(fraction) / mean b, which is −1/b at fraction 1/e. It knows the rate alone, far beyond the measured
    lags, and means what it says where the decay is exponential: `misfit` is how far it is from that.
    By crossing: the first lag at which the mean of s over the seeds has fallen by ln(fraction), linear between
    lags; it needs no law of decay, but sees no further than the longest lag.
    The lag is L − t + 1 in a backward sweep, the steps from the end, and t in a forward one.

    Args:
        dataset: what `gradsim.sweep` returned, with the axes seed and time (or depth).
        fraction: what is left of the gradient, between 0 and 1.
        statistic: the log norm that falls.
        between: the first and last lag of the fit; all of them unless given.
        start: the log norm at lag 0, which is 0 for a Jacobian product and a unit cotangent; None counts the
            crossing from the shortest lag measured, as for the gradient of a loss.
        resamples: draws of the bootstrap over seeds that gives the crossing's error.
        max_lost: the share of the networks of a cell that may have left the range of floats and not count.

    Returns: a Dataset over all other axes, in steps: horizon_fit, horizon_crossing, their standard errors,
        slope, slope_error (nat/step), misfit (nat). horizon_fit is inf where the gradient does not fall
        (`decays` is False), horizon_crossing NaN where it has not fallen far enough at the longest lag (`crossed`
        is False). NaN in s is a network whose gradient is exactly zero, unless `<statistic>_lost` says that it has
        left the floats: the means are over the living, and those that are lost count nowhere. An
        error is NaN where there is one seed, or where the horizon is not there.
    Raises: ValueError or TypeError naming what the dataset lacks, which argument is out of range, or how many
        networks were lost.
    """
    import xarray  # 0.3 s: not at import

    fraction = arguments.number(
        "fraction", fraction, "what is left of the gradient, a number between 0 and 1", 0.0, 1.0
    )
    if start is not None:
        start = arguments.number("start", start, "the finite log norm at lag 0, or None")
    values = by_lag(dataset, statistic)
    if "seed" not in values.dims:
        raise ValueError(f"dataset: {statistic} has no axis seed, which the errors need; pass all seeds, not a mean")
    lag = values["lag"].values.astype(float)
    fitted = fitted_lags(lag, between)
    resamples = arguments.whole("resamples", resamples)
    checked(dataset, statistic, max_lost, "the horizon")
    lost = lost_networks(dataset, statistic)
    if lost is None:
        lost = xarray.zeros_like(values.isel(lag=0, drop=True), bool)

    def both(array: np.ndarray, lost: np.ndarray) -> tuple[Any, ...]:
        """Of values [..., seed, lag]; a lost network [..., seed] takes no part, not even before it was lost."""
        array = np.where(lost[..., None], np.nan, array)
        by_crossing = _cross(lag, array, ~lost, fraction, start, resamples)
        return *_fit(lag[fitted], array[..., fitted], fraction), *by_crossing

    step = values["lag"].attrs["units"]
    words = f"{'step' if step == '1' else step}s to {fraction:.3g} of the gradient"
    described: dict[str, tuple[str, str]] = {
        "horizon_fit": (f"{words}, by fit", step),
        "horizon_fit_error": ("standard error of horizon_fit", step),
        "slope": (f"slope of {statistic} against the lag", f"nat/{step}"),
        "slope_error": ("standard error of the slope", f"nat/{step}"),
        "misfit": ("root mean square distance from the fitted line", "nat"),
        "decays": ("does the fitted gradient fall?", "1"),
        "horizon_crossing": (f"{words}, by crossing", step),
        "horizon_crossing_error": ("standard error of horizon_crossing", step),
        "crossed": ("has the gradient fallen that far at the longest lag?", "1"),
    }
    arrays: Any = xarray.apply_ufunc(
        both, values, lost, input_core_dims=[["seed", "lag"], ["seed"]], output_core_dims=[[]] * len(described)
    )
    found = xarray.Dataset(dict(zip(described, arrays, strict=True)))
    for name, (long_name, units) in described.items():
        found[name].attrs = {"long_name": long_name, "units": units}
    found.attrs = {**dataset.attrs, "fraction": fraction, "statistic": statistic}
    return found


def by_lag(dataset: xarray.Dataset, statistic: str = "log_gain") -> xarray.DataArray:
    """The statistic against `lag`, rising, in place of depth or time; lags at which nothing was measured are left out.

    Raises: ValueError naming what the dataset lacks.
    """
    values = logarithm(dataset, statistic)
    axis = next((name for name in ("time", "depth") if name in values.dims), None)
    if axis is None:
        raise ValueError(
            f"dataset: {statistic} has no axis time or depth; its axes: {', '.join(map(str, values.dims)) or 'none'}"
        )
    if "start" in values.dims:
        raise ValueError("dataset: these are partial products; choose a start with .sel, or pass what sweep returned")
    if not values.sizes[axis]:
        raise ValueError(f"dataset: its axis {axis} is empty; pass what gradsim.sweep returned")
    step = values[axis]
    if dataset.attrs.get("direction") == "backward":  # counted from the end of the whole network, whatever is held
        lag = int(dataset.attrs.get("depth", step.max())) + 1 - step
    else:
        lag = step - values.coords.get("start", 0)
    known = values.notnull() | (dataset["dead"] > 0) if "dead" in dataset else values.notnull()
    if f"{statistic}_lost" in dataset:
        known = known | (dataset[f"{statistic}_lost"] > 0)
    known = known & (lag > 0)
    values = values.assign_coords(lag=lag.astype(int)).swap_dims({axis: "lag"}).drop_vars(axis)
    values = values.isel(lag=np.flatnonzero(known.any([name for name in known.dims if name != axis]).values))
    values["lag"].attrs = {"long_name": f"lag in {axis}", "units": step.attrs.get("units", "1")}
    return values.sortby("lag")


def logarithm(dataset: xarray.Dataset, statistic: str) -> xarray.DataArray:
    """That variable of a sweep's Dataset, which must be a logarithm.

    Raises: TypeError for anything but a Dataset and a name; ValueError where it holds none of that name.
    """
    import xarray

    if not isinstance(dataset, xarray.Dataset):
        raise TypeError(f"dataset: got a {type(dataset).__name__}; pass the Dataset that gradsim.sweep returned")
    held = ", ".join(map(str, dataset))
    if not isinstance(statistic, str):
        raise TypeError(f"statistic: {arguments.got(statistic)}; pass one of: {held}")
    if statistic not in dataset.data_vars:
        raise ValueError(f"statistic: the dataset holds no {arguments.shown(statistic)}; it holds: {held}")
    values = dataset[statistic]
    if values.attrs.get("units", "nat") != "nat" or values.dtype.kind != "f":
        logarithms = [str(name) for name, one in dataset.data_vars.items() if one.attrs.get("units") == "nat"]
        raise ValueError(
            f"statistic: {statistic!r} is no logarithm; pass one of: {', '.join(logarithms) or 'none held'}"
        )
    return values


def fitted_lags(lag: np.ndarray, between: tuple[int, int] | None) -> np.ndarray:
    """Which lags the fit takes."""
    if lag.size < 2:
        raise ValueError(f"dataset: {lag.size} lags were measured, and a horizon needs two; pass more depths")
    wanted = f"the first and the last lag of the fit, the smaller first, among {lag[0]:.0f} to {lag[-1]:.0f}"
    if between is None:
        return np.ones(lag.shape, bool)
    if arguments.shape_of("between", between) != (2,):
        raise ValueError(f"between: {arguments.got(between)}; pass {wanted}")
    first, last = arguments.numbers("between", between, wanted)
    if not lag[0] <= first < last <= lag[-1]:
        raise ValueError(f"between: {arguments.got(between)}; pass {wanted}")
    fitted = (first <= lag) & (lag <= last)
    if np.count_nonzero(fitted) < 2:
        raise ValueError(f"between: {first:g} to {last:g} holds fewer than two of the lags measured; pass {wanted}")
    return fitted


def _fit(lag: np.ndarray, values: np.ndarray, fraction: float) -> tuple[Any, ...]:
    """Horizon, its error, mean slope, its error, misfit, and whether it decays, of values [..., seed, lag]."""
    alive = np.isfinite(values)
    values = np.where(alive, values, 0)

    def mean(array: np.ndarray) -> np.ndarray:
        return ratio((array * alive).sum(-1), alive.sum(-1))[..., None]

    apart, fall = lag - mean(np.broadcast_to(lag, values.shape)), values - mean(values)
    slopes = ratio((alive * apart * fall).sum(-1), (alive * apart**2).sum(-1))
    misfit = np.sqrt(mean((fall - slopes[..., None] * apart) ** 2)[..., 0])
    fits = np.isfinite(slopes)
    count = fits.sum(-1)
    slope = ratio(np.where(fits, slopes, 0).sum(-1), count)
    spread = ratio(np.where(fits, slopes - slope[..., None], 0) ** 2, count[..., None] - 1).sum(-1)
    error = np.sqrt(ratio(spread, count))
    decays = slope < 0
    # The slope is what averages: its inverse has no mean where b may be 0. d(1/b) = db/b².
    falling = math.log(fraction) * ratio(1, np.where(decays, slope, np.nan))
    steps = np.where(decays | np.isnan(slope), falling, np.inf)
    steps_error = falling * error * np.abs(ratio(1, slope))
    return steps, steps_error, slope, error, ratio(np.where(fits, misfit, 0).sum(-1), count), decays


def _cross(
    lag: np.ndarray, values: np.ndarray, known: np.ndarray, fraction: float, start: float | None, resamples: int
) -> tuple[Any, ...]:
    """The first crossing of the mean over the `known` seeds, its bootstrap error, and whether there is one."""
    if start is not None:
        lag = np.append(0.0, lag)
        values = np.concatenate([np.full((*values.shape[:-1], 1), start), values], axis=-1)
    alive = np.isfinite(values)
    seeds = values.shape[-2]
    known = np.moveaxis(known, -1, 0)[..., None].astype(float)  # [seed, …, 1]
    living = np.moveaxis(np.stack([np.where(alive, values, 0), alive]), -2, 1).copy()  # [2, seed, …, lag]

    def crossing(weights: np.ndarray) -> np.ndarray:
        total, count = (np.tensordot(weights, part, axes=(0, 0)) for part in living)
        # All are dead where none is alive: their gradient is 0, and has crossed every fraction.
        none = np.where(np.tensordot(weights, known, axes=(0, 0)) > 0, -np.inf, np.nan)
        return _first(lag, np.where(count > 0, ratio(total, count), none), math.log(fraction))

    steps = crossing(np.ones(seeds))
    if seeds < 2 or not np.isfinite(steps).any():  # what does not cross has no error
        return steps, np.full_like(steps, np.nan), np.isfinite(steps)
    # The resamples are few and their seed fixed: the same data gives the same error.
    draws = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(float)
    spread = np.std([crossing(weights) for weights in draws], axis=0, ddof=1 if resamples > 1 else 0)
    # NaN where a resample does not cross: the horizon may as well lie beyond what was measured.
    return steps, np.where(np.isfinite(steps), spread, np.nan), np.isfinite(steps)


def _first(lag: np.ndarray, mean: np.ndarray, fall: float) -> np.ndarray:
    """The first lag at which the mean [..., lag] lies `fall` (negative) above its first value, else NaN."""
    with np.errstate(invalid="ignore"):  # −inf at the first lag: nothing was alive, and nothing can fall
        mean = mean - mean[..., :1]
    fallen = mean <= fall
    after = np.maximum(fallen.argmax(-1), 1)[..., None]
    low, high = (np.take_along_axis(mean, index, -1)[..., 0] for index in (after - 1, after))
    before, behind = lag[after[..., 0] - 1], lag[after[..., 0]]
    return np.where(fallen.any(-1), before + (behind - before) * ratio(low - fall, low - high), np.nan)


def ratio(above: Any, below: Any) -> np.ndarray:
    """above / below, NaN where there is nothing to divide by."""
    below = np.asarray(below, float)
    return np.asarray(above / np.where(below == 0, np.nan, below))
