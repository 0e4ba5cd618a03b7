"""The gain of a layer as a function of its kernels' scales: what leads from the next layer's input back to its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import aligned, block, joint_shape, log_norm_parts, normalized
from gradsim.inspection.gains import EXACT, PROBES, frobenius
from gradsim.inspection.interpreter import Interpreter
from gradsim.inspection.program import Equation, Program
from gradsim.inspection.structure import key_of
from gradsim.inspection.wiring import LOOPS, OUTPUT, Branch, Wiring, branches, end_of, passing
from gradsim.scaled import log

MOST = 32  # draws of so many
FAR = 60.0  # nats: what is so far from one is measured in block floating point
LONGEST = 400  # equations


class Segment(NamedTuple):
    """Kernels that act on one layer's gain together, and its Jacobian: from the value of `seeds` back to `result`.

    Of a branch, `skip` says that the Jacobian of its block is larger by the identity.
    """

    kernels: tuple[int, ...]
    seeds: int
    result: int
    skip: bool
    ways: tuple[Equation, ...]  # linear, in order; what comes on other ways has a negative number, and is zero


class Size(NamedTuple):
    """ln of a gain, the standard error of that, and ln of the gain of the block around a branch."""

    log_gain: float
    error: float
    log_block: float


def segments(program: Program, wires: Wiring) -> list[Segment]:
    """Every kernel in one of them: the last of a branch for the whole branch, each other up to the next."""
    found = []
    closed: set[int] = set()
    for branch in branches(program, wires):
        last = tuple(k for k in sorted(branch.kernels) if wires.kernels[k].following not in branch.kernels)
        found.append(_of_branch(program, wires, branch, last))
        closed.update(last)
    groups: dict[Any, list[int]] = {}
    for place, kernel in wires.kernels.items():
        if place not in closed:
            # Kernels of one input that the same layer follows, as those of attention, are one layer.
            alone = place if kernel.following == OUTPUT else kernel.following
            groups.setdefault((alone, end_of(program, wires, kernel.result)), []).append(place)
    for (_, result), places in groups.items():
        kernel = wires.kernels[places[0]]
        seeds = kernel.source if kernel.following == OUTPUT else wires.kernels[kernel.following].result
        found.append(_of_layer(program, wires, tuple(places), seeds, result))
    return found


def _of_branch(program: Program, wires: Wiring, branch: Branch, last: tuple[int, ...]) -> Segment:
    first, end = wires.made.get(branch.skip, OUTPUT), wires.made[branch.result]
    within = [place for place in range(first + 1, end) if place not in branch.path]
    terms = {number for place in branch.path for number in program.equations[place].ins} - {branch.skip}
    inside = passing(program, within, {branch.skip}, terms)
    ways = [program.equations[place] for place in inside]
    ways += _joined(program, sorted(branch.path), {number for one in ways for number in one.outs}, wires)
    return Segment(last, branch.skip, branch.result, True, tuple(ways))


def _of_layer(program: Program, wires: Wiring, kernels: tuple[int, ...], seeds: int, result: int) -> Segment:
    """Only ways through the kernels count: a gate or a skip beside them is not theirs."""
    own = [wires.kernels[place] for place in kernels]
    sources = {k.source for k in own}
    before = passing(program, range(wires.made.get(seeds, OUTPUT) + 1, max(kernels)), {seeds}, sources)
    nearer = _as_many(program, wires, before, seeds, sources)
    if nearer != seeds:
        before, seeds = passing(program, before, {nearer}, sources), nearer
    made = {k.result for k in own}
    after = passing(program, range(min(kernels) + 1, wires.made[result] + 1), made, {result})
    ways = [program.equations[place] for place in sorted({*before, *kernels})]
    return Segment(kernels, seeds, result, False, (*ways, *_joined(program, after, made, wires)))


def _as_many(program: Program, wires: Wiring, places: Sequence[int], seeds: int, sources: set[int]) -> int:
    """The last value of as many numbers as the product has, on the way to the next layer: a pool is no layer's own."""
    size = max(wires.linear[number].size for number in sources)
    if wires.linear[seeds].size == size:
        return seeds
    needed = {number: place for place in places for number in program.equations[place].ins}
    needed.update(dict.fromkeys(sources, len(program.equations)))
    live: set[int] = set()
    for place in places:
        live = {number for number in {*live, *program.equations[place].outs} if needed.get(number, OUTPUT) > place}
        if len(live) == 1 and wires.linear[(only := next(iter(live)))].size == size:
            return only
    return seeds


