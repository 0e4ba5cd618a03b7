"""The walk through a model's program: forward, backward in block floating point, and backward in plain floats where
these may leave their range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import aligned, block, coarsened
from gradsim.inspection.differentiate import Plan
from gradsim.inspection.formats import counts
from gradsim.inspection.gains import Gain, gains
from gradsim.inspection.locate import locate
from gradsim.inspection.passes import Ending, Heard, Pass
from gradsim.inspection.records import Record, Site, in_order, norm, number, size_alone, unpacked
from gradsim.inspection.together import Together
from gradsim.scaled import Scaled


class Call(NamedTuple):
    """One call of a layer: where it stands, and what its taps noted; a record is None where no gradient passes.

    `activations` are those that come after it, before another layer; zeros in their records are entries that saturate.
    """

    site: Site
    value: Record
    gradient: Record | None
    plain: Record | None
    activations: list[tuple[Site, Record]]


class Parameter(NamedTuple):
    """The norms of a parameter, of its gradient and of that in plain floats, as numbers in block floating point; of the
    gradient's rounding; and what formats.counts counts in it. On the host."""

    norm: Any
    gradient: Any
    plain: Any
    rounding: Any
    narrow: np.ndarray


class Measurement(NamedTuple):
    """Of one model at its inputs."""

    calls: list[Call]
    loss: Any
    parameters: list[Parameter]
    made: tuple[str, str]  # the first operations that make what is not finite, forward and backward
    lost: bool
    nonlinear: list[str]
    gains: dict[int, Gain] | None  # by the number of the call, where they are wanted


def measure(plan: Plan, operands: Sequence[Any], gradients: int, *, with_gains: bool) -> Measurement:
    """`operands` are the program's inputs but the cotangent, the parameters first; its first `gradients` results after
    the loss are the parameters' gradients."""
    program, together = plan.program, Together()
    values = {**program.constants, **dict(zip(program.inputs[:-1], operands, strict=True))}
    forward = Pass("value", together=together)
    forward.walk(plan.forward, values)
    loss = values[plan.results[0]]
    found = gains(program, values) if with_gains else None
    again = dict(values)  # for a backward pass in plain floats, if it will take one
    # Two backward passes at once in blocks: of one, and of a third, whose numbers round otherwise.
    ending = Ending(_of_parameter(plan.dtype), operands[:gradients], _wanted(plan, gradients))
    exact = Pass("cotangent", ending=ending, together=together, pairs=True)
    rest = _backward(plan, values, exact, _pair(plan.dtype))
    loss, rest, noted, own = together.fetched((loss, rest, forward.later, exact.later))
    heard = exact.heard(own)
    ends = {**heard.ends, **rest}
    parameters = [_parameter(*ends[place]) for place in range(gradients)]
    calls = _calls(_unpacked(forward.heard(noted)), _unpacked(heard))
    sizes = [loss, *(one.gradient.mantissa for one in parameters)]
    wrong = [record.not_finite for call in calls for record in (call.value, call.gradient) if record is not None]
    sound = np.isfinite(sizes).all() and not any(np.nansum(count) for count in wrong)
    made = ("", "") if sound else locate(plan, operands)
    lost, far = np.any(np.reshape(heard.marks, (-1, 2)), axis=0)
    if far or not sound:
        calls, parameters = _in_floats(plan, operands, again, calls, parameters)
    return Measurement(calls, loss, parameters, made, bool(lost), sorted(exact.nonlinear), found)


