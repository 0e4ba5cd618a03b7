"""What a tap notes: of values their size and what is wrong with them, of gradients their norm beyond every range."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim.inspection.block_floats import is_block, log_norm_parts
from gradsim.inspection.formats import counts
from gradsim.scaled import Scaled

T = TypeVar("T")


class Site(NamedTuple):
    """Where a tap stands: an equation of the program, in which layer, and on what it is."""

    site: int
    layer: str
    type_name: str
    role: str
    kind: str
    call: int = -1
    entries: int = 0
    units: int = 0


class Record(NamedTuple):
    """The norm of some arrays, and how many entries are zero and not finite, and how many units dead; on the host."""

    norm: Scaled
    zeros: np.ndarray
    not_finite: np.ndarray
    dead: np.ndarray
    narrow: np.ndarray | None = None  # what formats.counts counts, on the last axis; of gradients in blocks


def record(values: Sequence[Any], *, units: bool) -> Array:
    """A record of arrays, plain or in blocks, as one array, for it takes long to fetch many.

    A unit is a place on the last axis; it is dead where all its entries are zero. Of arrays in blocks it is counted,
    too, what narrower floats would lose.
    """
    mantissas = [x.mantissa if is_block(x) else x for x in values]
    size = log_norm_parts(values)
    zeros = [_by_unit(x == 0) for x in mantissas]
    # Where the norm is finite, so are all entries.
    not_finite = lax.cond(
        jnp.isfinite(size.mantissa),
        lambda *_: jnp.int32(0),
        lambda *xs: _total([~jnp.isfinite(x) for x in xs]),
        *mantissas,
    )
    rows = [x.size // one.size if one.size else 0 for x, one in zip(mantissas, zeros, strict=True)]
    dead = _total([one == n for one, n in zip(zeros, rows, strict=True)]) if units else jnp.int32(0)
    numbers = [_total(zeros), not_finite, dead]
    parts = [size.mantissa, *(one.astype(size.mantissa.dtype) for one in (size.exponent, *numbers))]
    narrow = [counts(values).astype(size.mantissa.dtype)] if any(map(is_block, values)) else []
    return jnp.concatenate([jnp.stack(parts), *narrow])


def _by_unit(flags: Array) -> Array:
    """How many are true in each unit; floats are added in half the time that integers take, and exactly up to 2**24."""
    axes = tuple(range(flags.ndim - 1))
    few = flags.size < 2**24
    return jnp.sum(flags, axis=axes, dtype=jnp.float32 if few else jnp.int32).astype(jnp.int32)


def size_alone(values: Sequence[Any], *, units: bool) -> Array:
    """A record that has nothing but the norm, and no zeros: the entries are read once."""
    size = log_norm_parts(values)
    return jnp.stack([size.mantissa, size.exponent.astype(size.mantissa.dtype), *[jnp.zeros_like(size.mantissa)] * 3])


def norm(value: Any) -> Array:
    """The mantissa and exponent of the norm of one array, plain or in blocks."""
    size = log_norm_parts([value])
    return jnp.stack([size.mantissa, size.exponent.astype(size.mantissa.dtype)])


def number(mantissa: Any, exponent: Any) -> Any:
    """A number of numpy's, that `gradsim.scaled.log` takes."""
    return Scaled(mantissa, exponent)


def unpacked(packed: np.ndarray) -> Record:
    """What `record` packed, of one step or of many."""
    packed = np.asarray(packed, np.float64)
    mantissa, exponent, zeros, not_finite, dead = [packed[..., i] for i in range(5)]
    narrow = packed[..., 5:] if packed.shape[-1] > 5 else None
    return Record(number(mantissa, exponent), zeros, not_finite, dead, narrow)


def _total(where: Sequence[Array]) -> Array:
    counts = [jnp.sum(one, dtype=jnp.int32) for one in where]
    return jnp.asarray(sum(counts[1:], counts[0]))


def in_order(found: Sequence[tuple[Site, T]], order: Sequence[Site], *, backward: bool) -> list[T | None]:
    """What was found at each layer in order of execution, or None: of a site passed k times, backwards in reverse."""
    by_site: dict[int, list[T]] = defaultdict(list)
    for site, one in found:
        by_site[site.site].append(one)
    places: dict[int, list[int]] = defaultdict(list)
    for place, site in enumerate(order):
        places[site.site].append(place)
    placed: list[T | None] = [None] * len(order)
    for number, where in places.items():
        if len(by_site[number]) == len(where):
            for place, one in zip(where, by_site[number][:: -1 if backward else 1], strict=True):
                placed[place] = one
    return placed
