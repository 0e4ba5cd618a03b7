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


def page(datasets: Mapping[str, xarray.Dataset]) -> str:
    """The page of these maps; each has log_gain over sigma_w, sigma_b, seed and depth, and what `entry` reads."""
    first = next(iter(datasets.values()))
    said = first.attrs
    (network,) = json.loads(said["network"]).values()
    book = {
        "unit": UNIT,
        "depth": first.sizes["depth"],
        "seeds": first.sizes["seed"],
        "width": network["width"],
        "key": int(said["key"]),
        "origin": f"{said['command']}, gradsim {said['gradsim_version']}, jax {said['jax_version']}",
        "maps": [entry(name, one) for name, one in datasets.items()],
    }
    data = json.dumps(book, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return files("gradsim.cli").joinpath("atlas.html").read_text("utf-8").replace("__DATA__", data)


def entry(name: str, one: xarray.Dataset) -> dict[str, Any]:
    """One map: axes, measured growth, theory's numbers, and the profiles at each point."""
    order = ("sigma_w", "sigma_b", "depth")
    log_gain = one["log_gain"]
    error = log_gain.std("seed", ddof=1) / math.sqrt(one.sizes["seed"])
    return {
        "name": name,
        "sigma_w": one["sigma_w"].values.tolist(),
        "sigma_b": one["sigma_b"].values.tolist(),
        "edge": numbers(one["edge_of_chaos"]),
        **{key: numbers(one[key].transpose(*order[:2])) for key in ("growth", "chi", "xi_c")},
        "mean": integers(log_gain.mean("seed").transpose(*order)),
        "error": integers(error.transpose(*order)),
        "theory": integers(one["theory"].transpose(*order)),
    }


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
