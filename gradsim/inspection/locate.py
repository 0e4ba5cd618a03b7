"""Where values that are not finite begin: the first operation that makes one of operands that are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import block, coarsened, is_block, with_rows
from gradsim.inspection.differentiate import Plan, first_linear
from gradsim.inspection.interpreter import Interpreter
from gradsim.inspection.jax_versions import scan_sizes, written_at
from gradsim.inspection.program import Equation, Program, flatten
from gradsim.inspection.taps import is_float
from gradsim.scaled import Scaled


class Place(NamedTuple):
    """An operation, the innermost layer that runs it, and the step of each scan and loop around it."""

    operation: str
    layer: str
    steps: tuple[int, ...]
    written: str

    def __str__(self) -> str:
        layer = f" in {self.layer}" if self.layer else ""
        steps = f", step {', '.join(str(step + 1) for step in self.steps)}" if self.steps else ""
        return f"{self.operation}{layer}{steps}{f' ({self.written})' if self.written else ''}"


def locate(plan: Plan, operands: Sequence[Any]) -> tuple[str, str]:
    """The first such operation of the forward and of the backward pass, "" where there is none.

    An operation makes what is not finite where it gives infinity for finite operands, or NaN for operands without:
    so a mask of −inf is none. Equations run one by one, steps of scans, too.
    """
    program = plan.program
    cut = first_linear(program, program.inputs[-1:])
    values = {**program.constants, **dict(zip(program.inputs[:-1], operands, strict=True))}
    values[program.inputs[-1]] = block(jnp.ones((), plan.dtype))
    forward = _search(program.equations[:cut], values, _Calls("value"), ())
    if forward is not None:  # go on to the end of the forward pass, for what the backward pass needs
        for equation in program.equations[:cut]:
            if any(number not in values for number in equation.outs):
                values.update(zip(equation.outs, _evaluated(equation, values), strict=True))
    backward = _search(program.equations[cut:], values, _Calls("cotangent"), ())
    return str(forward or ""), str(backward or "")


class _Calls:
    """The calls of layers that are open; the backward pass comes into a layer by its output."""

    def __init__(self, kind: str) -> None:
        self.kind, self.opens = kind, "enter" if kind == "value" else "output"
        self.open: list[str] = []

    def passed(self, params: Any) -> None:
        if params["kind"] != self.kind or params["role"] == "input":
            return
        layer = params["layer"] or "model"
        if params["role"] == self.opens:
            self.open.append(layer)
        elif layer in self.open:
            del self.open[self.open.index(layer) :]

    def innermost(self) -> str:
        return self.open[-1] if self.open else ""


def _search(
    equations: Sequence[Equation], values: dict[int, Any], calls: _Calls, steps: tuple[int, ...]
) -> Place | None:
    for equation in equations:
        source = equation.source
        operands = [values[number] for number in equation.ins]
        name = source.primitive.name
        if name == "gradsim_tap":
            calls.passed(source.params)
            values.update(zip(equation.outs, operands, strict=True))
            continue
        if name in STEPPED:
            outs, place = STEPPED[name](source, operands, calls, steps)
            if place is not None:
                return place
        else:
            outs = _evaluated(equation, values)
            if _makes(operands, outs):
                return Place(name, calls.innermost(), steps, written_at(source))
        values.update(zip(equation.outs, outs, strict=True))
    return None


def _evaluated(equation: Equation, values: dict[int, Any]) -> list[Any]:
    known = {number: values[number] for number in equation.ins}
    Interpreter("none").trace([equation], known)
    return [known[number] for number in equation.outs]


def _within(closed: Any, operands: Sequence[Any], calls: _Calls, steps: tuple[int, ...]) -> tuple[list[Any], Any]:
    program: Program = flatten(closed)
    values = {**program.constants, **dict(zip(program.inputs, operands, strict=True))}
    place = _search(program.equations, values, calls, steps)
    return ([] if place is not None else [values[number] for number in program.outputs]), place


def _scan(source: Any, operands: Sequence[Any], calls: _Calls, steps: tuple[int, ...]) -> tuple[list[Any], Any]:
    params = source.params
    constants, carried = scan_sizes(params)
    fixed, carry = operands[:constants], list(operands[constants : constants + carried])
    length = params["length"]
    rows = [with_rows(x, length) if is_block(x) else x for x in operands[constants + carried :]]
    stacked: list[Any] = [None] * length
    for step in range(length)[:: -1 if params["reverse"] else 1]:
        taken = jax.tree.map(lambda x, step=step: x[step], rows)
        outs, place = _within(params["jaxpr"], [*fixed, *carry, *taken], calls, (*steps, step))
        if place is not None:
            return [], place
        carry, stacked[step] = outs[:carried], outs[carried:]
    return [*carry, *map(_stacked, zip(*stacked, strict=True))], None


def _stacked(values: Sequence[Any]) -> Any:
    if not any(map(is_block, values)):
        return jnp.stack(values)
    blocks = [coarsened(one, (1,) * one.mantissa.ndim) for one in map(block, values)]
    return Scaled(jnp.stack([one.mantissa for one in blocks]), jnp.stack([one.exponent for one in blocks]))


def _while(source: Any, operands: Sequence[Any], calls: _Calls, steps: tuple[int, ...]) -> tuple[list[Any], Any]:
    params = source.params
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body = operands[:tests], operands[tests : tests + bodies]
    carry, step = list(operands[tests + bodies :]), 0
    while bool(_within(params["cond_jaxpr"], [*of_test, *carry], calls, steps)[0][0]):
        carry, place = _within(params["body_jaxpr"], [*of_body, *carry], calls, (*steps, step))
        if place is not None:
            return [], place
        step += 1
    return carry, None


def _cond(source: Any, operands: Sequence[Any], calls: _Calls, steps: tuple[int, ...]) -> tuple[list[Any], Any]:
    branches = source.params["branches"]
    which = min(max(int(operands[0]), 0), len(branches) - 1)
    return _within(branches[which], operands[1:], calls, steps)


STEPPED = {"scan": _scan, "while": _while, "cond": _cond}


def _makes(operands: Sequence[Any], outs: Sequence[Any]) -> bool:
    before, after = _kinds(operands), _kinds(outs)
    return ("nan" in after and "nan" not in before) or ("inf" in after and not before)


def _kinds(values: Sequence[Any]) -> set[str]:
    found = set()
    for value in values:
        value = value.mantissa if is_block(value) else value
        if not is_float(value):
            continue
        x = np.asarray(value)
        found |= {name for name, hit in (("nan", np.isnan(x)), ("inf", np.isinf(x))) if hit.any()}
    return found
