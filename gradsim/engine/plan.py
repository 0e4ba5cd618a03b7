"""What one measurement of one network will do: its static choices, checked before anything is compiled."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.engine import precision as precisions
from gradsim.engine import statistics as known
from gradsim.engine.formats import FORMATS
from gradsim.engine.rounding import is_narrow, of_chain
from gradsim.engine.statistic import Statistic
from gradsim.engine.trial import try_statistic
from gradsim.networks.check import contract
from gradsim.networks.network import Network, State

# A step takes microseconds at the least: more steps would run for hours, and nobody sees why.
MOST_STEPS = 10**7
WIDE = ("float32", "float64")
LOSS_SCALE = "loss_scale"  # the gain of a gradient that is rounded at every step


@dataclass(frozen=True)
class Plan:
    """All that is static in a measurement of one network; a new plan compiles, new gains or seeds do not."""

    network: Network
    statistics: tuple[Statistic, ...]
    depth: int
    at: tuple[int, ...]
    burn_in: int
    dtype: str
    direction: str
    loss: Callable[[State], Array] | None = None
    pairs: bool = False  # start the product after every step, not only before the first
    format: str | None = None  # of a chain that is rounded at every step, beside the exact one of `dtype`
    precision: str = "highest"  # of a step's matrix products

    @property
    def gains(self) -> dict[str, float]:
        """The gains that a sweep may vary, with their defaults: the network's and, of a rounded chain, its own."""
        return {**self.network.gains, **({LOSS_SCALE: 1.0} if self.format else {})}

    @property
    def steps(self) -> int:
        """The steps that a chain takes."""
        return self.burn_in + self.depth

    def state_shape(self) -> State:
        """The shapes of a state, of one of the two in a pair, as jax.ShapeDtypeStruct."""
        return _state_shape(self.network.alone, self.dtype)

    def state_size(self) -> int:
        """The numbers of a state."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.state_shape()))


@lru_cache(maxsize=256)
def _state_shape(network: Network, dtype: str) -> State:
    first = network.initial_shape if network.driven else network.input_shape
    with jax.enable_x64(dtype == "float64"):
        gains = {name: jax.ShapeDtypeStruct((), dtype) for name in network.gains}
        return jax.eval_shape(network.initial_state, gains, jax.ShapeDtypeStruct(first, dtype))


def checked_network(network: Any) -> Network:
    """`network`, which must be one and keep the contract of a family.

    Raises: TypeError for anything else, ValueError for what it breaks.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"network: got {' '.join(repr(network).split())} of type {type(network).__name__}; "
            "pass a network such as gradsim.feedforward(width=64)"
        )
    if not type(network.alone).__module__.startswith("gradsim."):  # gradsim's own keep it by their tests
        contract(network.alone)
    return network


def planned(
    network: Network,
    *,
    depth: Any,
    statistics: str | Statistic | Sequence[str | Statistic],
    direction: Any = "forward",
    at: Any = None,
    burn_in: Any = 0,
    dtype: Any = "float32",
    loss: Any = None,
    pairs: bool = False,
    narrow: bool = False,
    precision: Any = "highest",
) -> Plan:
    """The plan of these choices, all of them checked; only some measurements have a `narrow` dtype.

    In one the chain of float32 has a rounded one beside it. Its statistics stand behind those asked for, with the
    exact norm of the same vector.

    Raises: ValueError or TypeError naming the argument.
    """
    dtype = arguments.choice("dtype", dtype, (*WIDE, *FORMATS) if narrow else WIDE)
    format, dtype = (dtype, "float32") if dtype in FORMATS else (None, dtype)
    direction = arguments.choice("direction", direction, ("forward", "backward"))
    depth = arguments.whole("depth", depth, maximum=MOST_STEPS)
    if direction == "forward" and loss is not None:
        raise ValueError("loss: it starts a gradient; pass direction='backward' with it")
    chosen = known.get(statistics, direction)
    if format:
        exact = [one for one in chosen if not is_narrow(one)]
        norm = "log_jvp" if direction == "forward" else "log_gradient"
        chosen = known.get([*exact, norm, *of_chain(), *chosen], direction)
    depths = lengths(at, depth, whole=depth if direction == "forward" else 1)
    if at is not None and not any(statistic.costly for statistic in chosen):
        costly = ", ".join(statistic.name for statistic in known.STATISTICS.values() if statistic.costly)
        raise ValueError(
            f"at: got {arguments.shown(at)}, which no statistic asked for reads; pass it with {costly}, or leave it out"
        )
    plan = Plan(
        network=network,
        statistics=chosen,
        depth=depth,
        at=depths,
        burn_in=arguments.whole("burn_in", burn_in, minimum=0, maximum=MOST_STEPS),
        dtype=dtype,
        direction=direction,
        loss=loss,
        pairs=pairs,
        format=format,
        precision=precisions.checked(precision, dtype),
    )
    _layers(plan)
    _statistics(plan)
    _loss(plan)
    precisions.refuse_convolution(network.alone, plan.precision, dtype)
    return plan


def lengths(at: Any, depth: int, whole: int | None = None) -> tuple[int, ...]:
    """The depths of costly statistics, up to `depth`; unless given, the one of the `whole` product."""
    if at is None:
        return (whole or depth,)
    points = [at] if isinstance(at, str) or not isinstance(at, Iterable) else list(at)
    chosen = tuple(arguments.whole("at", point) for point in points)
    if not chosen or max(chosen) > depth:
        raise ValueError(f"at: got {arguments.shown(at)}; pass depths from 1 to depth={depth}")
    return chosen


