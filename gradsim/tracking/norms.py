"""How large an array is, or each layer of a stack of them: the log of its norm, whose squares may leave the floats."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim.scaled import LN2, exponent_of, times_power_of_two

SMALL = 2**12  # entries, up to which the sum of squares is not tried first
EXACT = 2**24  # up to which float32 counts


class Measured(NamedTuple):
    """Of one array [], or of each of its layers [layers]."""

    log: Array
    """ln of the norm of the finite entries, float32."""
    lost: Array
    """How many entries are not finite, int32."""
    zeros: Array
    """How many are zero, int32; 0 where it was not asked for."""


def nothing(x: Array, stacked: bool) -> Measured:
    """What stands where nothing was measured."""
    return Measured(*(jnp.zeros(x.shape[: int(stacked)], dtype) for dtype in ("float32", "int32", "int32")))


def measure(x: Array, stacked: bool, zeros: bool) -> Measured:
    """Measure all of `x`, or each part along its first axis, and count its zeros if wanted."""
    # Without a reshape, which a sharded array may not allow.
    axes = tuple(range(int(stacked), x.ndim))
    if x.size <= SMALL:
        return Measured(*map(_everywhere, _carefully(x, axes, zeros)))
    squares = _square_sum(_parts(x), axes)
    # Squares below 2**-126 are lost: too little to matter here, and all entries are finite if their sum is.
    plain = jnp.all((squares > 2.0**-64) & jnp.isfinite(squares))
    found = lax.cond(
        plain, lambda x: _plainly(x, squares, axes, zeros), lambda x: _carefully(x, axes, zeros), x
    )  # fmt: skip
    return Measured(*map(_everywhere, found))


def _plainly(x: Array, squares: Array, axes: tuple[int, ...], zeros: bool) -> Measured:
    """Where all are finite, and the sum of their squares is no small number."""
    none = jnp.zeros_like(squares, dtype="int32")
    return Measured(_half_log(squares), none, _zeros_of_finite(x, axes) if zeros else none)


def _carefully(x: Array, axes: tuple[int, ...], zeros: bool) -> Measured:
    """The finite entries are brought near one by a power of two before they are squared."""
    finite = jnp.isfinite(x)
    parts = _parts(jnp.where(finite, x, 0))
    largest = [jnp.max(jnp.abs(part), axis=axes, initial=0) for part in parts]
    top = exponent_of(jnp.maximum(largest[0], largest[-1]))
    squares = _square_sum(times_power_of_two(parts, -jnp.expand_dims(top, axes)), axes)
    lost = _count(~finite, axes)
    return Measured(
        _half_log(squares) + LN2 * top.astype("float32"), lost, _count(x == 0, axes) if zeros else jnp.zeros_like(lost)
    )


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
