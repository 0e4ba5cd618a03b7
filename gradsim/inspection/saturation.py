"""Which equations are activations that saturate, and how many of their entries have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

FLAT = 0.01  # of the largest slope: tanh beyond ±3, a sigmoid beyond ±6
# Slopes from the output y, in units of the largest one.
SLOPES = {"tanh": lambda y: (1 - y) * (1 + y), "logistic": lambda y: 4 * y * (1 - y)}
ELEMENTWISE = ("mul", "add", "sub", "neg", "integer_pow", "square", "convert_element_type", "copy", "tanh", "logistic",
               "exp", "log1p", "log", "div", "max", "abs", "select_n")  # fmt: skip
NEAR = 32  # equations between an activation and its own input, where the two are multiplied


def saturated(name: str, y: Array) -> Array:
    """A record (see `records`) whose first count is of the entries with less than FLAT of the largest slope."""
    wide = jnp.float64 if y.dtype == jnp.float64 else jnp.float32
    count = jnp.sum(SLOPES[name](y) < FLAT, dtype=jnp.int32).astype(wide)
    return jnp.stack([jnp.zeros_like(count), jnp.zeros_like(count), count, *[jnp.zeros_like(count)] * 2])


def saturating(equations: Sequence[Any], place: int) -> bool:
    """Is it a tanh or sigmoid, but not the gate of its own input: SiLU and GELU are steep where theirs is flat."""
    equation = equations[place]
    if equation.source.primitive.name not in SLOPES:
        return False
    above = set(equation.ins)
    for earlier in reversed(equations[max(0, place - NEAR) : place]):
        if earlier.source.primitive.name in ELEMENTWISE and not above.isdisjoint(earlier.outs):
            above.update(earlier.ins)
    gates = set(equation.outs)
    for later in equations[place + 1 : place + 1 + NEAR]:
        if later.source.primitive.name in ELEMENTWISE and not gates.isdisjoint(later.ins):
            if later.source.primitive.name == "mul" and any(n in above and n not in gates for n in later.ins):
                return False
            gates.update(later.outs)
    return True
