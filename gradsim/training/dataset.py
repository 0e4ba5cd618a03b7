"""What was recorded -> xarray.Dataset: named dimensions, units, and where the numbers came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.sweeps.dataset import GAINS, Frame, description, gain_coordinates, provenance
from gradsim.sweeps.grid import Networks

if TYPE_CHECKING:
    import xarray

ABOUT = {
    "loss": ("loss of the next batch", None),
    "mean_loss": ("mean loss of the batches since the last record", None),
    "held_out_loss": ("loss on held-out data", None),
    "accuracy": ("share of held-out answers that are right", "1"),
    "log_gradient_norm": ("log norm of the whole gradient that the optimizer sees", "nat"),
    "log_gradient": ("log norm of the gradient that the optimizer sees", "nat"),
    "log_exact_gradient": ("log norm of the exact gradient", "nat"),
    "log_update": ("log norm of the update over that of the weights", "nat"),
    "log_weight": ("log norm of the weights", "nat"),
    "log_length": ("log mean square of the state", "nat"),
    "log_change": ("log mean square of the state's change since the start", "nat"),
    "log_output": ("log mean square of the read-out", "nat"),
    "log_output_change": ("log mean square of the read-out's change since the start", "nat"),
    "diverged": ("has a loss not been finite so far?", "1"),
    "diverged_at": ("first step whose loss was not finite", "step"),
}


RATE = "learning_rate"


def about(name: str, loss: str) -> dict[str, str]:
    """What a variable says of itself; losses are in nats where they are entropies."""
    long_name, units = ABOUT[name]
    return {"long_name": long_name, "units": units or ("nat" if loss == "cross-entropy" else "1")}


def order(names: Iterable[str]) -> list[str]:
    """What is recorded under these names, as the Dataset has it."""
    return [*(name for name in names if name != "diverged_at"), "diverged", "diverged_at"]


def with_flags(records: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays [gains…, seed, step, …] with `diverged`, and with the first step at which that was so, [gains…, seed]."""
    at = records["diverged_at"]
    rest = {name: values for name, values in records.items() if name != "diverged_at"}
    return {**rest, "diverged": ~np.isnan(at), "diverged_at": np.fmin.reduce(at, axis=-1)}


def frame(
    several: Networks,
    axes: Mapping[str, np.ndarray],
    seeds: np.ndarray,
    record: Sequence[int],
    depth: int,
    by_depth: bool,
    attrs: Mapping[str, Any],
) -> Frame:
    """Dimensions (network,) gains…, (learning_rate,) seed, coordinates and attributes.

    `axes` are the gains and the learning rates; `by_depth` asks whether something is recorded over depth (or time).
    """
    first = next(iter(several.each.values()))
    dims = [several.axis] if several.axis else []
    dims += [name for name, axis in axes.items() if axis.ndim] + ["seed"]
    coordinates: dict[str, Any] = {
        "seed": ("seed", seeds, {"long_name": "independent network"}),
        "step": ("step", np.asarray(record), {"long_name": "updates taken", "units": "step"}),
        **gain_coordinates(several, {name: axis for name, axis in axes.items() if name != RATE}),
    }
    for name in ("sigma_in", "sigma_out", RATE):
        if name in axes:
            said = {"long_name": GAINS.get(name, "learning rate η"), "units": "1"}
            coordinates[name] = (name if axes[name].ndim else (), axes[name], said)
    if by_depth:
        said = {"long_name": first.axis, "units": first.axis_units}
        coordinates[first.axis] = (first.axis, np.arange(1, depth + 1), said)
    if several.axis:
        coordinates[several.axis] = (several.axis, list(several.each), {"long_name": several.axis})
    return Frame(dims, coordinates, {**provenance(), **attrs, "network": description(several.each)})


def build(several: Networks, frame: Frame, arrays: Sequence[Mapping[str, np.ndarray]]) -> xarray.Dataset:
    """The Dataset of a training run; `arrays[i][name]` is that of network i, [gains…, (learning_rate,) seed, step, …].

    Where they hold `done` the run was ended; the share of its networks that are done is then an attribute.
    """
    import xarray  # 0.3 s: not at import

    axis, loss = next(iter(several.each.values())).axis, frame.attrs["loss"]
    every = {name: np.stack([one[name] for one in arrays]) if several.axis else arrays[0][name] for name in arrays[0]}
    done = every.pop("done", None)
    each, dims, variables = with_flags(every), frame.dims, dict[str, Any]()
    for name in order(every):
        inner = ["step", axis][: each[name].ndim - len(dims)]
        variables[name] = ([*dims, *inner], each[name], about(name, loss))
    share = {} if done is None else {"done": float(done.mean())}
    return xarray.Dataset(variables, frame.coordinates, attrs={**frame.attrs, **share})
