"""Numbers and names of an inspection as a reader sees them, and what formats lose as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradsim.inspection.formats import FORMATS, LOSS_SCALE

if TYPE_CHECKING:
    import xarray

LARGE = 0.5  # share of units, or of entries, from which on a layer is dead, or lost


def size(log: float) -> str:
    """exp(log) to two digits, at any size: 3.1e-540."""
    if not np.isfinite(log):
        return {"-inf": "0", "inf": "inf"}.get(str(log), "nan")
    decades = log / np.log(10.0)
    if -3 <= decades < 4:
        return f"{np.exp(log):.3g}"
    whole = int(np.floor(decades))
    mantissa = f"{10 ** (decades - whole):.1f}"
    return f"1.0e{whole + 1:+03d}" if mantissa == "10.0" else f"{mantissa}e{whole:+03d}"


def some(names: Sequence[str], most: int = 4) -> str:
    """The first of several names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(count: int, what: str) -> str:
    """1 layer, 2 layers."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def layers(inspection: xarray.Dataset, where: np.ndarray) -> list[str]:
    """The names of the layers, without the input, for which that holds, in order of execution."""
    inside = where & (inspection["type"].values != "input")
    return [str(one) for one in inspection["layer"].values[inside]]


def parameters(inspection: xarray.Dataset, where: np.ndarray) -> list[str]:
    return [str(one) for one in inspection["parameter"].values[where]]


def lost(inspection: xarray.Dataset, name: str, *, scaled: bool) -> tuple[list[str], int]:
    """The layers, in order of execution, that are lost to a format, and how many parameters are."""
    suffix = "_scaled" if scaled else ""
    rows = inspection[f"lost{suffix}"].sel(format=name).values >= LARGE
    of_parameters = inspection[f"parameter_lost{suffix}"].sel(format=name).values >= LARGE
    return layers(inspection, rows), int(of_parameters.sum())


def formats(inspection: xarray.Dataset) -> list[str]:
    """A small table: format by format, the first layer from the output backwards that it loses."""
    scale = inspection.attrs.get("loss_scale", LOSS_SCALE)
    head = (
        "format",
        "lost from",
        "layers",
        "parameters",
        f"loss × {scale:g}: from",
        "layers",
        "parameters",
        "overflows at",
    )
    rows = [head]
    for name in FORMATS:
        cells = [name]
        for scaled in (False, True):
            names, count = lost(inspection, name, scaled=scaled)
            cells += [shortened(names[-1], 24) if names else "none", str(len(names)), str(count)]
        beyond = layers(inspection, inspection["overflow_scaled"].sel(format=name).values > 0)
        rows.append((*cells, shortened(beyond[-1], 24) if beyond else "none"))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (0, 1, 4, 7)
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shortened(name: str, width: int) -> str:
    """A path that is cut at its beginning where it is long."""
    return name if len(name) <= width else f"…{name[1 - width :]}"
