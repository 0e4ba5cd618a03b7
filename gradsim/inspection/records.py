"""What a tap notes: of values their size and what is wrong with them, of gradients their norm beyond every range."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from gradsim.inspection.block_floats import is_block, log_norm_parts
from gradsim.scaled import Scaled


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
    """The norm of some arrays, and how many entries are zero and not finite, and how many units dead."""

    norm: Scaled
    zeros: Array
    not_finite: Array
    dead: Array | None


def record(values: Sequence[Any], *, units: bool) -> Record:
    """Of arrays, plain or in blocks. A unit is a place on the last axis; it is dead where all its entries are zero."""
    mantissas = [x.mantissa if is_block(x) else x for x in values]
    return Record(
        log_norm_parts(values),
        _total([x == 0 for x in mantissas]),
        _total([~lax.is_finite(x) if not jnp.iscomplexobj(x) else ~jnp.isfinite(x) for x in mantissas]),
        _total([jnp.all(x == 0, axis=tuple(range(x.ndim - 1))) for x in mantissas]) if units else None,
    )


def _total(where: Sequence[Array]) -> Array:
    counts = [jnp.sum(one, dtype=jnp.int32) for one in where]
    return jnp.asarray(sum(counts[1:], counts[0]))
