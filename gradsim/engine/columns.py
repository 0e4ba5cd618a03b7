"""The tangent columns of one network shared by devices: each pushes some, and one sum at the end joins what they found.

Each device carries its columns with an exponent of its own. A root mean square over all columns is then

    ‖J‖²/n = Σ_d s_d² 2^(2 e_d) · columns/n,    s_d 2^e_d that over the `columns` of device d,

summed at the largest of the exponents; all else every device finds by itself, alike to the last bit.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import lax

from gradsim import scaled
from gradsim.engine.products import Share
from gradsim.engine.statistic import Statistic
from gradsim.scaled import NOTHING, Scaled


def may_be_shared(statistics: Sequence[Statistic]) -> bool:
    """Whether some of these need a basis of tangents, and all of those sum over its columns."""
    of_all = [one for one in statistics if {"all", "spectrum"} & set(one.needs)]
    return bool(of_all) and all(one.by_column for one in of_all)


def joined(
    statistics: Sequence[Statistic], measured: Mapping[str, Scaled], share: Share, count: int
) -> dict[str, Scaled]:
    """What the devices have measured, that over all `count` columns in place of that over a device's."""
    weight = share.columns(count) / count
    return {
        one.name: _sum(measured[one.name], weight, share.axis) if one.by_column else measured[one.name]
        for one in statistics
    }


def _sum(value: Scaled, weight: float, axis: str) -> Scaled:
    every = _gathered(value, axis)
    exponents = jnp.where(every.mantissa == 0, NOTHING, every.exponent)
    largest = jnp.max(exponents, axis=0)
    mantissas = every.mantissa * scaled.power_of_two(exponents - largest, every.mantissa.dtype)
    total = jnp.sum(mantissas * mantissas, axis=0)
    return Scaled(jnp.sqrt(weight * total), jnp.where(largest == NOTHING, 0, largest))


def _gathered(value: Scaled, axis: str) -> Scaled:
    """What every device has, leaves [devices, …]: mantissas and exponents pass between them together, as their bits.

    Each device sums them in the same order, as an all-reduce need not: the last bit is that of the next run as well.
    """
    bits = lax.bitcast_convert_type(value.mantissa, jnp.int32).reshape(*value.mantissa.shape, -1)
    every = lax.all_gather(jnp.concatenate([bits, value.exponent[..., None]], axis=-1), axis)
    kept = every[..., :-1] if bits.shape[-1] > 1 else every[..., 0]  # the two halves of a float64
    return Scaled(lax.bitcast_convert_type(kept, value.mantissa.dtype), every[..., -1])
