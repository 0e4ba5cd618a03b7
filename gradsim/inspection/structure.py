"""What makes two groups of equations the same program: their primitives, parameters and wiring, never their place."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal, Primitive, primitives

from gradsim.inspection.jax_versions import is_program
from gradsim.inspection.program import Equation, Program, flatten
from gradsim.inspection.records import Site
from gradsim.inspection.saturation import saturating

# Of jax's own, and not of those that call what it does not see.
OWN = {one.name for one in vars(primitives).values() if isinstance(one, Primitive)}
BATCHED = {"gradsim_tap", *(name for name in OWN if "call" not in name and "shard" not in name)}


def key_of(equations: Sequence[Equation], outs: Sequence[int]) -> Any:
    """Equal for groups that do the same; an equation whose parameters have no hash equals only itself."""
    return tuple((_hashed(one.source), one.ins, one.outs) for one in equations), tuple(outs)


def program_key(program: Program) -> Any:
    """Equal for programs that do the same to inputs of the same shapes."""
    constants = tuple((number, _constant(one)) for number, one in program.constants.items())
    return key_of(program.equations, program.outputs), constants, tuple(program.inputs)


def _hashed(equation: Any) -> Any:
    key = _key(equation)
    try:
        hash(key)
    except TypeError:
        return _Same(equation)
    return key


class _Same:
    """An object by its identity, which it keeps for as long as the key lives."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


def _key(equation: Any) -> Any:
    params = {name: _plain(value) for name, value in equation.params.items() if name != "debug_info"}
    if equation.primitive.name == "gradsim_tap":
        params = {name: params[name] for name in ("kind", "role")}
    # Padding with a known zero has a rule of its own.
    zero = equation.primitive.name == "pad" and isinstance(equation.invars[1], Literal)
    return equation.primitive, tuple(sorted(params.items(), key=lambda pair: pair[0])), zero


def _plain(value: Any) -> Any:
    if is_program(value):
        return program_key(flatten(value)), tuple(str(atom.aval) for atom in getattr(value, "jaxpr", value).invars)
    if isinstance(value, tuple | list):
        return tuple(_plain(one) for one in value)
    return value


def _constant(value: Any) -> Any:
    small = getattr(value, "size", 0) <= 64 and not hasattr(value, "_trace")
    try:
        return (str(value.dtype), value.shape, np.asarray(value).tobytes()) if small else _Same(value)
    except Exception:  # keys of random streams are no arrays of numpy's
        return _Same(value)


def batched(equation: Any) -> bool:
    """Does `jax.vmap` know the equation, and all in the programs that it runs?"""
    if equation.primitive.name not in BATCHED:
        return False
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=is_program)
    return all(batched(one.source) for value in values if is_program(value) for one in flatten(value).equations)


def sites(equation: Any, kind: str) -> list[Site]:
    """The taps of this kind in an equation, in the order in which they note; those of a while loop note nothing.

    Activations that may saturate, in the programs of an equation, are sites of values as well.
    """
    name = equation.primitive.name
    if name == "gradsim_tap":
        heard = equation.params["kind"] == kind and equation.params["role"] != "enter"
        return [_site(equation)] if heard else []
    inner = {"scan": lambda p: [p["jaxpr"]], "cond": lambda p: list(p["branches"])}.get(name, lambda p: [])
    found = []
    for program in inner(equation.params):
        found += sites_of(flatten(program).equations, kind)
    return found


def sites_of(equations: Sequence[Equation], kind: str) -> list[Site]:
    """Those of a program's equations."""
    found = []
    for place, one in enumerate(equations):
        found += sites(one.source, kind)
        if kind == "value" and saturating(equations, place):
            found.append(activation(one.source))
    return found


def activation(equation: Any) -> Site:
    """An activation that may saturate: it belongs to the layer whose output was the last before it."""
    (out,) = equation.outvars
    return Site(-1, "", equation.primitive.name, "activation", "value", entries=math.prod(out.aval.shape))


def _site(equation: Any) -> Site:
    shapes = [atom.aval.shape for atom in equation.invars]
    units = sum(shape[-1] if shape else 1 for shape in shapes)
    return Site(**equation.params, entries=sum(map(math.prod, shapes)), units=units)
