"""What was measured of a model -> xarray.Dataset over its layers and its parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.inspection import formats
from gradsim.inspection.gains import Gain, frobenius
from gradsim.inspection.measure import Call, Measurement
from gradsim.inspection.records import Record, number
from gradsim.scaled import log
from gradsim.sweeps.dataset import provenance

if TYPE_CHECKING:
    import xarray

NONE = Gain(np.nan, np.nan, "")
ABOUT = {
    "log_activation": ("log root mean square of the layer's output", "nat"),
    "dead": ("share of units whose output is zero for every example", "1"),
    "saturated": ("share of the tanhs and sigmoids on the output whose slope is below 1 % of its largest", "1"),
    "not_finite": ("share of the output's entries that are not finite", "1"),
    "log_gradient": ("log norm of the exact gradient with respect to the layer's output", "nat"),
    "log_float_gradient": ("log norm of that gradient as the model's own floats hold it", "nat"),
    "zero_gradient": ("share of the gradient's entries that are exactly zero", "1"),
    "not_finite_gradient": ("share of the gradient's entries that are not finite", "1"),
    "log_gain": ("log root mean square gain of the layer", "nat"),
    "log_gain_error": ("standard error of the log gain", "nat"),
    "gain_method": ("how the gain was found: exact, probes or not", "1"),
    "log_parameter": ("log norm of the parameter", "nat"),
    "log_parameter_gradient": ("log norm of the exact gradient with respect to the parameter", "nat"),
    "log_float_parameter_gradient": ("log norm of that gradient as the model's own floats hold it", "nat"),
    "rounding": ("relative rounding error of the backward pass in the gradient; near 1 where it is nothing else", "1"),
}
COLUMNS = tuple(ABOUT)[:8]  # of every layer
SIZES, COUNTS = ("entries", "units"), ("zeros", "not_finite", "dead")  # of a site and of a record


def build(measured: Measurement, names: Sequence[str], attrs: Mapping[str, Any]) -> xarray.Dataset:
    """Dimensions layer, parameter and, where layers run in a scan, step; −inf is a gradient that is zero."""
    import xarray

    calls = measured.calls
    values = _columns(calls)
    variables: dict[str, Any] = {name: ("layer", one) for name, one in values.items()}
    steps = max((np.size(call.value.zeros) for call in calls), default=1)
    if any(np.ndim(call.value.zeros) for call in calls):
        by_step = np.full((2, len(calls), steps), np.nan)
        for i, call in enumerate(calls):
            for j, record in enumerate((call.value, call.gradient)):
                if record is not None and np.ndim(record.zeros):
                    found = log(record.norm).ravel() - (0.5 * np.log(call.site.entries) if j == 0 else 0.0)
                    by_step[j, i, : found.size] = found
        for j, name in enumerate(("log_activation", "log_gradient")):
            variables[f"{name}_by_step"] = (("layer", "step"), by_step[j])
    variables |= _gains(measured, steps)
    parameters = measured.parameters
    found = {
        "log_parameter": [one.norm for one in parameters],
        "log_parameter_gradient": [one.gradient for one in parameters],
        "log_float_parameter_gradient": [one.plain for one in parameters],
    }
    for name, numbers in found.items():
        variables[name] = ("parameter", _logs(numbers))
    variables["rounding"] = (
        "parameter",
        _relative([one.rounding for one in parameters], found["log_parameter_gradient"]),
    )
    for name, variable in variables.items():
        long_name, units = ABOUT[name.removesuffix("_by_step")]
        by = ", step by step" if name.endswith("_by_step") else ""
        variables[name] = (*variable, {"long_name": long_name + by, "units": units})
    variables |= formats.shares([_narrow(call.gradient) for call in calls], "layer")
    variables |= formats.shares([one.narrow for one in parameters], "parameter")
    coordinates: dict[str, Any] = {
        "layer": ("layer", labels(calls), {"long_name": "layer, in order of execution"}),
        "type": ("layer", [call.site.type_name for call in calls], {"long_name": "type of the layer"}),
        "parameter": ("parameter", list(names), {"long_name": "parameter"}),
        "format": ("format", list(formats.FORMATS), {"long_name": "format of floating-point numbers"}),
    }
    if "log_gradient_by_step" in variables:
        coordinates["step"] = ("step", np.arange(1, steps + 1), {"long_name": "step of the scan", "units": "step"})
    places = {
        "first_not_finite": _first(coordinates["layer"][1], values["not_finite"]),
        "first_not_finite_gradient": _first(coordinates["layer"][1][::-1], values["not_finite_gradient"][::-1]),
        "makes_not_finite": measured.made[0],
        "makes_not_finite_gradient": measured.made[1],
    }
    described = {
        "loss": float(measured.loss),
        "loss_scale": formats.LOSS_SCALE,
        "entries_lost": int(measured.lost),
        "not_linear": ", ".join(measured.nonlinear),
    }
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), **attrs, **described, **places})


def _relative(errors: Sequence[Any], norms: Sequence[Any]) -> np.ndarray:
    """Errors of a third of each gradient, relative to it, at most 1; 0 where both are zero."""
    sizes = _logs(errors)
    with np.errstate(invalid="ignore", over="ignore"):
        relative = np.minimum(np.exp(sizes - _logs(norms) + np.log(3.0)), 1.0)
    return np.where(sizes == -np.inf, 0.0, relative)


def _logs(numbers: Sequence[Any]) -> np.ndarray:
    """ln of each number, all at once."""
    return log(number(*(np.array([one[part] for one in numbers], np.float64) for part in (0, 1))))


def _columns(calls: Sequence[Call]) -> dict[str, np.ndarray]:
    """The numbers of all calls: those outside of scans at once."""
    found = {name: np.empty(len(calls)) for name in COLUMNS}
    single = [place for place, call in enumerate(calls) if not np.ndim(call.value.zeros)]
    for name, column in _single([calls[place] for place in single]).items():
        found[name][single] = column
    for place, call in enumerate(calls):
        if np.ndim(call.value.zeros):
            for name, one in _row(call).items():
                found[name][place] = one
    return found


def _single(calls: Sequence[Call]) -> dict[str, np.ndarray]:
    """Of calls that each run once, or not at all, as in a branch that is not taken."""
    entries, units = (np.array([getattr(call.site, name) for call in calls], np.float64) for name in SIZES)
    values = [call.value for call in calls]
    zeros, not_finite, dead = (np.array([getattr(one, name) for one in values], np.float64) for name in COUNTS)
    # No equation hands a gradient to this output: it does not reach the loss.
    zero = np.zeros(())
    gone = [Record(number(zero, zero), np.array(call.site.entries), zero, zero) for call in calls]
    gradients = [call.gradient or none for call, none in zip(calls, gone, strict=True)]
    lost, wrong = (np.array([np.nansum(getattr(one, name)) for one in gradients], np.float64) for name in COUNTS[:2])
    plains = [call.plain or none for call, none in zip(calls, gone, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "log_activation": _logs([one.norm for one in values]) - 0.5 * np.log(entries),
            "dead": dead / units,
            "saturated": np.array([_saturated(call) for call in calls], np.float64),
            "not_finite": not_finite / entries,
            "log_gradient": _logs([one.norm for one in gradients]),
            "log_float_gradient": _logs([one.norm for one in plains]),
            "zero_gradient": lost / entries,
            "not_finite_gradient": wrong / entries,
        }
    return {name: np.where(np.isnan(zeros) | (entries == 0), np.nan, column) for name, column in columns.items()}


def _row(call: Call) -> dict[str, float]:
    """The numbers of one call in a scan, those of its steps together."""
    value = _taken(call.value)
    entries, units = (count * value.zeros.size for count in (call.site.entries, call.site.units))
    gradient, plain = (None if one is None else _taken(one) for one in (call.gradient, call.plain))
    if not value.zeros.size or not entries:  # it has not run, or its output has no entries
        return dict.fromkeys(COLUMNS, np.nan)
    return {
        "log_activation": total(value.norm) - 0.5 * float(np.log(entries)),
        "dead": float(np.sum(value.dead) / units),
        "saturated": _saturated(call),
        "not_finite": float(np.sum(value.not_finite) / entries),
        # No equation hands a gradient to this output: it does not reach the loss.
        "log_gradient": -np.inf if gradient is None else total(gradient.norm),
        "log_float_gradient": -np.inf if plain is None else total(plain.norm),
        "zero_gradient": 1.0 if gradient is None else float(np.sum(gradient.zeros) / entries),
        "not_finite_gradient": 0.0 if gradient is None else float(np.sum(gradient.not_finite) / entries),
    }


def _narrow(record: Record | None) -> np.ndarray | None:
    """What was counted for narrower formats in all steps that ran together."""
    if record is None or record.narrow is None:
        return None
    return np.nansum(record.narrow.reshape(-1, formats.COUNTS), axis=0)


def _saturated(call: Call) -> float:
    """Of all activations that come after the layer, in all steps; NaN where there are none."""
    counts = [(site.entries, np.atleast_1d(record.zeros)) for site, record in call.activations]
    counts = [(size, zeros[~np.isnan(zeros)]) for size, zeros in counts]
    entries = sum(size * zeros.size for size, zeros in counts)
    return float(sum(zeros.sum() for _, zeros in counts) / entries) if entries else np.nan


def _taken(record: Record) -> Record:
    """The steps that ran: a branch that is not taken has noted nothing."""
    ran = ~np.isnan(np.atleast_1d(record.zeros))
    mantissa, exponent, *counts = (
        np.atleast_1d(one)[ran] for one in (*record.norm, record.zeros, record.not_finite, record.dead)
    )
    return Record(number(mantissa, exponent), *counts)


def _gains(measured: Measurement, steps: int) -> dict[str, Any]:
    """Of a layer in a scan those of each turn, and the root of their mean square."""
    if measured.gains is None:
        return {}
    found = [measured.gains.get(call.site.call, NONE) for call in measured.calls]
    turned = [np.ndim(one.log_gain) > 0 for one in found]
    by_step = np.full((2, len(found), steps), np.nan)
    joint = np.empty((2, len(found)))
    for i, one in enumerate(found):
        joint[:, i] = _joint(one) if turned[i] else one[:2]
        if turned[i]:
            by_step[:, i, : one.log_gain.size] = one[:2]
    names = ("log_gain", "log_gain_error")
    variables: dict[str, Any] = {name: ("layer", values) for name, values in zip(names, joint, strict=True)}
    if any(turned):
        several = zip(names, by_step, strict=True)
        variables |= {f"{name}_by_step": (("layer", "step"), values) for name, values in several}
    return {**variables, "gain_method": ("layer", [one.method for one in found])}


def _joint(gain: Gain) -> tuple[float, float]:
    """The root mean square of all turns' gains; errors are added, for the turns have the same probes."""
    whole = frobenius(gain.log_gain, exact=True)[0] - 0.5 * np.log(gain.log_gain.size)
    if not np.isfinite(whole):
        return whole, 0.0
    return whole, float(np.mean(np.exp(2 * (gain.log_gain - whole)) * gain.error))


def total(norms: Any) -> float:
    """ln of the norm of all steps together: ½ ln Σ exp(2 ln norm), at the largest."""
    each = log(norms)
    top = each.max(initial=-np.inf)
    if not np.isfinite(top):
        return float(top)
    return float(top + 0.5 * np.log(np.sum(np.exp(2 * (each - top)))))


def labels(calls: Sequence[Call]) -> list[str]:
    """Paths, each its own: the second call of a layer is `path#2`."""
    seen: Counter[str] = Counter()
    found = []
    for call in calls:
        path = call.site.layer or ("input" if call.site.role == "input" else "model")
        seen[path] += 1
        found.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return found


def _first(labels: Sequence[str], shares: np.ndarray) -> str:
    """The first layer of which a share is not zero, "" where there is none."""
    found = np.flatnonzero(shares > 0)
    return labels[found[0]] if found.size else ""
