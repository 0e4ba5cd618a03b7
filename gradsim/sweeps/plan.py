"""What one sweep of one network will do: its static choices, checked before anything is compiled."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.engine.statistics import Statistic
from gradsim.engine.trial import try_statistic
from gradsim.networks.network import Network, State


@dataclass(frozen=True)
class Plan:
    """All that is static in a sweep of one network; a new plan compiles, new gains or seeds do not."""

    network: Network
    statistics: tuple[Statistic, ...]
    depth: int
    at: tuple[int, ...]
    burn_in: int
    dtype: str
    direction: str
    loss: Callable[[State], Array] | None = None
    pairs: bool = False  # start the product after every step, not only before the first

    def state_shape(self) -> State:
        """The shapes of a state, as jax.ShapeDtypeStruct."""
        first = self.network.initial_shape if self.network.driven else self.network.input_shape
        with jax.enable_x64(self.dtype == "float64"):
            gains = {name: jax.ShapeDtypeStruct((), self.dtype) for name in self.network.gains}
            return jax.eval_shape(self.network.initial_state, gains, jax.ShapeDtypeStruct(first, self.dtype))


def networks(network: Any) -> Mapping[str, Network]:
    """One network, or a mapping of names to networks, as a mapping."""
    several = network if isinstance(network, Mapping) else {"": network}
    if not several:
        raise ValueError("network: got an empty mapping; pass at least one network")
    for one in several.values():
        if not isinstance(one, Network):
            raise TypeError(
                f"network: got {one!r} of type {type(one).__name__}; "
                "pass a network such as gradsim.feedforward(width=64), or a mapping of names to networks"
            )
    if len({one.axis for one in several.values()}) > 1:
        raise ValueError("network: some networks run over depth and some over time; sweep them apart")
    return several


def depths(at: Any, depth: int, direction: str) -> tuple[int, ...]:
    """The depths of costly statistics; unless given, the one whose product is that of the whole network."""
    if at is None:
        return (depth,) if direction == "forward" else (1,)
    points = [at] if not isinstance(at, Iterable) else list(at)
    chosen = tuple(arguments.whole("at", point) for point in points)
    if not chosen or max(chosen) > depth:
        raise ValueError(f"at: got {at!r}; pass depths from 1 to depth={depth}")
    return chosen


def gain_axes(network: Network, gains: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The gains given, as numbers and 1-d arrays that this network knows."""
    for name in gains:
        if name not in network.gains:
            raise ValueError(
                f"{name}: neither an option of sweep nor a gain of {network.family}; "
                f"its gains: {', '.join(network.gains)}"
            )
    return {name: arguments.gain(name, value) for name, value in gains.items()}


def cells(plan: Plan, axes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every gain at every cell of the grid, [cells], in the order of the axes; the last axis runs fastest."""
    names = [name for name, axis in axes.items() if axis.ndim]
    points = np.meshgrid(*[axes[name] for name in names], indexing="ij")
    shape = points[0].shape if points else ()
    fixed = {name: float(axis) for name, axis in axes.items() if not axis.ndim}
    values = {**plan.network.gains, **fixed, **dict(zip(names, points, strict=True))}
    return {
        name: arguments.in_dtype(name, np.broadcast_to(np.asarray(value, np.float64), shape).ravel(), plan.dtype)
        for name, value in values.items()
    }


def inputs(plan: Plan, given: ArrayLike | None) -> np.ndarray | None:
    """Real data in the plan's dtype, [samples, *input_shape] or [samples, time, *input_shape]."""
    if given is None:
        return None
    shape = plan.network.input_shape
    if not plan.network.driven:
        return arguments.in_dtype("inputs", arguments.samples("inputs", given, shape), plan.dtype)
    steps = plan.burn_in + plan.depth
    if np.ndim(given) != len(shape) + 2 or np.shape(given)[1] < steps:
        raise ValueError(
            f"inputs: got shape {list(np.shape(given))}; pass [samples, time, {', '.join(map(str, shape))}] "
            f"with at least burn_in + depth = {steps} time steps"
        )
    checked = arguments.samples("inputs", given, (np.shape(given)[1], *shape))
    return arguments.in_dtype("inputs", checked, plan.dtype)


def cotangent(plan: Plan, given: State | None) -> State | None:
    """The gradient with respect to the observed part of the final state, in the plan's dtype."""
    if given is None:
        return None
    if plan.loss is not None:
        raise ValueError("cotangent: got one beside a loss; pass one of the two")
    wanted = jax.eval_shape(plan.network.observed, plan.state_shape())
    shapes = jax.tree.map(lambda leaf: leaf.shape, wanted, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    tree, wanted_tree = str(jax.tree.structure(given)), str(jax.tree.structure(wanted))
    if tree != wanted_tree:
        raise ValueError(f"cotangent: got a tree {tree}; pass {wanted_tree}")
    for got, leaf in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        if np.shape(got) != leaf.shape or not np.all(np.isfinite(got)):
            raise ValueError(f"cotangent: got shape {np.shape(got)}; pass finite numbers of shape {shapes}")
    return jax.tree.map(lambda leaf: np.asarray(leaf, plan.dtype), given)


def loss(plan: Plan) -> None:
    """The loss must give one number for the observed part of a state."""
    if plan.loss is None:
        return
    if not callable(plan.loss):
        raise TypeError(
            f"loss: got {plan.loss!r} of type {type(plan.loss).__name__}; pass a scalar function of the state"
        )
    try:
        with jax.enable_x64(plan.dtype == "float64"):
            value = jax.eval_shape(plan.loss, jax.eval_shape(plan.network.observed, plan.state_shape()))
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(f"loss: JAX cannot evaluate it on the final state ({reason})") from error
    if getattr(value, "shape", None) != ():
        raise ValueError(f"loss: returned {value}; it must return one number")


def statistics(plan: Plan) -> None:
    """Some statistics exist for some networks only, and one of a user's own must measure what it should."""
    for statistic in plan.statistics:
        try_statistic(plan.network, statistic, plan.direction, plan.dtype)
