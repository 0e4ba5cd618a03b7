"""The atlas as one page that needs no server: maps, profiles and theory as integers, and what draws them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import xarray

UNIT = 1e-4  # nat: what one integer is
MISSING = -(2**31)
MOST = 60  # steps of which all are kept; of more so many, as close in every decade
PROFILES, POINTS = ("mean", "error", "theory"), ("growth", "chi", "xi_c")


def page(datasets: Mapping[str, xarray.Dataset]) -> str:
    """The page of these maps; each has log_gain over two gains, seed and depth or time, and what `entry` reads."""
    said = next(iter(datasets.values())).attrs
    book = {
        "unit": UNIT,
        "origin": f"{said['command']}, gradsim {said['gradsim_version']}, jax {said['jax_version']}",
        "maps": [entry(name, one) for name, one in datasets.items()],
    }
    data = json.dumps(book, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return files("gradsim.cli").joinpath("atlas.html").read_text("utf-8").replace("__DATA__", data)


def entry(name: str, one: xarray.Dataset) -> dict[str, Any]:
    """One map: the group it is listed in, the call that measures it, the gains across and up, the growth, the profiles
    at each point; and of `chi`, `xi_c`, `theory` and `edge_of_chaos` what the Dataset has."""
    across, up = one["growth"].dims
    step = next(axis for axis in ("depth", "time") if axis in one.dims)
    order, log_gain = (across, up, step), one["log_gain"]
    shown = one.assign(
        mean=log_gain.mean("seed"), error=log_gain.std("seed", ddof=1) / math.sqrt(one.sizes["seed"])
    ).sel({step: kept(one.sizes[step])})
    found = {
        "name": name,
        "group": one.attrs["group"],
        "call": one.attrs["call"],
        "axes": [
            {"name": gain, "label": one[gain].attrs["long_name"], "values": one[gain].values.tolist()}
            for gain in (across, up)
        ],
        "step": {"depth": "layer", "time": "step"}[step],
        "steps": shown[step].values.tolist(),
        **{key: numbers(one[key].transpose(across, up)) for key in POINTS if key in one},
        **{key: integers(shown[key].transpose(*order)) for key in PROFILES if key in shown},
    }
    if "theory" in one:
        found["theory_name"] = one["theory"].attrs["long_name"]
    if "edge_of_chaos" in one:
        edge = one["edge_of_chaos"]
        found |= {"edge": numbers(edge), "edge_name": edge.attrs["long_name"]}
    return found


def kept(steps: int) -> np.ndarray:
    """Which of so many steps a page shows."""
    return np.unique(np.geomspace(1, steps, MOST).round().astype(int)) if steps > MOST else np.arange(1, steps + 1)


def numbers(values: xarray.DataArray) -> list[float | str | None]:
    """As JSON holds them, to six digits: null where there is none, "inf" beyond all."""
    return [
        None if math.isnan(x) else "inf" if math.isinf(x) else float(f"{x:.6g}") for x in values.values.ravel().tolist()
    ]


def integers(values: xarray.DataArray) -> str:
    """Little-endian int32 in units of 1e-4 nat, in base64; MISSING where there is no number."""
    scaled = np.round(values.values / UNIT)
    held = np.isfinite(scaled) & (np.abs(scaled) < 2**31)
    return base64.b64encode(np.where(held, scaled, MISSING).astype("<i4").tobytes()).decode()
