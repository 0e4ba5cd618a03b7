"""A model as a function of its parameters and inputs, with a tap on what each of its layers returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradsim import arguments
from gradsim.inspection.taps import mark

LABEL = "_gradsim_layer"  # nnx makes new objects of a module in each transformation: its attributes go along


class Subject(NamedTuple):
    """A model taken apart: `call(parameters, state, inputs)` is its output, with taps in it."""

    call: Callable[[Any, Any, Sequence[Any]], Any]
    parameters: list[Any]
    names: list[str]
    state: Any
    inputs: tuple[Any, ...]
    key: Any  # of models that are alike but for their numbers; None where there is no telling


def subject(model: Any, inputs: Sequence[Any], *, variables: Any, rngs: Any, keywords: Mapping[str, Any]) -> Subject:
    """What `model` is: a module of flax.nnx or flax.linen, or a function."""
    from flax import linen, nnx  # at import gradsim does without it

    if isinstance(model, nnx.Module):
        _unused("variables", variables, "flax.linen")
        _unused("rngs", rngs, "flax.linen")
        if not callable(model):
            raise TypeError(f"model: {type(model).__name__} has no __call__; pass a module that can be called")
        return _nnx(model, tuple(inputs), dict(keywords))
    if isinstance(model, linen.Module):
        return _linen(model, tuple(inputs), variables, rngs, dict(keywords))
    if isinstance(model, type) or not callable(model):
        raise TypeError(f"model: {arguments.got(model)}; pass a module of flax.nnx or flax.linen, or a function")
    _unused("variables", variables, "flax.linen")
    _unused("rngs", rngs, "flax.linen")
    return _function(model, tuple(inputs), dict(keywords))


def _unused(name: str, value: Any, kind: str) -> None:
    if value is not None:
        raise TypeError(f"{name}: {arguments.got(value)}; only models of {kind} take it")


def _named(tree: Any) -> tuple[list[Any], list[str], Any]:
    """The leaves of a tree, their paths as a.b.c, and its structure."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in pairs]
    return [leaf for _, leaf in pairs], names, structure


def _function(model: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Subject:
    """A function: the first of several inputs holds its parameters."""
    first, rest = (inputs[0], inputs[1:]) if len(inputs) > 1 else ((), inputs)
    leaves, names, structure = _named(first)
    for name, leaf in zip(names, leaves, strict=True):
        if not _is_array(leaf):
            raise TypeError(f"inputs: parameter {name!r} is {arguments.got(leaf)}; pass arrays of floats")
    fixed = {i: leaf for i, leaf in enumerate(leaves) if not _is_float(leaf)}
    moving = [i for i in range(len(leaves)) if i not in fixed]

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        both = {**state, **dict(zip(moving, parameters, strict=True))}
        given = jax.tree.unflatten(structure, [both[i] for i in range(len(both))])
        return model(*([given] if len(rest) < len_all else []), *inputs, **keywords)

    len_all = len(inputs)
    key = (model, structure, tuple(fixed)) if not keywords else None
    return Subject(call, [leaves[i] for i in moving], [names[i] for i in moving], fixed, rest, key)


def _linen(model: Any, inputs: tuple[Any, ...], variables: Any, rngs: Any, keywords: dict[str, Any]) -> Subject:
    """A flax.linen module with its variables, or one that is bound to them."""
    from flax import linen

    if variables is None:
        if model.scope is None:
            raise ValueError(
                "variables: a flax.linen module holds none; pass variables=model.init(key, ...), or model.bind(...)"
            )
        model, variables = model.unbind()
    if not isinstance(variables, Mapping):
        raise TypeError(f"variables: {arguments.got(variables)}; pass what model.init returned")
    state = {name: value for name, value in variables.items() if name != "params"}
    leaves, names, structure = _named(variables.get("params", {}))

    def intercept(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = method(*args, **kwargs)
        if context.method_name != "__call__":
            return out
        path = ".".join(context.module.path)
        return mark(out, layer=path, type_name=type(context.module).__name__, role="output")

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        collections, streams = state
        every = {"params": jax.tree.unflatten(structure, parameters), **collections}
        with linen.intercept_methods(intercept):
            out, _ = model.apply(every, *inputs, rngs=streams, mutable=list(collections), **keywords)
        return out

    key = (model, structure) if not keywords else None
    return Subject(call, leaves, names, (state, rngs), inputs, key)


def _nnx(model: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Subject:
    """A flax.nnx module: what runs is a copy of it, made anew in the trace."""
    from flax import nnx

    graph, parameters, state = nnx.split(model, nnx.Param, ...)
    leaves, names, structure = _named(parameters)

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        clone = nnx.merge(graph, jax.tree.unflatten(structure, parameters), state, copy=True)
        with _tapped(clone):
            return clone(*inputs, **keywords)

    key = (graph, structure) if not keywords else None
    return Subject(call, leaves, names, state, inputs, key)


@contextmanager
def _tapped(clone: Any) -> Iterator[None]:
    """While this lasts, calls of the clone's modules pass through a tap; nnx has no interceptor of its own."""
    from flax import nnx

    types: dict[type, Any] = {}
    for path, module in nnx.iter_modules(clone):
        kind = type(module)
        if callable(module):
            setattr(module, LABEL, ".".join(map(str, path)))
            types[kind] = kind.__dict__.get("__call__")
    try:
        for kind in types:
            kind.__call__ = _with_tap(kind.__call__)  # type: ignore[attr-defined]
        yield
    finally:
        for kind, own in types.items():
            if own is None:
                del kind.__call__  # type: ignore[attr-defined]
            else:
                kind.__call__ = own  # type: ignore[attr-defined]


def _with_tap(method: Any) -> Any:
    running: set[int] = set()  # a class and the class above it may both be wrapped, and one call passes through both

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        label = getattr(self, LABEL, None)
        if label is None or id(self) in running:
            return method(self, *args, **kwargs)
        running.add(id(self))
        try:
            out = method(self, *args, **kwargs)
        finally:
            running.discard(id(self))
        return mark(out, layer=label, type_name=type(self).__name__, role="output")

    return call


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def _is_float(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
