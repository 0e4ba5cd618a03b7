"""Time and memory of one sweep as it grows: against cells, seeds, depth, width, and devices.

python -m gradsim.cli.growing WIDTH CELLS DEPTH TURNS DEVICES … prints the seconds of one sweep with so many devices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import xarray

import gradsim as gs
from gradsim.cli import matmul_rate
from gradsim.cli.timing import matmul, timed
from gradsim.sweeps import calls
from gradsim.sweeps.dataset import provenance

ABOUT = {
    "seconds": {"long_name": "time, measured", "units": "s"},
    "memory": {"long_name": "memory of a device, as compiled", "units": "byte"},
    "cells": {"long_name": "cells that were measured", "units": "1"},
    "rate": {"long_name": "matrix-product rate, measured", "units": "FLOP/s"},
}


def sweeping(width: int, cells: int, seeds: int, depth: int, **options: Any) -> Callable[[], Any]:
    """A whole call of `gs.sweep` of tanh networks, labels and host work included."""
    return matmul_rate.sweeping(gs.feedforward(width), cells, depth, seeds, **options)


def program_bytes(call: Callable[[], Any]) -> float:
    """The most memory of a device that a program of this sweep takes, as it is compiled; NaN where XLA does not say."""
    found: list[float] = []

    def told(*given: Any, look: Any = calls.memory) -> int | None:
        needed: int | None = look(*given)
        found.append(float("nan") if needed is None else float(needed))
        return needed

    with patch.object(calls, "memory", told):
        call()
    return max(found)


def grown(axis: str, sizes: Sequence[int], base: dict[str, int], turns: int) -> xarray.Dataset:
    """Seconds over (axis, turn), and bytes of a device, of the sweep with one of its sizes made larger."""
    sweeps = {str(size): sweeping(**{**base, axis: size}) for size in sizes}
    seconds = timed(sweeps, turns)
    variables = {
        "seconds": ((axis, "turn"), [seconds[name] for name in sweeps], ABOUT["seconds"]),
        "memory": (axis, [program_bytes(sweep) for sweep in sweeps.values()], ABOUT["memory"]),
    }
    return xarray.Dataset(variables, {axis: list(sizes)}, {**provenance(), **base, "label": "measured"})


def widened(widths: Sequence[int], base: dict[str, int], turns: int) -> xarray.Dataset:
    """`grown` in the width, and beside it the rate of plain products of the same shape, which take turns with it.

    Narrow networks have more `cells`, as many as make their products as tall as at the widest: so a call's own time,
    that of labels and the like, counts as little. The memory is that of the base's cells. `rate` is the products'.
    """
    found: dict[str, list[Any]] = {"seconds": [], "memory": [], "rate": [], "cells": []}
    for width in widths:
        cells = base["cells"] * max(1, max(widths) // width) ** 2
        sizes = {**base, "width": width, "cells": cells}
        rows, times = cells * width, base["seeds"] * base["depth"]
        seconds = timed({"sweep": sweeping(**sizes), "matmul": matmul(rows, (width, width), times)}, turns)
        found["seconds"].append(seconds["sweep"])
        found["memory"].append(program_bytes(sweeping(**{**base, "width": width})))
        found["rate"].append(2.0 * rows * width**2 * times / seconds["matmul"])
        found["cells"].append(cells)
    variables = {name: (("width", "turn")[: np.ndim(values)], values, ABOUT[name]) for name, values in found.items()}
    return xarray.Dataset(variables, {"width": list(widths)}, {**provenance(), **base, "label": "measured"})


def over_devices(counts: Sequence[int], width: int, cells: int, depth: int, turns: int) -> xarray.Dataset:
    """Seconds of one sweep over (devices, turn), of so many devices; on a CPU virtual ones, which share its cores."""
    given = [*map(str, (width, cells, depth, turns, *counts))]
    if jax.default_backend() == "cpu":
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(counts)}"
        command = [sys.executable, "-m", "gradsim.cli.growing", *given]
        done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"devices: the measuring process failed: {done.stderr.strip().splitlines()[-1]}")
        seconds = json.loads(done.stdout.splitlines()[-1])
    else:
        seconds = by_devices(*map(int, given))
    said = "time, measured" + " of virtual devices on the same cores" * (jax.default_backend() == "cpu")
    return xarray.Dataset(
        {"seconds": (("devices", "turn"), seconds, {"long_name": said, "units": "s"})},
        {"devices": list(counts)},
        attrs={**provenance(), "label": "measured"},
    )


def by_devices(width: int, cells: int, depth: int, turns: int, *counts: int) -> list[list[float]]:
    """Seconds [devices, turn] of a sweep that has a seed for each of the most devices."""
    sweeps = {str(count): sweeping(width, cells, max(counts), depth, devices=count) for count in counts}
    return [seconds.tolist() for seconds in timed(sweeps, turns).values()]


if __name__ == "__main__":
    print(json.dumps(by_devices(*map(int, sys.argv[1:]))))
