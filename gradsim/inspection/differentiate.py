"""A model with its loss -> the flat program of its forward and its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim import arguments
from gradsim.inspection.groups import Group, grouped
from gradsim.inspection.layers import Subject
from gradsim.inspection.program import Program, flatten
from gradsim.inspection.structure import sites
from gradsim.inspection.taps import is_float, mark

Loss = Callable[[Any], Any]


class Plan(NamedTuple):
    """A program, in groups of equations before and after the first that needs the cotangent."""

    program: Program
    forward: list[Group]
    backward: list[Group]
    results: list[int]
    dtype: Any  # of the loss, and so of the cotangent


def trace(subject: Subject, loss: Loss | None) -> Plan:
    """The program (parameters, float inputs, other inputs, state, cotangent) -> (loss, gradients).

    Raises: ValueError where the model does not take the inputs, or the loss is not one number.
    """
    floats, others, _ = parts(subject.inputs)
    output = outputs(subject)

    def both(parameters: Any, floats: Any, others: Any, state: Any, cotangent: Any) -> Any:
        def value(parameters: Any, floats: Any) -> Any:
            return scalar(output(parameters, floats, others, state), loss)

        out, pullback = jax.vjp(value, parameters, floats)
        return out, pullback(cotangent.astype(out.dtype))

    dtype = _widest([*subject.parameters, *floats])
    closed = jax.make_jaxpr(both)(subject.parameters, floats, others, subject.state, jax.ShapeDtypeStruct((), dtype))
    program = flatten(closed)
    if not any(site.role == "output" for one in program.equations for site in sites(one.source, "value")):
        raise ValueError(
            "model: no layers; pass a module that calls others, or mark what a function computes with "
            "jax.named_scope or gradsim.inspection.tap(value, name)"
        )
    return Plan(program, *grouped(program, first_linear(program, program.inputs[-1:])), dtype)


def outputs(subject: Subject) -> Callable[[Any, Any, Any, Any], Any]:
    """(parameters, float inputs, other inputs, state) -> the model's output, with taps on layers and float inputs."""
    join = parts(subject.inputs)[2]

    def output(parameters: Any, floats: Any, others: Any, state: Any) -> Any:
        floats = mark(floats, layer="", type_name="input", role="input") if floats else floats
        try:
            return subject.call(parameters, state, join(floats, others))
        except Exception as error:
            raise ValueError(
                f"inputs: the model does not take them: {arguments.reason(error)}; pass what it is called with"
            ) from error

    return output


def first_linear(program: Program, seeds: Sequence[int]) -> int:
    """The place of the first equation that depends on the seeds: those before it are the forward pass."""
    places = (place for place, one in enumerate(program.equations) if not set(seeds).isdisjoint(one.ins))
    return next(places, len(program.equations))


def parts(inputs: Sequence[Any]) -> tuple[list[Any], list[Any], Callable[[Any, Any], Any]]:
    """The leaves of the inputs that are floats, the others, and how to put both together again."""
    leaves, structure = jax.tree.flatten(tuple(inputs))
    moving = [is_float(leaf) for leaf in leaves]

    def join(floats: Sequence[Any], others: Sequence[Any]) -> Any:
        one, two = iter(floats), iter(others)
        return jax.tree.unflatten(structure, [next(one if mine else two) for mine in moving])

    floats = [leaf for leaf, mine in zip(leaves, moving, strict=True) if mine]
    return floats, [leaf for leaf, mine in zip(leaves, moving, strict=True) if not mine], join


def scalar(out: Any, loss: Loss | None) -> Any:
    """The loss; without one, the output itself where it is one number, else Σ u·y with u standard normal draws."""
    if loss is None:
        ys = [y for y in jax.tree.leaves(out) if hasattr(y, "dtype") and jnp.issubdtype(y.dtype, jnp.floating)]
        if not ys:
            raise ValueError("model: its output has no array of floats; pass one whose output has, or a loss")
        if len(ys) == 1 and ys[0].shape == ():
            return ys[0]
        dtype = _widest(ys)
        generator = np.random.default_rng(0)  # a sum of all outputs may be constant, as after a softmax
        return sum(jnp.sum(y * generator.standard_normal(y.shape).astype(y.dtype)).astype(dtype) for y in ys)
    try:
        result = loss(out)
    except Exception as error:
        raise ValueError(
            f"loss: it does not take the model's output: {arguments.reason(error)}; pass a function of it"
        ) from error
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        came = arguments.got(result) if shape is None else f"got shape {list(shape)} of {dtype}"
        raise ValueError(f"loss: {came}; pass a function that returns one floating-point number")
    return result


def _widest(arrays: Sequence[Any]) -> Any:
    dtype = arrays[0].dtype
    for one in arrays[1:]:
        dtype = jnp.promote_types(dtype, one.dtype)
    return jnp.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else dtype
