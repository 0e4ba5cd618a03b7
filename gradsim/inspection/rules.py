"""What an equation does to numbers in block floating point: which operands scale together, and the result with them.

Each rule takes the equation, the operands (at least one in blocks) and the binding of plain arrays; it returns the
results, whether any entries were lost in aligning, where they may have been, and whether the same equation of plain
floats may leave their range: None where it cannot, if its operands have not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradsim.inspection.block_floats import (
    aligned,
    at_true_size,
    block,
    coarsened,
    has_range,
    is_block,
    levelled,
    normalized,
    times,
    vanished,
)
from gradsim.scaled import NOTHING, Scaled

Bind = Callable[[Sequence[Any]], list[Any]]
Result = tuple[list[Any], Array | None, Array | None]

# Numbers within 2**LOW and 2**HIGH are multiples of 2**(LOW − 23): sums of them are none below the normal floats, nor
# is anything lost where they are brought to the exponent of the largest. Terms of a product of matrices that vanish
# in plain floats, below 2**-126, do not show in entries of 2**LOW.
LOW, HIGH = -96, 24


def single(outs: Any, lost: Array | None = None, far: Array | None = None) -> Result:
    return [outs], lost, far


def multiplied(out: Array, exponent: Array, alive: Array | None = None) -> tuple[Scaled, Array, Array]:
    """A result in blocks; whether any entry that is alive, or else not zero, is lost; and whether one is below LOW."""
    if not has_range(out.dtype):
        gone = jnp.bool_(False) if alive is None else jnp.any((out == 0) & alive)
        return normalized(out, exponent), gone, jnp.bool_(True)
    scaled, power = levelled(out, exponent, out != 0 if alive is None else alive)
    least = jnp.min(power, initial=-NOTHING)
    return scaled, least == NOTHING, least < LOW


def together(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """Operands of one shape, entry by entry: a sum, a choice or a comparison; conditions stay as they are."""
    floats = [index for index, x in enumerate(operands) if is_block(x) or jnp.issubdtype(x.dtype, jnp.inexact)]
    blocks = [block(operands[index]) for index in floats]
    top = blocks[0].exponent
    for one in blocks[1:]:
        top = jnp.maximum(top, one.exponent)
    plain = list(operands)
    for index, one in zip(floats, blocks, strict=True):
        plain[index] = aligned(one, top)
    (out,) = bind(plain)
    if not jnp.issubdtype(out.dtype, jnp.inexact):
        return single(out)
    if len(blocks) == 1:
        return single(normalized(out, top))
    nonzero = [one.mantissa != 0 for one in blocks]
    chosen = equation.primitive.name == "select_n"
    # The larger of two stays, so that a sum of two that are not zero is zero only where they cancel.
    alone = bind([operands[0], *nonzero])[0] if chosen else nonzero[0] ^ nonzero[1]
    scaled, lost, _ = multiplied(out, top, alone)
    return single(scaled, lost)


def product(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    (out,) = bind([x.mantissa if is_block(x) else x for x in operands])
    exponents = [x.exponent for x in operands if is_block(x)]
    total = sum(exponents[1:], exponents[0])
    nonzero = [(x.mantissa if is_block(x) else x) != 0 for x in operands]
    return single(*multiplied(out, total, nonzero[0] & nonzero[1]))


def quotient(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    above, below = operands
    (out,) = bind([x.mantissa if is_block(x) else x for x in operands])
    zero = jnp.zeros((), jnp.int32)
    exponent = (above.exponent if is_block(above) else zero) - (below.exponent if is_block(below) else zero)
    scaled, _, far = multiplied(out, exponent)
    return single(scaled, None, far)


def power(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    (x,) = operands
    (out,) = bind([x.mantissa])
    return single(normalized(out, x.exponent * equation.params.get("y", 2)), None, jnp.bool_(True))


def square_root(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    (x,) = operands
    half = x.exponent >> 1
    (out,) = bind([times(x.mantissa, x.exponent - 2 * half)])
    return single(normalized(out, half), None, jnp.bool_(True))


def choice(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """max, min and clamp: each entry is one of the operands' and keeps that one's exponent."""
    name = equation.primitive.name
    shape = jnp.broadcast_shapes(*(jnp.shape(x.mantissa if is_block(x) else x) for x in operands))
    parts = []
    for x in map(block, operands):
        rank = (1,) * (len(shape) - x.mantissa.ndim)
        parts.append(
            Scaled(
                jnp.broadcast_to(x.mantissa.reshape(rank + x.mantissa.shape), shape),
                jnp.broadcast_to(x.exponent.reshape(rank + x.exponent.shape), shape),
            )
        )
    if name == "clamp":
        low, x, high = parts
        out = _larger(_larger(low, x, 1), high, -1)
    else:
        out = _larger(parts[0], parts[1], 1 if name == "max" else -1)
    return single(normalized(out.mantissa, out.exponent), None, jnp.bool_(True))


def _larger(first: Scaled, second: Scaled, sign: int) -> Scaled:
    top = jnp.maximum(first.exponent, second.exponent)
    one, two = aligned(first, top), aligned(second, top)
    takes = (one >= two) if sign > 0 else (one <= two)
    # A number that vanished in aligning is still above or below zero.
    tie = (one == two) & (jnp.sign(first.mantissa) != jnp.sign(second.mantissa))
    signs = jnp.sign(first.mantissa) >= jnp.sign(second.mantissa)
    takes = jnp.where(tie, signs if sign > 0 else ~signs, takes) | jnp.isnan(one)
    return Scaled(jnp.where(takes, first.mantissa, second.mantissa), jnp.where(takes, first.exponent, second.exponent))


def dot(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    (contracted, batched) = equation.params["dimension_numbers"]
    exponents, plain, losses = [], [], []
    ranks = [x.mantissa.ndim if is_block(x) else jnp.ndim(x) for x in operands]
    for side, x in enumerate(operands):
        if not is_block(x):
            plain.append(x)
            continue
        shape = [1 if axis in contracted[side] else n for axis, n in enumerate(x.exponent.shape)]
        fine = coarsened(x, shape)
        if fine.exponent.shape != x.exponent.shape:
            losses.append(jnp.any(vanished(x, fine.mantissa)))
        plain.append(fine.mantissa)
        free = [axis for axis in range(ranks[side]) if axis not in (*contracted[side], *batched[side])]
        top = fine.exponent.transpose((*batched[side], *free, *contracted[side]))
        kept = [top.shape[axis] for axis in range(len(batched[side]) + len(free))]
        other = ranks[1 - side] - len(batched[side]) - len(contracted[side])
        ones = [1] * other
        at = len(kept) if side == 0 else len(batched[side])
        exponents.append(top.reshape([*kept[:at], *ones, *kept[at:]]))
    (out,) = bind(plain)
    lost = jnp.any(jnp.stack(losses)) & jnp.any(out == 0) if losses else None
    scaled, _, far = multiplied(out, sum(exponents[1:], exponents[0]))
    return single(scaled, lost, far)


def generic(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """Any linear equation: the operands in blocks are brought to one exponent, that of all results.

    Results mix entries in ways that are not known here, so that whatever vanishes in aligning may be missed.
    """
    mixed = ADDED.get(equation.primitive.name, ())
    places = [i for i, x in enumerate(operands) if is_block(x) or i in mixed]
    blocks = [coarsened(one, (1,) * one.mantissa.ndim) for one in (block(operands[i]) for i in places)]
    scalars = [one.exponent.reshape(()) for one in blocks]
    top = jnp.max(jnp.stack(scalars))
    plain = list(operands)
    losses = []
    for i, one in zip(places, blocks, strict=True):
        plain[i] = aligned(one, jnp.broadcast_to(top, one.exponent.shape))
        losses.append(jnp.any(vanished(block(operands[i]), plain[i])))
    outs = bind(plain)
    name = equation.primitive.name
    if name == "conv_general_dilated":
        scaled, _, far = multiplied(outs[0], jnp.broadcast_to(top, (1,) * outs[0].ndim))
        return single(scaled, jnp.any(jnp.stack(losses)), far)
    results = [
        normalized(out, jnp.broadcast_to(top, (1,) * out.ndim)) if jnp.issubdtype(out.dtype, jnp.inexact) else out
        for out in outs
    ]
    return results, jnp.any(jnp.stack(losses)), None if name in SUMS else jnp.bool_(True)


def true_size(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """An equation that is not linear, and whose way with powers of two is not known."""
    outs = bind([at_true_size(x) for x in operands])
    results = [block(out) if jnp.issubdtype(out.dtype, jnp.inexact) else out for out in outs]
    lost = [jnp.any(vanished(x, at_true_size(x))) for x in operands if is_block(x)]
    return results, jnp.any(jnp.stack(lost)), jnp.bool_(True)


# Results are sums of some of the entries, or these themselves.
SUMS = ("gather", "scatter-add", "scatter_add", "reduce_window_sum", "select_and_scatter_add")

# Linear in several operands at once: plain floats among these have a size of their own.
ADDED = {"scatter-add": (0, 2), "scatter_add": (0, 2), "scatter-sub": (0, 2), "scatter": (0, 2)}


def unary(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    """Entry by entry, and each with its own exponent."""
    x = operands[0]
    (out,) = bind([x.mantissa, *operands[1:]])
    if not jnp.issubdtype(out.dtype, jnp.inexact):
        return true_size(equation, operands, bind)
    far = jnp.bool_(True) if equation.primitive.name == "reduce_precision" else None
    return single(normalized(out, x.exponent), None, far)


def barrier(equation: Any, operands: Sequence[Any], bind: Bind) -> Result:
    outs = bind([x.mantissa if is_block(x) else x for x in operands])
    return [Scaled(out, x.exponent) if is_block(x) else out for out, x in zip(outs, operands, strict=True)], None, None
