"""A model as a function of its parameters and inputs, with a tap on what each of its layers returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradsim import arguments
from gradsim.inspection.scopes import with_scopes
from gradsim.inspection.taps import is_float, mark, sites

LABEL = "_gradsim_layer"  # nnx makes new objects of a module in each transformation: its attributes go along


class Subject(NamedTuple):
    """A model taken apart: `call(parameters, state, inputs)` is its output, with taps in it."""

    call: Callable[[Any, Any, Sequence[Any]], Any]
    parameters: list[Any]
    names: list[str]
    state: Any
    inputs: tuple[Any, ...]
    key: Any  # of models that are alike but for their numbers; None where there is no telling


def subject(model: Any, inputs: Sequence[Any], *, variables: Any, rngs: Any, keywords: Any) -> Subject:
    """What `model` is: a module of flax.nnx or flax.linen, or a function.

    Raises: TypeError or ValueError naming the argument that is not what it should be.
    """
    from flax import linen, nnx  # at import gradsim does without it

    if not inputs:
        raise ValueError("inputs: got none; pass what the model is called with")
    if keywords is not None and not isinstance(keywords, Mapping):
        raise TypeError(f"keywords: {arguments.got(keywords)}; pass a dict of arguments by name")
    inputs, keywords = tuple(jax.tree.map(_array, one) for one in inputs), dict(keywords or {})
    if isinstance(model, nnx.Module):
        _unused("variables", variables, "flax.linen")
        _unused("rngs", rngs, "flax.linen")
        if not callable(model):
            raise TypeError(f"model: {type(model).__name__} has no __call__; pass a module that can be called")
        return _nnx(model, inputs, keywords)
    if isinstance(model, linen.Module):
        return _linen(model, inputs, variables, rngs, keywords)
    if isinstance(model, type) or not callable(model):
        raise TypeError(f"model: {arguments.got(model)}; pass a module of flax.nnx or flax.linen, or a function")
    _unused("variables", variables, "flax.linen")
    _unused("rngs", rngs, "flax.linen")
    return _function(model, inputs, keywords)


def _array(leaf: Any) -> Any:
    try:
        return jnp.asarray(leaf)
    except Exception as error:
        raise TypeError(f"inputs: {arguments.got(leaf)}; pass arrays, or trees of arrays") from error


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
    fixed = {i: leaf for i, leaf in enumerate(leaves) if not is_float(leaf)}
    moving = [i for i in range(len(leaves)) if i not in fixed]

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        both = {**state, **dict(zip(moving, parameters, strict=True))}
        given = jax.tree.unflatten(structure, [both[i] for i in range(len(both))])
        placed = [*([given] if has_parameters else []), *inputs]
        return with_scopes(lambda *args: model(*args, **keywords), *placed)

    has_parameters = len(rest) < len(inputs)
    key = (model, structure, tuple(fixed)) if not keywords and is_pure(model) else None
    return Subject(call, [leaves[i] for i in moving], [names[i] for i in moving], fixed, rest, key)


def is_pure(function: Any) -> bool:
    """Does it always compute the same, but for global variables: a function that closes over nothing?"""
    plain = isinstance(function, FunctionType) and not function.__closure__
    return plain and not function.__defaults__ and not function.__kwdefaults__


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
        if context.method_name != "__call__":
            return method(*args, **kwargs)
        path = ".".join(context.module.path)
        return around(lambda *given: method(*given, **kwargs), path, type(context.module).__name__)(*args)

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

    graph, parameters, state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    leaves, names, structure = _named(parameters)
    # What holds state, as nnx.Rngs does, is an input, so that what runs is a copy of it as well.
    stateful = [name for name, value in keywords.items() if isinstance(value, nnx.Pytree)]
    inputs += tuple(keywords[name] for name in stateful)

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        clone = nnx.merge(graph, jax.tree.unflatten(structure, parameters), state, copy=True)
        places = len(inputs) - len(stateful)
        with _tapped(clone):
            return clone(*inputs[:places], **{**keywords, **dict(zip(stateful, inputs[places:], strict=True))})

    key = (graph, structure) if not keywords else None
    return Subject(call, leaves, names, state, inputs, key)


@contextmanager
def _tapped(clone: Any) -> Iterator[None]:
    """While this lasts, calls of the clone's modules pass through a tap; nnx has no interceptor of its own."""
    from flax import nnx

    types: dict[type, Any] = {}
    running: set[int] = set()
    for path, module in nnx.iter_modules(clone):
        kind = type(module)
        if callable(module):
            setattr(module, LABEL, ".".join(map(str, path)))
            types[kind] = kind.__dict__.get("__call__")
    try:
        for kind in types:
            kind.__call__ = _with_tap(kind.__call__, running)  # type: ignore[method-assign]
        yield
    finally:
        for kind, own in types.items():
            if own is None:
                del kind.__call__
            else:
                kind.__call__ = own  # type: ignore[method-assign]


def _with_tap(method: Any, running: set[int]) -> Any:
    """`method` with taps; of a class and the class above it, both wrapped, only the first that a call comes to."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        label = getattr(self, LABEL, None)
        if label is None or id(self) in running:
            return method(self, *args, **kwargs)
        running.add(id(self))
        try:
            with_taps = around(lambda *given: method(self, *given, **kwargs), label, type(self).__name__)
            return with_taps(*args)
        finally:
            running.discard(id(self))

    return call


def around(call: Callable[..., Any], layer: str, type_name: str) -> Callable[..., Any]:
    """`call` with taps on the arrays and trees of arrays it takes by place, and on all that it returns."""

    def tapped(*args: Any) -> Any:
        number = next(sites)
        arrays = [i for i, one in enumerate(args) if is_float(one) or _is_tree(one)]
        marked = mark([args[i] for i in arrays], layer=layer, type_name=type_name, role="enter", call=number)
        both = dict(zip(arrays, marked, strict=True))
        out = call(*(both.get(i, one) for i, one in enumerate(args)))
        return mark(out, layer=layer, type_name=type_name, role="output", call=number)

    return tapped


def _is_tree(value: Any) -> bool:
    """Is it a tuple, list or dict of floats alone, as what a recurrent cell carries?"""
    leaves = jax.tree.leaves(value) if isinstance(value, tuple | list | dict) else []
    return bool(leaves) and all(map(is_float, leaves))


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")
