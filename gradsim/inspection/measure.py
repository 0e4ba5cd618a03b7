"""The walk through a model's program: forward, backward in block floating point, backward in plain floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import aligned, block, coarsened, log_norm_parts
from gradsim.inspection.differentiate import Plan
from gradsim.inspection.formats import counts_of
from gradsim.inspection.gains import Gain, gains
from gradsim.inspection.groups import Group
from gradsim.inspection.interpreter import Interpreter
from gradsim.inspection.locate import locate
from gradsim.inspection.records import Record, Site, in_order, norm, number, unpacked
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


class Measurement(NamedTuple):
    """Of one model at its inputs; norms are numbers in block floating point, on the host."""

    calls: list[Call]
    loss: Any
    norms: list[Any]
    plain_norms: list[Any]
    narrow: list[Any]  # what formats.counts counts in each parameter's gradient
    rounding: list[Any]  # of the gradients, relative to their norms
    made: tuple[str, str]  # the first operations that make what is not finite, forward and backward
    lost: bool
    nonlinear: list[str]
    gains: dict[int, Gain] | None  # by the number of the call, where they are wanted


def measure(plan: Plan, operands: Sequence[Any], gradients: int, *, with_gains: bool) -> Measurement:
    """`operands` are the program's inputs but the cotangent, and its first `gradients` results after the loss are
    the parameters' gradients."""
    program = plan.program
    values = {**program.constants, **dict(zip(program.inputs[:-1], operands, strict=True))}
    forward = Interpreter("value")
    forward.walk(plan.forward, values)
    found = gains(program, values) if with_gains else None
    one = jnp.ones((), plan.dtype)
    third = one / 3

    def walk(cotangent: Any, groups: Sequence[Group] = plan.backward) -> tuple[Interpreter, list[Any]]:
        backward = Interpreter("cotangent")
        known = {**values, program.inputs[-1]: cotangent}
        backward.walk(groups, known)
        return backward, [known[i] for i in program.outputs][: 1 + gradients]

    plain, results = walk(one)
    plain_norms = norms_of(results[1:])
    exact, results = walk(block(one))
    norms = norms_of(results[1:])
    narrow = counts_of(results[1:])
    again = walk(block(third), _unheard(plan.backward))[1]
    rounding = _fetched([jitted_rounding(*pair, third) for pair in zip(results[1:], again[1:], strict=True)])
    lost = any(bool(one) for one in jax.device_get(exact.lost))
    calls = _calls(forward, exact, plain)
    loss = jax.device_get(results[0])
    sizes = [loss, *(one.mantissa for one in norms)]
    counts = [record.not_finite for call in calls for record in (call.value, call.gradient) if record is not None]
    sound = np.isfinite(sizes).all() and not any(np.nansum(count) for count in counts)
    made = ("", "") if sound else locate(plan, operands)
    nonlinear = sorted(exact.nonlinear)
    return Measurement(calls, loss, norms, plain_norms, narrow, rounding, made, lost, nonlinear, found)


def _unheard(groups: Sequence[Group]) -> list[Group]:
    """The same groups, whose taps outside loops note nothing: noting takes time."""
    return [
        one._replace(taps={kind: [] for kind in one.taps})
        if one.equations[0].source.primitive.name == "gradsim_tap"
        else one
        for one in groups
    ]


jitted_norm = jax.jit(norm)


@jax.jit
def jitted_rounding(gradient: Any, again: Any, factor: Any) -> Any:
    """The norm of gradient·factor − again, which is zero but for rounding.

    What a gradient is by mathematics passes through a factor that is no power of two; what is left of sums that cancel
    is rounded anew.
    """
    one, two = (coarsened(block(x), (1,) * jnp.ndim(block(x).mantissa)) for x in (gradient, again))
    top = jnp.maximum(one.exponent, two.exponent)
    difference = aligned(one, top) * factor.astype(one.mantissa.dtype) - aligned(two, top)
    size = log_norm_parts([Scaled(difference, top)])
    return jnp.stack([size.mantissa, size.exponent.astype(size.mantissa.dtype)])


def norms_of(values: Sequence[Any]) -> list[Any]:
    """The norm of each array, on the host."""
    return _fetched([jitted_norm(x) for x in values])


def _fetched(pairs: Sequence[Any]) -> list[Any]:
    return [number(*np.asarray(pair, np.float64)) for pair in jax.device_get(pairs)]


def _calls(forward: Interpreter, exact: Interpreter, plain: Interpreter) -> list[Call]:
    """Each call with its gradient, and with the activations that come before the next."""
    values, *backward = (_noted(walk) for walk in (forward, exact, plain))
    order = [site for site, _ in values if site.role != "activation"]
    gradients, plains = (iter(in_order(notes, order, backward=True)) for notes in backward)
    calls: list[Call] = []
    for site, value in values:
        if site.role != "activation":
            calls.append(Call(site, value, next(gradients), next(plains), []))
        elif calls:
            calls[-1].activations.append((site, value))
    return calls


def _noted(walk: Interpreter) -> list[tuple[Site, Record]]:
    records = jax.device_get([record for _, record in walk.records])
    return [(site, unpacked(record)) for (site, _), record in zip(walk.records, records, strict=True)]
