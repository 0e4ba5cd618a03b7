"""Layers of a function by `jax.named_scope`: what is computed in a scope, one run of equations, is a call of a layer.

Haiku and Equinox open a scope for each of their modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

from gradsim.inspection.jax_versions import bind, called, opened, scope_of
from gradsim.inspection.program import read
from gradsim.inspection.taps import TAP, mark

Scope = tuple[str, ...]


def with_scopes(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` with taps on what its scopes hand on, where it has no taps of its own."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr, constants = opened(closed)
    if _has_taps(jaxpr) or not any(map(scope_of, _equations(jaxpr))):
        return function(*args)
    outs = _run(jaxpr, constants, jax.tree.leaves(args), ())
    return jax.tree.unflatten(jax.tree.structure(shapes), outs)


def _equations(jaxpr: Any) -> list[Any]:
    """Those of the program, and of programs that it calls."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        program = _program(equation)
        found += [] if program is None else _equations(opened(program)[0])
    return found


def _has_taps(jaxpr: Any) -> bool:
    return any(equation.primitive is TAP for equation in _equations(jaxpr)) or "gradsim_tap" in str(jaxpr)


def _program(equation: Any) -> Any | None:
    """What it calls; a function with a derivative of its own stays whole."""
    return None if equation.primitive.name.startswith("custom_") else called(equation)


def _run(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any], around: Scope) -> list[Any]:
    known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
    ends = _ends(jaxpr)
    for place, equation in enumerate(jaxpr.eqns):
        operands = [read(known, atom) for atom in equation.invars]
        program = _program(equation)
        if program is None:
            outs = bind(equation, operands)
        else:
            inner, held = opened(program)
            outs = _run(inner, held, operands, (*around, *scope_of(equation)))
        known.update(zip(equation.outvars, outs, strict=True))
        for scope, handed in ends.get(place, []):
            values = [known[variable] for variable in handed]
            path = "/".join((*around, *scope))
            marked = mark(values, layer=path, type_name="scope", role="output")
            known.update(zip(handed, marked, strict=True))
    return [read(known, atom) for atom in jaxpr.outvars]


def _ends(jaxpr: Any) -> dict[int, list[tuple[Scope, list[Any]]]]:
    """Where runs of equations in one scope end, the innermost first, and what they hand on."""
    scopes = [scope_of(equation) for equation in jaxpr.eqns]
    last: dict[Any, int] = {}
    for place, equation in enumerate(jaxpr.eqns):
        last.update((atom, place) for atom in equation.invars if not isinstance(atom, Literal))
    last.update((atom, len(scopes)) for atom in jaxpr.outvars if not isinstance(atom, Literal))
    found: dict[int, list[tuple[Scope, list[Any]]]] = {}
    for depth in range(max(map(len, scopes), default=0), 0, -1):
        start = 0
        for place, scope in enumerate(scopes):
            if place == len(scopes) - 1 or scopes[place + 1][:depth] != scope[:depth]:
                within = jaxpr.eqns[start : place + 1]
                start = place + 1
                if len(scope) >= depth:
                    made = [one for equation in within for one in equation.outvars]
                    found.setdefault(place, []).append(
                        (scope[:depth], [one for one in made if last.get(one, -1) > place])
                    )
    return found
