"""A forward pass that kernels are scaled along, layer after layer, each to the gain that is wanted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradsim.inspection.differentiate import Plan
from gradsim.inspection.groups import Group
from gradsim.inspection.passes import Pass
from gradsim.inspection.segments import MOST, Gauge, Size, factor, multiplied, segments
from gradsim.inspection.solve import slope, solve
from gradsim.inspection.wiring import wiring

PASSES = 4  # the second and later ones where layers act on each other both ways
FAINT = float(np.log(16.0))  # nats: with its kernel so much smaller, a layer's gain must have lost half of that
LOOPED = "shared by all turns of a loop, each with a gain of its own; a scan over stacked slices of it would be tuned"
CONDITION = "it is run within a condition, or a loop with one"

NONE = Size(float("nan"), float("nan"), float("nan"))


class Aims(NamedTuple):
    """Gains that are wanted, of a layer and of a branch, and how near."""

    layer: float
    branch: float
    tolerance: float

    def of(self, gauge: Gauge) -> float:
        """ln of the gain."""
        return float(np.log(self.branch if gauge.segment.skip else self.layer))


class Step(NamedTuple):
    """By parameter: ln of the scale, d ln gain / d ln scale, and why one is refused."""

    logs: dict[int, float]
    slopes: dict[int, float]
    reasons: dict[int, str]
    size: Size = NONE  # with the kernels scaled, where they are


Solved = tuple[Size, list[Any]]  # of a layer, and the values that it was measured at


class Row(NamedTuple):
    """One kernel: its parameter, gains before and after, scale, d ln gain / d ln scale, what the gain is of; and what
    is wrong, or ""."""

    parameter: int
    before: Size
    after: Size
    scale: float
    slope: float
    target: float
    of: str
    reason: str


class Walk:
    """The values of a forward pass, made as they are needed, and made anew where a parameter has changed."""

    def __init__(self, plan: Plan, operands: Sequence[Any]) -> None:
        self.groups = [group._replace(spent=()) for group in plan.forward]
        self.values = {**plan.program.constants, **dict(zip(plan.program.inputs[:-1], operands, strict=True))}
        self.done = 0

    def to(self, end: int) -> None:
        """Through the groups before `end`."""
        if end > self.done:
            self._run(self.groups[self.done : end])
            self.done = end

    def change(self, number: int, value: Any) -> None:
        self.values[number] = value
        changed = {number}
        for group in self.groups[: self.done]:
            if not changed.isdisjoint(group.ins):
                touched = _touched(group, changed)
                same = {i: self.values[i] for i in group.outs if i not in touched}
                self._run([group])
                self.values.update(same)
                changed |= touched

    def _run(self, groups: list[Group]) -> None:
        Pass("none").walk(groups, self.values)


def _touched(group: Group, changed: set[int]) -> set[int]:
    """What the group makes of values that have changed."""
    reached = {local for local, number in zip(group.local_ins, group.ins, strict=True) if number in changed}
    for _, ins, outs in group.equations:
        if not reached.isdisjoint(ins):
            reached.update(outs)
    return {number for local, number in zip(group.local_outs, group.outs, strict=True) if local in reached}


class Tuning:
    """A model's program, what measures its layers, and the order in which they are tuned."""

    def __init__(self, plan: Plan, ranks: Sequence[int], per_output: bool) -> None:
        self.plan = plan
        self.wires = wiring(plan.program, ranks)
        made = {number: i for i, group in enumerate(plan.forward, 1) for number in group.outs}
        known = {*plan.program.constants, *plan.program.inputs[:-1], *made}
        found = segments(plan.program, self.wires)
        gauges = [Gauge(plan.program, self.wires, one, known, per_output) for one in found]
        ready = [max((made.get(number, 0) for number in one.held), default=0) for one in gauges]
        # Layers are tuned in the order in which they are run: the last in the backward program is the first.
        order = sorted(range(len(gauges)), key=lambda i: (ready[i], -max(gauges[i].segment.kernels)))
        self.gauges = [gauges[i] for i in order]
        self.ready = [ready[i] for i in order]

    def run(self, parameters: Sequence[Any], rest: Sequence[Any], aims: Aims) -> tuple[list[Any], list[Row]]:
        """`rest` are the program's other inputs -> the parameters, scaled, and rows in order of execution."""
        walk = Walk(self.plan, [*parameters, *rest])
        before = after = self._measured(walk, aims.tolerance, {})
        logs = dict.fromkeys(range(len(parameters)), 0.0)
        reasons = self._refused()
        slopes: dict[int, float] = {}
        for turn in range(PASSES):
            solved: dict[int, Solved] = {}
            walk = Walk(self.plan, [*_scaled(parameters, logs), *rest])
            for number, (gauge, ready) in enumerate(zip(self.gauges, self.ready, strict=True)):
                free = [i for i in gauge.parameters if i not in reasons]
                if not free:
                    continue
                walk.to(ready)
                step = _step(gauge, walk.values, free, aims)
                if turn == 0:
                    slopes.update(step.slopes)
                    reasons.update(step.reasons)
                for i, log_scale in step.logs.items():
                    logs[i] += log_scale
                    walk.change(self.plan.program.inputs[i], _times(parameters[i], logs[i]))
                if step.logs:
                    solved[number] = step.size, [walk.values[i] for i in gauge.held]
            after = self._measured(walk, aims.tolerance, solved)
            if not self._off(after, reasons, aims):
                break
        for i in self._off(after, reasons, aims):
            reasons[i] = f"not within the tolerance after {PASSES} passes, for its layer and others act on each other"
        return _scaled(parameters, logs), self._rows(before, after, logs, slopes, reasons, aims)

    def _measured(self, walk: Walk, tolerance: float, solved: dict[int, Solved]) -> list[Size]:
        """Of every layer; one that was solved for keeps its size where nothing has changed that it is measured at."""
        walk.to(len(walk.groups))
        sizes = []
        for number, gauge in enumerate(self.gauges):
            size, held = solved.get(number, (NONE, []))
            same = all(walk.values[i] is one for i, one in zip(gauge.held, held, strict=False))
            if gauge.long or (same and (size.error <= tolerance / 3 or gauge.draws >= MOST)):
                sizes.append(size)
            else:
                sizes.append(gauge.refined(walk.values, tolerance / 3))
        return sizes

    def _refused(self) -> dict[int, str]:
        """Kernels that are not to be tuned, whatever their gain."""
        reasons = dict.fromkeys(self.wires.blocked, "no gradient passes from its output to its input")
        for gauge in self.gauges:
            if gauge.long:
                reasons.update(
                    dict.fromkeys(gauge.parameters, "what follows it holds a loop or a condition, or is too long")
                )
        places = Counter(i for one in self.wires.kernels.values() for i in one.parameters)
        for i, calls in places.items():
            if calls > 1:
                reasons[i] = f"shared: {calls} calls have this kernel, each with a gain of its own"
        reasons.update({i: LOOPED if kind == "scan" else CONDITION for i, (_, kind) in self.wires.looped.items()})
        return reasons

    def _off(self, sizes: Sequence[Size], reasons: dict[int, str], aims: Aims) -> list[int]:
        """Parameters that were tuned and whose gain is not what is wanted."""
        return [
            i
            for gauge, size in zip(self.gauges, sizes, strict=True)
            for i in gauge.parameters
            if i not in reasons and not abs(size.log_gain - aims.of(gauge)) <= np.log1p(aims.tolerance)
        ]

    def _rows(
        self,
        before: Sequence[Size],
        after: Sequence[Size],
        logs: dict[int, float],
        slopes: dict[int, float],
        reasons: dict[int, str],
        aims: Aims,
    ) -> list[Row]:
        calls: dict[int, list[int]] = defaultdict(list)
        places = dict.fromkeys(self.wires.blocked, -len(self.plan.program.equations))
        places.update({i: -place for i, (place, _) in self.wires.looped.items()})
        for number, gauge in enumerate(self.gauges):
            for i in gauge.parameters:
                calls[i].append(number)
                places[i] = -max(place for place in gauge.segment.kernels if i in self.wires.kernels[place].parameters)
        rows = []
        for i in sorted(places, key=lambda i: places[i]):
            mine = calls[i]
            old, new = (_mean([sizes[number] for number in mine]) for sizes in (before, after))
            branch = bool(mine) and self.gauges[mine[0]].segment.skip
            target = float(np.exp(aims.of(self.gauges[mine[0]]))) if mine else np.nan
            of = ("branch" if branch else "layer") if mine else ""
            scale = float(np.exp(logs[i]))
            rows.append(Row(i, old, new, scale, slopes.get(i, np.nan), target, of, reasons.get(i, "")))
        return rows


