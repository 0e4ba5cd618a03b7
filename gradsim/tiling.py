"""Loop tiling: the steps are walked in segments, which draw their weights at once, and the cells in blocks.

for segment of steps:            the weights and inputs of its steps are drawn
    for block of cells:          their tangents fit a cache, and stay there
        for step of segment:     one tall matrix product over the cells of the block
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim.chain import Drawn, Source

# body(cell, carry, (t, what step t reads, x)) -> (carry, y)
Body = Callable[[Any, Any, tuple[Array, Drawn, Any]], tuple[Any, Any]]


class Tiling(NamedTuple):
    """The cells of a block and the steps of a segment."""

    cells: int
    steps: int

    def segments(self, first: int, count: int, *, to_end: bool = False) -> Array:
        """The numbers of `count` steps from `first` on, [segments, steps], all segments of one length.

        So some steps are too many: after the last one or, `to_end`, before the first.
        """
        segments = -(-count // self.steps)
        steps = -(-count // segments)
        start = first + (count - segments * steps if to_end else 0)
        return start + jnp.arange(segments * steps, dtype=jnp.int32).reshape(segments, steps)

    def walk(
        self,
        body: Body,
        cells: Any,
        begin: Callable[[Any, Any], Any],
        start: Any,
        draw: Callable[[Array], Drawn],
        steps: Array,
        *,
        xs: Any = None,
        reverse: bool = False,
    ) -> tuple[Any, Any]:
        """`lax.scan` of `body` over `steps` for every cell, from begin(cell, start); `draw` draws what a segment reads.

        `cells`, `start` and the carries returned have leaves [cells, …], `xs` and the ys [segments, cells, steps, …].
        """

        def segment(x: tuple[Array, Any], begin: Callable[[Any, Any], Any], start: Any) -> tuple[Any, Any]:
            t, xs = x
            drawn = draw(t)

            def one(cell: Any, start: Any, xs: Any) -> tuple[Any, Any]:
                return lax.scan(partial(body, cell), begin(cell, start), (t, drawn, xs), reverse=reverse)

            return self.by_block(jax.vmap(one), cells, start, xs)

        if len(steps) == 1:  # the carry of a block is all there is of it
            last, ys = segment(jax.tree.map(lambda leaf: leaf[0], (steps, xs)), begin, start)
            return last, jax.tree.map(lambda leaf: leaf[None], ys)
        carry = self.by_block(jax.vmap(begin), cells, start)
        return lax.scan(lambda carry, x: segment(x, lambda _, carry: carry, carry), carry, (steps, xs), reverse=reverse)

    def by_block(self, function: Callable[..., Any], *args: Any) -> Any:
        """A function of leaves [cells, …], called with one block after the other."""
        if jax.tree.leaves(args)[0].shape[0] == self.cells:
            return function(*args)
        blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, self.cells, *leaf.shape[1:]), args)
        done = lax.map(lambda block: function(*block), blocks)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), done)


def drawing(source: Source, steps: Array) -> Callable[[Array], Drawn]:
    """What draws a segment of `steps`; the only one is drawn once, however often it is walked."""
    draw = jax.vmap(source.drawn)
    if len(steps) > 1:
        return draw
    drawn = draw(steps[0])
    return lambda t: drawn


def joined(ys: Array) -> Array:
    """What a walk gives, [segments, cells, steps, …], as [cells, steps, …]."""
    ys = jnp.moveaxis(ys, 0, 1)
    return ys.reshape(ys.shape[0], -1, *ys.shape[3:])
