"""A program as a flat list of equations: what only calls another program is replaced by that program's equations."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from gradsim.inspection.jax_versions import called, opened


class Equation(NamedTuple):
    """An equation, with the numbers of its operands and of its results."""

    source: Any
    ins: tuple[int, ...]
    outs: tuple[int, ...]


class Program(NamedTuple):
    """Equations in order, with their constants by number, and the numbers of inputs and outputs."""

    equations: list[Equation]
    constants: dict[int, Any]
    inputs: list[int]
    outputs: list[int]


def flatten(closed: Any) -> Program:
    """The flat form of a closed program."""
    flat = _Flat()
    jaxpr, constants = opened(closed)
    inputs = [flat.new() for _ in jaxpr.invars]
    outputs = flat.inline(jaxpr, [flat.constant(value) for value in constants], inputs)
    return Program(flat.equations, flat.constants, inputs, outputs)


def read(known: Mapping[Any, Any], atom: Any) -> Any:
    """That of an operand or a result: a literal has its own."""
    if not isinstance(atom, Literal):
        return known[atom]
    aval: Any = atom.aval
    return jnp.asarray(atom.val, aval.dtype)


class Numbered:
    """Equations and constants as they are found, with the numbers of all values."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.constants: dict[int, Any] = {}
        self.literals: dict[Any, int] = {}
        self.count = 0

    def new(self) -> int:
        self.count += 1
        return self.count

    def constant(self, value: Any) -> int:
        number = self.new()
        self.constants[number] = value
        return number

    def literal(self, atom: Any) -> int:
        value = np.asarray(atom.val, getattr(atom.aval, "dtype", None))
        key = (value.dtype, value.shape, value.tobytes())
        if key not in self.literals:
            with jax.ensure_compile_time_eval():  # an array while another program is traced, too
                self.literals[key] = self.constant(jnp.asarray(value))
        return self.literals[key]


class _Flat(Numbered):
    def inline(self, jaxpr: Any, constants: list[int], inputs: list[int]) -> list[int]:
        numbers: dict[Any, int] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

        def read(atom: Any) -> int:
            return self.literal(atom) if isinstance(atom, Literal) else numbers[atom]

        for equation in jaxpr.eqns:
            ins = [read(atom) for atom in equation.invars]
            program = called(equation)
            if program is not None:
                inner, values = opened(program)
                outs = self.inline(inner, [self.constant(value) for value in values], ins)
            else:
                outs = [self.new() for _ in equation.outvars]
                self.equations.append(Equation(equation, tuple(ins), tuple(outs)))
            numbers.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]
