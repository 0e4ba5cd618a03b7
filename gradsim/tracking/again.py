"""An update computed again from what a step of training keeps anyway, so that it need not be kept for its norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Literal

from gradsim.inspection.jax_versions import bind, called, evaluated, opened
from gradsim.inspection.program import Equation, Numbered, Program
from gradsim.inspection.structure import program_key

SMALL = 64  # entries, up to which an array costs nothing to keep
# Equations that take entry by entry, which XLA merges with their readers. The results of others are in memory.
CHEAP = frozenset(
    """
    abs add add_any and broadcast_in_dim clamp conj convert_element_type copy copy_p cos div eq exp exp2 expm1 ge gt
    imag integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow real reshape rsqrt select_n sign
    sin sqrt square squeeze sub tanh transpose xor
    """.split()  # noqa: SIM905
)
# Of those, what costs no time beside reading an array.
LIGHT = frozenset(
    "abs add add_any broadcast_in_dim convert_element_type copy mul neg reshape squeeze sub".split()  # noqa: SIM905
)


class Function:
    """A program of one result, equal to those that do the same, and so static under `jax.jit`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.key = program_key(program)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.key == other.key

    def __call__(self, *operands: Array) -> Array:
        known = {**self.program.constants, **dict(zip(self.program.inputs, operands, strict=True))}
        for equation in self.program.equations:
            results = bind(equation.source, [known[number] for number in equation.ins])
            known.update(zip(equation.outs, results, strict=True))
        return known[self.program.outputs[0]]

    @property
    def light(self) -> bool:
        """Is it faster to compute the array twice than to write it?"""
        return all(
            one.source.primitive.name in LIGHT or math.prod(one.source.outvars[0].aval.shape) <= SMALL
            for one in self.program.equations
        )


IDENTITY = Function(Program([], {}, [0], [0]))


class Again(NamedTuple):
    """An update as a function of arrays."""

    compute: Function
    operands: Sequence[Array]


def updated(
    update: Callable[..., tuple[Any, Any]], gradients: Any, state: Any, params: Any, extra: Mapping[str, Any]
) -> tuple[Any, Any, list[Again]]:
    """Updates, state, and each leaf of the updates as a function of gradients, parameters, new state and scalars.

    Of itself where it is no cheap function of these, and where nothing is traced.
    """
    leaves, tree = jax.tree.flatten((gradients, state, params))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Array)]
    values = [leaves[place] for place in places]
    if not any(isinstance(value, jax.core.Tracer) for value in values):
        updates, after = update(gradients, state, params, **extra)
        return updates, after, [itself(leaf) for leaf in jax.tree.leaves(updates)]

    def of_arrays(values: list[Array]) -> tuple[Any, Any]:
        filled = dict(enumerate(leaves)) | dict(zip(places, values, strict=True))
        return update(*jax.tree.unflatten(tree, filled.values()), **extra)

    closed, shapes = jax.make_jaxpr(of_arrays, return_shape=True)(values)
    jaxpr, _ = opened(closed)
    count, first = len(jax.tree.leaves(shapes[0])), len(jax.tree.leaves(gradients))
    old = range(first, first + len(jax.tree.leaves(state)))
    inputs = [atom for place, atom in zip(places, jaxpr.invars, strict=True) if place not in old]
    kept = {atom for atom in (*inputs, *jaxpr.constvars, *jaxpr.outvars[count:]) if not isinstance(atom, Literal)}
    outermost = _Frame(closed)
    ends = [_end(outermost, atom, kept) for atom in jaxpr.outvars[:count]]
    starts = list(dict.fromkeys(atom for start, _ in ends for atom in start))
    results = evaluated(closed, [*jaxpr.outvars, *starts], values)
    found = dict(zip(starts, results[len(jaxpr.outvars) :], strict=True))
    updates, after = jax.tree.unflatten(jax.tree.structure(shapes), results[: len(jaxpr.outvars)])
    again = [
        Again(compute, [found[atom] for atom in start]) if compute else itself(leaf)
        for (start, compute), leaf in zip(ends, results, strict=False)
    ]
    return updates, after, again


def itself(leaf: Any) -> Again:
    """An array as it is."""
    return Again(IDENTITY, [jnp.asarray(leaf)])


def _end(frame: _Frame, atom: Any, kept: set[Any]) -> tuple[list[Any], Function | None]:
    """The variables from which a result is computed again, and how; none where that takes what is not kept."""
    walk = _Walk(kept)
    try:
        end = walk.back(frame, atom)
    except _NotKept:
        return [], None
    program = Program(walk.equations, walk.constants, list(walk.starts.values()), [end])
    return list(walk.starts), Function(program)


class _NotKept(Exception):
    """A result is computed from an array that the step does not keep."""


class _Frame:
    """A program, and the equation of another that calls it."""

    def __init__(self, program: Any, outer: _Frame | None = None, caller: Any = None) -> None:
        jaxpr, constants = opened(program)
        self.outer, self.caller = outer, caller
        self.outputs = jaxpr.outvars
        self.inputs = {atom: place for place, atom in enumerate(jaxpr.invars)}
        self.constants = dict(zip(jaxpr.constvars, constants, strict=True))
        self.makers = {atom: equation for equation in jaxpr.eqns for atom in equation.outvars}
        self.called: dict[int, _Frame] = {}

    def inner(self, equation: Any) -> _Frame | None:
        """The program that one of its equations calls, if it does no more than that."""
        program = called(equation)
        if program is not None and id(equation) not in self.called:
            self.called[id(equation)] = _Frame(program, self, equation)
        return self.called.get(id(equation))


class _Walk(Numbered):
    """From a result back to what is kept, with the equations on the way in their order."""

    def __init__(self, kept: set[Any]) -> None:
        super().__init__()
        self.kept = kept
        self.starts: dict[Any, int] = {}
        self.known: dict[tuple[_Frame, Any], int] = {}

    def start(self, atom: Any) -> int:
        self.starts[atom] = self.new()
        return self.starts[atom]

    def back(self, frame: _Frame, atom: Any) -> int:
        """The number of an operand or a result."""
        if isinstance(atom, Literal):
            return self.literal(atom)
        if (frame, atom) not in self.known:
            kept = atom in self.kept or math.prod(atom.aval.shape) <= SMALL
            self.known[frame, atom] = self.start(atom) if kept and frame.outer is None else self.made(frame, atom)
        return self.known[frame, atom]

    def made(self, frame: _Frame, atom: Any) -> int:
        """The number of what is an input of its program, or the result of an equation."""
        if atom in frame.constants:
            return self.constant(frame.constants[atom])
        if atom in frame.inputs:
            if frame.outer is None:
                raise _NotKept
            return self.back(frame.outer, frame.caller.invars[frame.inputs[atom]])
        equation = frame.makers[atom]
        inner, place = frame.inner(equation), equation.outvars.index(atom)
        if inner is not None:
            return self.back(inner, inner.outputs[place])
        if equation.primitive.name in CHEAP:
            ins = tuple(self.back(frame, operand) for operand in equation.invars)
            outs = tuple(self.new() for _ in equation.outvars)
            self.equations.append(Equation(equation, ins, outs))
            return outs[place]
        if frame.outer is not None:
            raise _NotKept
        return self.start(atom)
