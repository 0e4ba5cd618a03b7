"""The gain of a layer: the size of its Jacobian, cut out of the backward program between the layer's two taps."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import block, log_norm_parts
from gradsim.inspection.groups import LOOPS
from gradsim.inspection.interpreter import Interpreter
from gradsim.inspection.jax_versions import scan_sizes
from gradsim.inspection.program import Equation, Program, flatten
from gradsim.inspection.structure import key_of
from gradsim.scaled import log

EXACT = 512  # entries of an output up to which a whole basis of cotangents is pushed
PROBES = 16
LONGEST = 48  # equations: what is longer holds many layers, and would take long to compile


class Gain(NamedTuple):
    """½ ln(‖J‖_F² / n_in) of a layer's Jacobian J, its standard error, and how it was found: exact, probes, or not.

    Of a layer in a scan they are arrays, one number for each turn.
    """

    log_gain: Any
    error: Any
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


class Turns(NamedTuple):
    """Of the body of a scan: how often it runs, and its inputs that have a slice for each turn."""

    length: int
    stacked: Collection[int]


def gains(program: Program, known: dict[int, Any]) -> dict[int, Gain]:
    """The gain of every call whose taps stand alone in the program, or in a scan of its, by the call's number; `known`
    are the forward values."""
    linear = linear_in(program, {program.inputs[-1]})
    found = within(program, known, linear, None)
    for equation in program.equations:
        if equation.source.primitive.name == "scan" and not linear.keys().isdisjoint(equation.ins):
            found |= _in_scan(program, equation, known, linear)
    return found


def linear_in(program: Program, seeds: Collection[int]) -> dict[int, Any]:
    """What depends on the seeds, and its kind; with all that is added to it or passes the same taps."""
    linear = dict.fromkeys(seeds)
    for source, ins, outs in program.equations:
        if not linear.keys().isdisjoint(ins):
            pairs = zip((*ins, *outs), (*source.invars, *source.outvars), strict=True)
            linear.update((one, atom.aval) for one, atom in pairs if one in linear or one in outs)
    return linear


def within(program: Program, known: dict[int, Any], linear: dict[int, Any], turns: Turns | None) -> dict[int, Gain]:
    """The gains of calls whose taps stand in this program, not in another that it calls."""
    places: dict[tuple[int, str], list[int]] = defaultdict(list)
    for place, (source, _, _) in enumerate(program.equations):
        if source.primitive.name == "gradsim_tap" and source.params["kind"] == "cotangent":
            places[source.params["call"], source.params["role"]].append(place)
    found = {}
    for (call, role), ends in places.items():
        starts = places.get((call, "output"), [])
        if role != "enter" or len(ends) != 1 or len(starts) != 1:
            continue
        cut = _cut(program, starts[0], ends[0], known, linear)
        if cut is not None and linear.keys() >= {*cut.zeros}:
            found[call] = _gain(cut, known, linear, turns)
    return found


def _in_scan(program: Program, equation: Equation, known: dict[int, Any], linear: dict[int, Any]) -> dict[int, Gain]:
    """Those in the body of a scan of the backward program, at what each turn has of the forward pass."""
    params = equation.source.params
    body = flatten(params["jaxpr"])
    constants, carried = scan_sizes(params)
    pairs = list(zip(body.inputs, equation.ins, strict=True))
    seeds = {inner for inner, outer in pairs if outer in linear}
    while True:
        own = linear_in(body, seeds)
        carry = zip(body.inputs[constants : constants + carried], body.outputs, strict=False)
        more = {before for before, after in carry if after in own} - seeds
        if not more:
            break
        seeds |= more
    fixed = [pair for pair in (*pairs[:constants], *pairs[constants + carried :]) if pair[0] not in seeds]
    values = _made(program, [outer for _, outer in fixed], known)
    held = {**body.constants, **{inner: values[outer] for inner, outer in fixed}}
    return within(body, held, own, Turns(params["length"], set(body.inputs[constants + carried :])))


def _made(program: Program, wanted: Sequence[int], known: dict[int, Any]) -> dict[int, Any]:
    """These values, and whatever was needed to make them of those that are known."""
    missing = set(wanted) - known.keys()
    chosen = []
    for equation in reversed(program.equations if missing else []):
        if not missing.isdisjoint(equation.outs):
            chosen.append(equation)
            missing |= set(equation.ins) - known.keys()
    values = dict(known)
    Interpreter("none").trace(chosen[::-1], values)
    return values


def _cut(program: Program, start: int, end: int, known: dict[int, Any], linear: dict[int, Any]) -> Cut | None:
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
        if reached.isdisjoint(equation.outs) and not linear.keys().isdisjoint(equation.outs):
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


def _gain(cut: Cut, known: dict[int, Any], kinds: dict[int, Any], turns: Turns | None) -> Gain:
    outputs = [kinds[number] for number in cut.seeds]
    entries = sum(aval.size for aval in outputs)
    exact = entries <= EXACT
    seeds = np.eye(entries) if exact else np.random.default_rng(0).standard_normal((PROBES, entries))
    split = np.split(seeds, np.cumsum([aval.size for aval in outputs])[:-1], axis=1)
    pushed = [
        jnp.asarray(one.reshape(len(seeds), *aval.shape), aval.dtype) for one, aval in zip(split, outputs, strict=True)
    ]
    zeros = [jnp.zeros(kinds[number].shape, kinds[number].dtype) for number in cut.zeros]
    stacked = tuple(turns is not None and number in turns.stacked for number in cut.residuals)
    push = _pushed(cut, stacked)
    norms = log(jax.device_get(push(pushed, [known[number] for number in cut.residuals], zeros)))
    sizes, errors = np.transpose([frobenius(one, exact=exact) for one in np.atleast_2d(norms)])
    sizes = sizes - 0.5 * np.log(sum(kinds[number].size for number in cut.results))
    method = "exact" if exact else "probes"
    if turns is None:
        return Gain(float(sizes[0]), float(errors[0]), method)
    return Gain(np.broadcast_to(sizes, turns.length), np.broadcast_to(errors, turns.length), method)


pushes: OrderedDict[Any, Any] = OrderedDict()
KEPT = 256  # compiled programs


def _pushed(cut: Cut, stacked: tuple[bool, ...]) -> Any:
    """(cotangents of the output [k, …], residuals, zeros) -> k norms of the cotangents of the input, compiled; where
    residuals are stacked, so many for each turn."""
    local: dict[int, int] = {}

    def numbers(old: Sequence[int]) -> tuple[int, ...]:
        return tuple(local.setdefault(number, len(local)) for number in old)

    seeds, residuals, zeros = numbers(cut.seeds), numbers(cut.residuals), numbers(cut.zeros)
    equations = [Equation(source, numbers(ins), numbers(outs)) for source, ins, outs in cut.equations]
    results = numbers(cut.results)
    key = (key_of(equations, results), len(seeds), stacked, len(zeros))
    if key not in pushes:

        def push(pushed: Any, held: Any, nothing: Any) -> Any:
            def one(cotangents: Any) -> Any:
                values = dict(zip((*residuals, *zeros), (*held, *nothing), strict=True))
                values.update(zip(seeds, map(block, cotangents), strict=True))
                Interpreter("none").trace(equations, values)
                return log_norm_parts([values[number] for number in results])

            return jax.vmap(one)(pushed)

        def turned(pushed: Any, held: Sequence[Any], nothing: Any) -> Any:
            def turn(rows: Sequence[Any]) -> Any:
                own = iter(rows)
                both = [next(own) if mine else one for one, mine in zip(held, stacked, strict=True)]
                return push(pushed, both, nothing)

            return jax.lax.map(turn, [one for one, mine in zip(held, stacked, strict=True) if mine])

        pushes[key] = jax.jit(turned if any(stacked) else push)
        if len(pushes) > KEPT:
            pushes.popitem(last=False)
    return pushes[key]
