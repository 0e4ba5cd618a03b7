"""What `track_gradients` recorded -> xarray.Dataset, and a summary that warns of layers that do not learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradsim import arguments
from gradsim.sweeps.dataset import provenance
from gradsim.tracking.rows import Rows
from gradsim.tracking.track import COUNTS, LOGS, Tracked

if TYPE_CHECKING:
    import xarray

ABOUT = {
    "log_gradient": ("log norm of the gradient", "nat"),
    "log_update": ("log norm of the update", "nat"),
    "log_parameter": ("log norm of the parameter", "nat"),
    "log_ratio": ("log norm of the update over that of the parameter", "nat"),
    "zeros": ("entries of the gradient that are zero", "1"),
    "non_finite": ("entries of the gradient that are not finite", "1"),
    "non_finite_update": ("entries of the update that are not finite", "1"),
}
LEARNS, VANISHED, NON_FINITE = "learns", "vanished", "non-finite"
WANTED = "pass the state of an optimizer that gradsim.track_gradients wrapped, or a flax.nnx.Optimizer"


def gradient_records(state: Any) -> xarray.Dataset:
    """The records in the state of an optimizer that `track_gradients` wrapped, oldest first.

    Args:
        state: the state, or what holds one: a `flax.nnx.Optimizer`, a train state with an `opt_state`, the states of
            `optax.chain`, `multi_transform` and `MultiSteps`. Trackers of several groups are joined. A state of
            `jax.vmap` has leading axes, which become the axis `member`.

    Returns: a Dataset over (member,) step and parameter, float64. In nats: `log_gradient`, `log_update`,
        `log_parameter` and `log_ratio`, ln ‖update‖/‖parameter‖, each over finite entries, −inf where all are zero, NaN
        where the optimizer was not given the parameters; and the numbers of entries `zeros`, `non_finite` and
        `non_finite_update`. `parameter` is the path, with [layer] where it is a stack of them; beside it stand `path`,
        `layer` (−1 where there is none), `size` and `log_rounding`, ln of the relative rounding of its dtype.
    Raises: TypeError or ValueError naming the argument.
    """
    import xarray  # 0.3 s: not at import

    found = [_arrays(one) for one in _trackers(state)]
    steps, every = found[0]["step"], found[0]["every"]
    if any(not np.array_equal(one["step"], steps) for one in found):
        raise ValueError("state: it holds trackers whose records are of different updates; pass the state of one")
    numbers = np.concatenate([one["numbers"] for one in found], axis=-2)
    dims = ["member", "step", "parameter"] if numbers.ndim == 4 else ["step", "parameter"]
    variables: dict[str, Any] = {}
    for place, name in enumerate(LOGS + COUNTS):
        values = numbers[..., place]
        variables[name] = (dims, values if name in LOGS else values.astype(np.int64))
    with np.errstate(invalid="ignore"):
        variables["log_ratio"] = (dims, numbers[..., 1] - numbers[..., 2])
    variables = {name: (*variables[name], _about(*ABOUT[name])) for name in ABOUT}
    rows = [row for one in found for row in _described(one["rows"])]
    names, path, layer, size, rounding = (list(column) for column in zip(*rows, strict=True))
    coordinates = {
        "step": ("step", steps, _about("updates taken", "step")),
        "parameter": ("parameter", names, {"long_name": "parameter"}),
        "path": ("parameter", path, {"long_name": "path of the parameter"}),
        "layer": ("parameter", layer, _about("layer of a stack", "layer")),
        "size": ("parameter", size, _about("entries", "1")),
        "log_rounding": ("parameter", rounding, _about("log relative rounding of the parameter", "nat")),
    }
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), "every": every})


def gradient_summary(records: xarray.Dataset) -> xarray.Dataset:
    """Which parameters learn, have vanished or are not finite, over all records; one warning where any do not learn.

    A record has vanished where the whole gradient is zero, or where ‖update‖/‖parameter‖ is below the rounding of the
    parameter's dtype although some parameter was updated; a parameter has where more than half of its records have. It
    is non-finite where any entry of any record is.

    Returns: a Dataset over (member and) parameter: `status` ("learns", "vanished", "non-finite"), `since`, the first
        update at which it was so (NaN where it learns), `vanished`, the share of the records, and the mean over the
        records of `log_gradient` and `log_ratio`, both −inf where one is.
    Raises: TypeError or ValueError for anything but what `gradient_records` returned.
    """
    import xarray

    records = checked(records)
    moved = (records["log_update"] > -np.inf).any("parameter")
    small = moved & (records["log_ratio"] < records["log_rounding"])
    vanished = (records["log_gradient"] == -np.inf) & (records["non_finite"] == 0) | small
    lost = records["non_finite"] + records["non_finite_update"] > 0
    share, any_lost = vanished.mean("step"), lost.any("step")
    status = xarray.where(any_lost, NON_FINITE, xarray.where(share > 0.5, VANISHED, LEARNS))
    bad = xarray.where(any_lost, lost, vanished & (status == VANISHED))
    since = records["step"].where(bad).min("step")
    said = {
        "status": (status, {"long_name": "does the parameter learn?"}),
        "since": (since, _about("first update at which it does not", "step")),
        "vanished": (share, _about("share of the records that have vanished", "1")),
        "log_gradient": (records["log_gradient"].mean("step"), _about("mean log norm of the gradient", "nat")),
        "log_ratio": (records["log_ratio"].mean("step"), _about("mean log relative update", "nat")),
    }
    summary = xarray.Dataset({name: one.assign_attrs(attrs) for name, (one, attrs) in said.items()})
    _warn(summary)
    return summary.assign_attrs(records.attrs)


def checked(records: Any) -> xarray.Dataset:
    """`records`, which must be of `gradient_records`."""
    import xarray

    if not isinstance(records, xarray.Dataset):
        raise TypeError(f"records: {arguments.got(records)}; pass what gradsim.gradient_records returned")
    lacks = [name for name in (*ABOUT, "step", "parameter", "log_rounding") if name not in records.variables]
    if lacks or not {"step", "parameter"} <= set(records["log_gradient"].dims) or 0 in records.sizes.values():
        said = f"lacks {', '.join(lacks)}" if lacks else f"has the sizes {dict(records.sizes)}"
        raise ValueError(f"records: the Dataset {said}; pass what gradsim.gradient_records returned")
    return records


def _warn(summary: xarray.Dataset) -> None:
    status = summary["status"]
    several = [dim for dim in status.dims if dim != "parameter"]
    said = []
    for name, reason in ((NON_FINITE, "not finite"), (VANISHED, "no gradient, or updates below rounding")):
        hit = (status == name).any(several)
        if bool(hit.any()):
            first = summary.isel(parameter=int(np.argmax(hit.values)))
            since = float(first["since"].where(first["status"] == name).min())
            verb = "are" if name == NON_FINITE else "have"
            said.append(
                f"{int(hit.sum())} of {hit.size} parameters {verb} {name} ({reason}), "
                f"{first['parameter'].item()} since update {since:g}"
            )
    if said:
        arguments.warn(f"gradient_summary: {'; '.join(said)}")


def _trackers(state: Any) -> list[Tracked]:
    state = getattr(state, "opt_state", state)
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Tracked))
    found = [leaf for leaf in leaves if isinstance(leaf, Tracked)]
    if not found:
        raise TypeError(f"state: got a {type(state).__name__} without records; {WANTED}")
    return [one for one in found if len(one.rows)] or found[:1]


def _arrays(state: Tracked) -> dict[str, Any]:
    """The records of one tracker in order: numbers [(member,) records, rows, 6]."""
    recorded, steps, logs, counts = (np.asarray(jax.tree.leaves(part)[0]) for part in state[2:6])
    if not logs.shape[-2]:
        raise ValueError(f"state: no parameter of it is of real or complex numbers; {WANTED}")
    taken = np.unique(recorded)
    if taken.size != 1 or taken[0] == 0:
        said = "no update was recorded" if taken.max(initial=0) == 0 else f"its members have {taken} records"
        raise ValueError(f"state: {said}; pass a state after one or more records, the same number for all members")
    length = logs.shape[-3]
    order = np.arange(max(0, int(taken[0]) - length), int(taken[0])) % length
    steps = steps.reshape(-1, length)[:, order]
    if (steps != steps[0]).any():
        raise ValueError("state: its members have recorded different updates; pass the state of one")
    both = np.concatenate([logs.astype(np.float64), counts.astype(np.float64)], axis=-1)
    if recorded.ndim:
        both = both.reshape(-1, *both.shape[-3:])
    return {
        "step": steps[0].astype(np.int64),
        "every": state.rows.every,
        "rows": state.rows,
        "numbers": both[..., order, :, :],
    }


def _described(rows: Rows) -> list[tuple[str, str, int, int, float]]:
    """Name, path, layer, size and ln of the rounding of each row."""
    found = []
    for path, layers, size, dtype in zip(rows.paths, rows.layers, rows.sizes, rows.dtypes, strict=True):
        rounding = math.log(float(jax.numpy.finfo(dtype).eps) / 2)
        for layer in range(layers):
            found.append((f"{path}[{layer}]", path, layer, size, rounding))
        if not layers:
            found.append((path, path, -1, size, rounding))
    return found


def _about(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}
