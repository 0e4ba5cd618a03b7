"""Passes through a program in groups of equations, each of which is compiled once, with what is noted there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradsim.inspection.block_floats import is_block
from gradsim.inspection.groups import LOOPS, Group
from gradsim.inspection.interpreter import Interpreter, Note
from gradsim.inspection.packing import packed, unpacked
from gradsim.inspection.program import Equation
from gradsim.inspection.records import Site, record
from gradsim.inspection.structure import batched
from gradsim.inspection.together import LARGE, Together, itself


class Ending(NamedTuple):
    """What is measured of each parameter once its gradients are known; `places` are by the number of the gradient."""

    measure: Callable[..., Any]  # (parameter, *gradients) -> a tree of arrays
    parameters: Sequence[Any]
    places: Mapping[int, Sequence[int]]


class Step(NamedTuple):
    """How a pass goes through a group: the program, what it gives of the pass's own, and then of what is common to
    all passes, and which parameters it takes and measures."""

    program: Compiled
    outs: tuple[int, ...]
    common: tuple[int, ...]
    places: tuple[int, ...]
    sites: list[Site]


class Pass:
    """One way through a program: what its taps of one kind noted, what was lost, and what is not linear.

    In `pairs`, what is the pass's own is of two cotangents, along a first axis; of the first all is noted.
    """

    def __init__(
        self,
        kind: str,
        note: Note = record,
        kept: Collection[int] = (),
        ending: Ending | None = None,
        together: Together | None = None,
        *,
        pairs: bool = False,
    ) -> None:
        self.kind, self.note, self.ending, self.pairs = kind, note, ending, pairs
        self.kept = kept  # sites whose operands are held on to, outside of loops
        self.held: list[tuple[Site, Any]] = []
        self.together = together or Together()
        self.later: list[Any] = []  # what was noted
        self.sources: list[Step | Site] = []  # and where
        self.nonlinear: set[str] = set()
        self.key = (kind, note, pairs, ending and ending.measure)

    def walk(self, groups: Sequence[Group], values: dict[int, Any]) -> None:
        """Evaluates groups; `values` holds what is known by its number in the program."""
        for group in groups:
            self.step(group, values, values)
            for i in group.spent:
                values.pop(i, None)

    def step(self, group: Group, own: dict[int, Any], common: dict[int, Any]) -> None:
        """Evaluates a group at what is the pass's own, or else is common to several."""
        operands = [own[i] if i in own else common[i] for i in group.ins]
        step = group.programs.get(self.key)
        if step is None:
            step = group.programs[self.key] = self._planned(group, operands, own)
        if step.places and self.ending is not None:
            operands += [self.ending.parameters[place] for place in step.places]
        results, noted = step.program.call(*operands) if group.equations or step.places else ([], None)
        if group.size > LARGE:
            jax.block_until_ready(results)  # started ahead of time, programs would hold memory at the same time
        own.update(zip(step.outs, results, strict=False))
        if step.common:
            common.update(zip(step.common, results[len(step.outs) :], strict=True))
        if noted is not None:
            self.later.append(self.together(itself, noted))
            self.sources.append(step)
        self.nonlinear |= step.program.nonlinear
        for site, numbers in group.taps.get(self.kind, ()):
            passed = [own[i] if i in own else common[i] for i in numbers]
            if site.site in self.kept:
                self.held.append((site, passed))
            self.later.append(self.together(noting(self.note, self.kind == "value", self.pairs), passed))
            self.sources.append(site)

    def _planned(self, group: Group, operands: Sequence[Any], own: Mapping[int, Any]) -> Step:
        """The same each time, for what is in blocks, and what is the pass's own, is so at each pass of its kind."""
        local = dict(zip((*group.ins, *group.outs), (*group.local_ins, *group.local_outs), strict=True))
        ready = group.ready if self.ending is not None else ()
        paired = {local for local, number in zip(group.local_ins, group.ins, strict=True) if number in own}
        for one in group.equations:
            if not paired.isdisjoint(one.ins):
                paired.update(one.outs)
        given = [number for number in group.outs if number not in ready]
        outs = tuple(number for number in given if not self.pairs or local[number] in paired)
        rest = tuple(number for number in given if number not in outs)
        places = self.ending.places if self.ending is not None else {}
        ended = [(number, place) for number in ready for place in places.get(number, ())]
        form = Form(
            tuple(map(is_block, operands)),
            tuple(number in own for number in group.ins) if self.pairs else (),
            tuple(local[number] for number in (*outs, *rest)),
            tuple(local[number] for number, _ in ended),
        )
        sites = group.sites.get(self.kind, [])
        return Step(compiled(group, self, form), outs, rest, tuple(place for _, place in ended), sites)

    def end(self, own: Mapping[int, Any], common: Mapping[int, Any], numbers: Sequence[int]) -> dict[int, Any]:
        """What is measured of the parameters whose gradients are `numbers`, which no group was the last to need."""
        found = {}
        assert self.ending is not None
        for number in numbers:
            gradient = own.get(number, common.get(number))
            both = _both(gradient) if self.pairs and number in own else [gradient] * (1 + self.pairs)
            for place in self.ending.places[number]:
                found[place] = self.together(self.ending.measure, self.ending.parameters[place], *both)
        return found

    def heard(self, vectors: Sequence[Any]) -> Heard:
        """What has been noted, from `later` once that is fetched."""
        records: list[tuple[Site, Any]] = []
        ends: dict[int, Any] = {}
        marks = []
        for vector, source in zip(vectors, self.sources, strict=True):
            if isinstance(source, Site):
                records.append((source, vector))
                continue
            notes, ended, mark = unpacked(vector)
            records += zip(source.sites, notes, strict=True)
            ends.update(zip(source.places, ended, strict=True))
            marks += mark
        return Heard(records, ends, marks)


