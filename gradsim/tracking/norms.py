"""How large an array is, or each layer of a stack of them: the log of its norm, whose squares may leave the floats."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim.scaled import LN2

SMALL = 2**12  # entries, up to which the sum of squares is not tried first
EXACT = 2**24  # up to which float32 counts
TINY = {"float32": 2.0**-64, "float64": 2.0**-512}  # sums of squares of which too much may have underflowed
POWER = {"float32": 90, "float64": 720}  # squares of 2**±power times what is near the ends of the range are within it
LOST, ZEROS = "lost", "zeros"


class Measured(NamedTuple):
    """Of one array [], of each of its layers [layers], or of several arrays [rows]."""

    log: Array
    """ln of the norm of the finite entries, float32."""
    counts: dict[str, Array]
    """How many entries are not finite (LOST), and zero (ZEROS), int32: those that were asked for."""


def nothing(layers: int, counts: Sequence[str]) -> Measured:
    """What stands where nothing was measured, of an array or of so many layers."""
    shape = (layers,) if layers else ()
    return Measured(jnp.zeros(shape, "float32"), {name: jnp.zeros(shape, "int32") for name in counts})


@partial(jax.jit, static_argnames=("stacked", "counts"))  # traced once for all arrays of a shape
def measure(x: Array, stacked: bool, counts: tuple[str, ...]) -> Measured:
    """Measure all of `x`, or each part along its first axis."""
    # Without a reshape, which a sharded array may not allow.
    axes = tuple(range(int(stacked), x.ndim))
    if x.size <= SMALL:
        return jax.tree.map(_everywhere, _carefully(x, axes, counts))
    squares = _square_sum(_parts(x), axes)
    # All entries are finite if their sum is.
    plain = jnp.all((squares > TINY[squares.dtype.name]) & jnp.isfinite(squares))
    found = lax.cond(
        plain, lambda x: _plainly(x, squares, axes, counts), lambda x: _carefully(x, axes, counts), x
    )  # fmt: skip
    return jax.tree.map(_everywhere, found)


def joined(rows: Sequence[Measured]) -> Measured:
    """One after another."""
    return jax.tree.map(lambda *parts: jnp.concatenate([jnp.ravel(part) for part in parts]), *rows)


def _plainly(x: Array, squares: Array, axes: tuple[int, ...], counts: Sequence[str]) -> Measured:
    """Where all are finite, and the sum of their squares is neither tiny nor infinite."""
    of = {LOST: lambda: jnp.zeros_like(squares, dtype="int32"), ZEROS: lambda: _zeros_of_finite(x, axes)}
    return Measured(_half_log(squares), {name: of[name]() for name in counts})


def _carefully(x: Array, axes: tuple[int, ...], counts: Sequence[str]) -> Measured:
    """The finite entries are squared as they are, and times powers of two: one of the sums is in range."""
    finite = jnp.isfinite(x)
    parts = _parts(jnp.where(finite, x, 0))
    dtype = parts[0].dtype.name
    power = POWER[dtype]
    near, up, down = (_square_sum([2.0**by * part for part in parts], axes) for by in (0, power, -power))
    log = jnp.where(near < TINY[dtype], _half_log(up) - power * LN2, _half_log(near))
    log = jnp.where(jnp.isfinite(near), log, _half_log(down) + power * LN2)
    of = {LOST: lambda: _count(~finite, axes), ZEROS: lambda: _count(x == 0, axes)}
    return Measured(log, {name: of[name]() for name in counts})


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
