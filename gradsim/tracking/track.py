"""An optax wrapper that records, every so many updates, how large each parameter's gradient and update are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import arguments
from gradsim.tracking.again import Again, itself, updated
from gradsim.tracking.norms import LOST, ZEROS, Measured, below, beside, measure, nothing
from gradsim.tracking.rows import Rows, Stacked, check_stacked, rows_of

if TYPE_CHECKING:
    import optax

LOGS = ("log_gradient", "log_update", "log_parameter")
COUNTS = ("zeros", "non_finite", "non_finite_update")
TOGETHER = 2**20  # entries of gradients that have one condition
NEVER = 1e30  # no norm of numbers has such a log


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
    state where they can be, so that none is kept for it. The updates in between cost a little, and nothing
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
        updates, found = _record(gradients, params, updates, again, rows, due)
        return updates, after._replace(
            recorded=jnp.where(due, state.recorded + 1, state.recorded),
            steps=_kept(state.steps, place, state.step, due),
            logs=_kept(state.logs, place, found.logs, due),
            counts=_kept(state.counts, place, found.counts, due),
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


def _record(
    gradients: Any, params: Any, updates: Any, again: Sequence[Again], rows: Rows, due: Array
) -> tuple[Any, Measured]:
    """The updates, and one record [rows, 3], of zeros where none is due.

    Some gradients at a time have a condition: with one for all, every gradient would be kept until the last is there.
    Their updates wait for what it measures, and for the parameters' norms. Else XLA copies parameters, to change them
    while they are measured, or while the gradient of the layer before is computed from them.
    """
    if not rows.leaves:
        return updates, nothing(0, len(LOGS), len(COUNTS))
    gradients, (updates, tree) = jax.tree.leaves(gradients), jax.tree.flatten(updates)
    norms = _params(params, rows, due)
    found = []
    for group in _groups(rows):
        asked = [
            [_Asked(itself(gradients[place]), layers, (ZEROS, LOST)), _Asked(again[place], layers, (LOST,))]
            for place, layers in group
        ]
        found.append(_where_due(due, asked))
        never = found[-1].logs[0, 0] + norms[0] > NEVER
        for place, _ in group:
            updates[place] = jnp.where(never, jnp.zeros_like(updates[place]), updates[place])
    logs, counts = below(found)
    return jax.tree.unflatten(tree, updates), Measured(jnp.column_stack([logs, norms]), counts)


def _params(params: Any, rows: Rows, due: Array) -> Array:
    """ln ‖parameter‖ [rows], NaN where there are no parameters."""
    leaves = jax.tree.leaves(params)
    if not leaves:
        return jnp.full(len(rows), jnp.nan, "float32")
    asked = [_Asked(itself(leaves[place]), layers) for place, layers in zip(rows.leaves, rows.layers, strict=True)]
    return _where_due(due, [[one] for one in asked]).logs[:, 0]


def _groups(rows: Rows) -> list[list[tuple[int, int]]]:
    """Leaves with their numbers of layers, as many one after another as have TOGETHER entries, or one."""
    groups: list[list[tuple[int, int]]] = []
    room = 0
    for place, layers, size in zip(rows.leaves, rows.layers, rows.sizes, strict=True):
        entries = size * max(layers, 1)
        if not groups or entries > room:
            groups.append([])
            room = TOGETHER
        groups[-1].append((place, layers))
        room -= entries
    return groups


class _Asked(NamedTuple):
    """What is to be measured of an array, or of its layers."""

    array: Again
    layers: int
    counts: tuple[str, ...] = ()


def _where_due(due: Array, asked: Sequence[Sequence[_Asked]]) -> Measured:
    """Measured in one condition, side by side what belongs in the same rows."""

    def yes(operands: Any) -> Measured:
        return below([beside(list(map(_measured, *row))) for row in zip(asked, operands, strict=True)])

    def no(_: Any) -> Measured:
        rows, counts = sum(max(one.layers, 1) for one, *_ in asked), sum(len(one.counts) for one in asked[0])
        return nothing(rows, len(asked[0]), counts)

    return lax.cond(due, yes, no, [[one.array.operands for one in row] for row in asked])


def _measured(one: _Asked, operands: Sequence[Array]) -> Measured:
    return measure(operands, one.array.compute, one.layers > 0, one.counts)
