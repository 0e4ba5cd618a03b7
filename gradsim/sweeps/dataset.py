"""Arrays -> xarray.Dataset: named dimensions, units, and where the numbers came from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradsim import arguments
from gradsim.engine.chain import observed_size
from gradsim.engine.plan import Plan
from gradsim.engine.statistic import Statistic
from gradsim.engine.statistics import STATISTICS
from gradsim.networks.network import Network
from gradsim.sweeps.grid import Networks

if TYPE_CHECKING:
    import xarray

GAINS = {
    "sigma_w": "weight gain σ_w",
    "sigma_b": "bias gain σ_b",
    "sigma_v": "input weight gain σ_v",
    "forget_bias": "forget-gate bias",
    "update_bias": "update-gate bias",
    "branch_gain": "branch gain",
    "transform_bias": "transform-gate bias",
    "radius": "eigenvalue radius",
    "sigma_q": "query and key gain σ_q",
    "sigma_o": "attention output gain σ_o",
    "sigma_k": "key gain σ_k",
    "sigma_z": "velocity gain σ_z",
    "sigma_delta": "gain of the steps σ_Δ",
    "sigma_decay": "gain of the decays σ_decay",
    "sigma_beta": "gain of the rate of overwriting σ_β",
    "sigma_gate": "gate gain σ_gate",
    "beta": "rate of overwriting β",
    "step_bias": "bias of the steps",
    "decay_bias": "bias of the decays",
    "step_size": "step size",
    "time_scale": "time scale",
    "damping": "damping",
    "stiffness": "stiffness",
    "sigma_u": "second MLP gain σ_u",
    "sigma_g": "MLP gate gain σ_g",
    "logit_gain": "logit gain",
    "sigma_in": "read-in gain σ_in",
    "sigma_out": "read-out gain σ_out",
}


def build(
    several: Networks,
    axes: Mapping[str, np.ndarray],
    plan: Plan,
    arrays: Sequence[Mapping[str, np.ndarray]],
    seeds: np.ndarray,
    settings: Mapping[str, Any],
) -> xarray.Dataset:
    """The Dataset of a sweep: dimensions (network,) gains…, seed, (start,) depth or time, (parameter or
    singular_value).

    `arrays[i][statistic]` is that array of network i. A −inf in a logarithm is a product that is exactly
    zero: it becomes NaN, and the flag `dead` tells it from a value that does not exist. What has left the range of
    floats is flagged in `<statistic>_lost`, which is there where something was lost. Of singular values −inf is one
    that is exactly zero, `rank` counts the others, and NaN is one that was not taken, or that the network, smaller than
    others of the sweep, does not have.
    """
    import xarray  # 0.3 s: not at import

    networks = several.each
    first = next(iter(networks.values()))
    dims = [several.axis] if several.axis else []
    dims += [name for name, axis in axes.items() if axis.ndim] + ["seed"] + ["start"] * plan.pairs + [first.axis]
    variables: dict[str, Any] = {}
    for statistic in plan.statistics:
        values = _joined([one[statistic.name] for one in arrays]) if several.axis else arrays[0][statistic.name]
        every = dims + ["parameter"] * statistic.by_parameter + ["singular_value"] * statistic.by_singular_value
        zero = values == -np.inf
        lost = np.isfinite(values)  # and on in place: a mask takes an eighth of the numbers' memory
        np.logical_not(np.logical_or(lost, zero, out=lost), out=lost)
        lost &= _measured(plan, statistic) & _there(list(networks.values()), statistic, values.ndim)
        if statistic.infinite:
            lost &= np.isnan(values)
            zero = np.zeros((), bool)
        if statistic.needs and not statistic.costly and not statistic.by_parameter and "dead" not in variables:
            variables["dead"] = (dims, zero, {"long_name": "is the product exactly zero?"})
        if plan.pairs:
            values = np.where(_measured(plan, statistic), values, np.nan)
        if zero.ndim:
            values[zero] = np.nan  # in place: these arrays are the largest that a sweep holds
        counts = _count_lost(statistic.name, lost, every, plan)
        described = {"long_name": statistic.long_name, "units": statistic.units, **counts}
        variables[statistic.name] = (every, values, described)
        if statistic.by_singular_value and "rank" not in variables:
            variables["rank"] = (dims, _rank(values), {"long_name": "singular values that are not zero", "units": "1"})
        if counts["lost"]:
            said = {"long_name": f"has {statistic.name} left the range of floats?"}
            variables[f"{statistic.name}_lost"] = (every, lost, said)
    steps = np.arange(1, plan.depth + 1)
    coordinates: dict[str, Any] = {
        "seed": ("seed", seeds, {"long_name": "independent network"}),
        first.axis: (first.axis, steps, {"long_name": first.axis, "units": first.axis_units}),
        **gain_coordinates(several, axes),
    }
    if several.axis:
        about = {"width": {"long_name": "width", "units": "unit"}}.get(several.axis, {"long_name": "network"})
        coordinates[several.axis] = (several.axis, list(networks), about)
    if plan.pairs:
        about = {"long_name": "steps before the product", "units": first.axis_units}
        coordinates["start"] = ("start", steps - 1, about)
    if any(statistic.by_parameter for statistic in plan.statistics):
        coordinates["parameter"] = ("parameter", ["all", *first.parameters])
    if any(statistic.by_singular_value for statistic in plan.statistics):
        most = max(observed_size(network) for network in networks.values())
        about = {"long_name": "number of the singular value, from the largest"}
        coordinates["singular_value"] = ("singular_value", np.arange(1, most + 1), about)
    choices = {"dtype": plan.dtype, "direction": plan.direction, "depth": plan.depth, "burn_in": plan.burn_in}
    attrs = {**provenance(), **choices, **settings, "network": description(networks)}
    return xarray.Dataset(variables, coordinates, attrs=attrs)


def described(dataset: xarray.Dataset) -> dict[str, dict[str, Any]]:
    """What the networks of a sweep are, {name: {"family": …, "width": …, …}}; the name of one alone is "".

    Raises: ValueError where the Dataset does not say.
    """
    text = dataset.attrs.get("network")
    try:
        found: dict[str, dict[str, Any]] = json.loads(str(text))
    except json.JSONDecodeError:
        raise ValueError(f"dataset: its attribute 'network' is {text!r}; pass what gradsim.sweep returned") from None
    return found


def description(networks: Mapping[Any, Network]) -> str:
    return json.dumps({str(name): one.describe() for name, one in networks.items()}, ensure_ascii=False)


def _measured(plan: Plan, statistic: Statistic) -> np.ndarray:
    """At which depths (and, of pairs, [start, depth]) is there something to measure?"""
    steps = np.arange(1, plan.depth + 1)
    if plan.pairs:
        return np.arange(plan.depth)[:, None] < steps
    there = np.isin(steps, plan.at) if statistic.costly else np.ones(plan.depth, bool)
    return there[:, None] if statistic.by_parameter or statistic.by_singular_value else there


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of several networks as one, NaN where a network has fewer singular values than another."""
    most = max(array.shape[-1] for array in arrays)
    if all(array.shape[-1] == most for array in arrays):
        return np.stack(arrays)
    whole = np.full((len(arrays), *arrays[0].shape[:-1], most), np.nan)
    for place, array in zip(whole, arrays, strict=True):
        place[..., : array.shape[-1]] = array
    return whole


