"""Equations that only move entries: their exponents move along."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from gradsim.inspection.block_floats import (
    aligned,
    block,
    coarsened,
    is_block,
    joint_shape,
    normalized,
    reshaped,
    vanished,
)
from gradsim.inspection.rules import Bind, Result, single
from gradsim.scaled import NOTHING, Scaled


def moved(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """Transposed, reshaped, broadcast, squeezed, sliced or reversed."""
    x = operands[0]
    (out,) = bind([x.mantissa, *operands[1:]])
    name = equation.primitive.name
    exponent = PLACES[name](x.exponent, x.mantissa.shape, out.shape, equation.params)
    return single(normalized(out, exponent) if name == "slice" else Scaled(out, exponent))


def _reshape(exponent: Array, old: Sequence[int], new: Sequence[int], params: Any) -> Array:
    if params.get("dimensions") is not None:
        exponent = exponent.transpose(params["dimensions"])
        old = [old[axis] for axis in params["dimensions"]]
    return reshaped(exponent, old, new)


def _broadcast(exponent: Array, old: Sequence[int], new: Sequence[int], params: Any) -> Array:
    shape = [1] * len(new)
    for axis, target in enumerate(params["broadcast_dimensions"]):
        shape[target] = exponent.shape[axis]
    return exponent.reshape(shape)


def _slice(exponent: Array, old: Sequence[int], new: Sequence[int], params: Any) -> Array:
    strides = params["strides"] or (1,) * len(old)
    windows = [
        slice(start, limit, stride) if n > 1 else slice(None)
        for n, start, limit, stride in zip(
            exponent.shape, params["start_indices"], params["limit_indices"], strides, strict=True
        )
    ]
    return exponent[tuple(windows)]


def _reverse(exponent: Array, old: Sequence[int], new: Sequence[int], params: Any) -> Array:
    return lax.rev(exponent, params["dimensions"])


PLACES = {
    "transpose": lambda exponent, old, new, params: exponent.transpose(params["permutation"]),
    "squeeze": lambda exponent, old, new, params: exponent.squeeze(params["dimensions"]),
    "expand_dims": lambda exponent, old, new, params: jnp.expand_dims(exponent, params["dimensions"]),
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "rev": _reverse,
}


def concatenate(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """One exponent for each place along the axis, so that no piece is lost beside a larger one."""
    axis = equation.params["dimension"]
    blocks = [block(x) for x in operands]
    shape = list(joint_shape([Scaled(x.mantissa, x.exponent.take(jnp.array([0]), axis=axis)) for x in blocks]))
    exponents = []
    for x in blocks:
        shape[axis] = x.mantissa.shape[axis]
        exponents.append(jnp.broadcast_to(x.exponent, shape))
    (out,) = bind([x.mantissa for x in blocks])
    return single(Scaled(out, jnp.concatenate(exponents, axis)))


def dynamic_slice(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    x, *starts = operands
    (out,) = bind([x.mantissa, *starts])
    sizes = equation.params["slice_sizes"]
    fine = [n > 1 for n in x.exponent.shape]
    where = [start if one else jnp.zeros_like(start) for start, one in zip(starts, fine, strict=True)]
    window = [n if one else 1 for n, one in zip(sizes, fine, strict=True)]
    return single(normalized(out, lax.dynamic_slice(x.exponent, where, window)))


def dynamic_update_slice(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """Exponents are made as fine as the window needs, along the axes on which it is smaller than the array."""
    x, update, *starts = operands
    x, update = block(x), block(update)
    pairs = zip(x.mantissa.shape, update.mantissa.shape, x.exponent.shape, update.exponent.shape, strict=True)
    fine = [n != m or e > 1 or f > 1 for n, m, e, f in pairs]
    shape = [n if one else 1 for n, one in zip(x.mantissa.shape, fine, strict=True)]
    window = [n if one else 1 for n, one in zip(update.mantissa.shape, fine, strict=True)]
    if not any(fine):  # the window is the whole array
        return single(Scaled(bind([x.mantissa, update.mantissa, *starts])[0], update.exponent))
    where = [start if one else jnp.zeros_like(start) for start, one in zip(starts, fine, strict=True)]
    exponent = lax.dynamic_update_slice(
        jnp.broadcast_to(x.exponent, shape), jnp.broadcast_to(update.exponent, window), where
    )
    return single(Scaled(bind([x.mantissa, update.mantissa, *starts])[0], exponent))


def pad(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """Padded with zeros, the exponents stay; along an axis on which they are fine the padding has those of zero."""
    x, value = operands
    if is_block(value) or not _is_zero(equation.invars[1]):
        shapes = [(1,) * block(one).mantissa.ndim for one in operands]
        blocks = [coarsened(block(one), shape) for one, shape in zip(operands, shapes, strict=True)]
        top = jnp.maximum(*(one.exponent.reshape(()) for one in blocks))
        plain = [aligned(one, jnp.broadcast_to(top, one.exponent.shape)) for one in blocks]
        (out,) = bind(plain)
        losses = [jnp.any(vanished(block(one), two)) for one, two in zip(operands, plain, strict=True)]
        return single(normalized(out, jnp.broadcast_to(top, (1,) * out.ndim)), jnp.any(jnp.stack(losses)))
    (out,) = bind([x.mantissa, value])
    # A slice that is put back in its place, to be added to others, must not drown beside them.
    fine = [e > 1 or to >= 2 * n for e, n, to in zip(x.exponent.shape, x.mantissa.shape, out.shape, strict=True)]
    shape = [n if one else 1 for n, one in zip(x.mantissa.shape, fine, strict=True)]
    widths: Any = [
        tuple(map(int, width)) if one else (0, 0, 0)
        for width, one in zip(equation.params["padding_config"], fine, strict=True)
    ]
    return single(Scaled(out, lax.pad(jnp.broadcast_to(x.exponent, shape), jnp.int32(NOTHING), widths)))


def _is_zero(atom: Any) -> bool:
    return hasattr(atom, "val") and bool(atom.val == 0)


def reduce_sum(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    (x,) = operands
    axes = equation.params["axes"]
    shape = [1 if axis in axes else n for axis, n in enumerate(x.exponent.shape)]
    one = coarsened(x, shape)
    (out,) = bind([one.mantissa])
    lost = None
    if one.exponent.shape != x.exponent.shape:
        lost = jnp.any(vanished(x, one.mantissa)) & jnp.any(out == 0)
    return single(normalized(out, one.exponent.squeeze(axes)), lost)


def cumulative(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    (x,) = operands
    shape = [1 if axis == equation.params["axis"] else n for axis, n in enumerate(x.exponent.shape)]
    one = coarsened(x, shape)
    (out,) = bind([one.mantissa])
    return single(normalized(out, one.exponent), jnp.any(vanished(x, one.mantissa)) & jnp.any(out == 0))
