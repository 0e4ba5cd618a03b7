"""Products of Jacobians: from the input to each layer, and from each layer to the output, a basis pushed through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim.inspection.block_floats import block, log_norm_parts, with_rows
from gradsim.inspection.differentiate import Plan, first_linear, outputs, parts
from gradsim.inspection.gains import EXACT, frobenius
from gradsim.inspection.groups import grouped
from gradsim.inspection.layers import Subject
from gradsim.inspection.passes import Pass
from gradsim.inspection.program import Program, flatten
from gradsim.inspection.records import in_order
from gradsim.inspection.structure import sites
from gradsim.scaled import Scaled, log

PROBES = 64


class Product(NamedTuple):
    """ln ‖J‖_F of each layer's product, over the steps of its scan, and its error; NaN where none passes."""

    log_norm: np.ndarray
    error: np.ndarray
    method: str
    held: dict[int, list[Scaled]]  # what passed through the layers that are kept, by place among the layers
    examples: int  # that do not mix, along the first axis; 0 where they do, or where it was not tried
    sizes: list[int]  # of the arrays that the basis starts from


class Direction(NamedTuple):
    """A plan whose last inputs are a basis [k, …] of `shapes`, and where what passes through a layer is heard."""

    plan: Plan
    kind: str
    shapes: list[Any]
    basis: str  # "whole", "example" by example, or "probes"
    members: int  # k
    examples: int  # along the first axis of all arrays, 0 where they have none in common


def to_output(subject: Subject, probes: bool = False) -> Direction:
    """From each layer to the output: cotangents of the output, pulled back."""
    output = _floats_of(outputs(subject))
    floats, others, _ = parts(subject.inputs)
    shapes = jax.eval_shape(output, subject.parameters, floats, others, subject.state)

    def pulled(parameters: Any, floats: Any, others: Any, state: Any, basis: Any) -> Any:
        pullback = jax.vjp(lambda p, x: output(p, x, others, state), parameters, floats)[1]
        return jax.vmap(pullback)(basis)

    return _direction(pulled, "cotangent", subject, shapes, floats + others, probes)


def from_input(subject: Subject, probes: bool = False) -> Direction:
    """From the input to each layer: tangents of the inputs that are floats, pushed forward."""
    output = _floats_of(outputs(subject))
    floats, others, _ = parts(subject.inputs)

    def pushed(parameters: Any, floats: Any, others: Any, state: Any, basis: Any) -> Any:
        push = jax.linearize(lambda x: output(parameters, x, others, state), floats)[1]
        return jax.vmap(push)(basis)

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in floats]
    return _direction(pushed, "tangent", subject, shapes, floats + others, probes)


def _floats_of(output: Callable[..., Any]) -> Callable[..., list[Any]]:
    def floats(*args: Any) -> list[Any]:
        leaves = jax.tree.leaves(output(*args))
        return [leaf for leaf in leaves if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)]

    return floats


def _direction(
    through: Callable[..., Any], kind: str, subject: Subject, shapes: list[Any], inputs: list[Any], probes: bool
) -> Direction:
    firsts = {one.shape[:1] for one in (*shapes, *inputs)}
    examples = firsts.pop()[0] if len(firsts) == 1 and () not in firsts else 0
    entries = sum(one.size for one in shapes)
    name, count = "probes", PROBES
    if entries <= EXACT:
        name, count = "whole", entries
    elif examples and entries // examples <= EXACT and not probes:
        name, count = "example", entries // examples
    floats, others, _ = parts(subject.inputs)
    basis = [jax.ShapeDtypeStruct((count, *one.shape), one.dtype) for one in shapes]
    closed = jax.make_jaxpr(through)(subject.parameters, floats, others, subject.state, basis)
    program = _pruned(flatten(closed), kind)
    cut = first_linear(program, program.inputs[-len(shapes) :])
    return Direction(Plan(program, *grouped(program, cut), jnp.float32), kind, shapes, name, count, examples)


def _pruned(program: Program, kind: str) -> Program:
    """What leads to taps: gradients of the parameters are not wanted."""
    needed: set[int] = set()
    kept = []
    for equation in reversed(program.equations):
        heard = sites(equation.source, kind) or sites(equation.source, "value")
        if heard or not needed.isdisjoint(equation.outs):
            kept.append(equation)
            needed.update(equation.ins)
    return program._replace(equations=kept[::-1], outputs=[])


