"""An optax wrapper that records, every so many updates, how large each parameter's gradient and update are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from gradsim import arguments
from gradsim.scaled import LN2, exponent_of, times_power_of_two

if TYPE_CHECKING:
    import optax

LOGS = ("log_gradient", "log_update", "log_parameter")
COUNTS = ("zeros", "non_finite", "non_finite_update")
SMALL = 2**12  # entries, up to which the sum of squares is not tried first
Stacked = bool | str | Sequence[str] | Callable[[str], bool]


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of a record are: one for each parameter, or for each layer of a stacked one.

    All are equal where one is empty: optax makes a state out of no parameters to see which of its parts are
    shaped like them, and compares it with the real one.
    """

    every: int
    leaves: tuple[int, ...] = ()
    """Which leaves of the tree are recorded: those of real or complex numbers."""
    paths: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    """The layers of each leaf; 0 where it is not a stack of layers."""
    sizes: tuple[int, ...] = ()
    """The number of entries of each row of the leaf."""
    dtypes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return False
        return not self.paths or not other.paths or vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(Rows)

    def __len__(self) -> int:
        return sum(max(layers, 1) for layers in self.layers)


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
    _check_stacked(stacked)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Tracked:
        rows = _rows(params, every, stacked)
        logs = jnp.zeros((records, len(rows), len(LOGS)), jnp.float32)
        counts = jnp.zeros((records, len(rows), len(COUNTS)), jnp.int32)
        return Tracked(inner.init(params), jnp.zeros((), jnp.int32), logs, counts, rows)

    def update(gradients: Any, state: Tracked, params: Any = None, **extra: Any) -> tuple[Any, Tracked]:
        updates, after = inner.update(gradients, state.inner, params, **extra)
        # optax.tree_map_params gives a state back without its rows.
        rows = state.rows if len(state.rows) else _rows(gradients if params is None else params, every, stacked)
        leaves = [None if tree is None else _leaves(tree, rows) for tree in (gradients, updates, params)]
        due, place = state.step % every == 0, (state.step // every) % records
        log, count = _record(leaves, rows, due)
        logs = state.logs.at[place].set(jnp.where(due, log, state.logs[place]))
        counts = state.counts.at[place].set(jnp.where(due, count, state.counts[place]))
        return updates, Tracked(after, optax.safe_increment(state.step), logs, counts, rows)

    return optax.GradientTransformationExtraArgs(init, update)


def _record(leaves: Any, rows: Rows, due: Array) -> tuple[Array, Array]:
    """One record, of zeros where none is due."""
    of_gradient, of_update, of_parameter = leaves
    gradient, zeros, lost = _measure(of_gradient, rows, due)
    update, _, lost_update = _measure(of_update, rows, due)
    norm = jnp.full_like(gradient, jnp.nan) if of_parameter is None else _measure(of_parameter, rows, due)[0]
    log, count = jnp.stack([gradient, update, norm], -1), jnp.stack([zeros, lost, lost_update], -1)
    return log, count


def _measure(leaves: Sequence[Array], rows: Rows, due: Array) -> tuple[Array, Array, Array]:
    """ln of the norm, and the numbers of zero and of non-finite entries of each row."""
    # A condition for each leaf: one for all would make every update wait for the last gradient.
    found = [
        lax.cond(due, partial(_whole_rows, stacked=layers > 0), partial(_no_rows, stacked=layers > 0), leaf)
        for leaf, layers in zip(leaves, rows.layers, strict=True)
    ]
    log, zeros, lost = zip(*found, strict=True) if found else ((), (), ())
    return _joined(log, "float32"), _joined(zeros, "int32"), _joined(lost, "int32")


def _joined(parts: Sequence[Array], dtype: str) -> Array:
    return jnp.concatenate([jnp.zeros(0, dtype), *(jnp.atleast_1d(part) for part in parts)])


def _whole(x: Array) -> Array:
    """All of `x` on every device, where the axes of the mesh are explicit and it is not."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        return x
    return jax.sharding.reshard(x, jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec()))


def _whole_rows(x: Array, stacked: bool) -> tuple[Array, Array, Array]:
    log, zeros, lost = map(_whole, _of_rows(x, stacked))
    return log, zeros, lost


def _no_rows(x: Array, stacked: bool) -> tuple[Array, Array, Array]:
    made = [jnp.zeros(x.shape[: int(stacked)], dtype) for dtype in ("float32", "int32", "int32")]
    return made[0], made[1], made[2]


def _of_rows(x: Array, stacked: bool) -> tuple[Array, Array, Array]:
    """The same of one leaf, or of each of its layers; without a reshape, which a sharded array may not allow."""
    axes = tuple(range(int(stacked), x.ndim))
    entries = int(np.prod([x.shape[axis] for axis in axes]))
    zeros = _count(x == 0, axes, entries)
    if x.size <= SMALL:
        log, lost = _scaled(x, axes, entries)
        return log, zeros, lost
    squares = _square_sum(_parts(x), axes)
    # Squares below 2**-126 are lost: too little to matter here, and all of them are finite if their sum is.
    plain = jnp.all((squares > 2.0**-64) & jnp.isfinite(squares))
    nothing = jnp.zeros_like(zeros)
    log, lost = lax.cond(
        plain, lambda x: (_half_log(squares), nothing), lambda x: _scaled(x, axes, entries), x
    )  # fmt: skip
    return log, zeros, lost


def _scaled(x: Array, axes: tuple[int, ...], entries: int) -> tuple[Array, Array]:
    """ln of the norm of the finite entries, brought near one by a power of two first, and how many others there are."""
    finite = jnp.isfinite(x)
    parts = _parts(jnp.where(finite, x, 0))
    largest = [jnp.max(jnp.abs(part), axis=axes, initial=0) for part in parts]
    top = exponent_of(jnp.maximum(largest[0], largest[-1]))
    squares = _square_sum(times_power_of_two(parts, -jnp.expand_dims(top, axes)), axes)
    return _half_log(squares) + LN2 * top.astype("float32"), _count(~finite, axes, entries)


def _parts(x: Array) -> list[Array]:
    """Real and imaginary part, in float32 at least."""
    parts = [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
    return [part if jnp.finfo(part.dtype).bits == 64 else part.astype("float32") for part in parts]


def _square_sum(parts: Sequence[Array], axes: tuple[int, ...]) -> Array:
    return jnp.sum(jnp.stack([jnp.sum(part * part, axis=axes) for part in parts]), axis=0)


def _half_log(squares: Array) -> Array:
    return (jnp.log(squares) / 2).astype("float32")


def _count(flags: Array, axes: tuple[int, ...], entries: int) -> Array:
    """How many are true. Floats are added faster than integers, and exactly while there are few enough."""
    return jnp.sum(flags, axis=axes, dtype="float32" if entries <= 2**24 else "int32").astype("int32")


def _leaves(tree: Any, rows: Rows) -> list[Array]:
    leaves = jax.tree.leaves(tree)
    return [jnp.asarray(leaves[place]) for place in rows.leaves]


def _rows(params: Any, every: int, stacked: Stacked) -> Rows:
    found: list[tuple[int, str, int, int, str]] = []
    for place, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(params)[0]):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        name, shape, layers = name_of(path), np.shape(leaf), 0
        if _is_stacked(name, stacked):
            if not shape or not shape[0]:
                raise ValueError(f"stacked: {name} has the shape {shape}; pass paths of parameters with a layer axis")
            layers = shape[0]
        size = int(np.prod(shape)) // max(layers, 1)
        found.append((place, name, layers, size, jnp.result_type(leaf).name))
    names = [name for _, name, *_ in found]
    for wanted in _paths(stacked) if names else ():
        if not any(_beneath(name, wanted) for name in names):
            raise ValueError(f"stacked: no parameter is at {wanted!r}; the paths are: {arguments.shown(names)}")
    leaves, paths, layers_, sizes, dtypes = zip(*found, strict=True) if found else ((),) * 5
    return Rows(every, leaves, paths, layers_, sizes, dtypes)


def name_of(path: Sequence[Any]) -> str:
    """A path in a tree as names between slashes; the value in a variable of flax.nnx is the variable."""
    if path and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/") or "parameter"


def _check_stacked(stacked: Any) -> None:
    wanted = "True, a path such as 'blocks', a sequence of paths, or a function of the path"
    if isinstance(stacked, bool | str) or callable(stacked):
        return
    if not isinstance(stacked, Sequence) or not all(isinstance(path, str) for path in stacked):
        raise TypeError(f"stacked: {arguments.got(stacked)}; pass {wanted}")


def _paths(stacked: Any) -> tuple[str, ...]:
    if isinstance(stacked, bool) or callable(stacked):
        return ()
    return (stacked,) if isinstance(stacked, str) else tuple(stacked)


def _is_stacked(name: str, stacked: Any) -> bool:
    if isinstance(stacked, bool):
        return stacked
    return bool(stacked(name)) if callable(stacked) else any(_beneath(name, path) for path in _paths(stacked))


def _beneath(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")
