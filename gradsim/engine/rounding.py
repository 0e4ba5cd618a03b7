"""What rounding makes of a gradient: measures of a rounded vector beside the exact one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradsim import arguments, scaled
from gradsim.engine import formats
from gradsim.engine.formats import rounded
from gradsim.engine.products import matrix
from gradsim.engine.statistic import Statistic, View
from gradsim.scaled import Scaled

Measure = Callable[[Scaled, Scaled], Scaled | Array]  # of the rounded vector and the exact one, [n]


def zeros(held: Scaled, exact: Scaled) -> Array:
    """The share of the exact entries that are not zero, and are zero in the rounded vector; NaN as `overflow`."""
    there = exact.mantissa != 0
    share = _count(there & (held.mantissa == 0), exact) / _count(there, exact)
    return jnp.where(_exists(exact), share, jnp.nan)


def overflow(held: Scaled, exact: Scaled) -> Array:
    """The share of entries that are infinite or NaN; NaN where the exact vector is zero or lost."""
    share = _count(~jnp.isfinite(held.mantissa), exact) / exact.mantissa.size
    return jnp.where(_exists(exact), share, jnp.nan)


def energy_kept(held: Scaled, exact: Scaled) -> Scaled:
    """‖rounded‖² / ‖exact‖²; NaN where an entry is not finite, or the exact vector is zero."""
    ratio = scaled.square_sum(held.mantissa) / scaled.square_sum(exact.mantissa)
    return Scaled(jnp.where(jnp.isfinite(ratio), ratio, jnp.nan), 2 * (held.exponent - exact.exponent))


def noise(held: Scaled, exact: Scaled) -> Scaled:
    """‖rounded − exact‖² / ‖exact‖²."""
    apart = scaled.add(held, exact._replace(mantissa=-exact.mantissa))
    return energy_kept(apart, exact)


def angle(held: Scaled, exact: Scaled) -> Array:
    """The angle between the two, in rad: 2 atan2(‖u − v‖, ‖u + v‖) of unit vectors, which a small one does not cancel.

    NaN where one of them is zero. Source: Kahan 2006.
    """
    u, v = (vector.mantissa / jnp.sqrt(scaled.square_sum(vector.mantissa)) for vector in (held, exact))
    return 2 * jnp.arctan2(jnp.sqrt(scaled.square_sum(u - v)), jnp.sqrt(scaled.square_sum(u + v)))


def _exists(exact: Scaled) -> Array:
    squares = scaled.square_sum(exact.mantissa)
    return (squares > 0) & (squares < jnp.inf)


def _count(marks: Array, like: Scaled) -> Array:
    return jnp.sum(marks.astype(like.mantissa.dtype))


def exact_vector(view: View) -> Scaled:
    """J u, or the gradient, as one vector [n]."""
    assert view.vector is not None
    return Scaled(matrix(view.vector.mantissa)[0], view.vector.exponent)


def log_median(view: View) -> Scaled:
    """The median of the sizes of the entries that are not zero; 0 where all are."""
    vector = exact_vector(view)
    sizes = jnp.sort(jnp.abs(vector.mantissa))
    zero, last = jnp.sum(sizes == 0), sizes.size - 1
    low, high = (jnp.minimum((zero + last + up) // 2, last) for up in (0, 1))
    return Scaled((sizes[low] + sizes[high]) / 2, vector.exponent)


@dataclass(frozen=True)
class OfChain:
    """A measure of the rounded chain's vector."""

    measure: Measure

    def __call__(self, view: View) -> Scaled | Array:
        assert view.rounded is not None
        held = Scaled(matrix(jax.tree.map(lambda leaf: leaf[None], view.rounded.mantissa))[0], view.rounded.exponent)
        return self.measure(held, exact_vector(view))


@dataclass(frozen=True)
class OfOneRounding:
    """A measure of the exact vector rounded once, its loss multiplied by a scale."""

    measure: Measure
    format: str
    loss_scale: float
    flush: bool

    def __call__(self, view: View) -> Scaled | Array:
        exact = exact_vector(view)
        fraction, power = math.frexp(self.loss_scale)
        larger = Scaled(fraction * exact.mantissa, exact.exponent + power)
        held = rounded(larger, formats.FORMATS[self.format], flush=self.flush)
        return self.measure(held, larger)


MEASURES: dict[str, tuple[str, str, Measure]] = {
    "zeros": ("share of the exact gradient's entries that are 0", "1", zeros),
    "overflow": ("share of entries that are infinite or NaN", "1", overflow),
    "energy_kept": ("‖g‖² over that of the exact gradient", "1", energy_kept),
    "noise": ("‖g − exact‖²/‖exact‖²", "1", noise),
    "angle": ("angle to the exact gradient", "rad", angle),
}


def of_chain() -> tuple[Statistic, ...]:
    """Those of a run in a narrow dtype."""
    return tuple(
        Statistic(name, f"{words}, rounded at every step", units, OfChain(measure), ("one", "rounded"), undefined=True)
        for name, (words, units, measure) in MEASURES.items()
    )


def rounded_once(format: str, loss_scale: float = 1.0, *, flush: bool = False) -> tuple[Statistic, ...]:
    """What a format makes of an exact gradient that is rounded to it once: statistics for `gradsim.sweep`.

    Of g = loss_scale · J u forward, or that times the gradient backward, and its entries Q(g) in the format:

        zeros_<format>        the share of the entries g_i ≠ 0 with Q(g_i) = 0
        overflow_<format>     the share with Q(g_i) infinite or NaN
        energy_kept_<format>  ‖Q(g)‖² / ‖g‖²
        noise_<format>        ‖Q(g) − g‖² / ‖g‖²
        angle_<format>        the angle between Q(g) and g, in rad

    Names end in _x<loss_scale> where that is not 1. What rounding at every step makes of it, a run with
    `dtype=<format>` says. NaN where it does not exist: all five of a gradient that is zero, the angle to Q(g) = 0, the
    last three where `overflow` is above 0.

    Args:
        format: "bfloat16", "float16", "float8_e4m3" or "float8_e5m2".
        loss_scale: a positive number.
        flush: take subnormal numbers to zero, as hardware without them does.

    Raises: ValueError or TypeError naming the argument.
    Source: Micikevicius et al. 2018 (loss scaling).
    """
    formats.get(format)
    scale = arguments.number("loss_scale", loss_scale, "a positive finite number", 0.0, math.inf)
    flush = arguments.flag("flush", flush)
    ending = f"_{format}" + (f"_x{scale:g}" if scale != 1 else "") + "_flushed" * flush
    said = f"rounded once to {format}" + (f", loss times {scale:g}" if scale != 1 else "")
    return tuple(
        Statistic(
            name + ending, f"{words}, {said}", units, OfOneRounding(measure, format, scale, flush), ("one",),
            undefined=True,
        )
        for name, (words, units, measure) in MEASURES.items()
    )  # fmt: skip


def is_narrow(statistic: Any) -> bool:
    """Does it read the rounded chain?"""
    return "rounded" in statistic.needs
