"""What numbers say beside their value: that a product is zero, that one has left the floats, or was not taken."""

from collections.abc import Sequence

import numpy as np

from gradsim import arguments
from gradsim.engine.plan import Plan
from gradsim.engine.statistic import Statistic
from gradsim.engine.statistics import STATISTICS
from gradsim.engine.streams import paired

RANK = "singular values that are not zero"
LOST = "has {} left the range of floats?"


def dims_of(plan: Plan, statistic: Statistic) -> list[str]:
    """The dimensions of a statistic after those that all share."""
    inputs = ["input"] if paired(plan.network) and not statistic.of_pair else []
    return [*inputs, *["parameter"] * statistic.by_parameter, *["singular_value"] * statistic.by_singular_value]


def flagging(statistics: Sequence[Statistic]) -> Statistic | None:
    """The one whose −inf tells that a network is dead: of a product, and that of each input before one of a pair."""
    able = [one for one in statistics if one.of_pair or (one.needs and one.logarithm and not one.costly)]
    able = [one for one in able if not one.by_parameter and not (one.of_pair and one.logarithm)]
    return min(able, key=lambda one: (not one.needs, one.of_pair), default=None)


def dead(statistic: Statistic) -> str:
    """What its flag asks."""
    what = "product" if statistic.needs else "state"
    return f"is the {what}{' of one of the two' * statistic.of_pair} exactly zero?"


def out_of_range(values: np.ndarray, measured: np.ndarray, *, infinite: bool, undefined: bool) -> np.ndarray:
    """Where a number that was measured has left the range of floats; what may be `undefined` is not lost."""
    if undefined:
        return np.zeros(values.shape, bool)
    if infinite:
        lost = np.isnan(values)
    else:
        lost = np.isfinite(values)  # and on in place: a mask takes an eighth of the numbers' memory
        np.logical_not(np.logical_or(lost, values == -np.inf, out=lost), out=lost)
    lost &= measured
    return lost


def measured_at(plan: Plan, statistic: Statistic) -> np.ndarray:
    """At which depths (of pairs of steps [start, depth]) is there something? It has an axis for each that follows."""
    there = measured_steps(plan.depth, plan.at if statistic.costly else None, pairs=plan.pairs)
    return there.reshape(*there.shape, *[1] * len(dims_of(plan, statistic)))


def measured_steps(depth: int, at: Sequence[int] | None, *, pairs: bool) -> np.ndarray:
    """`measured_at` of a statistic that is taken `at` some depths alone, or at all."""
    steps = np.arange(1, depth + 1)
    there = np.ones(depth, bool) if at is None else np.isin(steps, at)
    return (np.arange(depth)[:, None] < steps) & there if pairs else there


def rank(values: np.ndarray) -> np.ndarray:
    """How many logarithms are finite; NaN where none was taken."""
    return np.where(np.isnan(values[..., 0]), np.nan, np.count_nonzero(np.isfinite(values), axis=-1))


def count_lost(name: str, lost: np.ndarray, dims: Sequence[str], plan: Plan) -> dict[str, int]:
    """How many networks lost a number, of how many; said in a warning where there are any."""
    inner = ("start", plan.network.axis, "input", "parameter", "singular_value")
    along = tuple(place for place, dim in enumerate(dims) if dim in inner)
    networks = lost.any(along)
    count = int(np.count_nonzero(networks))
    if count:
        others = tuple(place for place in range(lost.ndim) if dims[place] != plan.network.axis)
        where = np.flatnonzero(lost.any(others))[0 if plan.direction == "forward" else -1] + 1
        warn_of_lost(name, count, networks.size, int(where), plan)
    return {"lost": count, "networks": int(networks.size)}


def warn_of_lost(name: str, count: int, networks: int, step: int, plan: Plan) -> None:
    """So many networks have left the range of floats, the first at this step."""
    larger = ", or take dtype='float64'" if plan.dtype == "float32" else ""
    if f"log_{name}" in STATISTICS:
        larger = f", or take log_{name}"
    arguments.warn(
        f"{name}: {count} of {networks} networks left the range of floats, first at {plan.network.axis} "
        f"{step}; their numbers are not finite, {name}_lost says which. Lower the gains or the depth{larger}"
    )
