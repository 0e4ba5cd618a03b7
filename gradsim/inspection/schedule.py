"""The order in which a program's equations run, so that little is kept between its forward and its backward pass."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from gradsim.inspection.program import Equation, Program

# One pass over the entries, which the backward pass can repeat in less time than it takes to keep what they make.
CHEAP = ("add", "sub", "mul", "neg", "integer_pow", "square", "convert_element_type", "broadcast_in_dim", "reshape")


class Schedule(NamedTuple):
    """Equations before and after the first that needs the cotangent, and the program's results; a tap's result has the
    number of its operand. `places` are those of the forward equations in the program."""

    forward: list[Equation]
    places: list[int]
    backward: list[Equation]
    results: list[int]


def schedule(program: Program, cut: int) -> Schedule:
    """What only the backward pass needs is made there, where it is cheap and made of what is kept in any case."""
    same = dict[int, int]()
    equations = []
    for source, ins, outs in program.equations:
        ins = tuple(same.get(number, number) for number in ins)
        if source.primitive.name == "gradsim_tap":
            same.update(zip(outs, ins, strict=True))
            outs = ins
        equations.append(Equation(source, ins, outs))
    results = [same.get(number, number) for number in program.outputs]
    late = _late(equations, cut, {*program.inputs, *program.constants}, set(results))
    backward = []
    for place, equation in enumerate(equations[cut:], cut):
        backward += [equations[earlier] for earlier in late.get(place, [])[::-1]]
        backward.append(equation)
    moved = {earlier for several in late.values() for earlier in several}
    places = [place for place in range(cut) if place not in moved]
    return Schedule([equations[place] for place in places], places, backward, results)


def _late(equations: list[Equation], cut: int, kept: set[int], results: set[int]) -> dict[int, list[int]]:
    """Forward equations that may wait, the last first, by the place of the backward equation before which they run."""
    takers: dict[int, list[int]] = defaultdict(list)
    for place, equation in enumerate(equations):
        for number in equation.ins:
            takers[number].append(place)
    moved: dict[int, int] = {}
    late: dict[int, list[int]] = defaultdict(list)
    for place in reversed(range(cut)):
        source, ins, outs = equations[place]
        if source.primitive.name not in CHEAP or not results.isdisjoint(outs):
            continue
        starts = [moved.get(taker, taker) for number in outs for taker in takers[number]]
        # In place of what it makes, what it takes is kept, unless that is kept for others in any case.
        sizes = {number: _bytes(atom) for number, atom in zip(ins, source.invars, strict=True) if number not in kept}
        own = [n for n in sizes if all(moved.get(taker, taker) < cut or taker == place for taker in takers[n])]
        if starts and min(starts) >= cut and sum(sizes[n] for n in own) <= sum(map(_bytes, source.outvars)):
            moved[place] = min(starts)
            late[moved[place]].append(place)
    return late


def _bytes(atom: Any) -> int:
    return int(atom.aval.size * atom.aval.dtype.itemsize)