def _in_floats(
    plan: Plan, operands: Sequence[Any], values: dict[int, Any], calls: list[Call], parameters: list[Parameter]
) -> tuple[list[Call], list[Parameter]]:
    """The calls and parameters with what plain floats make of their gradients, as jax.grad does."""
    together = Together()
    ending = Ending(_of_gradient, operands[: len(parameters)], _wanted(plan, len(parameters)))
    walk = Pass("cotangent", size_alone, ending=ending, together=together)
    rest, own = together.fetched((_backward(plan, values, walk, jnp.ones((), plan.dtype)), walk.later))
    heard = walk.heard(own)
    plains = in_order(_unpacked(heard), [call.site for call in calls], backward=True)
    calls = [call._replace(plain=plain) for call, plain in zip(calls, plains, strict=True)]
    ends = {**heard.ends, **rest}
    numbers = [number(*np.asarray(ends[place], np.float64)) for place in range(len(parameters))]
    return calls, [one._replace(plain=plain) for one, plain in zip(parameters, numbers, strict=True)]


def _backward(plan: Plan, values: dict[int, Any], walk: Pass, cotangent: Any) -> dict[int, Any]:
    """A backward pass -> what is measured of those parameters whose gradients no group was the last to need.

    What is not needed again is given up, `values` of the forward pass and gradients of parameters, too.
    """
    own = {plan.program.inputs[-1]: cotangent}
    assert walk.ending is not None
    left = dict.fromkeys(walk.ending.places)
    for group in plan.backward:
        walk.step(group, own, values)
        for spent in (*group.spent, *group.ready):
            own.pop(spent, None)
            values.pop(spent, None)
        for ended in group.ready:
            left.pop(ended, None)
    return walk.end(own, values, list(left))


def _wanted(plan: Plan, gradients: int) -> dict[int, list[int]]:
    """The places of the parameters, by the number of their gradient in the program."""
    wanted: dict[int, list[int]] = defaultdict(list)
    for place, result in enumerate(plan.results[1 : 1 + gradients]):
        wanted[result].append(place)
    return wanted


@cache
def _pair(dtype: Any) -> Scaled:
    one = jnp.ones((), dtype)
    return jax.jit(jax.vmap(block))(jnp.stack([one, one / 3]))


@cache
def _of_parameter(dtype: Any) -> Callable[..., Any]:
    """One function for each dtype of the cotangent, so that it is compiled once."""
    return lambda parameter, gradient, again: of_parameter(parameter, gradient, again, jnp.ones((), dtype) / 3)


def _of_gradient(parameter: Any, gradient: Any) -> Any:
    return norm(gradient)


def of_parameter(parameter: Any, gradient: Any, again: Any, factor: Any) -> tuple[Any, Any]:
    """Norms of the parameter, of its gradient, and of what rounding makes of it; counts.

    gradient·factor − again is zero but for rounding: what a gradient is by mathematics passes through a factor that is
    no power of two; what is left of sums that cancel is rounded anew.
    """
    one, two = (coarsened(block(x), (1,) * jnp.ndim(block(x).mantissa)) for x in (gradient, again))
    top = jnp.maximum(one.exponent, two.exponent)
    difference = aligned(one, top) * factor.astype(one.mantissa.dtype) - aligned(two, top)
    norms = [norm(parameter), norm(gradient), norm(Scaled(difference, top))]
    return jnp.stack(norms), counts([gradient])


def _parameter(norms: np.ndarray, narrow: np.ndarray) -> Parameter:
    own, gradient, rounding = (number(*one) for one in np.asarray(norms, np.float64))
    return Parameter(own, gradient, gradient, rounding, narrow)


def _unpacked(heard: Heard) -> list[tuple[Site, Record]]:
    return [(site, unpacked(one)) for site, one in heard.records]


def _calls(values: Sequence[tuple[Site, Record]], backward: Sequence[tuple[Site, Record]]) -> list[Call]:
    """Each call with its gradient, and with the activations that come before the next."""
    order = [site for site, _ in values if site.role != "activation"]
    gradients = iter(in_order(backward, order, backward=True))
    calls: list[Call] = []
    for site, value in values:
        if site.role != "activation":
            gradient = next(gradients)
            calls.append(Call(site, value, gradient, gradient, []))
        elif calls:
            calls[-1].activations.append((site, value))
    return calls
