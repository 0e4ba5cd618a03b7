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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from gradsim.engine.plan import LOSS_SCALE, Plan
from gradsim.engine.rounding import is_narrow
from gradsim.engine.statistic import Statistic
from gradsim.engine.streams import observed_size
from gradsim.networks.network import Network
from gradsim.sweeps import flags
from gradsim.sweeps.grid import Networks
from gradsim.sweeps.machine import at_hand

if TYPE_CHECKING:
    import xarray

GAINS = {
    "sigma_w": "weight gain σ_w",
    "sigma_b": "bias gain σ_b",
    "sigma_v": "input weight gain σ_v",
    "forget_bias": "forget-gate bias",
    "update_bias": "update-gate bias",
    "branch_gain": "branch gain",
    "skip_gain": "skip gain μ",
    "transform_bias": "transform-gate bias",
    "radius": "eigenvalue radius",
    "sigma_q": "query and key gain σ_q",
    "sigma_o": "attention output gain σ_o",
    "input_bias": "input-gate bias",
    "initial_normalizer": "first normalizer n₀",
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
    "input_correlation": "correlation of the inputs",
    "loss_scale": "loss scale",
}


class Frame(NamedTuple):
    """A Dataset before its numbers: dimensions that all statistics share, coordinates, attributes."""

    dims: list[str]
    coordinates: dict[str, tuple[Any, ...]]
    attrs: dict[str, Any]


def frame(
    several: Networks, axes: Mapping[str, np.ndarray], plan: Plan, seeds: np.ndarray, settings: Mapping[str, Any]
) -> Frame:
    """The frame of a sweep."""
    networks = several.each
    first = next(iter(networks.values()))
    dims = [several.axis] if several.axis else []
    dims += [name for name, axis in axes.items() if axis.ndim] + ["seed"] + ["start"] * plan.pairs + [first.axis]
    steps = np.arange(1, plan.depth + 1)
    coordinates: dict[str, Any] = {
        "seed": ("seed", seeds, {"long_name": "independent network"}),
        first.axis: (first.axis, steps, {"long_name": first.axis, "units": first.axis_units}),
        **gain_coordinates(several, axes, {LOSS_SCALE: plan.gains[LOSS_SCALE]} if plan.format else {}),
    }
    if several.axis:
        about = {"width": {"long_name": "width", "units": "unit"}}.get(several.axis, {"long_name": "network"})
        coordinates[several.axis] = (several.axis, list(networks), about)
    if plan.pairs:
        about = {"long_name": "steps before the product", "units": first.axis_units}
        coordinates["start"] = ("start", steps - 1, about)
    if any("input" in flags.dims_of(plan, statistic) for statistic in plan.statistics):
        coordinates["input"] = ("input", np.arange(2), {"long_name": "which input of the pair"})
    if any(statistic.by_parameter for statistic in plan.statistics):
        coordinates["parameter"] = ("parameter", ["all", *first.parameters])
    if any(statistic.by_singular_value for statistic in plan.statistics):
        most = max(observed_size(network) for network in networks.values())
        about = {"long_name": "number of the singular value, from the largest"}
        coordinates["singular_value"] = ("singular_value", np.arange(1, most + 1), about)
    choices = {"dtype": plan.dtype, "precision": plan.precision, "direction": plan.direction, "depth": plan.depth}
    choices |= {"burn_in": plan.burn_in}
    if plan.format:
        choices |= {"dtype": plan.format, "exact_dtype": plan.dtype}
    return Frame(dims, coordinates, {**provenance(), **choices, **settings, "network": description(networks)})


def about(plan: Plan, statistic: Statistic) -> dict[str, Any]:
    """What a variable says of itself, beside what was lost."""
    said = {"long_name": statistic.long_name, "units": statistic.units}
    return {**said, "dtype": plan.format if is_narrow(statistic) else plan.dtype} if plan.format else said


