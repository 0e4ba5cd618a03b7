"""Every family's program lowers for GPUs and TPUs, both ways, in the tiling that an accelerator is given."""

from typing import Any

import jax
import pytest
from families import FAMILIES
from jax import export

from gradsim.cli.compiling import BACKWARD, program
from gradsim.sweeps import loop

PLATFORMS = ("cuda", "tpu")
WAYS: dict[str, dict[str, Any]] = {
    "forward": {"statistics": ("log_gain", "log_spectral", "length")},
    "backward": BACKWARD,
}


class Accelerator:
    """A device with 64 GiB, as far as a plan asks."""

    platform = "gpu"

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": 2**36, "bytes_in_use": 0}


@pytest.mark.sampled(7)  # of both ways
@pytest.mark.parametrize("direction", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_lowers_for_accelerators(family: str, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [Accelerator()]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    _, (plan, tiling, *given) = program(FAMILIES[family], depth=3, seeds=2, **WAYS[direction])
    assert tiling.cells == 16 * 16  # the whole grid, not a block for a CPU's cache
    assert tiling.tangents == 0
    lowered = export.export(jax.jit(lambda *given: loop._measure(plan, tiling, *given)), platforms=PLATFORMS)(*given)
    assert lowered.platforms == PLATFORMS
