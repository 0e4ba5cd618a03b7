"""Dataset -> Dataset: what is left of a gradient on the mean, with its error, beside a closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    import xarray

FEW = 0.2  # nats of standard error


def mean_square(dataset: xarray.Dataset) -> xarray.Dataset:
    """½ ln of the mean of e^(2 log_gain) over networks as `log_root`, and its standard `error`, in nats.

    A network that is dead counts as zero. `carried_by_few` says where the error is beyond a fifth: products of many
    random factors have means that no sample of this size reaches, and neither the root nor its error is a guide there.
    Where the Dataset holds `theory`, also `residual`: how far apart they are, in standard errors, none of them taken
    below one rounding a step, and NaN where few carry the mean.
    """
    logs = (2 * dataset["log_gain"]).where(~dataset["dead"], -np.inf).transpose("seed", "time")
    # In one order in memory, whatever that of the Dataset: sums would differ by rounding.
    found = dataset.drop_vars([name for name in dataset.data_vars if name != "theory"]).drop_dims(
        "seed", errors="ignore"
    )
    root, deviation = root_mean_square(np.ascontiguousarray(logs.values))
    found = found.assign(log_root=("time", root), error=("time", deviation))
    error = found["error"]
    few = ~(error < FEW)
    found = found.assign(carried_by_few=few)
    if "theory" in found:
        rounding = np.finfo(dataset.attrs["dtype"]).eps * dataset["time"]
        found["residual"] = ((found["log_root"] - found["theory"]) / np.maximum(error, rounding)).where(~few)
    return found


def root_mean_square(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """½ ln of the mean of e^logs over the first axis, and its standard error."""
    largest = logs.max(axis=0)
    relative = np.exp(logs - np.where(np.isfinite(largest), largest, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        root = 0.5 * (logsumexp(logs, axis=0) - np.log(len(logs)))
        error = 0.5 * relative.std(axis=0, ddof=1) / relative.mean(axis=0) / np.sqrt(len(logs))
    return root, error
