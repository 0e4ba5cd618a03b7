"""Rounding to the narrow floats of today's hardware, exact at any power of two.

A processor may flush subnormal numbers, and those of bfloat16 are subnormal in float32 as well. So nothing here is
ever formed at its true size: an entry is rounded at size 1, to as many binary digits as the format has left there.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import arguments, scaled
from gradsim.scaled import Scaled


@dataclass(frozen=True)
class Format:
    """A binary float: its numbers are 0 and ± 1.b₁…b_digits · 2^e, and subnormal ones below 2^lowest."""

    name: str
    dtype: Any  # of ml_dtypes, or numpy
    infinite: bool = True  # is a number that is too large inf, or NaN?

    @property
    def digits(self) -> int:
        """Binary digits behind the first, m."""
        return int(jnp.finfo(self.dtype).nmant)

    @property
    def lowest(self) -> int:
        """log2 of the smallest normal number."""
        return int(jnp.finfo(self.dtype).minexp)

    @property
    def largest(self) -> float:
        """The largest number."""
        return float(jnp.finfo(self.dtype).max)

    @property
    def subnormal(self) -> int:
        """log2 of the smallest number, η; half of it rounds to zero, and all that is smaller."""
        return self.lowest - self.digits


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("bfloat16", jnp.bfloat16),
        Format("float16", jnp.float16),
        Format("float8_e4m3", jnp.float8_e4m3fn, infinite=False),  # the variant that hardware has: 448, then NaN
        Format("float8_e5m2", jnp.float8_e5m2),
    )
}


def get(name: Any, argument: str = "format") -> Format:
    """The format of that name.

    Raises: ValueError or TypeError naming the argument (the known ones are listed).
    """
    return FORMATS[arguments.choice(argument, name, FORMATS)]


def rounded(value: Scaled, to: Format, *, flush: bool = False) -> Scaled:
    """Every entry of mantissa · 2^exponent rounded to the format, to nearest and ties to even, the exponent kept.

    Subnormal numbers are kept, or with `flush` taken to zero before they are rounded. What is too large is infinite,
    NaN in float8_e4m3. Entries of the mantissa are normal numbers of float32 or float64; the result is one of them
    times 2^exponent, bit for bit what a cast of `ml_dtypes` gives.

    Source: IEEE 754-2019, 4.3.1; Micikevicius et al. 2022 (FP8 formats).
    """
    return Scaled(jax.tree.map(lambda leaf: _nearest(leaf, value.exponent, to, flush), value.mantissa), value.exponent)


def _nearest(x: Array, exponent: Array, to: Format, flush: bool) -> Array:
    size = scaled.exponent_of(x) - 1  # 2**size <= |x| < 2**(size + 1)
    power = size + exponent
    first = scaled.times_power_of_two(x, -size)  # of size 1, exactly
    # Digits that the format has left; at −2 an entry is less than half its smallest number.
    digits = jnp.clip(to.digits - jnp.maximum(to.lowest - power, 0), -2, to.digits)
    whole = lax.round(first * scaled.power_of_two(digits, x.dtype), lax.RoundingMethod.TO_NEAREST_EVEN)
    kept = whole * scaled.power_of_two(-digits, x.dtype)
    if flush:
        kept = jnp.where(power < to.lowest, jnp.zeros_like(x), kept)
    fraction, top = math.frexp(to.largest)  # largest = 2 fraction · 2**(top − 1)
    beyond = (power >= top) | ((power == top - 1) & (jnp.abs(kept) > 2 * fraction))
    beyond = (beyond & (jnp.abs(x) > 0)) | jnp.isinf(x)  # NaN stays what it is
    over = jnp.copysign(jnp.inf, x) if to.infinite else jnp.full_like(x, jnp.nan)
    return jnp.where(beyond, over.astype(x.dtype), scaled.times_power_of_two(kept, size))
