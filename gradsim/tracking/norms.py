"""How large an array is, or each layer of a stack of them: the log of its norm, whose squares may leave the floats."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim.scaled import LN2
from gradsim.tracking.again import IDENTITY, Function

SMALL = 2**12  # entries, up to which the sum of squares is not tried first
LONG = 2**16  # entries of an axis, beyond which floats that are added to one sum lose digits
TINY = {"float32": 2.0**-64, "float64": 2.0**-512}  # sums of squares of which too much may have underflowed
POWER = {"float32": 90, "float64": 720}  # squares of 2**±power times what is near the ends of the range are within it
LOST, ZEROS = "lost", "zeros"


class Measured(NamedTuple):
    """Of an array, of each of its layers, or of several arrays."""

    logs: Array
    """ln of the norms of the finite entries [rows, arrays], float32."""
    counts: Array
    """How many entries are zero (ZEROS) or not finite (LOST) [rows, counts that were asked for], int32."""


@partial(jax.jit, static_argnames=("compute", "stacked", "counts"))  # traced once for all arrays that are alike
def measure(operands: Sequence[Array], compute: Function, stacked: bool, counts: tuple[str, ...]) -> Measured:
    """Measure compute(*operands), or each part of it along its first axis."""
    x = compute(*operands)
    axes = tuple(range(int(stacked), x.ndim))  # without a reshape, which a sharded array may not allow
    if x.size <= SMALL:
        return _carefully(x, axes, counts)
    squares, zeros = _sums(axes, _square(x), x == 0)
    # All entries are finite if their sum is.
    plain = jnp.all((squares > TINY[squares.dtype.name]) & jnp.isfinite(squares))
    if not compute.light:
        operands, compute = [x], IDENTITY  # an operand of a condition is written to memory
    return lax.cond(
        plain,
        lambda _: _columns(_half_log(squares), {ZEROS: zeros, LOST: jnp.zeros_like(zeros)}, counts),
        lambda operands: _carefully(compute(*operands), axes, counts),
        operands,
    )


def nothing(rows: int, arrays: int, counts: int) -> Measured:
    """What stands where nothing was measured."""
    return Measured(jnp.zeros((rows, arrays), "float32"), jnp.zeros((rows, counts), "int32"))


def beside(found: Sequence[Measured]) -> Measured:
    """Of several arrays whose rows belong together."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *found)


def below(found: Sequence[Measured]) -> Measured:
    """Of several arrays, one after another."""
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)


def _columns(log: Array, found: Mapping[str, Array], counts: Sequence[str]) -> Measured:
    """All on every device, and in few arrays, for XLA takes time for every result of a condition."""
    log, *columns = (jnp.ravel(_everywhere(column)) for column in (log, *(found[name] for name in counts)))
    return Measured(log[:, None], jnp.stack(columns, 1) if columns else jnp.zeros((len(log), 0), "int32"))


def _carefully(x: Array, axes: tuple[int, ...], counts: Sequence[str]) -> Measured:
    """The finite entries are squared as they are, and times powers of two: one of the sums is in range."""
    finite = jnp.isfinite(x)
    x = jnp.where(finite, x, 0)
    power = POWER[_square(x).dtype.name]
    near, zeros, lost = _sums(axes, _square(x), finite & (x == 0), ~finite)
    (up,), (down,) = (_sums(axes, _square(x, 2.0**by)) for by in (power, -power))
    tiny, huge = near < TINY[near.dtype.name], ~jnp.isfinite(near)
    # One logarithm, of the sum that is in range: the derivatives of the others' are not.
    squares = jnp.where(tiny, up, jnp.where(huge, down, near))
    log = _half_log(squares) + power * LN2 * (huge.astype("float32") - tiny.astype("float32"))
    return _columns(log, {ZEROS: zeros, LOST: lost}, counts)


def _square(x: Array, scale: float = 1.0) -> Array:
    """|scale·x|² of each entry, in float32 at least."""
    parts = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
    wide = [part if jnp.finfo(part.dtype).bits == 64 else part.astype("float32") for part in parts]
    first, *second = [(scale * part) * (scale * part) for part in wide]
    return first + second[0] if second else first


def _sums(axes: tuple[int, ...], squares: Array, *flags: Array) -> list[Array]:
    """The sum of squares, and how many of each flag are true, along the axes."""
    parts = [squares, *(flag.astype("int32") for flag in flags)]
    if axes and squares.shape[-1] <= LONG:
        parts, axes = _along_the_last(*parts), axes[:-1]
    return [jnp.sum(part, axis=axes) for part in parts]


@jax.custom_jvp  # a reduction with integers among its operands has no derivative
def _along_the_last(*parts: Array) -> list[Array]:
    """Sums along the last axis in one pass: XLA adds a float and integers several times faster than each alone."""
    zeros = tuple(part.dtype.type(0) for part in parts)
    return list(lax.reduce(parts, zeros, lambda *pair: tuple(map(jnp.add, *pair)), (parts[0].ndim - 1,)))


@_along_the_last.defjvp
def _(parts: Sequence[Array], tangents: Sequence[Array]) -> tuple[list[Array], list[Any]]:
    sums = _along_the_last(*parts)
    return sums, [jnp.sum(tangents[0], -1), *(np.zeros(count.shape, jax.dtypes.float0) for count in sums[1:])]


def _half_log(squares: Array) -> Array:
    return (jnp.log(squares) / 2).astype("float32")


def _everywhere(x: Array) -> Array:
    """All of `x` on every device, where the axes of the mesh are explicit and it is not."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        return x
    return jax.sharding.reshard(x, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))
