"""What was measured of products of Jacobians, as variables of a Dataset: their gains, and matrices to the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gradsim.inspection.measure import Call
from gradsim.inspection.products import Product
from gradsim.scaled import LN2, Scaled

FITS = 2**9  # binary exponents that float64 holds with room to spare


def variables(
    found: Mapping[str, Product], calls: Sequence[Call], labels: Sequence[str], *, average: bool
) -> dict[str, Any]:
    """The variables of the products to the output and from the input, by name."""
    sizes = np.array([call.site.entries * np.size(call.value.zeros) for call in calls])
    several: dict[str, Any] = {}
    for name, one in found.items():
        entries = sizes if name == "to_output" else np.full(len(sizes), sum(one.sizes))
        gains = one.log_norm - 0.5 * np.log(entries)
        what = f"log root mean square gain {name.replace('_', ' ')}"
        several[f"log_gain_{name}"] = ("layer", gains, _about(what, "nat", method=one.method))
        several[f"log_gain_{name}_error"] = ("layer", one.error, _about(f"standard error of the {what}", "nat"))
        for place, held in one.held.items():
            dims, matrix, log_scale = matrices(held, one.sizes, one.examples, average)
            dims = tuple(f"entry of {labels[place]}" if dim == "entry" else dim for dim in dims)
            about = _about(f"Jacobian of the output with respect to {labels[place]}", "1", log_scale=log_scale)
            several[f"jacobian.{labels[place]}"] = (dims, matrix, about)
    return several


def _about(long_name: str, units: str, **others: Any) -> dict[str, Any]:
    return {"long_name": long_name, "units": units, **others}


def matrices(
    held: Sequence[Scaled], sizes: Sequence[int], examples: int, average: bool
) -> tuple[tuple[str, ...], Any, float]:
    """Dimensions, J and log_scale, the ln by which it is to be multiplied, of one layer.

    `held` are its cotangents [k, …], for a basis of output arrays of these sizes. With `examples` along their first
    axes, k runs over one example's outputs, or over all, of which each example's own are taken.
    """
    top = max(int(np.max(one.exponent)) for one in held)
    top = 0 if abs(top) < FITS else top
    wide = [_true(one, top) for one in held]
    if not examples:
        return ("output", "entry"), np.concatenate([x.reshape(len(x), -1) for x in wide], 1), top * LN2
    rows = np.concatenate([x.reshape(len(x), examples, -1) for x in wide], -1)
    if len(rows) == sum(sizes):
        each = range(examples)
        parts = [part.reshape(examples, -1, *part.shape[1:]) for part in np.split(rows, np.cumsum(sizes)[:-1])]
        found = np.concatenate([part[each, :, each] for part in parts], 1)
    else:
        found = np.swapaxes(rows, 0, 1)
    if average:
        return ("output", "entry"), found.mean(0), top * LN2
    return ("example", "output", "entry"), found, top * LN2


def _true(value: Scaled, top: int) -> np.ndarray:
    mantissa, exponent = jax.device_get(value)
    return np.asarray(np.ldexp(np.asarray(mantissa, np.float64), np.maximum(np.asarray(exponent) - top, -(2**14))))