def _joined(program: Program, places: Sequence[int], there: Collection[int], wires: Wiring) -> list[Equation]:
    """Equations that take only what is there, and the linear values that they make of it."""
    there, found = set(there), []
    for place in places:
        source, ins, outs = program.equations[place]
        found.append(Equation(source, tuple(i if i in there or i not in wires.linear else -i for i in ins), outs))
        there.update(outs)
    return found


class Gauge:
    """Measures the gain of a segment at the values of a forward pass, its kernels multiplied by scales."""

    def __init__(
        self, program: Program, wires: Wiring, segment: Segment, known: Collection[int], per_output: bool
    ) -> None:
        self.segment = segment
        parameters = {i for place in segment.kernels for i in wires.kernels[place].parameters}
        self.parameters = tuple(sorted(parameters))
        self.taken = tuple(program.inputs[i] for i in self.parameters)
        equations, held, zeros = _needed(program, wires, segment, set(self.taken), known)
        self.held = held
        self.long = len(equations) > LONGEST or any(one.source.primitive.name in LOOPS for one in equations)
        self.zeros = [wires.linear[abs(number)] for number in zeros]
        self.seeds, self.result = wires.linear[segment.seeds], wires.linear[segment.result]
        self.divisor = self.seeds.size if per_output else self.result.size
        self.exact = self.seeds.size <= EXACT
        self.draws = 1
        self.pushes: dict[bool, Any] = {}
        self.parts = (equations, segment, self.taken, held, zeros)

    def __call__(
        self,
        values: Mapping[int, Any],
        log_scales: Sequence[float] | None = None,
        *,
        rough: bool = False,
        made: dict[bool, list[Any]] | None = None,
    ) -> Size:
        """`log_scales` are those of `parameters`, one each; roughly, by the first draw of probes alone; what was `made`
        of draws before is not made again."""
        made = {} if made is None else made
        scales = np.exp(np.zeros(len(self.parameters)) if log_scales is None else np.asarray(log_scales, np.float64))
        zeros = [jnp.zeros(aval.shape, aval.dtype) for aval in self.zeros]
        kernels = [values[number] for number in self.taken]
        given = [factor(kernel, scale) for kernel, scale in zip(kernels, scales, strict=True)]
        held = [values[number] for number in self.held]
        # Plain floats are compiled in less time, and do where the gain is near one.
        for blocks in (False, True) if jnp.finfo(self.seeds.dtype).bits > 16 else (True,):
            push = self.pushes.get(blocks) or _compiled(*self.parts, blocks)
            self.pushes[blocks] = push
            norms = made.setdefault(blocks, [])
            draws = range(len(norms), 1 if rough else self.draws)
            pushed = [push(_seeds(draw, self.exact, self.seeds), given, kernels, held, zeros) for draw in draws]
            norms += [[log(one) for one in both] for both in jax.device_get(pushed)]
            several = (frobenius(np.concatenate(logs), exact=self.exact) for logs in zip(*norms, strict=True))
            (gain, error), (whole, _) = ((size - 0.5 * np.log(self.divisor), error) for size, error in several)
            if abs(gain) < FAR:
                break
        return Size(float(gain), error, float(whole) if self.segment.skip else float("nan"))

    def refined(self, values: Mapping[int, Any], error: float) -> Size:
        """With as many probes as the error asks for, up to a limit."""
        made: dict[bool, list[Any]] = {}
        size = self(values, made=made)
        while size.error > error and self.draws < MOST:
            self.draws = min(MOST, 1 + int(self.draws * (size.error / error) ** 2))
            size = self(values, made=made)
        return size


def multiplied(kernel: Any, scale: Any) -> Any:
    """In the kernel's own dtype, rounded once."""
    return (kernel.astype(scale.dtype) * scale).astype(kernel.dtype)


def factor(kernel: Any, scale: float) -> Any:
    """The scale in floats that are not narrower than the kernel's."""
    return jnp.asarray(scale, jnp.float32 if jnp.finfo(kernel.dtype).bits < 32 else kernel.dtype)