def _layers(plan: Plan) -> None:
    """A network whose branches are scaled by its depth L is measured at that depth."""
    layers, steps = getattr(plan.network.alone, "layers", None), plan.steps
    if layers is not None and layers != steps:
        raise ValueError(
            f"layers: the branches of {plan.network.family} are scaled for {layers} layers, and burn_in + depth is "
            f"{steps}; pass layers={steps}, or depth={layers}"
        )


def _statistics(plan: Plan) -> None:
    """Some statistics exist for some networks only, and one of a user's own must measure what it should."""
    for statistic in plan.statistics:
        if is_narrow(statistic) and plan.format is None:
            raise ValueError(
                f"statistics: {statistic.name!r} is of a chain rounded at every step; pass it to gradsim.sweep with "
                f"dtype one of: {', '.join(FORMATS)}"
            )
        try_statistic(plan.network, statistic, plan.direction, plan.dtype, plan.format)


def _loss(plan: Plan) -> None:
    """The loss must give one number for the observed part of a state, and some statistic must read its gradient."""
    if plan.loss is None:
        return
    if not callable(plan.loss):
        raise TypeError(f"loss: {arguments.got(plan.loss)}; pass a scalar function of the state")
    _gradient_is_read(plan, "loss")
    try:
        with jax.enable_x64(plan.dtype == "float64"):
            value = jax.eval_shape(plan.loss, jax.eval_shape(plan.network.alone.observed, plan.state_shape()))
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(f"loss: JAX cannot evaluate it on the final state ({reason})") from error
    if getattr(value, "shape", None) != () or not np.issubdtype(value.dtype, np.floating):
        raise ValueError(f"loss: it returns {value}; it must return one real number of a float dtype")


def _gradient_is_read(plan: Plan, name: str) -> None:
    if not any("one" in statistic.needs for statistic in plan.statistics):
        asked = ", ".join(statistic.name for statistic in plan.statistics)
        raise ValueError(f"{name}: {asked} do not read the gradient that it starts; add log_gradient or leave it out")


def inputs(plan: Plan, given: ArrayLike | None) -> np.ndarray | None:
    """Real data in the plan's dtype, [samples, *input_shape] or [samples, time, *input_shape]."""
    if given is None:
        return None
    shape = plan.network.input_shape
    if plan.network.driven:
        time = _time_steps(plan, given, ("samples",))
        shape = (time, *shape)
    return arguments.in_dtype("inputs", arguments.samples("inputs", given, shape), plan.dtype)


def one_input(plan: Plan, given: ArrayLike | None) -> ArrayLike | None:
    """One input, [*input_shape] or [time, *input_shape], whose shape alone is checked: it may be traced."""
    if given is None:
        return None
    shape = plan.network.input_shape
    if plan.network.driven:
        shape = (_time_steps(plan, given, ()), *shape)
    if arguments.shape_of("inputs", given) != shape:
        raise ValueError(f"inputs: got shape {list(np.shape(given))}; pass {list(shape)}")
    if not isinstance(given, Array):  # nor traced
        arguments.numbers("inputs", given, f"real numbers of shape {list(shape)}")
    return given


def _time_steps(plan: Plan, given: ArrayLike, before: tuple[str, ...]) -> int:
    """The time steps of sequences, which must be as many as will be taken."""
    shape, steps = plan.network.input_shape, plan.steps
    got = arguments.shape_of("inputs", given)
    if len(got) != len(before) + 1 + len(shape) or got[len(before)] < steps:
        wanted = ", ".join([*before, "time", *map(str, shape)])
        raise ValueError(
            f"inputs: got shape {list(got)}; pass [{wanted}] with at least burn_in + depth = {steps} time steps"
        )
    return got[len(before)]


def cotangent(plan: Plan, given: State | None) -> State | None:
    """The gradient with respect to the observed part of the final state, in the plan's dtype."""
    if given is None:
        return None
    if plan.direction == "forward":
        raise ValueError("cotangent: it starts a gradient; pass direction='backward' with it")
    if plan.loss is not None:
        raise ValueError("cotangent: got one beside a loss; pass one of the two")
    _gradient_is_read(plan, "cotangent")
    wanted = jax.eval_shape(plan.network.alone.observed, plan.state_shape())
    shapes = jax.tree.map(lambda leaf: leaf.shape, wanted, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    tree, wanted_tree = str(jax.tree.structure(given)), str(jax.tree.structure(wanted))
    if tree != wanted_tree:
        raise ValueError(f"cotangent: got a tree {tree}; pass {wanted_tree}")
    for got, leaf in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        if np.shape(got) != leaf.shape or getattr(got, "dtype", np.asarray(got).dtype).kind not in "iuf":
            kind = getattr(got, "dtype", type(got).__name__)
            raise ValueError(f"cotangent: got shape {np.shape(got)} of {kind}; pass real numbers of shape {shapes}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
        return given
    arrays = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(given)]
    if not all(np.all(np.isfinite(array)) for array in arrays) or not any(np.any(array) for array in arrays):
        raise ValueError(f"cotangent: got NaN, inf or nothing but zeros; pass finite numbers of shape {shapes}")
    cast = [arguments.in_dtype("cotangent", array, plan.dtype) for array in arrays]
    return jax.tree.unflatten(jax.tree.structure(given), cast)
