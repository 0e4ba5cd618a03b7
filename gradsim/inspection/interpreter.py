"""A program interpreted equation by equation, its linear part in block floating point.

Each distinct equation is compiled once and the program is walked from Python: compiled as a whole, XLA copies the
chain of exponents into every fusion, and the time to compile grows faster than any power of the depth. A loop is one
equation, and so one program.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from gradsim.inspection import control_flow, movement, rules
from gradsim.inspection.block_floats import has_range, is_block
from gradsim.inspection.jax_versions import bind
from gradsim.inspection.program import Equation, flatten
from gradsim.inspection.records import Site, record
from gradsim.inspection.saturation import saturated, saturating
from gradsim.inspection.structure import activation, sites
from gradsim.scaled import Scaled

Note = Callable[..., Any]  # (operands of a tap, units=) -> arrays
LOOPS = {"scan": control_flow.scan, "while": control_flow.while_loop, "cond": control_flow.cond}
TOGETHER = ("add", "sub", "add_any", "select_n")
UNARY = ("neg", "copy", "copy_p", "convert_element_type", "reduce_precision", "real", "imag", "conj", "name")
CUMULATIVE = ("cumsum",)
RULES = {
    **dict.fromkeys(TOGETHER, rules.together),
    **dict.fromkeys(UNARY, rules.unary),
    **dict.fromkeys(movement.PLACES, movement.moved),
    **dict.fromkeys(CUMULATIVE, movement.cumulative),
    "sharding_constraint": rules.unary,
    "optimization_barrier": rules.barrier,
    "mul": rules.product,
    "div": rules.quotient,
    "dot_general": rules.dot,
    "concatenate": movement.concatenate,
    "dynamic_slice": movement.dynamic_slice,
    "dynamic_update_slice": movement.dynamic_update_slice,
    "pad": movement.pad,
    "reduce_sum": movement.reduce_sum,
}
# Not linear, and yet exact at any size, since a common factor of two passes through.
HOMOGENEOUS = {
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), rules.together),
    **dict.fromkeys(("max", "min", "clamp"), rules.choice),
    **dict.fromkeys(("integer_pow", "square"), rules.power),
    **dict.fromkeys(("reduce_max", "reduce_min", "argmax", "argmin"), rules.generic),
    "sqrt": rules.square_root,
    "abs": rules.unary,
}


def rule_of(equation: Any, operands: Sequence[Any]) -> tuple[Any, bool]:
    """The rule of an equation, and whether it is linear in its operands in blocks."""
    name = equation.primitive.name
    if name in HOMOGENEOUS:
        return HOMOGENEOUS[name], False
    blocks = [is_block(x) for x in operands]
    if name in RULES:
        linear = not (name in ("mul", "dot_general") and all(blocks)) and not (name == "div" and blocks[1])
        return RULES[name], linear and not (name == "select_n" and blocks[0])
    several = name == "conv_general_dilated" and all(blocks)
    if equation.primitive in ad.primitive_transposes and not several:
        return rules.generic, True
    return rules.true_size, False


class Interpreter:
    """One walk through a program: what its taps of one kind noted, and what was lost or is not linear on the way."""

    def __init__(self, kind: str, note: Note = record) -> None:
        self.kind, self.note = kind, note  # the taps that are heard, and what is noted of their operands
        self.records: list[tuple[Site, Any]] = []
        self.lost: list[Any] = []
        self.far: list[Any] = []
        self.nonlinear: set[str] = set()

    def trace(
        self, equations: Sequence[Equation], values: dict[int, Any], activations: Collection[int] | None = None
    ) -> None:
        """Evaluates equations within a program that is being compiled; `activations`, where known, are noted, too."""
        for place, (equation, ins, outs) in enumerate(equations):
            values.update(zip(outs, self._evaluate(equation, [values[i] for i in ins]), strict=True))
            known = saturating(equations, place) if activations is None else place in activations
            if known and self.kind == "value":
                self.records.append((activation(equation), saturated(equation.primitive.name, values[outs[0]])))

    def _evaluate(self, equation: Any, operands: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if name == "gradsim_tap":
            self.records += [
                (site, self.note(operands, units=self.kind == "value")) for site in sites(equation, self.kind)
            ]
            return operands
        blocks = any(map(is_block, operands))
        if name in LOOPS and (blocks or sites(equation, self.kind)):
            outs, notes = LOOPS[name](equation, operands, self._run)
            self._hear(notes)
            return outs
        if not blocks:
            return bind(equation, operands)
        rule, linear = rule_of(equation, operands)
        if not linear:
            self.nonlinear.add(name)
        outs, lost, far = rule(equation, operands, lambda plain: bind(equation, plain))
        self.lost += [] if lost is None else [lost]
        self.far += [far] if far is not None else []
        self.far += [_beyond(out) for out in outs if is_block(out)]
        return outs

    def marked(self) -> Any:
        """Were entries lost, and may the same program of plain floats have left their range?"""
        return jnp.stack([jnp.any(jnp.stack(ones)) if ones else jnp.bool_(False) for ones in (self.lost, self.far)])

    def _run(self, closed: Any, operands: Sequence[Any]) -> tuple[list[Any], Any]:
        """A program within a loop: its results, and what was noted, for the loop to hand on."""
        inner = Interpreter(self.kind, self.note)
        program = flatten(closed)
        values = {**program.constants, **dict(zip(program.inputs, operands, strict=True))}
        inner.trace(program.equations, values)
        self.nonlinear |= inner.nonlinear
        notes = Notes([site for site, _ in inner.records], [record for _, record in inner.records], inner.marked())
        return [values[i] for i in program.outputs], notes

    def _hear(self, notes: Any) -> None:
        if notes is None:  # what a while loop does is not known here
            self.far.append(jnp.bool_(True))
        for one in notes if isinstance(notes, list) else [notes] if notes is not None else []:
            self.records += zip(one.sites, one.records, strict=True)
            self.lost.append(jnp.any(one.marks[..., 0]))
            self.far.append(jnp.any(one.marks[..., 1]))


def _beyond(value: Scaled) -> Any:
    """Is it of floats of a narrow range, or too large?"""
    return jnp.any(value.exponent > rules.HIGH) if has_range(value.mantissa.dtype) else jnp.bool_(True)


@jax.tree_util.register_pytree_node_class
class Notes:
    """What the taps within a loop or branch noted, and whether anything was lost, or far, there."""

    def __init__(self, sites: Sequence[Site], records: Sequence[Any], marks: Any) -> None:
        self.sites, self.records, self.marks = tuple(sites), list(records), marks

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.records, self.marks), self.sites

    @classmethod
    def tree_unflatten(cls, sites: Any, children: Any) -> "Notes":
        return cls(sites, *children)
