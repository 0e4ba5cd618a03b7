"""Arrays -> xarray.Dataset: named dimensions, units, and where the numbers came from."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradsim.networks.network import Network
from gradsim.sweeps.plan import Plan

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
    "sigma_u": "second MLP gain σ_u",
}


def build(
    networks: Mapping[str, Network],
    axes: Mapping[str, np.ndarray],
    plan: Plan,
    arrays: Sequence[Mapping[str, np.ndarray]],
    settings: Mapping[str, Any],
    *,
    named: bool,
) -> xarray.Dataset:
    """The Dataset of a sweep: dimensions (network,) gains…, seed, (start,) depth or time, (parameter).

    `arrays[i][statistic]` is that array of network i. A −inf in a logarithm is a product that is exactly
    zero: it becomes NaN, and the flag `dead` tells it from a value that does not exist.
    """
    import xarray  # 0.3 s: not at import

    first = next(iter(networks.values()))
    dims = ["network"] * named + [name for name, axis in axes.items() if axis.ndim] + ["seed"]
    dims += ["start"] * plan.pairs + [first.axis]
    variables: dict[str, Any] = {}
    for statistic in plan.statistics:
        values = np.stack([one[statistic.name] for one in arrays]) if named else arrays[0][statistic.name]
        zero = values == -np.inf
        if statistic.needs and not statistic.costly and not statistic.by_parameter and "dead" not in variables:
            variables["dead"] = (dims, zero, {"long_name": "is the product exactly zero?"})
        if plan.pairs:
            values = np.where(_after_start(plan.depth), values, np.nan)
        elif not statistic.costly:
            lost = values.size - np.count_nonzero(zero) - np.count_nonzero(np.isfinite(values))
            _warn_if_lost(statistic.name, lost / values.size)
        values[zero] = np.nan  # in place: these arrays are the largest that a sweep holds
        described = {"long_name": statistic.long_name, "units": statistic.units}
        variables[statistic.name] = (dims + ["parameter"] * statistic.by_parameter, values, described)
    steps = np.arange(1, plan.depth + 1)
    seeds = values.shape[dims.index("seed")]
    coordinates: dict[str, Any] = {
        "seed": ("seed", np.arange(seeds), {"long_name": "independent network"}),
        first.axis: (first.axis, steps, {"long_name": first.axis, "units": first.axis_units}),
        **_gain_coordinates(networks, axes, named=named),
    }
    if named:
        coordinates["network"] = ("network", list(networks))
    if plan.pairs:
        coordinates["start"] = (
            "start",
            steps - 1,
            {"long_name": "steps before the product", "units": first.axis_units},
        )
    if any(statistic.by_parameter for statistic in plan.statistics):
        coordinates["parameter"] = ("parameter", ["all", *first.parameters])
    described = {"network": "\n".join(f"{name}: {one!r}" if named else repr(one) for name, one in networks.items())}
    choices = {"dtype": plan.dtype, "direction": plan.direction, "burn_in": plan.burn_in, **settings}
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), **choices, **described})


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
        name: value for name, value in _gain_coordinates({"": network}, axes, named=False).items() if name != gain
    }
    choices = {"dtype": plan.dtype, "depth": plan.depth, "burn_in": plan.burn_in, "network": repr(network), **settings}
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), **choices})


def _warn_if_lost(name: str, share: float) -> None:
    """Say so where a share of the numbers left the range of floats; a dead network's −inf is not such a case."""
    if share > 0:
        warnings.warn(
            f"{name}: {share:.1%} of the values left the range of floats; lower the gains or the depth, "
            "or take dtype='float64'",
            RuntimeWarning,
            stacklevel=4,
        )


def _after_start(depth: int) -> np.ndarray:
    """Is the product of steps start + 1 … l there? [start, l]"""
    return np.arange(depth)[:, None] < np.arange(1, depth + 1)


def _gain_coordinates(
    networks: Mapping[str, Network], axes: Mapping[str, np.ndarray], *, named: bool
) -> dict[str, tuple[Any, ...]]:
    """Swept gains index the Dataset; the others are recorded beside them, NaN where a network lacks one."""
    coordinates: dict[str, tuple[Any, ...]] = {}
    for name in dict.fromkeys(name for network in networks.values() for name in network.gains):
        attributes = {"long_name": GAINS.get(name, name), "units": "1"}
        values = [float(axes[name]) if name in axes and not axes[name].ndim else network.gains.get(name, np.nan)
                  for network in networks.values()]  # fmt: skip
        if name in axes and axes[name].ndim:
            coordinates[name] = (name, axes[name], attributes)
        elif named:
            coordinates[name] = ("network", values, attributes)
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