def _there(networks: Sequence[Network], statistic: Statistic, ndim: int) -> np.ndarray:
    """Which singular values the networks have, of a result with so many dimensions."""
    if not statistic.by_singular_value or len(networks) == 1:
        return np.ones((), bool)
    sizes = np.array([observed_size(network) for network in networks])
    has = np.arange(max(sizes)) < sizes[:, None]
    return has.reshape(len(networks), *[1] * (ndim - 2), -1)


def _rank(values: np.ndarray) -> np.ndarray:
    """How many logarithms are finite; NaN where none was taken."""
    return np.where(np.isnan(values[..., 0]), np.nan, np.count_nonzero(np.isfinite(values), axis=-1))


def _count_lost(name: str, lost: np.ndarray, dims: Sequence[str], plan: Plan) -> dict[str, int]:
    """How many networks lost a number, of how many; said in a warning where there are any."""
    inner = ("start", plan.network.axis, "parameter", "singular_value")
    along = tuple(place for place, dim in enumerate(dims) if dim in inner)
    networks = lost.any(along)
    count = int(np.count_nonzero(networks))
    if count:
        others = tuple(place for place in range(lost.ndim) if dims[place] != plan.network.axis)
        where = np.flatnonzero(lost.any(others))[0 if plan.direction == "forward" else -1] + 1
        larger = ", or take dtype='float64'" if plan.dtype == "float32" else ""
        if f"log_{name}" in STATISTICS:
            larger = f", or take log_{name}"
        arguments.warn(
            f"{name}: {count} of {networks.size} networks left the range of floats, first at {plan.network.axis} "
            f"{where}; their numbers are not finite, {name}_lost says which. Lower the gains or the depth{larger}"
        )
    return {"lost": count, "networks": int(networks.size)}


