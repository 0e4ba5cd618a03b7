"""Many small arrays as one vector of integers, for each takes as long to fetch as a thousand numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@partial(jax.tree_util.register_dataclass, data_fields=["bits"], meta_fields=["structure", "leaves"])
@dataclass
class Packed:
    """The bits, int32, of a tree of arrays of 4 or 8 bytes an entry, or of truths; and what to read in them."""

    bits: Any
    structure: Any
    leaves: tuple[tuple[tuple[int, ...], str], ...]  # shapes and dtypes


def packed(tree: Any) -> Packed:
    """The arrays as one."""
    leaves, structure = jax.tree.flatten(tree)
    parts = [leaf.astype(jnp.int32) if leaf.dtype == jnp.bool_ else leaf for leaf in leaves]
    parts = [lax.bitcast_convert_type(one, jnp.int32).ravel() for one in parts]
    bits = jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.int32)
    return Packed(bits, structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))


def unpacked(value: Packed) -> Any:
    """The arrays, on the host."""
    found, start = [], 0
    for shape, dtype in value.leaves:
        count = math.prod(shape) * (1 if dtype == "bool" else np.dtype(dtype).itemsize // 4)
        part = value.bits[start : start + count]
        found.append((part != 0 if dtype == "bool" else part.view(dtype)).reshape(shape))
        start += count
    return jax.tree.unflatten(value.structure, found)
