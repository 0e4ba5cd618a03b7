"""What training has shown: how deep a network still learns, whether theory ranks it, and what the start foresees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

Scale = Callable[[np.ndarray, float], np.ndarray]  # of sigma_w and sigma_b
MULTIPLE = 6  # of ξ_c, beyond which Schoenholz et al. 2017 find that nothing trains
ROUNDED = -24 * math.log(2)  # ln of the relative update that float32 rounds away from a weight of typical size
KEPT = ("log_gradient", "log_update")  # what of each layer tells what will train
COUNTS = ("foreseen_fails", "foreseen_trains", "unforeseen_fails", "unforeseen_trains")


def kept(_: Any, one: xarray.Dataset) -> xarray.Dataset:
    """Of a training run: the accuracy after it, and of the first layer or step what was known before."""
    axis = "time" if "time" in one.dims else "depth"
    start = one.sel(step=0, drop=True).isel({axis: 0}, drop=True)
    found = start[list(KEPT)]
    return found.assign({name: one[name].isel(step=-1, drop=True) for name in ("accuracy", "diverged")})


def over_sizes(runs: Mapping[int, xarray.Dataset], scale: Scale | None = None) -> xarray.Dataset:
    """Runs of several lengths of sequences; or of several depths, with `scale`, theory's ξ_c, and a fine line of it."""
    import xarray

    axis, units = ("depth", "layer") if scale else ("length", "step")
    attributes = {"long_name": axis if scale else "sequence length", "units": units}
    one = xarray.concat(
        list(runs.values()), xarray.DataArray(list(runs), dims=axis, name=axis, attrs=attributes),
        data_vars="all", coords="minimal", compat="override", join="exact", combine_attrs="override",
    )  # fmt: skip
    if scale is None:
        return one
    line = np.linspace(float(one["sigma_w"][0]), float(one["sigma_w"][-1]), 200)
    for name, along, gains in (("xi_c", "sigma_w", one["sigma_w"].values), ("xi_c_line", "line", line)):
        values = scale(gains, float(one["sigma_b"]))
        one = one.assign({name: (along, values, {"source": "Schoenholz et al. 2017", "units": "layer"})})
    return one.assign_coords(line=line)


def summary(one: xarray.Dataset) -> xarray.Dataset:
    """By gain, size and seed, with the learning rate that is best in the mean over seeds; the size is depth or length.

    `half` is the size at which the accuracy falls to half the best of the map, the attribute `threshold`. `rank` is
    Spearman's correlation of that with ξ_c over the gain, by seed: depths beyond the grid count as its ends, and tie.

    Args:
        one: `accuracy` over a gain, learning_rate, seed and depth or length, with `log_gradient` and `log_update` of
            the first layer before training, and where there is a theory its `xi_c` over the gain.
    """
    axis = size_axis(one)
    rate = one["accuracy"].mean("seed").fillna(-1).argmax("learning_rate")
    best = one[["accuracy", "log_gradient", "log_update"]].isel(learning_rate=rate)
    best = best.drop_vars("learning_rate", errors="ignore")
    threshold = float(best["accuracy"].mean("seed").max()) / 2
    found = best.assign(half=trainable_size(best["accuracy"], threshold, axis)).assign_attrs(threshold=threshold)
    if "xi_c" in one:
        ranks = [rank_correlation(half.values, one["xi_c"].values) for half in found["half"].transpose("seed", ...)]
        scales: dict[str, Any] = {name: one[name] for name in ("xi_c", "xi_c_line") if name in one}
        found = found.assign({"rank": ("seed", ranks), **scales})
    return found


def size_axis(one: xarray.Dataset) -> str:
    """The axis of depth or of the length of sequences."""
    return "depth" if "depth" in one.dims else "length"


