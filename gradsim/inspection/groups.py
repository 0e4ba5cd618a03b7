"""Equations in groups, each to be compiled as one program: fewer to compile, and fewer to run."""

from typing import Any, NamedTuple

from gradsim.inspection.program import Equation, Program
from gradsim.inspection.records import Site
from gradsim.inspection.saturation import saturating
from gradsim.inspection.structure import activation, key_of, sites


class Group(NamedTuple):
    """Consecutive equations that are compiled as one, with numbers of their own, and where in the program they stand.

    `ins` and `outs` are the program's numbers of what the group takes and gives, `local_ins` and `local_outs` its own;
    `spent` are the program's numbers that no equation needs again. `key` is equal for groups that do the same.
    """

    equations: tuple[Equation, ...]
    local_ins: tuple[int, ...]
    local_outs: tuple[int, ...]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    spent: tuple[int, ...]
    key: Any
    taps: dict[str, list[Site]]
    activations: tuple[int, ...]  # places of those that may saturate, which are sites of values as well


KINDS = ("value", "tangent", "cotangent")
LONGEST = 16  # equations in a group: the time to compile one grows faster than they do
FIRST = ("dot_general", "conv_general_dilated")
ALONE = ("gradsim_tap", "scan", "while", "cond")


def grouped(program: Program, cut: int) -> tuple[list[Group], list[Group]]:
    """The program's equations in groups, those before the equation `cut` and the others.

    Groups end at taps and before products of matrices, so that layers that are alike have groups that are alike, and
    are compiled once.
    """
    pieces: list[tuple[bool, list[Equation]]] = []
    open_piece: list[Equation] = []
    noted: list[list[tuple[int, Site]]] = []  # activations in each piece
    for place, equation in enumerate(program.equations):
        name = equation.source.primitive.name
        alone = name in ALONE
        if not open_piece or alone or name in FIRST or place == cut or len(open_piece) == LONGEST:
            open_piece = []
            pieces.append((place >= cut, open_piece))
            noted.append([])
        if place < cut and saturating(program.equations, place):
            noted[-1].append((len(open_piece), activation(equation.source)))
        open_piece.append(equation)
        if alone:
            open_piece = []
    # A value is handed on where a later group or the caller needs it, and spent with the last group that does.
    kept = {*program.outputs, *program.inputs, *program.constants}
    needed = set(kept)
    groups: tuple[list[Group], list[Group]] = ([], [])
    for (after, piece), activations in reversed([*zip(pieces, noted, strict=True)]):
        made = {number for equation in piece for number in equation.outs}
        taken = dict.fromkeys(number for equation in piece for number in equation.ins if number not in made)
        given = tuple(number for equation in piece for number in equation.outs if number in needed)
        spent = tuple(number for number in taken if number not in needed)
        needed.update(taken)
        groups[after].append(_localized(piece, tuple(taken), given, spent, activations))
    return groups[0][::-1], groups[1][::-1]


def _localized(
    piece: list[Equation],
    ins: tuple[int, ...],
    outs: tuple[int, ...],
    spent: tuple[int, ...],
    activations: list[tuple[int, Site]],
) -> Group:
    local: dict[int, int] = {}

    def number(old: int) -> int:
        return local.setdefault(old, len(local))

    local_ins = tuple(map(number, ins))
    equations = tuple(Equation(one.source, tuple(map(number, one.ins)), tuple(map(number, one.outs))) for one in piece)
    local_outs = tuple(map(number, outs))
    alone = piece[0].source.primitive.name in ALONE
    taps = {kind: sites(piece[0].source, kind) if alone else [] for kind in KINDS}
    taps["value"] += [site for _, site in activations]
    places = tuple(place for place, _ in activations)
    key = key_of(equations, local_outs), places
    return Group(equations, local_ins, local_outs, ins, outs, spent, key, taps, places)