def build(
    several: Networks,
    axes: Mapping[str, np.ndarray],
    plan: Plan,
    arrays: Sequence[Mapping[str, np.ndarray]],
    seeds: np.ndarray,
    settings: Mapping[str, Any],
    done: Sequence[np.ndarray] | None = None,
) -> xarray.Dataset:
    """The Dataset of a sweep: dimensions (network,) gains…, seed, (start,) depth or time, (input,)
    (parameter or singular_value).

    `arrays[i][statistic]` is that array of network i. A −inf in a logarithm is a product that is exactly
    zero: it becomes NaN, and the flag `dead` tells it from a value that does not exist. What has left the range of
    floats is flagged in `<statistic>_lost`, which is there where something was lost. Of singular values −inf is one
    that is exactly zero, `rank` counts the others, and NaN is one that was not taken, or that the network, smaller than
    others of the sweep, does not have. Of a sweep that was ended, `done[i]` says which cells and seeds of network i,
    [gains…, seed], there are; their share is the attribute `done`, and the others are NaN.
    """
    import xarray  # 0.3 s: not at import

    networks = several.each
    dims, coordinates, attrs = frame(several, axes, plan, seeds, settings)
    there: np.ndarray | None = None
    if done is not None:
        there = np.stack(done) if several.axis else done[0]
        attrs["done"] = float(there.mean())
    variables: dict[str, Any] = {}
    flagging = flags.flagging(plan.statistics)
    for statistic in plan.statistics:
        values = _joined([one[statistic.name] for one in arrays]) if several.axis else arrays[0][statistic.name]
        every = [*dims, *flags.dims_of(plan, statistic)]
        measured = flags.measured_at(plan, statistic) & _there(list(networks.values()), statistic, values.ndim)
        if there is not None:
            measured = measured & there.reshape(*there.shape, *[1] * (values.ndim - there.ndim))
        lost = flags.out_of_range(values, measured, infinite=statistic.infinite, undefined=statistic.undefined)
        if statistic is flagging:
            variables["dead"] = (every, values == -np.inf, {"long_name": flags.dead(statistic)})
        if not statistic.infinite:
            values[values == -np.inf] = np.nan  # in place: these arrays are the largest that a sweep holds
        if plan.pairs:
            values = np.where(flags.measured_at(plan, statistic), values, np.nan)
        counts = flags.count_lost(statistic.name, lost, every, plan)
        variables[statistic.name] = (every, values, {**about(plan, statistic), **counts})
        if statistic.by_singular_value and "rank" not in variables:
            variables["rank"] = (every[:-1], flags.rank(values), {"long_name": flags.RANK, "units": "1"})
        if counts["lost"]:
            variables[f"{statistic.name}_lost"] = (every, lost, {"long_name": flags.LOST.format(statistic.name)})
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
        "precision": plan.precision,
        "depth": plan.depth,
        "burn_in": plan.burn_in,
        "network": description({"": network}),
        **settings,
    }
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), **choices})


def gain_coordinates(
    several: Networks, axes: Mapping[str, np.ndarray], of_all: Mapping[str, float] = MappingProxyType({})
) -> dict[str, tuple[Any, ...]]:
    """Swept gains index the Dataset; the others are recorded beside them, NaN where a network lacks one.

    `of_all`: what every network has beside its own, with the defaults.
    """
    coordinates: dict[str, tuple[Any, ...]] = {}
    every = [{**network.gains, **of_all} for network in several.each.values()]
    for name in dict.fromkeys(name for gains in every for name in gains):
        attributes = {"long_name": GAINS.get(name, name), "units": "1"}
        given = {name: float(axes[name])} if name in axes and not axes[name].ndim else {}
        values = [{**gains, **given}[name] if name in gains else np.nan for gains in every]
        if name in axes and axes[name].ndim:
            coordinates[name] = (name, axes[name], attributes)
        elif several.axis:
            coordinates[name] = (several.axis, values, attributes)
        else:
            coordinates[name] = ((), values[0], attributes)
    return coordinates


def provenance() -> dict[str, str]:
    """What made these numbers: versions, commit, command, device and time."""
    devices = at_hand().devices
    return {
        "gradsim_version": _version(),
        "gradsim_commit": _commit(),
        "jax_version": jax.__version__,
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
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
