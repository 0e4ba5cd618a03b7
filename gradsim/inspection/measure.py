"""The walk through a model's program: forward, backward in block floating point, and backward in plain floats where
these may leave their range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import aligned, block, coarsened
from gradsim.inspection.differentiate import Plan
from gradsim.inspection.formats import counts
from gradsim.inspection.gains import Gain, gains
from gradsim.inspection.interpreter import Interpreter
from gradsim.inspection.locate import locate
from gradsim.inspection.records import Record, Site, in_order, norm, number, record, size_alone, unpacked
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
    forward = Interpreter("value", together=together)
    forward.walk(plan.forward, values)
    loss = values[plan.results[0]]
    found = gains(program, values) if with_gains else None
    exact, of_parameters = _exactly(plan, values, operands[:gradients], together)
    records = [[record for _, record in walk.records] for walk in (forward, exact)]
    loss, of_parameters, marks, records = together.fetched((loss, of_parameters, exact.marks, records))
    parameters = [_parameter(*one) for one in of_parameters]
    calls = _calls(_noted(forward, records[0]), _noted(exact, records[1]))
    sizes = [loss, *(one.gradient.mantissa for one in parameters)]
    wrong = [record.not_finite for call in calls for record in (call.value, call.gradient) if record is not None]
    sound = np.isfinite(sizes).all() and not any(np.nansum(count) for count in wrong)
    made = ("", "") if sound else locate(plan, operands)
    lost, far = np.any(np.reshape(marks, (-1, 2)), axis=0)
    if far or not sound:
        calls, parameters = _in_floats(plan, operands, calls, parameters)
    return Measurement(calls, loss, parameters, made, bool(lost), sorted(exact.nonlinear), found)


def _exactly(
    plan: Plan, values: dict[int, Any], parameters: Sequence[Any], together: Together
) -> tuple[Interpreter, list[Any]]:
    """Two backward passes abreast in blocks: of one, and of a third, whose numbers round otherwise."""
    one = jnp.ones((), plan.dtype)
    third = one / 3
    exact = Interpreter("cotangent", together=together)
    again = Interpreter("cotangent", silent=True)

    def ended(place: int, gradients: Sequence[Any]) -> Any:
        return together(of_parameter, parameters[place], *gradients, third)

    found = _backward(plan, values, [(exact, block(one)), (again, block(third))], len(parameters), ended)
    return exact, found


def _in_floats(
    plan: Plan, operands: Sequence[Any], calls: list[Call], parameters: list[Parameter]
) -> tuple[list[Call], list[Parameter]]:
    """The calls and parameters with what plain floats make of their gradients, as jax.grad does."""
    program, together = plan.program, Together()
    values = {**program.constants, **dict(zip(program.inputs[:-1], operands, strict=True))}
    Interpreter("none").walk(plan.forward, values)
    walk = Interpreter("cotangent", size_alone, together=together)
    one = jnp.ones((), plan.dtype)
    found = _backward(plan, values, [(walk, one)], len(parameters), lambda _, gradients: together(norm, *gradients))
    sizes, records = together.fetched((found, [record for _, record in walk.records]))
    plains = in_order(_noted(walk, records), [call.site for call in calls], backward=True)
    calls = [call._replace(plain=plain) for call, plain in zip(calls, plains, strict=True)]
    numbers = [number(*np.asarray(size, np.float64)) for size in sizes]
    return calls, [one._replace(plain=plain) for one, plain in zip(parameters, numbers, strict=True)]


def _backward(
    plan: Plan,
    values: dict[int, Any],
    passes: Sequence[tuple[Interpreter, Any]],
    gradients: int,
    ended: Callable[[int, Sequence[Any]], Any],
) -> list[Any]:
    """Backward passes abreast, each of a cotangent -> what `ended` gives for each parameter, of its gradients.

    What none needs again is given up, `values` of the forward pass and gradients of parameters, too.
    """
    owns = [{plan.program.inputs[-1]: cotangent} for _, cotangent in passes]
    found: list[Any] = [None] * gradients
    wanted: dict[int, list[int]] = defaultdict(list)
    for place, result in enumerate(plan.results[1 : 1 + gradients]):
        wanted[result].append(place)

    def end(result: int) -> None:
        several = [own[result] if result in own else values[result] for own in owns]
        for place in wanted.pop(result, ()):
            found[place] = ended(place, several)

    for group in plan.backward:
        for (walk, _), own in zip(passes, owns, strict=True):
            walk.step(group, own, values)
        for result in group.ready:
            end(result)
        for spent in (*group.spent, *group.ready):
            for known in (*owns, values):
                known.pop(spent, None)
    for result in list(wanted):
        end(result)
    return found


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


def _noted(walk: Interpreter, records: Sequence[Any]) -> list[tuple[Site, Record]]:
    return [(site, unpacked(one)) for (site, _), one in zip(walk.records, records, strict=True)]


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
