"""The bytes that a program takes at its peak, as predicted and as measured: python tests/peak_memory.py

On Linux, where a process may forget its own peak; of a process of its own, in which nothing else runs.
"""

import ctypes
import json
import re
import time
from pathlib import Path
from typing import Any

import jax

import gradsim as gs
from gradsim.cli.compiling import program
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import calls, chunks

FORWARD: dict[str, Any] = {"depth": 4, "seeds": 2}
CASES: dict[str, tuple[gs.Network, dict[str, Any], chunks.Chunk]] = {
    "forward": (gs.feedforward(128), FORWARD, chunks.Chunk(256, 2, Tiling(256, 4))),
    "backward": (
        gs.feedforward(128),
        {**FORWARD, "direction": "backward", "statistics": ("log_gain", "log_weight_gradient")},
        chunks.Chunk(256, 1, Tiling(128, 4)),
    ),
    "over time": (gs.lstm(64), FORWARD, chunks.Chunk(256, 1, Tiling(256, 4))),
}


def status(name: str) -> int:
    """A number of bytes that the kernel tells of this process."""
    return 1024 * int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def peak(jitted: Any, given: tuple[Any, ...]) -> int:
    """Bytes more than before, at the highest, in a call that is not the first."""
    jax.block_until_ready(jitted(*given))
    time.sleep(0.5)  # what a call has taken goes back a little after its results are there
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    jax.block_until_ready(jitted(*given))
    return status("VmHWM") - before


def main() -> None:
    found = {}
    for name, (network, options, chunk) in CASES.items():
        chunks.plan_chunk = lambda plan, chunk=chunk, **_: chunk
        jitted, given = program(network, **options)
        predicted = calls.memory(jitted, *given)
        found[name] = [predicted, peak(jitted, given)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
