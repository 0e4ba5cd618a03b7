"""The gain of a layer: the size of its Jacobian, cut out of the backward program between the layer's two taps."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import block, log_norm_parts
from gradsim.inspection.groups import LOOPS
from gradsim.inspection.interpreter import Interpreter
from gradsim.inspection.program import Equation, Program
from gradsim.inspection.structure import key_of
from gradsim.scaled import log

EXACT = 512  # entries of an output up to which a whole basis of cotangents is pushed
PROBES = 16
LONGEST = 48  # equations: what is longer holds many layers, and would take long to compile


class Gain(NamedTuple):
    """½ ln(‖J‖_F² / n_in) of a layer's Jacobian J, its standard error, and how it was found: exact, probes, or not."""

    log_gain: float
    error: float
    method: str


def frobenius(logs: np.ndarray, *, exact: bool) -> tuple[float, float]:
    """ln ‖J‖_F and its standard error, of the logs of norms that a basis (exact), or Gaussian probes, have behind J."""
    top = np.max(logs)
    if not np.isfinite(top):
        return float(top), 0.0
    squares = np.exp(2 * (logs - top))
    if exact:
        return float(top + 0.5 * np.log(squares.sum())), 0.0
    mean = squares.mean()
    return float(top + 0.5 * np.log(mean)), float(0.5 * squares.std(ddof=1) / (mean * np.sqrt(squares.size)))


class Cut(NamedTuple):
    """The equations between two taps: cotangents of the output go in by their numbers, of the input come out."""

    equations: list[Equation]
    seeds: tuple[int, ...]
    results: tuple[int, ...]
    residuals: tuple[int, ...]
    zeros: tuple[int, ...]


def gains(program: Program, known: dict[int, Any]) -> dict[int, Gain]:
    """The gain of every call whose taps stand alone in the program, by its number; `known` are the forward values."""
    places: dict[tuple[int, str], list[int]] = defaultdict(list)
    linear = {program.inputs[-1]}
    shapes: dict[int, Any] = {}
    for place, (source, ins, outs) in enumerate(program.equations):
        if not linear.isdisjoint(ins):
            linear.update(outs)
            shapes.update(zip(outs, (atom.aval for atom in source.outvars), strict=True))
        if source.primitive.name == "gradsim_tap" and source.params["kind"] == "cotangent":
            places[source.params["call"], source.params["role"]].append(place)
    found = {}
    for (call, role), ends in places.items():
        starts = places.get((call, "output"), [])
        if role != "enter" or len(ends) != 1 or len(starts) != 1:
            continue
        cut = _cut(program, starts[0], ends[0], known, linear)
        if cut is not None:
            found[call] = _gain(cut, known, shapes)
    return found


def _cut(program: Program, start: int, end: int, known: dict[int, Any], linear: set[int]) -> Cut | None:
    """What leads from one tap to the other: cotangents on other ways are zero, and values are recomputed."""
    equations = program.equations
    seeds = equations[start].outs
    reached = set(seeds)
    for _, ins, outs in equations[start + 1 : end]:
        if not reached.isdisjoint(ins):
            reached.update(outs)
    results = equations[end].ins
    wanted = set(results)
    chosen: list[Equation] = []
    for equation in reversed(equations[:end]):
        if len(chosen) > LONGEST or not wanted - set(seeds) - known.keys():
            break
        if wanted.isdisjoint(equation.outs) or equation.outs == seeds:
            continue
        if reached.isdisjoint(equation.outs) and not linear.isdisjoint(equation.outs):
            continue
        if all(out in known for out in equation.outs):
            continue
        chosen.append(equation)
        wanted.update(equation.ins)
    if len(chosen) > LONGEST or any(one.source.primitive.name in LOOPS for one in chosen):
        return None
    made = {out for one in chosen for out in one.outs}
    rest = sorted(wanted - made - set(seeds))
    zeros = tuple(number for number in rest if number not in known)
    return Cut(chosen[::-1], seeds, results, tuple(number for number in rest if number in known), zeros)


def _gain(cut: Cut, known: dict[int, Any], shapes: dict[int, Any]) -> Gain:
    outputs = [shapes[number] for number in cut.seeds]
    entries = sum(aval.size for aval in outputs)
    taken = sum(shapes[number].size for number in cut.results)
    exact = entries <= EXACT
    seeds = np.eye(entries) if exact else np.random.default_rng(0).standard_normal((PROBES, entries))
    split = np.split(seeds, np.cumsum([aval.size for aval in outputs])[:-1], axis=1)
    pushed = [
        jnp.asarray(one.reshape(len(seeds), *aval.shape), aval.dtype) for one, aval in zip(split, outputs, strict=True)
    ]
    zeros = [jnp.zeros(shapes[number].shape, shapes[number].dtype) for number in cut.zeros]
    norms = _pushed(cut)(pushed, [known[number] for number in cut.residuals], zeros)
    size, error = frobenius(log(jax.device_get(norms)), exact=exact)
    return Gain(size - 0.5 * float(np.log(taken)), error, "exact" if exact else "probes")


pushes: OrderedDict[Any, Any] = OrderedDict()
KEPT = 256  # compiled programs


def _pushed(cut: Cut) -> Any:
    """(cotangents of the output [k, …], residuals, zeros) -> k norms of the cotangents of the input, compiled."""
    local: dict[int, int] = {}

    def numbers(old: Sequence[int]) -> tuple[int, ...]:
        return tuple(local.setdefault(number, len(local)) for number in old)

    seeds, residuals, zeros = numbers(cut.seeds), numbers(cut.residuals), numbers(cut.zeros)
    equations = [Equation(source, numbers(ins), numbers(outs)) for source, ins, outs in cut.equations]
    results = numbers(cut.results)
    key = (key_of(equations, results), len(seeds), len(residuals), len(zeros))
    if key not in pushes:

        def push(pushed: Any, held: Any, nothing: Any) -> Any:
            def one(cotangents: Any) -> Any:
                values = dict(zip((*residuals, *zeros), (*held, *nothing), strict=True))
                values.update(zip(seeds, map(block, cotangents), strict=True))
                Interpreter("none").trace(equations, values)
                return log_norm_parts([values[number] for number in results])

            return jax.vmap(one)(pushed)

        pushes[key] = jax.jit(push)
        if len(pushes) > KEPT:
            pushes.popitem(last=False)
    return pushes[key]