def trainable_size(accuracy: xarray.DataArray, threshold: float, axis: str = "depth") -> xarray.DataArray:
    """The size at which the accuracy first falls below the threshold, linear in ln size between those measured.

    Where it is below at the smallest, or never is, that is the smallest or the largest one: a bound. NaN where an
    accuracy is.
    """
    values = accuracy.transpose(..., axis).values
    size = np.log(accuracy[axis].values.astype(float))
    below = values < threshold
    first = np.where(below.any(-1), below.argmax(-1), size.size)
    found = np.where(first == 0, size[0], size[-1])
    if size.size > 1:
        at = np.clip(first, 1, size.size - 1)
        high, low = (np.take_along_axis(values, (at - back)[..., None], -1)[..., 0] for back in (1, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            between = size[at - 1] + (high - threshold) / (high - low) * (size[at] - size[at - 1])
        found = np.where((first > 0) & (first < size.size), between, found)
    found = np.where(np.isnan(values).any(-1), np.nan, np.exp(found))
    attributes = {"long_name": f"trainable {axis}", "units": {"depth": "layer"}.get(axis, "step")}
    result: xarray.DataArray = accuracy.transpose(..., axis).isel({axis: 0}, drop=True).copy(data=found)
    return result.assign_attrs(attributes)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, ties sharing their mean rank, over the pairs that are both finite; NaN without two ranks of each."""
    from scipy.stats import rankdata

    both = np.isfinite(x) & np.isfinite(y)
    ranks = [rankdata(values[both]) for values in (x, y)]
    if any(np.unique(rank).size < 2 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def typical(half: xarray.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of trainable sizes over seeds: the geometric mean, the standard error of its logarithm, and where neither ends.

    The error is zero for one seed.
    """
    logs = np.log(half.transpose("seed", ...).values)
    error = logs.std(0, ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else np.zeros(logs.shape[1:])
    return np.exp(logs.mean(0)), error, np.isfinite(logs).all(0)


def inside(found: xarray.Dataset) -> np.ndarray:
    """Over the gain: where the trainable size lies between the smallest and the largest of the grid, for every seed."""
    half, sizes = found["half"].transpose("seed", ...).values, found[size_axis(found)].values
    return np.asarray(((half > sizes[0] * 1.0001) & (half < sizes[-1] * 0.9999)).all(0))


def over_theory(found: xarray.Dataset) -> tuple[float, float, int]:
    """Trainable depth over ξ_c: geometric mean over the gains where it is `inside`, standard error, their number."""
    mean, _, _ = typical(found["half"])
    known = inside(found) & np.isfinite(found["xi_c"].values)
    ratios = np.log(mean[known] / found["xi_c"].values[known])
    if not ratios.size:
        return math.nan, math.nan, 0
    level = math.exp(ratios.mean())
    return level, level * ratios.std(ddof=1) / math.sqrt(ratios.size) if ratios.size > 1 else math.nan, ratios.size


def foreseen(found: xarray.Dataset) -> dict[str, np.ndarray]:
    """What the start says: which networks, in the order of `accuracy`, will not train.

    "underflow": the first layer's gradient is zero in floats; "rounding": so is the first update beside its weights;
    "6 xi_c": the network is deeper than that.
    """
    dims = found["accuracy"].dims
    predictors = {"underflow": found["log_gradient"] == -np.inf, "rounding": found["log_update"] < ROUNDED}
    if "xi_c" in found:
        predictors[f"{MULTIPLE} xi_c"] = (found["depth"] > MULTIPLE * found["xi_c"]).broadcast_like(found["accuracy"])
    return {name: one.transpose(*dims).values for name, one in predictors.items()}


def confusion(failing: np.ndarray, trains: np.ndarray) -> dict[str, int]:
    """How many networks were foreseen to fail, and do, and so on: the names in `COUNTS`."""
    pairs = ((failing, ~trains), (failing, trains), (~failing, ~trains), (~failing, trains))
    return {name: int(np.sum(one & other)) for name, (one, other) in zip(COUNTS, pairs, strict=True)}


def table(datasets: Mapping[str, xarray.Dataset]) -> xarray.Dataset:
    """The confusion of what was foreseen with what trained (reached `threshold`), by predictor and case, and of all."""
    import xarray

    rows: list[dict[str, str | int]] = []
    for name, one in datasets.items():
        found = summary(one)
        reached = found["accuracy"].values
        known = np.isfinite(reached)
        for predictor, failing in foreseen(found).items():
            counts = confusion(failing[known], reached[known] >= found.attrs["threshold"])
            rows.append({"predictor": predictor, "case": name, **counts})
    for predictor in dict.fromkeys(str(row["predictor"]) for row in rows):
        of = [row for row in rows if row["predictor"] == predictor]
        rows.append(
            {"predictor": predictor, "case": "all", **{key: sum(int(row[key]) for row in of) for key in COUNTS}}
        )
    return xarray.Dataset({key: ("row", [row[key] for row in rows]) for key in ("predictor", "case", *COUNTS)})
