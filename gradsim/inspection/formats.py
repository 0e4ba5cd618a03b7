"""What a gradient would lose in narrower floats: its entries that round to zero, and those that overflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim.engine.formats import FORMATS as NARROW
from gradsim.inspection.block_floats import block
from gradsim.scaled import power_of_two

FORMATS = {"float32": jnp.float32, **{name: one.dtype for name, one in NARROW.items()}}
LOSS_SCALE = 2.0**15
ABOUT = {
    "lost": "share of the gradient's nonzero entries that round to zero",
    "lost_scaled": "share of them that round to zero, the loss multiplied by loss_scale",
    "overflow": "share of them beyond the largest number",
    "overflow_scaled": "share of them beyond the largest number, the loss multiplied by loss_scale",
}


class Limits(NamedTuple):
    """Of a format, as log2: the smallest normal and the smallest subnormal number, and the largest number."""

    normal: float
    subnormal: float
    largest: float


def limits(name: str) -> Limits:
    """Of one of FORMATS."""
    info = jnp.finfo(FORMATS[name])
    # Not smallest_subnormal, of which numpy says 0 where the processor flushes it.
    return Limits(float(info.minexp), float(info.minexp - info.nmant), float(np.log2(float(info.max))))


def _thresholds() -> tuple[list[float], list[float]]:
    """The largest size that rounds to zero, and the smallest that overflows, for each format; then, for each, scaled.

    To nearest, ties to even: half the smallest subnormal number is zero, and the middle between the largest number and
    the next, if there were one, is the largest where that is even.
    """
    zero, beyond = [], []
    for name, dtype in FORMATS.items():
        zero.append(2.0 ** (limits(name).subnormal - 1))
        largest = float(jnp.finfo(dtype).max)
        last_digit = 2.0 ** (np.floor(np.log2(largest)) - int(jnp.finfo(dtype).nmant))
        is_even = largest / last_digit % 2 == 0
        beyond.append((largest + last_digit / 2) * (1 + is_even * 2.0**-23))
    scales = (1.0, LOSS_SCALE)
    return [x / scale for scale in scales for x in zero], [x / scale for scale in scales for x in beyond]


ZERO, BEYOND = _thresholds()
COUNTS = 1 + len(ZERO) + len(BEYOND)


def counts(values: Sequence[Any]) -> Array:
    """How many entries of these arrays are finite and not zero, then below each of ZERO, then above each of BEYOND.

    The thresholds are brought to the exponents of the slabs, so the sizes are right beyond the range of floats; it is
    one pass over the entries. Of a complex entry the larger part counts.
    """
    found = [_counts(value) for value in values]
    return jnp.asarray(sum(found[1:], found[0]))


def _counts(value: Any) -> Array:
    mantissa, exponent = block(value)
    size = lax.max(lax.abs(mantissa.real), lax.abs(mantissa.imag)) if jnp.iscomplexobj(mantissa) else lax.abs(mantissa)
    size = size if size.dtype == jnp.float64 else size.astype(jnp.float32)
    info = jnp.finfo(size.dtype)
    reach = int(info.maxexp) - 2

    def at(threshold: float) -> Array:
        fraction, power = np.frexp(threshold)
        # Beyond the reach all entries are on one side: mantissas are below 1, and zeros do not count.
        shifted = jnp.clip(int(power) - exponent, -reach, reach)
        return jnp.asarray(power_of_two(shifted, size.dtype) * jnp.asarray(fraction, size.dtype))

    counted = (size > 0) & (size < jnp.inf)
    marks = [counted, *(counted & (size <= at(one)) for one in ZERO), *(counted & (size >= at(one)) for one in BEYOND)]
    start = (jnp.int32(0),) * COUNTS
    sums = lax.reduce(  # all at once: one sum after another would read the entries as often
        tuple(one.astype(jnp.int32) for one in marks),
        start,
        lambda one, two: tuple(map(jnp.add, one, two)),
        tuple(range(size.ndim)),
    )
    return jnp.stack(sums)


def shares(found: Sequence[Any], dimension: str) -> dict[str, Any]:
    """The variables over `dimension` and format, of what was counted; NaN where there is no entry to lose."""
    table = np.array([np.zeros(COUNTS) if one is None else one for one in found], np.float64).reshape(-1, COUNTS)
    with np.errstate(invalid="ignore"):
        parts = (table[:, 1:] / table[:, :1]).reshape(len(found), len(ABOUT), len(FORMATS))
    prefix = "parameter_" if dimension == "parameter" else ""
    return {
        prefix + name: ((dimension, "format"), parts[:, place], {"long_name": long_name, "units": "1"})
        for place, (name, long_name) in enumerate(ABOUT.items())
    }
