"""A program interpreted equation by equation, its linear part in block floating point.

Each distinct equation is compiled once and the program is walked from Python: compiled as a whole, XLA copies the
chain of exponents into every fusion, and the time to compile grows faster than any power of the depth. A loop is one
equation, and so one program.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jax.interpreters import ad

from gradsim.inspection import control_flow, movement, rules
from gradsim.inspection.block_floats import is_block
from gradsim.inspection.jax_versions import bind, programs
from gradsim.inspection.program import Program, flatten
from gradsim.inspection.records import Record, Site, record

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

    def __init__(self, kind: str, compiled: dict[Any, Any] | None = None) -> None:
        self.kind = kind  # of the taps that are heard
        self.compiled = compiled  # None within a program that is being compiled
        self.records: list[tuple[Site, Any]] = []
        self.lost: list[Any] = []
        self.nonlinear: set[str] = set()

    def walk(self, program: Program, values: dict[int, Any], start: int = 0, stop: int | None = None) -> None:
        """Evaluates equations; `values` holds what is known by its number, and loses what no equation needs again."""
        for equation, ins, outs, spent in program.equations[start:stop]:
            results = self.evaluate(equation, [values[i] for i in ins])
            values.update(zip(outs, results, strict=True))
            for i in spent:
                values.pop(i, None)

    def evaluate(self, equation: Any, operands: list[Any]) -> list[Any]:
        if equation.primitive.name == "gradsim_tap":
            return self._tap(equation, operands)
        if self.compiled is None:
            return self.trace(equation, operands)
        program = self.compiled.get(key := (*map(is_block, operands), _key(equation, self.kind)))
        if program is None:
            program = self.compiled[key] = Compiled(equation, self.kind)
        outs, notes, lost = program(*operands)
        self.records += zip(program.sites, notes, strict=True)
        self.lost += lost
        self.nonlinear |= program.nonlinear
        return outs

    def trace(self, equation: Any, operands: Sequence[Any]) -> list[Any]:
        """The results of an equation, within a program that is being compiled."""
        blocks = any(map(is_block, operands))
        if equation.primitive.name in LOOPS and (blocks or has_taps(equation, self.kind)):
            outs, notes = LOOPS[equation.primitive.name](equation, operands, self._run)
            self._hear(notes)
            return outs
        if not blocks:
            return bind(equation, operands)
        rule, linear = rule_of(equation, operands)
        if not linear:
            self.nonlinear.add(equation.primitive.name)
        outs, lost = rule(equation, operands, lambda plain: bind(equation, plain))
        self.lost += [] if lost is None else [lost]
        return outs

    def _run(self, closed: Any, operands: Sequence[Any]) -> tuple[list[Any], Any]:
        """A program within a loop: its results, and what was noted, for the loop to hand on."""
        inner = Interpreter(self.kind)
        program = flatten(closed)
        values = {**program.constants, **dict(zip(program.inputs, operands, strict=True))}
        inner.walk(program, values)
        self.nonlinear |= inner.nonlinear
        lost = jnp.any(jnp.stack(inner.lost)) if inner.lost else jnp.zeros((), bool)
        return [values[i] for i in program.outputs], Notes(
            [s for s, _ in inner.records], [r for _, r in inner.records], lost
        )

    def _hear(self, notes: Any) -> None:
        for one in notes if isinstance(notes, list) else [notes] if notes is not None else []:
            self.records += zip(one.sites, one.records, strict=True)
            self.lost.append(jnp.any(one.lost))

    def _tap(self, equation: Any, operands: list[Any]) -> list[Any]:
        if equation.params["kind"] == self.kind:
            shapes = [atom.aval.shape for atom in equation.invars]
            units = sum(shape[-1] if shape else 1 for shape in shapes)
            site = Site(**equation.params, entries=sum(map(math.prod, shapes)), units=units)
            note = record if self.compiled is None else jitted_record
            self.records.append((site, note(operands, units=self.kind == "value")))
        return operands


jitted_record = jax.jit(record, static_argnames="units")


@jax.tree_util.register_pytree_node_class
class Notes:
    """What the taps within a loop or branch noted, and whether anything was lost there."""

    def __init__(self, sites: Sequence[Site], records: Sequence[Record], lost: Any) -> None:
        self.sites, self.records, self.lost = tuple(sites), list(records), lost

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.records, self.lost), self.sites

    @classmethod
    def tree_unflatten(cls, sites: Any, children: Any) -> "Notes":
        return cls(sites, *children)


class Compiled:
    """An equation as a compiled program; one for all equations that are alike but for their operands."""

    def __init__(self, equation: Any, kind: str) -> None:
        self.sites: list[Site] = []
        self.nonlinear: set[str] = set()

        def evaluate(*operands: Any) -> Any:
            inner = Interpreter(kind)
            outs = inner.trace(equation, operands)
            self.sites = [site for site, _ in inner.records]
            self.nonlinear = inner.nonlinear
            return outs, [note for _, note in inner.records], inner.lost

        self.call = jax.jit(evaluate)

    def __call__(self, *operands: Any) -> Any:
        return self.call(*operands)


def _key(equation: Any, kind: str) -> Any:
    """Equal for equations that do the same; those whose parameters have no hash are alike only with themselves."""
    loops = equation.primitive.name in LOOPS
    zero = equation.primitive.name == "pad" and isinstance(equation.invars[1], Literal)
    try:
        key = (equation.primitive, tuple(sorted(equation.params.items())), zero, kind if loops else "")
        hash(key)
    except TypeError:
        return id(equation), kind
    return key


def has_taps(equation: Any, kind: str) -> bool:
    """Is there a tap of this kind in the programs within the equation?"""
    for program in programs(equation.params):
        for inner in getattr(program, "jaxpr", program).eqns:
            if inner.primitive.name == "gradsim_tap" and inner.params["kind"] == kind:
                return True
            if has_taps(inner, kind):
                return True
    return False
