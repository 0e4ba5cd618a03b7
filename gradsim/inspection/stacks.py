"""Layers that a scan runs, each turn with its slice of stacked parameters, as layers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradsim.inspection.jax_versions import bind, called, opened, scan_sizes
from gradsim.inspection.layers import Subject
from gradsim.inspection.program import Program, flatten, read
from gradsim.inspection.taps import is_float

Axes = tuple[int, ...]  # that scans run along, the outermost first, each of what the one before has left


@partial(jax.tree_util.register_dataclass, data_fields=["parts"], meta_fields=["axis"])
@dataclass
class Stack:
    """An array as its slices along an axis, each an array or itself a stack."""

    parts: list[Any]
    axis: int


class Unrolled(NamedTuple):
    """A model whose parameters are slices, in place of those that scans run along; and what these are slices of."""

    parted: Subject
    ranks: list[int]  # of the parameters in one turn
    structure: Any

    def whole(self, slices: Sequence[Any]) -> list[Any]:
        """The model's own parameters."""
        return [_whole(one) for one in jax.tree.unflatten(self.structure, slices)]


def unrolled(parted: Subject) -> Unrolled | None:
    """The model with the scans over its kernels turned one after the other, and each turn's kernels as parameters; None
    where no scan runs along one."""

    def floats(parameters: Any, state: Any, inputs: Any) -> list[Any]:
        return [leaf for leaf in jax.tree.leaves(parted.call(parameters, state, inputs)) if is_float(leaf)]

    closed = jax.make_jaxpr(floats)(parted.parameters, parted.state, parted.inputs)
    program = flatten(closed)
    axes = [_axes(program, number) for number in program.inputs[: len(parted.parameters)]]
    ranks = [leaf.ndim - len(one) for leaf, one in zip(parted.parameters, axes, strict=True)]
    kernels = [one if rank > 1 else () for one, rank in zip(axes, ranks, strict=True)]
    if not any(kernels):
        return None
    slices, structure = jax.tree.flatten([_split(*one) for one in zip(parted.parameters, kernels, strict=True)])
    names, each = [], []
    for name, leaf, along, rank in zip(parted.names, parted.parameters, kernels, ranks, strict=True):
        turns = list(product(*map(range, _lengths(leaf.shape, along))))
        names += [f"{name}[{', '.join(map(str, turn))}]" if turn else name for turn in turns]
        each += [rank] * len(turns)
    jaxpr, constants = opened(closed)

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        stacks = jax.tree.unflatten(structure, parameters)
        return [_whole(one) for one in _run(jaxpr, constants, [*stacks, *jax.tree.leaves((state, inputs))])]

    return Unrolled(parted._replace(call=call, parameters=slices, names=names, key=None), each, structure)


def _axes(program: Program, number: int) -> Axes:
    """The axes of an input that scans of the program run along, and scans within these; none where nothing does."""
    orders: dict[int, Any] = {number: None}  # values that are the input, and the order of its axes; None: its own
    for source, ins, outs in program.equations:
        for place, one in enumerate(ins):
            if one not in orders:
                continue
            order = orders[one]
            if source.primitive.name == "transpose":
                axes = source.params["permutation"]
                orders[outs[0]] = axes if order is None else tuple(order[axis] for axis in axes)
            elif source.primitive.name == "convert_element_type":
                orders[outs[0]] = order
            elif source.primitive.name == "scan" and place >= sum(scan_sizes(source.params)):
                body = flatten(source.params["jaxpr"])
                axis = 0 if order is None else order[0]
                left = list(range(source.invars[place].aval.ndim)) if order is None else list(order)
                rest = [old - (old > axis) for old in left[1:]]
                return axis, *_reordered(_axes(body, body.inputs[place]), rest)
    return ()


def _reordered(axes: Axes, order: Sequence[int]) -> Axes:
    """The axes of an array, in turn taken out of it, as those of the array of which its axes are in this order."""
    found, order = [], list(order)
    for axis in axes:
        old = order.pop(axis)
        found.append(old)
        order = [one - (one > old) for one in order]
    return tuple(found)


def _lengths(shape: Sequence[int], axes: Axes) -> list[int]:
    left = list(shape)
    return [left.pop(axis) for axis in axes]


def _split(leaf: Any, axes: Axes) -> Any:
    if not axes:
        return leaf
    slices = [lax.index_in_dim(leaf, i, axes[0], keepdims=False) for i in range(leaf.shape[axes[0]])]
    return Stack([_split(one, axes[1:]) for one in slices], axes[0])


def _whole(value: Any) -> Any:
    return jnp.stack(list(map(_whole, value.parts)), value.axis) if isinstance(value, Stack) else value


def _run(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """A program some of whose inputs are stacks, its results arrays or stacks."""
    known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
    for equation in jaxpr.eqns:
        operands = [read(known, atom) for atom in equation.invars]
        known.update(zip(equation.outvars, _evaluated(equation, operands), strict=True))
    return [read(known, atom) for atom in jaxpr.outvars]


def _evaluated(equation: Any, operands: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if any(isinstance(one, Stack) for one in operands):
        program = None if name.startswith("custom_") else called(equation)
        if program is not None:
            return _run(*opened(program), operands)
        if name in ("transpose", "convert_element_type"):
            return [_moved(equation, operands[0], equation.params.get("permutation"))]
        if name == "scan":
            return _turned(equation, operands)
    return bind(equation, list(map(_whole, operands)))


def _moved(equation: Any, value: Any, order: Sequence[int] | None) -> Any:
    """A stack whose slices are transposed, or made of another dtype, each for itself."""
    if not isinstance(value, Stack):
        if order is None:
            return lax.convert_element_type(value, equation.params["new_dtype"])
        return lax.transpose(value, order)
    if order is None:
        return Stack([_moved(equation, one, None) for one in value.parts], value.axis)
    axis = list(order).index(value.axis)
    rest = [old - (old > value.axis) for old in order if old != value.axis]
    return Stack([_moved(equation, one, rest) for one in value.parts], axis)


def _turned(equation: Any, operands: list[Any]) -> list[Any]:
    """A scan: turn by turn where it runs along a stack."""
    params = equation.params
    constants, carried = scan_sizes(params)
    fixed, rows = operands[:constants], operands[constants + carried :]
    if not any(isinstance(one, Stack) and one.axis == 0 for one in rows):
        return bind(equation, list(map(_whole, operands)))
    carry = list(map(_whole, operands[constants : constants + carried]))
    rows = [one if isinstance(one, Stack) and one.axis == 0 else _whole(one) for one in rows]
    jaxpr, own = opened(params["jaxpr"])
    order = range(params["length"])
    made: dict[int, list[Any]] = {}
    for turn in reversed(order) if params["reverse"] else order:
        xs = [one.parts[turn] if isinstance(one, Stack) else one[turn] for one in rows]
        outs = list(map(_whole, _run(jaxpr, own, [*fixed, *carry, *xs])))
        carry, made[turn] = outs[:carried], outs[carried:]
    return [*carry, *(jnp.stack(column) for column in zip(*(made[turn] for turn in order), strict=True))]