def _seeds(draw: int, exact: bool, aval: Any) -> Any:
    key = (draw, exact, aval.shape, str(aval.dtype))
    if key not in kept_seeds:
        generator = np.random.default_rng(draw)
        drawn = np.eye(aval.size) if exact else generator.standard_normal((PROBES, aval.size))
        kept_seeds[key] = jnp.asarray(drawn.reshape(-1, *aval.shape), aval.dtype)
        if len(kept_seeds) > MOST:
            kept_seeds.popitem(last=False)
    return kept_seeds[key]


kept_seeds: OrderedDict[Any, Any] = OrderedDict()


def _needed(
    program: Program, wires: Wiring, segment: Segment, kernels: set[int], known: Collection[int]
) -> tuple[list[Equation], tuple[int, ...], tuple[int, ...]]:
    """The segment's equations with those that make their coefficients anew, where the kernels act on them; what these
    take as it is; and what is zero."""
    made = {number for one in segment.ways for number in one.outs}
    zeros, coefficients = [], []
    for one in segment.ways:
        for number in one.ins:
            if number < 0 or number in wires.linear:
                if number not in made and number != segment.seeds:
                    zeros.append(number)
            else:
                coefficients.append(number)
    end = max((wires.made[number] for number in coefficients if number in wires.made), default=OUTPUT)
    acted = _acted_on(program, wires, kernels, end)
    chosen: set[int] = set()
    held, left = [], coefficients
    while left:
        number = left.pop()
        if number in kernels:
            continue
        if number in acted or number not in known:
            place = wires.made[number]
            if place not in chosen:
                chosen.add(place)
                left += program.equations[place].ins
        else:
            held.append(number)
    equations = [program.equations[place] for place in sorted(chosen)] + list(segment.ways)
    order = [number for one in equations for number in one.ins]
    mine, nothing = set(held), set(zeros)
    return (
        equations,
        tuple(dict.fromkeys(number for number in order if number in mine)),
        tuple(dict.fromkeys(number for number in order if number in nothing)),
    )


def _acted_on(program: Program, wires: Wiring, kernels: set[int], end: int) -> set[int]:
    """What is computed from the kernels, up to the equation `end`."""
    acted = set(kernels)
    start = min(wires.taken[number] for number in kernels)
    for _, ins, outs in program.equations[start : end + 1]:
        if not acted.isdisjoint(ins) and wires.linear.keys().isdisjoint(outs):
            acted.update(outs)
    return acted


pushes: OrderedDict[Any, Any] = OrderedDict()
KEPT = 256  # compiled programs


def _compiled(
    equations: Sequence[Equation],
    segment: Segment,
    kernels: Sequence[int],
    held: Sequence[int],
    zeros: Sequence[int],
    blocks: bool,
) -> Any:
    """(cotangents [k, …], scales, kernels, held, zeros) -> k norms of the input's cotangents, and of the block's."""
    local: dict[int, int] = {}

    def numbers(old: Sequence[int]) -> tuple[int, ...]:
        return tuple(local.setdefault(number, len(local)) for number in old)

    ins = [numbers(one) for one in ((segment.seeds,), kernels, held, zeros)]
    equations = [Equation(source, numbers(ins), numbers(outs)) for source, ins, outs in equations]
    (result,) = numbers((segment.result,))
    key = (key_of(equations, (result,)), *map(len, ins), segment.skip, blocks)
    if key not in pushes:

        def push(pushed: Any, scales: Any, kernels: Any, held: Any, nothing: Any) -> Any:
            scaled = [multiplied(kernel, scale) for kernel, scale in zip(kernels, scales, strict=True)]
            fixed = dict(zip((*ins[1], *ins[2], *ins[3]), (*scaled, *held, *nothing), strict=True))

            def one(cotangent: Any) -> Any:
                values = {**fixed, ins[0][0]: block(cotangent) if blocks else cotangent}
                Interpreter("none").trace(equations, values)
                out = block(values[result])
                whole = _plus(out, block(cotangent)) if segment.skip else out
                return log_norm_parts([out]), log_norm_parts([whole])

            return jax.vmap(one)(pushed)

        pushes[key] = jax.jit(push)
        if len(pushes) > KEPT:
            pushes.popitem(last=False)
    return pushes[key]


def _plus(first: Any, second: Any) -> Any:
    shape = joint_shape([first, second])
    top = jnp.maximum(jnp.broadcast_to(first.exponent, shape), jnp.broadcast_to(second.exponent, shape))
    return normalized(aligned(first, top) + aligned(second, top), top)
