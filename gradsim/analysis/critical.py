"""Where the measured growth is zero: the critical value of any gain, for any family, with its error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.engine import plan as plans
from gradsim.engine.precision import Precision, refuse_elsewhere
from gradsim.lapack import in_one_thread
from gradsim.networks.network import Network
from gradsim.sweeps import chunks, dataset, grid
from gradsim.sweeps.loop import measure_cells
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.progress import reporting

if TYPE_CHECKING:
    import xarray

Growths = Callable[[np.ndarray], np.ndarray]
POINTS, ROUNDS = 17, 2  # the bracket shrinks 256-fold, then a monotone cubic through the last points
BRACKETED, VANISHING, EXPLODING = "bracketed", "vanishing throughout", "exploding throughout"


def critical(
    network: Network,
    gain: str = "sigma_w",
    *,
    between: Sequence[Any],
    depth: int,
    seeds: int | range,
    key: int = 0,
    burn_in: int = 20,
    statistic: str = "log_jvp",
    inputs: ArrayLike | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    max_lost: float = 0.05,
    progress: bool | None = None,
    **gains: Any,
) -> xarray.Dataset:
    """Find the value of `gain` at which the mean growth a step, ⟨s(depth)⟩/depth, is zero.

    All candidates see the same random networks (common random numbers), so that the growth is a smooth
    function of the gain; the first change of sign is bracketed on a grid, in all cells of the other gains
    at once. The standard error is that of the growth over seeds, divided by its slope in the gain.

    Args:
        between: two values of the gain that bracket the change of sign.
        burn_in: steps before the product starts, to let the length settle.
        statistic: "log_jvp", a typical gradient, for one tangent's cost; or "log_gain".
        max_lost: the share of the networks at one point that may leave the range of floats and not count.
        **gains: the other gains, numbers or 1-d arrays, which become axes.
        The rest is as in `gradsim.sweep`. Dead networks do not count.

    Returns: a Dataset over the other gains with the critical value under the gain's own name, its
        `standard_error`, the `slope` of the growth there, and `status`; NaN unless the status is "bracketed".
    Raises: ValueError or TypeError naming the argument.
    """
    several = grid.Networks({"": plans.checked_network(network)}, None)
    arguments.choice("gain", gain, network.gains)
    if gain in gains:
        raise ValueError(f"{gain}: it is what is sought; pass its range as between=(low, high)")
    low, high = _bracket(gain, between)
    statistic = arguments.choice("statistic", statistic, ("log_jvp", "log_gain"))
    plan = plans.planned(network, depth=depth, statistics=statistic, burn_in=burn_in, dtype=dtype, precision=precision)
    refuse_elsewhere(plan.precision, at_hand().devices[0])
    numbers, key = grid.seeds(seeds), arguments.key(key)
    if numbers.size < 2:
        raise ValueError(f"seeds: got {seeds}; pass at least 2, the error is over them")
    max_lost = arguments.share("max_lost", max_lost)
    axes = grid.axes(several, gains)
    chunks.check_result(plan, {**axes, gain: np.zeros(POINTS)}, networks=1, seeds=numbers.size)
    cells = grid.cells(plan, {**axes, gain: np.asarray(low)})
    data = plans.inputs(plan, inputs)
    total = cells[gain].size * POINTS * ROUNDS * numbers.size
    with reporting(progress, total) as bar, in_one_thread(), jax.enable_x64(plan.dtype == "float64"):

        def growths(points: np.ndarray) -> np.ndarray:
            """Growth a step of [cells, points] candidates, for every seed: [cells, points, seeds]."""
            here = {name: np.repeat(values, points.shape[1]) for name, values in cells.items()}
            here[gain] = points.ravel().astype(plan.dtype)
            measured = measure_cells(plan, here, data, None, key=key, seeds=numbers, bar=bar)[statistic][:, :, -1]
            measured = measured.reshape(*measured.shape[:2], -1)  # of both inputs of a pair, over which the mean goes
            _refuse_lost(statistic, measured, here[gain], gain, max_lost)
            living = np.isfinite(measured)
            count = np.where(living.any(-1), living.sum(-1), np.nan)
            return (np.where(living, measured, 0).sum(-1) / count).reshape(*points.shape, -1) / plan.depth

        found = _solve(growths, np.full(cells[gain].shape, low), np.full(cells[gain].shape, high))
    settings = {"key": key, "seeds": numbers.size, "between": [low, high], "statistic": statistic}
    return dataset.build_critical(network, gain, axes, plan, found, settings)


def _refuse_lost(statistic: str, measured: np.ndarray, points: np.ndarray, gain: str, max_lost: float) -> None:
    """Networks whose numbers have left the floats are no survivors to average over; a dead one's −inf is none."""
    lost = ~(np.isfinite(measured) | (measured == -np.inf)).all(-1)
    share = lost.mean(axis=1)
    worst = int(np.argmax(share))
    if share[worst] > max_lost:
        raise ValueError(
            f"max_lost: {lost[worst].sum()} of {lost.shape[1]} networks left the range of floats ({statistic}) at "
            f"{gain} = {points[worst]:g}; narrow between, lower the depth, take dtype='float64', or pass a larger share"
        )


def _bracket(gain: str, between: Sequence[Any]) -> tuple[float, float]:
    if arguments.shape_of("between", between) != (2,):
        raise ValueError(f"between: got {arguments.shown(between)}; pass two values (low, high) of {gain}")
    name = gain if gain.endswith(("_bias", "_correlation")) else "between"  # which may be negative
    low, high = (float(arguments.gain(name, bound)) for bound in between)
    if not low < high:
        raise ValueError(f"between: got ({low}, {high}); pass low < high")
    return low, high


def _solve(growths: Growths, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """The first root in every cell. Candidates of one round share their draws, so many cost little more than one."""
    from scipy.interpolate import CubicSpline, PchipInterpolator  # 0.1 s: not at import

    changes, rounds = np.ones(low.shape, bool), []
    for _ in range(ROUNDS):
        points = np.linspace(low, high, POINTS, axis=1)
        samples = growths(points)
        mean = np.nanmean(samples, axis=2)
        rounds.append((points, mean))
        signs = np.signbit(mean[:, 1:]) != np.signbit(mean[:, :-1])
        changes &= signs.any(axis=1)
        first = np.where(changes, np.argmax(signs, axis=1), 0)
        rows = np.arange(low.size)
        low, high = (np.where(changes, points[rows, first + i], bound) for i, bound in ((0, low), (1, high)))
    found = {name: np.full(low.shape, np.nan) for name in ("root", "standard_error", "slope")}
    for cell in np.flatnonzero(changes):
        curve = PchipInterpolator(points[cell], mean[cell])
        root = next(root for root in curve.roots(extrapolate=False) if low[cell] <= root <= high[cell])
        share = (root - low[cell]) / (high[cell] - low[cell])
        spread = (1 - share) * samples[cell, first[cell]] + share * samples[cell, first[cell] + 1]
        # Over less than a standard error a few networks' growth is rough in the gain: the first grid has the slope.
        wide, coarse = (values[cell] for values in rounds[0])
        slope = CubicSpline(wide[np.isfinite(coarse)], coarse[np.isfinite(coarse)])(root, 1)
        found["root"][cell], found["slope"][cell] = root, slope
        living = np.isfinite(spread).sum()
        found["standard_error"][cell] = np.nanstd(spread, ddof=1) / np.sqrt(living) / abs(slope)
    return {**found, "status": np.where(changes, BRACKETED, np.where(mean[:, 0] > 0, EXPLODING, VANISHING))}
