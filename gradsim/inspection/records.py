"""What a tap notes: of values their size and what is wrong with them, of gradients their norm beyond every range."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradsim.inspection.block_floats import is_block, log_norm_parts
from gradsim.scaled import Scaled


class Site(NamedTuple):
    """Where a tap stands: an equation of the program, in which layer, and on what it is."""

    site: int
    layer: str
    type_name: str
    role: str
    kind: str


class Record(NamedTuple):
    """The norm of some arrays, the number of their entries, and how many are zero, dead or not finite."""

    norm: Scaled
    entries: Array
    zeros: Array
    units: Array
    dead: Array
    not_finite: Array


def record(values: Sequence[Any]) -> Record:
    """Of arrays, plain or in blocks. A unit is a place on the last axis; it is dead where all its entries are zero."""
    mantissas = [x.mantissa if is_block(x) else x for x in values]
    lasts = [x.shape[-1] if x.ndim > 1 else x.size for x in mantissas]
    dead = [
        jnp.sum(jnp.all(x.reshape(-1, last) == 0, axis=0)) if x.ndim > 1 and x.size else jnp.sum(x == 0)
        for x, last in zip(mantissas, lasts, strict=True)
    ]
    return Record(
        log_norm_parts(values),
        jnp.int32(sum(x.size for x in mantissas)),
        _total([jnp.sum(x == 0) for x in mantissas]),
        jnp.int32(sum(lasts)),
        _total(dead),
        _total([jnp.sum(~jnp.isfinite(x)) for x in mantissas]),
    )


def _total(counts: Sequence[Any]) -> Array:
    return jnp.asarray(sum(counts[1:], counts[0])).astype(jnp.int32)
