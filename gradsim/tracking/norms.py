"""How large an array is, or each layer of a stack of them: the log of its norm, whose squares may leave the floats."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim.scaled import LN2
from gradsim.tracking.again import IDENTITY, Function

SMALL = 2**12  # entries, up to which the sum of squares is not tried first
EXACT = 2**24  # up to which float32 counts
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
    squares = _square_sum(_parts(x), axes)
    # All entries are finite if their sum is.
    plain = jnp.all((squares > TINY[squares.dtype.name]) & jnp.isfinite(squares))
    if not compute.light:
        operands, compute = [x], IDENTITY  # an operand of a condition is written to memory
    return lax.cond(
        plain,
        lambda operands: _plainly(compute(*operands), squares, axes, counts),
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


def _columns(log: Array, counts: Sequence[Array]) -> Measured:
    """All on every device, and in few arrays, for XLA takes time for every result of a condition."""
    log, *counts = (jnp.ravel(_everywhere(column)) for column in (log, *counts))
    return Measured(log[:, None], jnp.stack(counts, 1) if counts else jnp.zeros((len(log), 0), "int32"))


def _plainly(x: Array, squares: Array, axes: tuple[int, ...], counts: Sequence[str]) -> Measured:
    """Where all are finite, and the sum of their squares is neither tiny nor infinite."""
    of = {LOST: lambda: jnp.zeros_like(squares, dtype="int32"), ZEROS: lambda: _zeros_of_finite(x, axes)}
    return _columns(_half_log(squares), [of[name]() for name in counts])


def _carefully(x: Array, axes: tuple[int, ...], counts: Sequence[str]) -> Measured:
    """The finite entries are squared as they are, and times powers of two: one of the sums is in range."""
    finite = jnp.isfinite(x)
    parts = _parts(jnp.where(finite, x, 0))
    dtype = parts[0].dtype.name
    power = POWER[dtype]
    near, up, down = (_square_sum([2.0**by * part for part in parts], axes) for by in (0, power, -power))
    tiny, huge = near < TINY[dtype], ~jnp.isfinite(near)
    # One logarithm, of the sum that is in range: the derivatives of the others' are not.
    squares = jnp.where(tiny, up, jnp.where(huge, down, near))
    log = _half_log(squares) + power * LN2 * (huge.astype("float32") - tiny.astype("float32"))
    of = {LOST: lambda: _count(~finite, axes), ZEROS: lambda: _count(x == 0, axes)}
    return _columns(log, [of[name]() for name in counts])


def _zeros_of_finite(x: Array, axes: tuple[int, ...]) -> Array:
    entries = _entries(x, axes)
    if jnp.iscomplexobj(x) or entries > EXACT:
        return _count(x == 0, axes)
    signs = jnp.sign(_parts(x)[0])  # XLA adds squares of signs in half the time that it takes to add flags
    return entries - jnp.sum(signs * signs, axis=axes).astype("int32")


def _parts(x: Array) -> list[Array]:
    """Real and imaginary part, in float32 at least."""
    parts = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
    return [part if jnp.finfo(part.dtype).bits == 64 else part.astype("float32") for part in parts]


def _square_sum(parts: Sequence[Array], axes: tuple[int, ...]) -> Array:
    return jnp.sum(jnp.stack([jnp.sum(part * part, axis=axes) for part in parts]), axis=0)


def _half_log(squares: Array) -> Array:
    return (jnp.log(squares) / 2).astype("float32")


def _count(flags: Array, axes: tuple[int, ...]) -> Array:
    """How many are true. Floats are added faster than integers, and exactly while there are few enough."""
    dtype = "float32" if _entries(flags, axes) <= EXACT else "int32"
    return jnp.sum(flags, axis=axes, dtype=dtype).astype("int32")


def _entries(x: Array, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[axis] for axis in axes]))


def _everywhere(x: Array) -> Array:
    """All of `x` on every device, where the axes of the mesh are explicit and it is not."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        return x
    return jax.sharding.reshard(x, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))
