"""Loops and branches whose values are in block floating point: exponents travel with the carry."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradsim.inspection.block_floats import block, coarsened, is_block, joint_shape, with_rows
from gradsim.inspection.jax_versions import scan_sizes
from gradsim.scaled import Scaled

# (program, operands) -> (results, what taps and checks noted, a pytree)
Run = Callable[[Any, Sequence[Any]], tuple[list[Any], Any]]


def scan(equation: Any, operands: Sequence[Any], run: Run) -> tuple[list[Any], Any]:
    """A scan: what is stacked has exponents of its own for each step."""
    params = equation.params
    constants, carried = scan_sizes(params)
    fixed, carry, rows = (
        operands[:constants],
        operands[constants : constants + carried],
        operands[constants + carried :],
    )
    length = params["length"]
    rows = [with_rows(x, length) if is_block(x) else x for x in rows]

    def step(carry: Any, xs: Any) -> tuple[Any, Any]:
        outs, notes = run(params["jaxpr"], [*fixed, *carry, *xs])
        return _as_carried(outs[:carried], carry), (outs[carried:], notes)

    def turned(carry: Any) -> list[Any]:
        first = jax.tree.map(lambda x: x[0], rows) if length else jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), rows)
        return jax.eval_shape(lambda c, xs: run(params["jaxpr"], [*fixed, *c, *xs])[0][:carried], carry, first)

    carry = settled(carry, turned)
    last, (stacked, notes) = lax.scan(
        step, carry, rows, length=length, reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*last, *stacked], notes


def settled(carry: Sequence[Any], turned: Callable[[Any], Any]) -> list[Any]:
    """The carry in the form that a step leaves it in: linear in the cotangent, and with exponents as fine."""
    carry = list(carry)
    while True:
        changed = False
        for i, (x, new) in enumerate(zip(carry, turned(carry), strict=True)):
            if not is_block(new):
                continue
            form = joint_shape([block(x), new])
            if not is_block(x) or form != x.exponent.shape:
                carry[i], changed = coarsened(block(x), form), True
        if not changed:
            return carry


def _as_carried(new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    return [coarsened(block(x), y.exponent.shape) if is_block(y) else x for x, y in zip(new, old, strict=True)]


def while_loop(equation: Any, operands: Sequence[Any], run: Run) -> tuple[list[Any], Any]:
    """A while loop; what taps and checks note within it has no fixed length, and is not kept."""
    params = equation.params
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body, carry = operands[:tests], operands[tests : tests + bodies], operands[tests + bodies :]

    def step(carry: Any) -> Any:
        return run(params["body_jaxpr"], [*of_body, *carry])[0]

    def test(carry: Any) -> Any:
        return run(params["cond_jaxpr"], [*of_test, *carry])[0][0]

    start = settled(carry, lambda now: jax.eval_shape(step, now))
    return lax.while_loop(test, lambda now: _as_carried(step(now), now), start), None


def cond(equation: Any, operands: Sequence[Any], run: Run) -> tuple[list[Any], Any]:
    """A choice among programs: a result is in blocks where one of them leaves it so."""
    index, *rest = operands
    branches = equation.params["branches"]
    shapes = [jax.eval_shape(lambda *xs, one=one: run(one, list(xs)), *rest) for one in branches]
    linear = [any(is_block(out) for out in outs) for outs in zip(*(outs for outs, _ in shapes), strict=True)]
    forms = [
        joint_shape([x if is_block(x) else Scaled(x, jnp.zeros((1,) * len(x.shape), jnp.int32)) for x in outs])
        for outs in zip(*(outs for outs, _ in shapes), strict=True)
    ]

    def branch(which: int) -> Callable[..., Any]:
        def evaluate(*xs: Any) -> Any:
            outs, notes = run(branches[which], list(xs))
            outs = [coarsened(block(x), form) if one else x for x, one, form in zip(outs, linear, forms, strict=True)]
            # Taps of the branches that are not taken have noted nothing: NaN.
            return outs, [notes if i == which else jax.tree.map(_nothing, other) for i, (_, other) in enumerate(shapes)]

        return evaluate

    return lax.switch(index, [branch(i) for i in range(len(branches))], *rest)


def _nothing(note: Any) -> Any:
    if jnp.issubdtype(note.dtype, jnp.inexact):
        return jnp.full(note.shape, jnp.nan, note.dtype)
    return jnp.zeros(note.shape, note.dtype)
