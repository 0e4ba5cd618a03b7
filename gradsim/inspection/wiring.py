"""How a model's backward program hangs together: where cotangents pass its kernels, and where a skip joins a branch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from gradsim.inspection.groups import FIRST, LOOPS
from gradsim.inspection.program import Program

SUMS = ("gradsim_tap", "add_any")
MOVES = (*SUMS, "transpose", "reshape", "squeeze", "convert_element_type")
NEAR = 1000  # equations: a skip past more than these is around many layers, and no branch
OUTPUT = -1  # what follows a kernel that no other follows


class Kernel(NamedTuple):
    """An equation that hands a cotangent through kernels: from their product's, `source`, to their input's, `result`.

    `following` is the place of the kernel that is run next on this one's output.
    """

    place: int
    parameters: tuple[int, ...]
    source: int
    result: int
    following: int


class Branch(NamedTuple):
    """x + branch(x): the cotangent `skip` of the sum enters the branch, and the equations `path` add what comes out.

    The sum of both is `result`; `kernels` are the places of those within.
    """

    skip: int
    result: int
    path: frozenset[int]
    kernels: frozenset[int]


class Wiring(NamedTuple):
    """Of a program: the kinds of its linear values, where each value is made, which linear equations take it; and
    the kernels by their places."""

    linear: dict[int, Any]
    made: dict[int, int]
    uses: dict[int, list[int]]
    taken: dict[int, int]  # parameters' numbers -> the first equation that takes them
    kernels: dict[int, Kernel]
    looped: dict[int, tuple[int, str]]  # parameters that a loop takes -> its place, the end if not backward; its kind
    blocked: set[int]  # parameters of products whose other side has no gradient


def wiring(program: Program, ranks: Sequence[int]) -> Wiring:
    """`ranks` are those of the parameters, which are the first inputs; a kernel has at least two axes."""
    sources: dict[int, frozenset[int] | None] = {number: frozenset() for number in program.constants}
    sources.update(dict.fromkeys(program.inputs))
    sources.update({number: frozenset({i}) for i, number in enumerate(program.inputs[: len(ranks)])})
    origin = {program.inputs[-1]: OUTPUT}  # the kernel that a cotangent comes from
    linear: dict[int, Any] = {}
    made: dict[int, int] = {}
    uses: dict[int, list[int]] = defaultdict(list)
    taken: dict[int, int] = {}
    parameters = set(program.inputs[: len(ranks)])
    kernels: dict[int, Kernel] = {}
    looped: dict[int, tuple[int, str]] = {}
    forward: set[int] = set()

    def matrices(number: int) -> frozenset[int]:
        return frozenset(i for i in sources.get(number) or () if ranks[i] > 1)

    for place, (source, ins, outs) in enumerate(program.equations):
        name = source.primitive.name
        made.update(dict.fromkeys(outs, place))
        for number in parameters.intersection(ins):
            taken.setdefault(number, place)
        came = [number for number in ins if number in origin]
        held = [found for number in ins if number not in origin and (found := matrices(number))]
        if not came:
            mixed = any(sources[number] is None for number in ins)
            sources.update(dict.fromkeys(outs, None if mixed else frozenset().union(*(sources[i] or () for i in ins))))
            if mixed and name in (*FIRST, *LOOPS):
                forward.update(i for one in held for i in one)
                looped.update({i: (len(program.equations), name) for one in held for i in one if name in LOOPS})
            continue
        for number in came:
            uses[number].append(place)
        following = max(origin[number] for number in came)
        # What multiplies no values, only parameters, meets cotangents where the others' gradients are made.
        acting = tuple(sorted(forward.intersection(*held[:1]))) if held else ()
        if name in FIRST and len(came) == 1 and acting:
            kernels[place] = Kernel(place, acting, came[0], outs[0], following)
            following = place
        elif name in LOOPS:
            looped.update({i: (place, name) for one in held for i in one})
        origin.update(dict.fromkeys(outs, following))
        pairs = zip((*ins, *outs), (*source.invars, *source.outvars), strict=True)
        linear.update((number, atom.aval) for number, atom in pairs if number in origin)
    passed = {i for one in kernels.values() for i in one.parameters}
    return Wiring(linear, made, uses, taken, kernels, looped, forward - passed - looped.keys())


def end_of(program: Program, wires: Wiring, number: int, through: Sequence[str] = MOVES) -> int:
    """Where a cotangent arrives by moves and sums alone."""
    while len(places := wires.uses.get(number, [])) == 1:
        source, ins, outs = program.equations[places[0]]
        if source.primitive.name not in through:
            break
        number = outs[ins.index(number) if len(outs) > 1 else 0]
    return number


def branches(program: Program, wires: Wiring) -> list[Branch]:
    """Those with kernels of their own, none within another."""
    found: dict[int, Branch] = {}
    for _, ins, outs in (one for one in program.equations if one.source.primitive.name == "add_any"):
        if wires.linear.keys().isdisjoint(ins) or not any(
            len(wires.uses[number]) > 1 for number in _terms(program, wires, outs[0])[0]
        ):
            continue
        result = end_of(program, wires, outs[0], SUMS)
        branch = None if result in found else _branch(program, wires, result)
        if branch is not None:
            found[result] = branch
    kernels = [one.kernels for one in found.values()]
    return [one for one in found.values() if not any(other < one.kernels for other in kernels)]


def _terms(program: Program, wires: Wiring, total: int) -> tuple[list[int], set[int]]:
    """The cotangents that are added up, and the equations that do so."""
    terms, path, left = [], set(), [total]
    while left:
        number = left.pop()
        place = wires.made.get(number, OUTPUT)
        equation = program.equations[place]
        if (
            place == OUTPUT
            or equation.source.primitive.name not in SUMS
            or (number != total and len(wires.uses[number]) > 1)
        ):
            terms.append(number)
            continue
        path.add(place)
        summed = equation.source.primitive.name == "add_any"
        left += equation.ins if summed else [equation.ins[equation.outs.index(number)]]
    return terms, path


def _branch(program: Program, wires: Wiring, result: int) -> Branch | None:
    """The term that the nearest others come from, by way of kernels."""
    terms, path = _terms(program, wires, result)
    last = wires.made[result]
    for skip in sorted(terms, key=lambda number: wires.made.get(number, OUTPUT), reverse=True):
        first = wires.made.get(skip, OUTPUT)
        if last - first > NEAR:
            break
        if terms.count(skip) > 1 or len(wires.uses[skip]) < 2:
            continue
        within = [place for place in range(first + 1, last) if place not in path]
        inside = passing(program, within, {skip}, {one for one in terms if one != skip})
        kernels = frozenset(place for place in inside if place in wires.kernels)
        if kernels:
            return Branch(skip, result, frozenset(path), kernels)
    return None


def passing(program: Program, places: Sequence[int], start: set[int], end: set[int]) -> list[int]:
    """The equations on the ways from some values to others."""
    reached = set(start)
    after = []
    for place in places:
        _, ins, outs = program.equations[place]
        if not reached.isdisjoint(ins):
            reached.update(outs)
            after.append(place)
    wanted, inside = set(end), []
    for place in reversed(after):
        _, ins, outs = program.equations[place]
        if not wanted.isdisjoint(outs):
            wanted.update(ins)
            inside.append(place)
    return inside[::-1]
