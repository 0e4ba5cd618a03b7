"""Loop tiling: the steps are walked in segments, which draw their weights at once, and the cells in blocks.

for segment of steps:            the weights and inputs of its steps are drawn
    for block of cells:          their tangents fit a cache, and stay there
        for step of segment:     one tall matrix product over the cells of the block, or where the tangents of
                                 one cell are too many for a cache, over some of them after the others
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from gradsim.engine.chain import Drawn, Source
from gradsim.networks.network import Network

# The weights of a segment: enough to draw many small matrices at once.
SEGMENT_BYTES = 4 * 2**20
# More steps gain next to nothing forwards, and a deeper network then runs the same program in the same memory.
SEGMENT_STEPS = 64

# body(cell, carry, (t, what step t reads, x)) -> (carry, y)
Body = Callable[[Any, Any, tuple[Array, Drawn, Any]], tuple[Any, Any]]


@lru_cache(maxsize=256)
def draw_bytes(network: Network, dtype: str | np.dtype) -> int:
    """Bytes of what one step draws."""
    with jax.enable_x64(jnp.dtype(dtype) == "float64"):
        drawn = jax.eval_shape(lambda: network.draw(jax.random.key(0), jnp.dtype(dtype)))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(drawn))


def step_bytes(network: Network, dtype: DTypeLike) -> int:
    """Bytes of what is drawn anew for each step: the weights of a tied network are drawn once."""
    inputs = math.prod(network.input_shape) * jnp.dtype(dtype).itemsize if network.driven else 0
    return max(1, inputs + (0 if network.tied else draw_bytes(network, jnp.dtype(dtype))))


def segment(network: Network, dtype: DTypeLike, depth: int) -> int:
    """The steps of a segment of one network."""
    return min(depth, SEGMENT_STEPS, max(1, SEGMENT_BYTES // step_bytes(network, dtype)))


class Tiling(NamedTuple):
    """The cells of a block, the steps of a segment, and the tangents of a cell that take a step at once (0 is all)."""

    cells: int
    steps: int
    tangents: int = 0

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

        def scan(begin: Callable[[Any, Any], Any], t: Array) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
            drawn = draw(t)

            def one(start: Any, cell: Any, xs: Any) -> tuple[Any, Any]:
                carry = _mapped_like((cell, start, drawn), begin(cell, start))
                return lax.scan(partial(body, cell), carry, (t, drawn, xs), reverse=reverse)

            return jax.vmap(one)

        if len(steps) == 1:  # each block begins its own carry: that of the whole grid is never written
            run = scan(begin, steps[0])
            xs = jax.tree.map(lambda leaf: leaf[0], xs)
            _, (last, ys) = self.by_block(lambda _, *args: ((), run(*args)), (), start, cells, xs)
            return last, jax.tree.map(lambda leaf: leaf[None], ys)

        def segment(carry: Any, x: tuple[Array, Any]) -> tuple[Any, Any]:
            t, xs = x
            return self.by_block(scan(lambda _, carry: carry, t), carry, cells, xs)

        return lax.scan(segment, jax.vmap(begin)(cells, start), (steps, xs), reverse=reverse)

    def by_block(self, function: Callable[..., tuple[Any, Any]], carry: Any, *args: Any) -> tuple[Any, Any]:
        """(carry, ys) of function(carry, *args), leaves [cells, …], called with one block after the other.

        The carry is overwritten block by block: a copy of it would be the largest array of a call.
        """
        blocks = jax.tree.leaves(args)[0].shape[0] // self.cells
        if blocks == 1:
            return function(carry, *args)

        def block(carry: Any, x: tuple[Array, Any]) -> tuple[Any, Any]:
            i, args = x
            take = partial(lax.dynamic_index_in_dim, index=i, keepdims=False)
            put = partial(lax.dynamic_update_index_in_dim, index=i, axis=0)
            new, ys = function(jax.tree.map(take, carry), *args)
            return jax.tree.map(put, carry, new), ys

        carry, args = jax.tree.map(lambda leaf: leaf.reshape(blocks, self.cells, *leaf.shape[1:]), (carry, args))
        done = lax.scan(block, carry, (jnp.arange(blocks), args))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), done)


def _mapped_like(mapped: Any, carry: Any) -> Any:
    """The same carry, each leaf mapped by every vmap that maps one here: it traces a loop over it once, not twice."""
    always = jnp.all(jnp.stack([leaf.ravel()[0] == leaf.ravel()[0] for leaf in jax.tree.leaves(mapped)]))
    return jax.tree.map(lambda leaf: jnp.where(always, leaf, leaf), carry)


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
