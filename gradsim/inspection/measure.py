"""The walk through a model's program: forward, backward in block floating point, backward in plain floats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
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
    plain, exact, of_parameters = _backward(plan, values, operands[:gradients], together)
    walks = (forward, exact, plain)
    records = [[record for _, record in walk.records] for walk in walks]
    loss, of_parameters, lost, records = together.fetched((loss, of_parameters, exact.lost, records))
    noted = (
        zip((site for site, _ in walk.records), map(unpacked, one), strict=True)
        for walk, one in zip(walks, records, strict=True)
    )
    calls = _calls(*map(list, noted))
    parameters = [_parameter(*one) for one in of_parameters]
    sizes = [loss, *(one.gradient.mantissa for one in parameters)]
    wrong = [record.not_finite for call in calls for record in (call.value, call.gradient) if record is not None]
    sound = np.isfinite(sizes).all() and not any(np.nansum(count) for count in wrong)
    made = ("", "") if sound else locate(plan, operands)
    return Measurement(calls, loss, parameters, made, bool(np.any(lost)), sorted(exact.nonlinear), found)


def _backward(
    plan: Plan, values: dict[int, Any], parameters: Sequence[Any], together: Together
) -> tuple[Interpreter, Interpreter, list[Any]]:
    """Three backward passes abreast: in plain floats, in blocks, and of a third in blocks, whose numbers round
    otherwise. What none needs again is given up, `values` of the forward pass and gradients of parameters, too."""
    program = plan.program
    one = jnp.ones((), plan.dtype)
    third = one / 3
    walks = [Interpreter("cotangent", note, together=together) for note in (size_alone, record, record)]
    owns = [{program.inputs[-1]: cotangent} for cotangent in (one, block(one), block(third))]
    found: list[Any] = [None] * len(parameters)
    wanted: dict[int, list[int]] = defaultdict(list)
    for place, result in enumerate(plan.results[1 : 1 + len(parameters)]):
        wanted[result].append(place)

    def ended(result: int) -> None:
        gradients = [own[result] if result in own else values[result] for own in owns]
        for place in wanted.pop(result, ()):
            found[place] = together(of_parameter, parameters[place], *gradients, third)

    for group in plan.backward:
        for walk, own in zip(walks, owns, strict=True):
            walk.step(group, own, values, silent=walk is walks[2])
        for result in group.ready:
            ended(result)
        for spent in (*group.spent, *group.ready):
            for known in (*owns, values):
                known.pop(spent, None)
    for result in list(wanted):
        ended(result)
    return walks[0], walks[1], found


def of_parameter(parameter: Any, plain: Any, gradient: Any, again: Any, factor: Any) -> tuple[Any, Any]:
    """Norms of the parameter, of its gradient and of that in plain floats, and of what rounding makes of it; counts.

    gradient·factor − again is zero but for rounding: what a gradient is by mathematics passes through a factor that is
    no power of two; what is left of sums that cancel is rounded anew.
    """
    one, two = (coarsened(block(x), (1,) * jnp.ndim(block(x).mantissa)) for x in (gradient, again))
    top = jnp.maximum(one.exponent, two.exponent)
    difference = aligned(one, top) * factor.astype(one.mantissa.dtype) - aligned(two, top)
    norms = [norm(parameter), norm(gradient), norm(plain), norm(Scaled(difference, top))]
    return jnp.stack(norms), counts([gradient])


def _parameter(norms: np.ndarray, narrow: np.ndarray) -> Parameter:
    own, gradient, plain, rounding = (number(*one) for one in np.asarray(norms, np.float64))
    return Parameter(own, gradient, plain, rounding, narrow)


def _calls(*walks: Sequence[tuple[Site, Record]]) -> list[Call]:
    """Each call with its gradient, and with the activations that come before the next."""
    values, *backward = walks
    order = [site for site, _ in values if site.role != "activation"]
    gradients, plains = (iter(in_order(notes, order, backward=True)) for notes in backward)
    calls: list[Call] = []
    for site, value in values:
        if site.role != "activation":
            calls.append(Call(site, value, next(gradients), next(plains), []))
        elif calls:
            calls[-1].activations.append((site, value))
    return calls
