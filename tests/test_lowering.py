"""Every family's program lowers for GPUs and TPUs, both ways, in the tiling that an accelerator is given; so do the
exponents and the spectra of long products."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES
from jax import export

import gradsim as gs
from gradsim.cli.compiling import BACKWARD, program
from gradsim.engine.covariant import covariant
from gradsim.engine.lyapunov import Frame, along, begin
from gradsim.scaled import Scaled
from gradsim.sweeps import loop, lyapunov

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


@pytest.mark.sampled(5)  # of both ways
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


def lowers(function: Any, *given: Any) -> None:
    assert export.export(jax.jit(function), platforms=PLATFORMS)(*given).platforms == PLATFORMS


def test_exponents_lower_for_accelerators() -> None:
    network = gs.vanilla_rnn(4)
    frame, gains = Frame(network, 2, "float32", silent=False), {n: jnp.full(2, v) for n, v in network.gains.items()}
    keys, normals = lyapunov._keys(network, False, jax.random.key(0), jnp.arange(2, dtype=jnp.uint32))
    lowers(partial(begin, frame), keys, normals, None, gains)
    shared, run = jax.jit(partial(begin, frame))(keys, normals, None, gains)
    edges, parts, spread = np.array([0, 4, 8], np.int32), (np.int32(0), np.int32(2)), np.float32(1e4)
    growth = Scaled(*(jnp.ones((2, *run.spread.shape), dtype) for dtype in (jnp.float32, jnp.int32)))
    lowers(partial(along, frame), shared, gains, (run, growth), edges, parts, spread)
    lowers(partial(covariant, frame, burn_in=1, depth=4, at=(2,)), shared, gains, run, spread)


def test_spectra_lower_for_accelerators() -> None:
    """In a sweep; see test_spectra.py for the function."""
    _, (plan, tiling, *given) = program(gs.feedforward(4), depth=3, seeds=2, statistics="log_singular_values")
    lowers(lambda *given: loop._measure(plan, tiling, *given), *given)
