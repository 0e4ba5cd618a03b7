"""The depth scale of two inputs' correlation, measured: how fast their Jacobians' overlap falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments
from gradsim.analysis.horizon import by_lag
from gradsim.analysis.lost import checked

if TYPE_CHECKING:
    import xarray

RESOLVED = 0.2  # the largest relative standard error of a mean overlap that is fitted
MARGIN = 3  # lags that a fit needs


def correlation_depth(
    dataset: xarray.Dataset, between: tuple[int, int] | None = None, *, max_lost: float = 0.05
) -> xarray.Dataset:
    """ξ_c, the layers over which two inputs forget how alike they were, from the overlap of their Jacobians.

        E tr J(x)ᵀJ(x')/n = ∂k_L/∂k_0 ~ e^(−L/ξ_c)

    of the products k = ⟨x, x'⟩/n of the states before and after L layers. So it needs no knowledge of c*, the
    correlation at which they settle: in the ordered phase and in chaos it is the same fit, of the logarithm of the
    mean over seeds against the lag, weighted by its errors; lags from the first on whose mean overlap is not known
    to a fifth are left out. Errors are those of a jackknife over seeds.

    Args:
        dataset: what `gradsim.sweep` of a `gradsim.pair` returned, with log_gain and gradient_correlation.
        between: the first and last lag of the fit; unless given all where a burn-in has let correlations settle, and
            else the later half of those that are resolved.
        max_lost: the share of the networks of a cell that may have left the range of floats.

    Returns: a Dataset over all other axes: rate = −1/ξ_c (nat a layer) and rate_error, xi_c and xi_c_error (inf and
        NaN where the overlap does not fall), and last, the last lag of the fit; NaN where fewer than three lags are
        resolved. A dead network's overlap is 0.
    Raises: ValueError or TypeError naming what the dataset lacks, or the argument.
    Source: the fit of ξ_c is of Schoenholz et al. 2017, there of the correlation itself.
    """
    import xarray  # 0.3 s: not at import

    for name in ("log_gain", "gradient_correlation"):
        if name not in dataset or (name == "log_gain" and "input" not in dataset[name].dims):
            raise ValueError(
                f"dataset: it lacks {name} of two inputs; sweep a gradsim.pair with "
                "statistics=('log_gain', 'gradient_correlation')"
            )
    gains = by_lag(dataset, "log_gain")
    if "seed" not in gains.dims or gains.sizes["seed"] < 2:
        raise ValueError("dataset: the errors need an axis seed of 2 or more; pass all seeds, not a mean")
    checked(dataset, "log_gain", max_lost, "the depth scale")
    lag = gains["lag"].values.astype(float)
    first, last = _between(between, lag, bool(dataset.attrs.get("burn_in", 0)))
    axis = next(name for name in ("time", "depth") if name in dataset["gradient_correlation"].dims)
    cosines = dataset["gradient_correlation"].rename({axis: "lag"})
    if dataset.attrs.get("direction") == "backward":
        cosines = cosines.isel(lag=slice(None, None, -1))
    cosines = cosines.isel(lag=slice(0, lag.size)).assign_coords(lag=gains["lag"])
    parts: Any = xarray.apply_ufunc(
        lambda log_overlap, cosine: _fit(lag, log_overlap, cosine, first, last),
        gains.sum("input", skipna=False), cosines, input_core_dims=[["seed", "lag"]] * 2,
        output_core_dims=[[]] * 3, vectorize=True,
    )  # fmt: skip
    rate, error, end = parts
    units = gains["lag"].attrs["units"].replace("1", "step")
    falls = rate < 0
    about = {
        "rate": (rate, "rate of the overlap of two Jacobians", f"nat/{units}"),
        "rate_error": (error, "standard error of the rate", f"nat/{units}"),
        "xi_c": (xarray.where(falls, -1 / rate, xarray.where(rate >= 0, np.inf, np.nan)), "depth scale ξ_c", units),
        "xi_c_error": ((error / rate**2).where(falls), "standard error of ξ_c", units),
        "last": (end, "last lag of the fit", units),
    }
    found = xarray.Dataset({name: values for name, (values, *_) in about.items()})
    for name, (_, long_name, unit) in about.items():
        found[name].attrs = {"long_name": long_name, "units": unit}
    found.attrs = dict(dataset.attrs)
    return found


def overlaps(dataset: xarray.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """tr J(x)ᵀJ(x')/n and ½(‖J(x)‖² + ‖J(x')‖²)/n of each network, where floats hold them; 0 where one is dead."""
    gains = np.where(np.isnan(dataset["log_gain"]), -np.inf, dataset["log_gain"])
    return np.nan_to_num(dataset["gradient_correlation"]) * np.exp(gains.sum(-1)), np.exp(2 * gains).mean(-1)


def mean_ratio(overlap: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E overlap / E square over the seeds [seed, …], and how far each network is from it, to first order.

    The deviation of the latter, over the root of their number, is the standard error of the ratio.
    """
    ratio = overlap.mean(0) / square.mean(0)
    return ratio, (overlap - ratio * square) / square.mean(0)


def _between(between: Any, lag: np.ndarray, settled: bool) -> tuple[float | None, float]:
    """The first lag of the fit, None for the later half of what is resolved, and the last."""
    if between is None:
        return float(lag[0]) if settled else None, float(lag[-1])
    if arguments.shape_of("between", between) != (2,):
        raise ValueError(f"between: got {arguments.shown(between)}; pass the first and the last lag")
    first, last = (arguments.whole("between", one) for one in between)
    if np.count_nonzero((lag >= first) & (lag <= last)) < MARGIN:
        raise ValueError(f"between: got {arguments.shown(between)}; pass lags that hold {MARGIN} or more measured ones")
    return float(first), float(last)


def _fit(
    lag: np.ndarray, log_overlap: np.ndarray, cosine: np.ndarray, first: float | None, last: float
) -> tuple[float, float, float]:
    """Rate, its error and the last lag of the fit, of ln ‖J‖‖J'‖ and cosines [seed, lag]."""
    seeds = len(cosine)
    with np.errstate(divide="ignore", invalid="ignore"):
        top = np.max(np.where(np.isnan(log_overlap), -np.inf, log_overlap), axis=0)
        overlap = np.nan_to_num(cosine * np.exp(log_overlap - top), nan=0.0)  # of what is dead it is zero
        mean = overlap.mean(axis=0)
        relative = overlap.std(axis=0, ddof=1) / np.sqrt(seeds) / np.abs(mean)
        without = (overlap.sum(axis=0) - overlap) / (seeds - 1)
        logs, each = np.log(np.abs(mean)) + top, np.log(np.abs(without)) + top
    resolved = (relative < RESOLVED) & np.isfinite(logs) & (lag <= last)
    end = lag.size if resolved.all() else int(np.argmin(resolved))  # the first that is not
    used = np.arange(lag.size) < end
    used &= lag >= (first if first is not None else lag[max(end - 1, 0)] / 2)
    if np.count_nonzero(used) < MARGIN:
        return np.nan, np.nan, np.nan
    weight = 1 / np.maximum(relative[used], 1e-12) ** 2
    weight /= weight.sum()
    centred = lag[used] - weight @ lag[used]
    slope = centred * weight / (weight @ centred**2)
    rates = each[:, used] @ slope
    error = np.sqrt((seeds - 1) * rates.var()) if np.isfinite(rates).all() else np.nan
    return float(logs[used] @ slope), float(error), float(lag[end - 1])
