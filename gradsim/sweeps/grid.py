"""The networks and the gains that a user asks for, as the cells of a grid."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from gradsim import arguments
from gradsim.engine.plan import LOSS_SCALE, Plan, checked_network
from gradsim.engine.statistic import Statistic
from gradsim.engine.streams import paired
from gradsim.networks.network import Network


class Networks(NamedTuple):
    """The networks of a sweep and the leading axis that tells them apart, if there is one."""

    each: Mapping[Any, Network]
    axis: str | None  # "network", "width", or None for one network alone

    @property
    def named(self) -> bool:
        return self.axis is not None


def networks(network: Any, widths: Any = None) -> Networks:
    """One network, a mapping of names or numbers to networks, or one network at several widths."""
    if widths is not None:
        return Networks(_at_widths(network, widths), "width")
    if not isinstance(network, Mapping):
        return Networks({"": checked_network(network)}, None)
    if not network:
        raise ValueError("network: got an empty mapping; pass at least one network")
    each = {name: checked_network(one) for name, one in network.items()}
    numbers = [isinstance(name, Real) and not isinstance(name, bool) and math.isfinite(name) for name in each]
    if not all(numbers) and not all(isinstance(name, str) for name in each):
        raise TypeError(f"network: got the names {list(each)}; pass strings alone, or finite numbers alone")
    if len({one.axis for one in each.values()}) > 1:
        raise ValueError("network: some networks run over depth and some over time; sweep them apart")
    if len({paired(one) for one in each.values()}) > 1:
        raise ValueError("network: some are pairs and some take one input; sweep them apart, or pass pairs alone")
    return Networks(each, "network")


def check_parameters(networks: Networks, statistics: Sequence[Statistic]) -> None:
    """Networks whose weights have other names have no axis of parameters in common.

    Raises: ValueError.
    """
    by_parameter = [one.name for one in statistics if one.by_parameter]
    names = {tuple(one.parameters): str(name) for name, one in networks.each.items()}
    if by_parameter and len(names) > 1:
        each = "; ".join(f"{name}: {', '.join(parameters)}" for parameters, name in list(names.items())[:2])
        raise ValueError(
            f"network: weights have other names in some than in others ({each}), and {by_parameter[0]} is of each; "
            "sweep them apart"
        )


def of_one_input(networks: Networks, who: str) -> Networks:
    """Those networks, none of which may be a pair."""
    for network in networks.each.values():
        if paired(network):
            raise ValueError(
                f"network: got a pair, and {who} takes networks of one input; pass the network itself, pair.network"
            )
    return networks


def _at_widths(network: Any, widths: Any) -> dict[int, Network]:
    """The network at each width; inputs that are as wide as the state stay so."""
    given = checked_network(network)
    one = given.alone
    fields = {field.name for field in dataclasses.fields(one)}
    if "width" not in fields:
        raise ValueError(f"widths: {one.family} has no width; pass a mapping of numbers to networks")
    try:
        wanted = [arguments.whole("widths", width) for width in widths]
    except TypeError as error:
        raise TypeError(
            f"widths: got {arguments.shown(widths)}; pass whole numbers of at least 1, one network each"
        ) from error
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"widths: got {arguments.shown(widths)}; pass one or more widths, each once")
    follow = ["features"] if "features" in fields and getattr(one, "features", None) == getattr(one, "width", 0) else []
    replace: Any = dataclasses.replace
    made = {width: replace(one, **dict.fromkeys(["width", *follow], width)) for width in wanted}
    return {width: replace(given, network=one) for width, one in made.items()} if paired(given) else made


def axes(
    networks: Networks, gains: Mapping[str, Any], of: str = "sweep", others: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """The gains given, as numbers and 1-d arrays; each must be known to a network, or be one of the others."""
    known = {name: None for network in networks.each.values() for name in network.gains} | dict.fromkeys(others)
    families = ", ".join(dict.fromkeys(network.family for network in networks.each.values()))
    for name in gains:
        if name not in known:
            raise ValueError(
                f"{name}: neither an option of {of} nor a gain of {families}; its gains: {', '.join(known)}"
            )
    found = {name: arguments.gain(name, value) for name, value in gains.items()}
    if np.any(found.get(LOSS_SCALE, np.ones(())) == 0):
        raise ValueError(f"{LOSS_SCALE}: got 0.0; pass a positive number or a 1-d array of them")
    return found


def own(plan: Plan, axes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The axes of the gains that this network has; along the others its numbers repeat."""
    return {name: axis for name, axis in axes.items() if name in plan.gains}


def on_all_axes(
    measured: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], axes: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Arrays [cells, …] as [gains…, …]; along a gain that the network lacks they repeat."""
    wide = [axis.size for axis in axes.values() if axis.ndim]
    narrow = [axis.size if name in own else 1 for name, axis in axes.items() if axis.ndim]
    shaped = {name: array.reshape(*narrow, *array.shape[1:]) for name, array in measured.items()}
    if narrow == wide:
        return shaped
    return {name: np.broadcast_to(array, (*wide, *array.shape[len(wide) :])).copy() for name, array in shaped.items()}


def size(axes: Mapping[str, np.ndarray]) -> int:
    """The number of cells."""
    return math.prod(axis.size for axis in axes.values())


def cells(plan: Plan, axes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every gain at every cell of the grid, [cells], in the order of the axes; the last axis runs fastest."""
    names = [name for name, axis in axes.items() if axis.ndim]
    points = np.meshgrid(*[axes[name] for name in names], indexing="ij")
    shape = points[0].shape if points else ()
    fixed = {name: float(axis) for name, axis in axes.items() if not axis.ndim}
    values = {**plan.gains, **fixed, **dict(zip(names, points, strict=True))}
    return {
        name: arguments.in_dtype(name, np.broadcast_to(np.asarray(value, np.float64), shape).ravel(), plan.dtype)
        for name, value in values.items()
    }


def seeds(value: Any) -> np.ndarray:
    """The numbers of the seeds: 0, 1, … for a whole number, or those of a range."""
    if isinstance(value, range):
        if not len(value) or min(value[0], value[-1]) < 0 or max(value[0], value[-1]) >= 2**32:
            raise ValueError(
                f"seeds: got {arguments.shown(value)}; pass a range of one or more numbers from 0 to 2**32 - 1"
            )
        count = len(value)
    else:
        count = arguments.whole("seeds", value, maximum=2**32)
        value = range(count)
    if count > 2**27:  # a gibibyte of their numbers alone
        raise ValueError(f"seeds: got {count}; pass at most {2**27} in one sweep, and join ranges with gradsim.concat")
    return np.arange(value.start, value.stop, value.step, dtype=np.int64)