def build_critical(
    network: Network,
    gain: str,
    axes: Mapping[str, np.ndarray],
    plan: Plan,
    found: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
) -> xarray.Dataset:
    """The Dataset of `gradsim.critical`, over the axes of the other gains."""
    import xarray

    swept = {name: axis for name, axis in axes.items() if axis.ndim}
    shape = [axis.size for axis in swept.values()]
    growth_units = f"nat/{network.axis_units}"
    about = {
        "root": {"long_name": f"critical {GAINS.get(gain, gain)}", "units": "1"},
        "standard_error": {"long_name": f"standard error of the critical {GAINS.get(gain, gain)}", "units": "1"},
        "slope": {"long_name": "slope of the growth in the gain", "units": growth_units},
        "status": {"long_name": "does the growth change sign within the bracket?"},
    }
    variables = {
        (gain if name == "root" else name): (list(swept), values.reshape(shape), about[name])
        for name, values in found.items()
    }
    coordinates = {
        name: value for name, value in gain_coordinates(Networks({"": network}, None), axes).items() if name != gain
    }
    choices = {
        "dtype": plan.dtype,
        "depth": plan.depth,
        "burn_in": plan.burn_in,
        "network": description({"": network}),
        **settings,
    }
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), **choices})


def gain_coordinates(several: Networks, axes: Mapping[str, np.ndarray]) -> dict[str, tuple[Any, ...]]:
    """Swept gains index the Dataset; the others are recorded beside them, NaN where a network lacks one."""
    coordinates: dict[str, tuple[Any, ...]] = {}
    networks = list(several.each.values())
    for name in dict.fromkeys(name for network in networks for name in network.gains):
        attributes = {"long_name": GAINS.get(name, name), "units": "1"}
        given = {name: float(axes[name])} if name in axes and not axes[name].ndim else {}
        values = [{**network.gains, **given}[name] if name in network.gains else np.nan for network in networks]
        if name in axes and axes[name].ndim:
            coordinates[name] = (name, axes[name], attributes)
        elif several.axis:
            coordinates[name] = (several.axis, values, attributes)
        else:
            coordinates[name] = ((), values[0], attributes)
    return coordinates


def provenance() -> dict[str, str]:
    """What made these numbers: versions, commit, command, device and time."""
    device = jax.local_devices()[0]
    return {
        "gradsim_version": _version(),
        "gradsim_commit": _commit(),
        "jax_version": jax.__version__,
        "device": f"{len(jax.local_devices())} x {device.device_kind} ({device.platform})",
        "command": " ".join(sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _version() -> str:
    try:
        return metadata.version("gradsim")
    except metadata.PackageNotFoundError:  # run from a folder that is not installed
        return "unknown"


@cache
def _commit() -> str:
    """The commit of the checkout that gradsim runs from, or "" where it is installed from a wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        run = subprocess.run(
            ["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()
