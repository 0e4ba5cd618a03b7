"""What was recorded -> xarray.Dataset: named dimensions, units, and where the numbers came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.sweeps.dataset import GAINS, description, gain_coordinates, provenance
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


def build(
    several: Networks,
    axes: Mapping[str, np.ndarray],
    arrays: Sequence[Mapping[str, np.ndarray]],
    seeds: np.ndarray,
    record: Sequence[int],
    depth: int,
    attrs: Mapping[str, Any],
) -> xarray.Dataset:
    """The Dataset of a training run: dimensions (network,) gains…, (learning_rate,) seed, step, (depth or time).

    `axes` are the gains and the learning rates; `arrays[i][name]` is that array of network i, [axes…, seed, step, …].
    """
    import xarray  # 0.3 s: not at import

    first = next(iter(several.each.values()))
    dims = [several.axis] if several.axis else []
    dims += [name for name, axis in axes.items() if axis.ndim] + ["seed"]
    every = {name: np.stack([one[name] for one in arrays]) if several.axis else arrays[0][name] for name in arrays[0]}
    at = every.pop("diverged_at")
    every["diverged"] = ~np.isnan(at)
    units = "nat" if attrs["loss"] == "cross-entropy" else "1"
    variables: dict[str, Any] = {}
    for name, values in every.items():
        names = [*dims, "step", *[first.axis] * (values.ndim > len(dims) + 1)]
        variables[name] = (names, values, {"long_name": ABOUT[name][0], "units": ABOUT[name][1] or units})
    firsts = np.fmin.reduce(at, axis=-1)
    variables["diverged_at"] = (dims, firsts, dict(zip(("long_name", "units"), ABOUT["diverged_at"], strict=True)))
    coordinates: dict[str, Any] = {
        "seed": ("seed", seeds, {"long_name": "independent network"}),
        "step": ("step", np.asarray(record), {"long_name": "updates taken", "units": "step"}),
        **gain_coordinates(several, {name: axis for name, axis in axes.items() if name != "learning_rate"}),
    }
    for name in ("sigma_in", "sigma_out", "learning_rate"):
        if name in axes:
            about = {"long_name": GAINS.get(name, "learning rate η"), "units": "1"}
            coordinates[name] = (name if axes[name].ndim else (), axes[name], about)
    if any(first.axis in names for names, *_ in variables.values()):
        about = {"long_name": first.axis, "units": first.axis_units}
        coordinates[first.axis] = (first.axis, np.arange(1, depth + 1), about)
    if several.axis:
        coordinates[several.axis] = (several.axis, list(several.each), {"long_name": several.axis})
    return xarray.Dataset(
        variables, coordinates, attrs={**provenance(), **attrs, "depth": depth, "network": description(several.each)}
    )