def product(make: Callable[[bool], Direction], operands: Sequence[Any], kept: Collection[int] = ()) -> Product:
    """‖J‖_F of the product of each layer, in order of execution; exact with a whole basis, else from Gaussian probes.

    One basis for all examples at once is exact where no example reaches another's values, which is tried; `make` gives
    the direction, with probes where it is told to.
    """
    direction = make(False)
    values = _forward(direction, operands)
    apart = 0
    if direction.examples and (kept or direction.basis == "example"):
        apart = 0 if _mix(direction, values) else direction.examples
    if direction.basis == "example" and not apart:
        direction = make(True)
        values = _forward(direction, operands)
    if direction.basis == "probes":
        basis = np.random.default_rng(0).standard_normal((direction.members, sum(one.size for one in direction.shapes)))
    else:
        basis = np.eye(direction.members)
    heard = (site for one in direction.plan.program.equations for site in sites(one.source, "value"))
    order = [site for site in heard if site.role != "activation"]
    walk = _walk(direction, values, basis, basis_norms, {order[place].site for place in kept})
    backward, probes = walk.kind == "cotangent", direction.basis == "probes"
    notes = walk.heard(walk.together.fetched(walk.later)).records
    found = [_size(note, probes) for note in in_order(notes, order, backward=backward)]
    matrices = enumerate(in_order(walk.held, order, backward=backward))
    held = {place: [block(x) for x in one] for place, one in matrices if place in kept and one is not None}
    log_norm, error = (np.array(column) for column in zip(*found, strict=True))
    method = "probes" if probes else "exact"
    sizes = [one.size for one in direction.shapes]
    return Product(log_norm, error, method, held, apart, sizes)


def _forward(direction: Direction, operands: Sequence[Any]) -> dict[int, Any]:
    program = direction.plan.program
    values = {**program.constants, **dict(zip(program.inputs, operands, strict=False))}
    Pass("none").walk(direction.plan.forward, values)
    return values


def _walk(direction: Direction, values: dict[int, Any], basis: Any, note: Any, kept: Collection[int]) -> Pass:
    """`basis` has a column for each entry of the arrays that it starts from, or of one example's."""
    each = direction.examples if basis.shape[1] < sum(one.size for one in direction.shapes) else 1
    split = np.split(basis, np.cumsum([one.size // each for one in direction.shapes])[:-1], axis=1)
    seeds = []
    for part, one in zip(split, direction.shapes, strict=True):
        every = np.repeat(part[:, None], each, axis=1).reshape(len(part), *one.shape)
        seeds.append(block(jnp.asarray(every, one.dtype)))
    walk = Pass(direction.kind, note, kept)
    inputs = direction.plan.program.inputs[-len(seeds) :]
    walk.walk(direction.plan.backward, {**values, **dict(zip(inputs, seeds, strict=True))})
    return walk


def _mix(direction: Direction, values: dict[int, Any]) -> bool:
    """Does what enters at the first example reach others? True where no layer can tell."""
    sizes = [one.size for one in direction.shapes]
    basis = np.zeros((direction.members, sum(sizes)))
    start = 0
    for size in sizes:
        of_first = size // direction.examples
        basis[0, start : start + of_first] = np.random.default_rng(0).standard_normal(of_first)
        start += size
    walk = _walk(direction, values, basis, reach, ())
    seen = [note.reshape(-1, 2) for _, note in walk.heard(walk.together.fetched(walk.later)).records]
    told = [rows[rows[:, 0] == direction.examples] for rows in seen]
    return not any(len(rows) for rows in told) or any(rows[:, 1].any() for rows in told)


def basis_norms(operands: Sequence[Any], *, units: bool) -> Any:
    """The norm for each member of the basis: mantissa and exponent [k, 2]."""
    rows = [with_rows(x, x.mantissa.shape[0]) for x in map(block, operands)]
    size = jax.vmap(log_norm_parts)(rows)
    return jnp.stack([size.mantissa, size.exponent.astype(size.mantissa.dtype)], -1)


def reach(operands: Sequence[Any], *, units: bool) -> Any:
    """The length of the second axis, and whether any entry beyond its first place is not zero."""
    xs = [x.mantissa for x in map(block, operands) if x.mantissa.ndim > 1]
    beyond = [jnp.any(x[:, 1:] != 0) for x in xs]
    lengths = {x.shape[1] for x in xs}
    one = lengths.pop() if len(lengths) == 1 else 0
    return jnp.stack([jnp.int32(one), jnp.any(jnp.stack(beyond)).astype(jnp.int32) if beyond else jnp.int32(0)])


def _size(note: Any, probes: bool) -> tuple[float, float]:
    """ln ‖J‖_F from the norms [(steps,) k, 2] of what passed, of all steps together, and its standard error."""
    if note is None:
        return np.nan, np.nan
    logs = log(Scaled(*np.moveaxis(np.asarray(note, np.float64), -1, 0)))
    return frobenius(0.5 * np.logaddexp.reduce(2 * logs.reshape(-1, logs.shape[-1]), axis=0), exact=not probes)
