"""Equations in groups, each to be compiled as one program: fewer to compile, and fewer to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gradsim.inspection.program import Equation, Program
from gradsim.inspection.records import Site
from gradsim.inspection.saturation import saturating
from gradsim.inspection.schedule import schedule
from gradsim.inspection.structure import activation, key_of, sites


class Group(NamedTuple):
    """Consecutive equations that are compiled as one, with numbers of their own, and where in the program they stand;
    taps are not among them, but what passes through these.

    `ins` and `outs` are the program's numbers of what the group takes and gives, `local_ins` and `local_outs` its own;
    no later equation needs the program's numbers `spent`, and `ready`, which are results; `size` is how many entries
    the group gives. `key` is equal for groups that do the same.
    """

    equations: tuple[Equation, ...]
    local_ins: tuple[int, ...]
    local_outs: tuple[int, ...]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    spent: tuple[int, ...]
    ready: tuple[int, ...]
    key: Any
    taps: dict[str, list[tuple[Site, tuple[int, ...]]]]  # by kind, with the program's numbers of what passes
    sites: dict[str, list[Site]]  # by kind, of what the group's own program notes: in loops, and activations
    activations: tuple[int, ...]  # places of those that may saturate, which are sites of values as well
    programs: dict[Any, Any]  # by the form of the operands and what is heard, once compiled
    size: int


KINDS = ("value", "tangent", "cotangent")
LONGEST = 32  # equations in a group: the time to compile one grows faster than they do
PRODUCTS = 2  # of matrices, in a group
FIRST = ("dot_general", "conv_general_dilated")
LOOPS = ("scan", "while", "cond")


def grouped(program: Program, cut: int) -> tuple[list[Group], list[Group], list[int]]:
    """The program's equations in groups, those before the equation `cut` and the others; and what its results are.

    Groups end with a layer's output, backwards begin with it, so that layers that are alike have groups that are alike,
    and are compiled once.
    """
    order = schedule(program, cut)
    saturates = {place for place in order.places if saturating(program.equations, place)}
    places = [place if place in saturates else None for place in order.places]
    forward = _pieces(order.forward, places)
    backward = _pieces(order.backward, [None] * len(order.backward))
    # A value is handed on where a later group or the caller needs it, and spent with the last group that does.
    needed = {*program.inputs, *program.constants}
    results = set(order.results)
    groups = []
    for piece in reversed([*forward, *backward]):
        made = list(dict.fromkeys(n for one in piece.equations if not is_tap(one.source) for n in one.outs))
        within = set(made)
        taken = dict.fromkeys(number for one in piece.equations for number in one.ins if number not in within)
        passing = {number for one in piece.equations if heard(one.source) for number in one.outs}
        given = tuple(number for number in made if number in needed or number in passing or number in results)
        last = [number for number in (*taken, *given) if number not in needed]
        spent = tuple(number for number in last if number not in results)
        ready = tuple(number for number in last if number in results)
        needed.update(taken)
        groups.append(_localized(piece, tuple(taken), given, spent, ready))
    groups.reverse()
    return groups[: len(forward)], groups[len(forward) :], order.results


def _pieces(equations: Sequence[Equation], saturating: Sequence[int | None]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for equation, place in zip(equations, saturating, strict=True):
        if not pieces or not pieces[-1].takes(equation.source):
            pieces.append(_Piece())
        if place is not None:
            pieces[-1].activations.append((len(pieces[-1].equations), activation(equation.source)))
        pieces[-1].add(equation)
    return pieces


def is_tap(equation: Any) -> bool:
    """Is it the identity?"""
    return bool(equation.primitive.name == "gradsim_tap")


def heard(equation: Any) -> bool:
    """Is it a tap that may note what passes?"""
    return is_tap(equation) and any(sites(equation, kind) for kind in KINDS)


class _Piece:
    """Equations that will be a group."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.activations: list[tuple[int, Site]] = []  # those that may saturate, and their places
        self.length = self.products = 0
        self.only_taps, self.closed, self.full = True, False, False

    def takes(self, source: Any) -> bool:
        """May the equation be in it?"""
        if is_tap(source):
            return not self.full and (self.only_taps or source.params["kind"] != "cotangent" or not heard(source))
        if source.primitive.name in LOOPS or self.full or self.closed:
            return False
        return self.length < LONGEST and not (source.primitive.name in FIRST and self.products == PRODUCTS)

    def add(self, equation: Equation) -> None:
        name = equation.source.primitive.name
        self.equations.append(equation)
        if is_tap(equation.source):
            self.closed = self.closed or (heard(equation.source) and equation.source.params["kind"] != "cotangent")
            return
        self.only_taps = False
        self.length += 1
        self.products += name in FIRST
        self.full = name in LOOPS


def _localized(
    piece: _Piece, ins: tuple[int, ...], outs: tuple[int, ...], spent: tuple[int, ...], ready: tuple[int, ...]
) -> Group:
    local: dict[int, int] = {}

    def number(old: int) -> int:
        return local.setdefault(old, len(local))

    local_ins = tuple(map(number, ins))
    sources = [one.source for one in piece.equations]
    inner = [
        Equation(one.source, tuple(map(number, one.ins)), tuple(map(number, one.outs)))
        for one in piece.equations
        if not is_tap(one.source)
    ]
    local_outs = tuple(map(number, outs))
    passing = [one for one in piece.equations if heard(one.source)]
    taps = {kind: [(site, one.outs) for one in passing for site in sites(one.source, kind)] for kind in KINDS}
    looped = next((one for one in sources if one.primitive.name in LOOPS), None)
    inside = {kind: sites(looped, kind) if looped is not None else [] for kind in KINDS}
    taps_before = [sum(map(is_tap, sources[:place])) for place, _ in piece.activations]
    places = tuple(place - taps for (place, _), taps in zip(piece.activations, taps_before, strict=True))
    inside["value"] += [site for _, site in piece.activations]
    key = key_of(inner, local_outs), places
    made = {number: atom.aval for one in inner for number, atom in zip(one.outs, one.source.outvars, strict=True)}
    size = sum(made[number].size for number in local_outs)
    return Group(tuple(inner), local_ins, local_outs, ins, outs, spent, ready, key, taps, inside, places, {}, size)
