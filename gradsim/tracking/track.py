"""An optax wrapper that records, every so many updates, how large each parameter's gradient and update are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import arguments
from gradsim.tracking.again import Again, itself, updated
from gradsim.tracking.norms import LOST, ZEROS, Measured, joined, measure, nothing
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
    recorded: Array
    """Records taken, int32."""
    steps: Array
    """The updates taken before each record [records], int32; a ring, as are the next two."""
    logs: Array
    """ln of the norms of gradient, update and parameter [records, rows, 3], float32."""
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

    A record costs some passes over gradients, updates and parameters; updates are computed again from these and the new
    state where they can be, so that none is written to memory for it. The updates in between cost a little, and nothing
    where the caller says when to record: `update(gradients, state, params, record=step % 10 == 0)`, a bool that is
    static under `jax.jit`, compiles one program that records and one without a trace of it. Under `jax.vmap` each
    update costs a record unless it does.

    Args:
        optimizer: an optax transformation.
        every: updates from one record to the next, where `record` does not say.
        records: how many are kept, the newest.
        stacked: which parameters hold a stack of layers along their first axis, as those of `flax.nnx.scan` and
            `flax.linen.scan` do, and are recorded layer by layer: all (True), those at or beneath these paths
            ("blocks", or several), or those for which a function of the path says so.

    Returns: an optax transformation, which takes `record` and the extra arguments of the optimizer.
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
        taken, recorded = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # two, for each may be donated
        logs = jnp.zeros((records, len(rows), len(LOGS)), jnp.float32)
        counts = jnp.zeros((records, len(rows), len(COUNTS)), jnp.int32)
        return Tracked(inner.init(params), taken, recorded, jnp.zeros(records, jnp.int32), logs, counts, rows)

    def update(
        gradients: Any, state: Tracked, params: Any = None, *, record: bool | None = None, **extra: Any
    ) -> tuple[Any, Tracked]:
        _check_record(record)
        if record is False:
            updates, after = inner.update(gradients, state.inner, params, **extra)
        else:
            updates, after, again = updated(inner.update, gradients, state.inner, params, extra)
        # optax.tree_map_params gives a state back without its rows.
        rows = state.rows if len(state.rows) else rows_of(gradients if params is None else params, every, stacked)
        after = state._replace(inner=after, step=optax.safe_increment(state.step), rows=rows)
        if record is False:
            return updates, after
        # Always a condition to XLA: what it can merge with the update is slower.
        due = state.step % every == 0 if record is None else state.step >= 0
        place = state.recorded % records
        log, count = _record(gradients, again, params, rows, due)
        return updates, after._replace(
            recorded=jnp.where(due, state.recorded + 1, state.recorded),
            steps=_kept(state.steps, place, state.step, due),
            logs=_kept(state.logs, place, log, due),
            counts=_kept(state.counts, place, count, due),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _check_record(record: Any) -> None:
    if isinstance(record, jax.core.Tracer):
        raise TypeError("record: got a traced value; it is a Python bool, static in jax.jit: static_argnames='record'")
    if record is not None and not isinstance(record, bool):
        raise TypeError(f"record: {arguments.got(record)}; pass True or False, or None: every so many updates")


def _kept(ring: Array, place: Array, value: Array, due: Array) -> Array:
    """The ring with the value in its place, where it is due."""
    return ring.at[place].set(jnp.where(due, value, ring[place]))


def _record(gradients: Any, updates: Sequence[Again], params: Any, rows: Rows, due: Array) -> tuple[Array, Array]:
    """The logs and the counts of one record [rows, 3], of zeros where none is due."""
    if not rows.leaves:
        return jnp.zeros((0, len(LOGS)), "float32"), jnp.zeros((0, len(COUNTS)), "int32")
    gradients, params = jax.tree.leaves(gradients), jax.tree.leaves(params)
    where = list(zip(rows.leaves, rows.layers, strict=True))
    found = []
    for place, layers in where:
        # Leaves have a condition each: one for all would make every update wait for the last gradient.
        both = [_Asked(itself(gradients[place]), layers, (ZEROS, LOST)), _Asked(updates[place], layers, (LOST,))]
        found.append(_where_due(due, both))
    gradient, update = (joined(column) for column in zip(*found, strict=True))
    norm = jnp.full_like(gradient.log, jnp.nan)
    if params:
        norm = joined(_where_due(due, [_Asked(itself(params[place]), layers) for place, layers in where])).log
    counts = [gradient.counts[ZEROS], gradient.counts[LOST], update.counts[LOST]]
    return jnp.stack([gradient.log, update.log, norm], -1), jnp.stack(counts, -1)


class _Asked(NamedTuple):
    """What is to be measured of an array, or of its layers."""

    array: Again
    layers: int
    counts: tuple[str, ...] = ()


def _where_due(due: Array, asked: Sequence[_Asked]) -> list[Measured]:
    """Measured in one condition."""

    def yes(operands: Sequence[Sequence[Array]]) -> list[Measured]:
        arrays = [one.array.compute(*each) for one, each in zip(asked, operands, strict=True)]
        return [measure(x, one.layers > 0, one.counts) for x, one in zip(arrays, asked, strict=True)]

    def no(_: Any) -> list[Measured]:
        return [nothing(one.layers, one.counts) for one in asked]

    return lax.cond(due, yes, no, [one.array.operands for one in asked])
