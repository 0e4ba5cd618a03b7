"""The report of an inspection, for a terminal: a table of layers, what is wrong, what floats lose, what would help."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.inspection.cures import cures
from gradsim.inspection.findings import findings
from gradsim.inspection.formats import FORMATS
from gradsim.inspection.words import formats, shortened, size

if TYPE_CHECKING:
    import xarray

WIDTH = 100  # characters
ROWS = 40  # of the table
LAYERS = ("log_activation", "log_gradient", "log_float_gradient", "zero_gradient", "not_finite", "dead")
NEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LAYERS, ("layer",)),
    **dict.fromkeys(("log_parameter_gradient", "log_float_parameter_gradient"), ("parameter",)),
    **dict.fromkeys(("lost", "lost_scaled", "overflow_scaled"), ("layer", "format")),
    **dict.fromkeys(("parameter_lost", "parameter_lost_scaled"), ("parameter", "format")),
}


class Report(str):
    """A text that shows itself as it is, in a notebook too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def report(inspection: xarray.Dataset) -> Report:
    """What `gradsim.inspect` found, as a text: `print(gs.report(gs.inspect(model, x)))`.

    The table has a row for each layer in order of execution: the root mean square of its output, the norm of the exact
    gradient with respect to it and as the model's own floats hold it, and, where they say something, the share of
    dead units, of flat tanhs and sigmoids, and of zeros in the gradient, the gain, and the share of the gradient's
    entries that floats lose. Of more than 40 layers the middle ones are left out.

    Rates are slopes of the log norm over layers that are alike, or over the steps of a scan, least squares with their
    standard error, in nats (1 nat is 0.434 decades) a layer: the gradient vanishes or explodes where the line falls or
    rises by more than a factor of 100 between its ends. A layer is lost to a format where at least half of its
    gradient's nonzero entries round to zero there. Cures come with the numbers that speak for them; nothing is said
    of what was not measured.

    Raises: TypeError or ValueError for anything but what `gradsim.inspect` returned.
    """
    inspection = checked(inspection)
    wrong, notes, sound = findings(inspection)
    attrs, dims = inspection.attrs, inspection.sizes
    title = f"{attrs.get('model', 'model')} in {attrs.get('dtype', 'floats')}: {dims['layer']} rows, "
    title += f"{dims['parameter']} parameters, loss {attrs.get('loss', np.nan):.6g}"
    verdict = ["Healthy: nothing vanishes, explodes, is dead or not finite."] if sound else wrong
    parts = [title, "", *table(inspection), "", *_said(verdict + notes), ""]
    parts += _wrapped(
        "What floats would lose: the layers half of whose gradient's entries, or more, round to zero, the first of "
        "them from the output back, and how many layers and parameters are lost so."
    )
    parts += [f"  {line}" for line in formats(inspection)]
    would_help = cures(inspection)
    if would_help:
        parts += ["", "What would help:", *_said(would_help)]
    return Report("\n".join(parts))


def checked(inspection: Any, name: str = "inspection") -> xarray.Dataset:
    """What `gradsim.inspect` returned. Raises: TypeError or ValueError for anything else."""
    import xarray

    wanted = "pass the Dataset that gradsim.inspect returned"
    if not isinstance(inspection, xarray.Dataset):
        raise TypeError(f"{name}: got a {type(inspection).__name__}; {wanted}")
    missing = [one for one in NEEDED if one not in inspection.data_vars]
    if missing or "type" not in inspection.coords:
        raise ValueError(f"{name}: the dataset holds no {missing[0] if missing else 'type'}; {wanted}")
    for one, axes in NEEDED.items():
        if set(inspection[one].dims) != set(axes):
            held = ", ".join(map(str, inspection[one].dims)) or "none"
            raise ValueError(f"{name}: {one} has the axes {held}, not {', '.join(axes)}; {wanted}")
    if not inspection.sizes["layer"] or not set(FORMATS) <= set(inspection["format"].values.tolist()):
        raise ValueError(f"{name}: layers or formats are left out; {wanted}")
    if (inspection["type"].values[1:] == "input").any():
        raise ValueError(f"{name}: its layers are not in order of execution; {wanted}")
    return inspection


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _said(sentences: Sequence[str]) -> list[str]:
    return [
        line
        for one in sentences
        for line in textwrap.wrap(one, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    ]


def table(inspection: xarray.Dataset) -> list[str]:
    """The layers' numbers in lines of text, with the middle left out where there are many."""
    columns: list[tuple[str, list[str]]] = [
        ("layer", [shortened(str(one), 30) for one in inspection["layer"].values]),
        ("type", [shortened(str(one), 16) for one in inspection["type"].values]),
        ("output", [size(one) for one in inspection["log_activation"].values]),
        ("gradient", [size(one) for one in inspection["log_gradient"].values]),
        (f"in {inspection.attrs.get('dtype', 'floats')}", [size(x) for x in inspection["log_float_gradient"].values]),
    ]
    for name, head in (("dead", "dead"), ("saturated", "flat"), ("zero_gradient", "zeros"), ("not_finite", "inf, nan")):
        if name in inspection and (inspection[name] > 0).any():
            columns.append((head, [_share(one) for one in inspection[name].values]))
    if "log_gain" in inspection:
        columns.append(("gain", ["" if np.isnan(one) else size(one) for one in inspection["log_gain"].values]))
    for name in ("float32", "float16"):
        shares = inspection["lost"].sel(format=name).values
        if (shares >= 0.005).any():
            columns.append((f"{name} loses", [_share(one) for one in shares]))
    lines = [[head for head, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    left_out = len(lines) - 1 - ROWS
    shown = lines if left_out <= 0 else [*lines[: 1 + ROWS // 2], *lines[-(ROWS // 2) :]]
    widths = [max(len(row[place]) for row in shown) for place in range(len(columns))]
    text = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    if left_out > 0:
        text.insert(1 + ROWS // 2, f"… {left_out} rows more, which the Dataset holds …")
    return text


def _share(value: float) -> str:
    if np.isnan(value):
        return ""
    percent = f"{value:.0%}"
    return {"0%": "<1%", "100%": ">99%"}.get(percent, percent) if 0 < value < 1 else percent