class Heard(NamedTuple):
    """Notes by site, measures by the place of the parameter, and marks (see Interpreter.marked); on the host."""

    records: list[tuple[Site, Any]]
    ends: dict[int, Any]
    marks: list[Any]


class Form(NamedTuple):
    """How a group is run: which operands are in blocks, and which are pairs; and, in the group's numbers, what it
    gives, and the gradients that are measured there."""

    blocks: tuple[bool, ...]
    pairs: tuple[bool, ...]
    outs: tuple[int, ...]
    ended: tuple[int, ...]


class Compiled:
    """A group of equations as a compiled program; one for all groups that are alike."""

    def __init__(self, group: Group, walk: Pass, form: Form) -> None:
        self.group, self.form = group, form
        self.kind, self.note, self.measure = walk.kind, walk.note, walk.ending and walk.ending.measure
        self.nonlinear: set[str] = set()
        self.call = jax.jit(self._evaluate)

    def _evaluate(self, *operands: Any) -> tuple[list[Any], Any]:
        group, form = self.group, self.form
        values = dict(zip(group.local_ins, operands, strict=False))
        paired = {number for number, one in zip(group.local_ins, form.pairs, strict=False) if one}
        inner = Interpreter(self.kind, self.note)
        if paired:
            notes, marks = self._twice(inner, values, paired)
        else:
            inner.trace(group.equations, values, group.activations)
            notes = [note for _, note in inner.records]
            marks = [inner.marked()] if inner.lost or inner.far else []
        self.nonlinear = inner.nonlinear
        ends = []
        for number, parameter in zip(form.ended, operands[len(group.ins) :], strict=True):
            gradients = _both(values[number]) if number in paired else [values[number]] * (2 if form.pairs else 1)
            ends.append(self.measure(parameter, *gradients))  # type: ignore[misc]
        return [values[number] for number in form.outs], packed(
            (notes, ends, marks)
        ) if notes or ends or marks else None

    def _twice(self, inner: Interpreter, values: dict[int, Any], paired: set[int]) -> tuple[list[Any], list[Any]]:
        """Evaluates what depends on a pair for both of it at once, and the rest; what is noted, of the first."""
        own: list[Equation] = []
        starts = sorted(paired)
        for one in self.group.equations:
            if paired.isdisjoint(one.ins):
                inner.trace([one], values, ())
            else:
                own.append(one)
                paired.update(one.outs)
        made = sorted({number for one in own for number in one.outs})

        def once(given: list[Any]) -> Any:
            walk = Interpreter(self.kind, self.note)
            known = {**values, **dict(zip(starts, given, strict=True))}
            walk.trace(own, known, ())
            inner.nonlinear |= walk.nonlinear
            return [known[number] for number in made], [note for _, note in walk.records], walk.marked()

        pair = [values[number] for number in starts]
        if all(batched(one.source) for one in own):
            outs, notes, marks = jax.vmap(once)(pair)
        else:
            both = [once(list(one)) for one in zip(*map(_both, pair), strict=True)]
            outs, notes, marks = jax.tree.map(lambda *ones: jnp.stack(ones), *both)
        values.update(zip(made, outs, strict=True))
        return jax.tree.map(lambda x: x[0], notes), [marks[0]]


@cache
def noting(note: Note, units: bool, pairs: bool) -> Callable[[Any], Any]:
    """One function for each, so that it is compiled once."""
    if pairs:
        return lambda passed: note([_both(one)[0] for one in passed], units=units)
    return lambda passed: note(passed, units=units)


def _both(pair: Any) -> list[Any]:
    return [jax.tree.map(lambda x, i=i: x[i], pair) for i in (0, 1)]


known: OrderedDict[Any, Compiled] = OrderedDict()
KEPT = 4096  # programs, small ones


def compiled(group: Group, walk: Pass, form: Form) -> Compiled:
    """The program of a group in this form."""
    looped = any(one.source.primitive.name in LOOPS for one in group.equations)
    own = (walk.kind, walk.note) if looped or (group.activations and walk.kind == "value") else None
    key = (group.key, own, walk.ending and walk.ending.measure if form.ended else None, form)
    program = known.get(key)
    if program is None:
        program = known[key] = Compiled(group, walk, form)
        if len(known) > KEPT:
            known.popitem(last=False)
    return program
