"""An optax wrapper that records, every so many updates, how large each parameter's gradient and update are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import arguments
from gradsim.tracking.norms import Measured, measure, nothing
from gradsim.tracking.rows import Rows, Stacked, check_stacked, rows_of

if TYPE_CHECKING:
    import optax

LOGS = ("log_gradient", "log_update", "log_parameter")
COUNTS = ("zeros", "non_finite", "non_finite_update")


class Tracked(NamedTuple):
    """The state of `track_gradients`: the optimizer's own, and the last records."""

    inner: Any
    step: Array
    """Updates taken, int32."""
    logs: Array
    """ln of the norms of gradient, update and parameter [records, rows, 3], float32; a ring."""
    counts: Array
    """Entries of the gradient that are zero and not finite, and of the update not finite [records, rows, 3], int32."""
    rows: Rows


def track_gradients(
    optimizer: optax.GradientTransformation, every: int = 10, records: int = 100, stacked: Stacked = ()
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optax optimizer so that its state holds, every so many updates, how large gradients and updates are.

    Recorded before updates 0, every, 2·every, … and for each parameter: ln ‖gradient‖, ln ‖update‖ and ln ‖parameter‖
    over their finite entries, and how many entries are zero or not finite. Norms are taken in float32 at least, of
    numbers brought near one by an exact power of two: a gradient whose square underflows keeps its norm, −inf means
    that all is zero. Updates are those of the optimizer, unchanged. `gradient_records` reads the state, of
    `flax.nnx.Optimizer`, `optax.multi_transform`, `optax.MultiSteps` and others, too.

    A record costs some passes over gradients, updates and parameters; the updates in between cost that an update is
    written to memory, which XLA might have merged with adding it. Under `jax.vmap` each update costs a record.

    Args:
        optimizer: an optax transformation.
        every: updates from one record to the next.
        records: how many are kept, the newest.
        stacked: which parameters hold a stack of layers along their first axis, as those of `flax.nnx.scan` and
            `flax.linen.scan` do, and are recorded layer by layer: all (True), those at or beneath these paths
            ("blocks", or several), or those for which a function of the path says so.

    Returns: an optax transformation, which takes the extra arguments of the optimizer.
    Raises: ValueError or TypeError naming the argument; those of `stacked` when the optimizer meets its parameters.
    """
    import optax

    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer: {arguments.got(optimizer)}; pass an optax transformation, such as optax.adam(1e-3)"
        )
    every = arguments.size("every", every)
    records = arguments.whole("records", records, maximum=10**6)
    check_stacked(stacked)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Tracked:
        rows = rows_of(params, every, stacked)
        logs = jnp.zeros((records, len(rows), len(LOGS)), jnp.float32)
        counts = jnp.zeros((records, len(rows), len(COUNTS)), jnp.int32)
        return Tracked(inner.init(params), jnp.zeros((), jnp.int32), logs, counts, rows)

    def update(gradients: Any, state: Tracked, params: Any = None, **extra: Any) -> tuple[Any, Tracked]:
        updates, after = inner.update(gradients, state.inner, params, **extra)
        # optax.tree_map_params gives a state back without its rows.
        rows = state.rows if len(state.rows) else rows_of(gradients if params is None else params, every, stacked)
        due, place = state.step % every == 0, (state.step // every) % records
        log, count = _record(gradients, updates, params, rows, due)
        logs = state.logs.at[place].set(jnp.where(due, log, state.logs[place]))
        counts = state.counts.at[place].set(jnp.where(due, count, state.counts[place]))
        return updates, Tracked(after, optax.safe_increment(state.step), logs, counts, rows)

    return optax.GradientTransformationExtraArgs(init, update)


def _record(gradients: Any, updates: Any, params: Any, rows: Rows, due: Array) -> tuple[Array, Array]:
    """The logs and the counts of one record [rows, 3], of zeros where none is due."""
    gradient = _measured(gradients, rows, due, zeros=True)
    update = _measured(updates, rows, due)
    norm = jnp.full_like(gradient.log, jnp.nan) if params is None else _measured(params, rows, due).log
    log, count = [gradient.log, update.log, norm], [gradient.zeros, gradient.lost, update.lost]
    return jnp.stack(log, -1), jnp.stack(count, -1)


def _measured(tree: Any, rows: Rows, due: Array, zeros: bool = False) -> Measured:
    """Each row of a tree, where a record is due."""
    leaves = jax.tree.leaves(tree)
    found = []
    for place, layers in zip(rows.leaves, rows.layers, strict=True):
        # A condition for each leaf: one for all would make every update wait for the last gradient.
        yes, no = partial(measure, stacked=layers > 0, zeros=zeros), partial(nothing, stacked=layers > 0)
        found.append(lax.cond(due, yes, no, jnp.asarray(leaves[place])))
    logs, lost, counts = zip(*found, strict=True) if found else ((), (), ())
    return Measured(_joined(logs, "float32"), _joined(lost, "int32"), _joined(counts, "int32"))


def _joined(parts: Sequence[Array], dtype: str) -> Array:
    return jnp.concatenate([jnp.zeros(0, dtype), *(jnp.atleast_1d(part) for part in parts)])