def _step(gauge: Gauge, values: dict[int, Any], free: Sequence[int], aims: Aims) -> Step:
    """The scales of a layer's kernels, each the same for all that act enough on its gain."""

    def measured(x: float, which: Sequence[int], rough: bool) -> Size:
        return gauge(values, [x if i in which else 0.0 for i in gauge.parameters], rough=rough)

    def gain(x: float, which: Sequence[int]) -> float:
        return measured(x, which, rough=True).log_gain

    def exactly(x: float) -> float:
        sizes[x] = measured(x, acting, rough=False)
        return sizes[x].log_gain

    reasons = {}
    sizes: dict[float, Size] = {}
    if len(free) > 1 and not gauge.segment.skip:  # the last of a branch are added up, and all count
        whole = gain(0.0, free)
        left = {i: gain(-FAINT, [i]) - whole for i in free}
        weak = "its scale acts little on the layer's gain: at a sixteenth of it, {:.2g} of the gain is left"
        reasons = {i: weak.format(np.exp(one)) for i, one in left.items() if one > -FAINT / 2}
    acting = [i for i in free if i not in reasons]
    slopes = {i: slope(lambda x, i=i: gain(x, [i])) for i in free if len(free) > 1}  # type: ignore[misc]
    if not acting:
        return Step({}, slopes, reasons)
    rough = (lambda x: gain(x, acting)) if gauge.draws > 1 else None
    solution = solve(exactly, aims.of(gauge), aims.tolerance / 4, rough)
    slopes = slopes or {free[0]: solution.slope}
    if solution.log_scale is None:
        return Step({}, slopes, reasons | dict.fromkeys(acting, solution.reason))
    logs = dict.fromkeys(acting, solution.log_scale)
    return Step(logs, slopes, reasons, sizes[solution.log_scale])


def _times(parameter: Any, log_scale: float) -> Any:
    return multiplied(parameter, factor(parameter, float(np.exp(log_scale))))


def _scaled(parameters: Sequence[Any], logs: dict[int, float]) -> list[Any]:
    return [_times(one, logs[i]) if logs[i] else one for i, one in enumerate(parameters)]


def _mean(sizes: Sequence[Size]) -> Size:
    """Of several calls the geometric mean."""
    return Size(*(float(np.mean(one)) for one in zip(*sizes, strict=True))) if sizes else NONE
