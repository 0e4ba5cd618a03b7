"""Taps: the identity, in an equation of its own that differentiation and transposition leave in the program."""

from collections.abc import Sequence
from itertools import count
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradsim import arguments

T = TypeVar("T")

TAP = Primitive("gradsim_tap")
TAP.multiple_results = True
TAP.def_impl(lambda *operands, **params: list(operands))
TAP.def_abstract_eval(lambda *operands, **params: operands)
mlir.register_lowering(TAP, lambda context, *operands, **params: list(operands))

sites = count()  # two calls of one layer are two sites


def tap(value: T, name: str) -> T:
    """`value` itself; where `gradsim.inspect` runs a function, a layer of this name whose output is `value`.

    value: an array, or a pytree of arrays; what is not floating point passes by.

    Raises: TypeError or ValueError where `name` is not a string with something in it.
    """
    return mark(value, layer=arguments.text("name", name), type_name="tap", role="output")


def mark(value: T, *, layer: str, type_name: str, role: str, call: int = -1) -> T:
    """`value` behind a tap; `call` is one number for the two taps of one call.

    An array that occurs twice is tapped once, so that its gradient is the whole of it.
    """
    leaves, tree = jax.tree.flatten(value)
    floats = {id(leaf): leaf for leaf in leaves if is_float(leaf)}
    if not floats:
        return value
    named = {"layer": layer, "type_name": type_name, "role": role, "call": call}
    tapped = TAP.bind(*floats.values(), site=next(sites), kind="value", **named)
    replaced = dict(zip(floats, tapped, strict=True))
    return jax.tree.unflatten(tree, [replaced.get(id(leaf), leaf) for leaf in leaves])


def is_float(leaf: Any) -> bool:
    """Is it an array, of jax or of numpy, of real or complex floats?"""
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _batched(operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    """The axis of `jax.vmap` comes first, where what is noted of a basis looks for it."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    first = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    return TAP.bind(*first, **params), [0] * len(first)


def _differentiated(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    kind = "tangent" if params["kind"] == "value" else "other"  # derivatives of derivatives are not recorded
    moved = TAP.bind(*map(ad.instantiate_zeros, tangents), **{**params, "kind": kind})
    return TAP.bind(*primals, **params), moved


def _transposed(cotangents: Sequence[Any], *_: Any, **params: Any) -> Sequence[Any]:
    if all(isinstance(cotangent, ad.Zero) for cotangent in cotangents):
        return cotangents
    kind = "cotangent" if params["kind"] == "tangent" else "other"
    return TAP.bind(*map(ad.instantiate_zeros, cotangents), **{**params, "kind": kind})


batching.primitive_batchers[TAP] = _batched
ad.primitive_jvps[TAP] = _differentiated
ad.primitive_transposes[TAP] = _transposed
