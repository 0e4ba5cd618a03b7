"""Sweeps on eight virtual devices, some of them and one; prints what it saw: python tests/eight_devices.py FOLDER

A process of its own, since XLA reads the number of devices once.
"""

import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np
import optax
import xarray
from jax import export

import gradsim as gs
from gradsim.cli.compiling import program
from gradsim.engine import plan as plans
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import calls, chunks, loop
from gradsim.training import loop as training

NETWORK = gs.feedforward(6)
SMALL: dict[str, Any] = {"depth": 4, "seeds": 5, "sigma_w": [0.5, 1.0, 2.0], "statistics": ("log_gain", "length")}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
# Rotations go on until all angles are small, in a loop whose end each device finds by itself.
SPECTRA: dict[str, Any] = {"depth": 3, "seeds": 8, "statistics": ("log_singular_values", "log_gain")}
BACKWARD: dict[str, Any] = {
    "depth": 3, "seeds": 3, "sigma_w": [0.5, 2.0], "direction": "backward", "statistics": ("log_gradient",),
    "inputs": np.random.default_rng(0).normal(size=(2, 6)), "cotangent": np.arange(6.0),
}  # fmt: skip
# Ten columns on eight devices, three of which have none; and some that vanish beside others. The gain of 0 is dead.
SHARED: dict[str, Any] = {
    "forward": {"network": gs.indrnn(10, "tanh"), "depth": 100, "seeds": 1, "statistics": ("log_gain", "log_jvp")},
    "backward": {
        "network": gs.feedforward(20), "depth": 20, "seeds": 2, "sigma_w": [0.0, 0.5], "direction": "backward",
        "statistics": ("log_gain", "log_weight_gradient"), "dtype": "float64",
    },
    "pair": {"network": gs.pair(gs.feedforward(10)), "depth": 20, "seeds": 1, "input_correlation": 0.5},
}  # fmt: skip
CELLS, CLOSE = {"forward": 1, "backward": 2}, {"forward": 1e-6, "backward": 1e-13, "pair": 1e-6}
# A megabyte and a half of tangents, and some 4 kB of weights.
WIDE: dict[str, Any] = {"network": gs.batchnorm(40, 8), "depth": 2, "seeds": 9}


def compiled_texts() -> list[str]:
    """What each program on several devices was compiled to; from now on those are kept."""
    texts: list[str] = []
    look = calls.memory

    def memory(program: Any, *given: Any) -> int | None:
        if hasattr(program, "lower"):
            texts.append(program.lower(*given).compile().as_text())
        return look(program, *given)

    vars(calls)["memory"] = memory
    return texts


def main(folder: Path) -> None:
    texts, said = compiled_texts(), dict[str, Any]()
    planned = chunks.plan_chunk
    spectra = gs.sweep(gs.feedforward(4), **SPECTRA).sel(depth=3)
    mean_square = np.mean(np.exp(2 * spectra.log_singular_values.values), axis=-1)
    np.testing.assert_allclose(np.log(mean_square) / 2, spectra.log_gain, atol=1e-5)
    close = gs.sweep(NETWORK, **BACKWARD)
    xarray.testing.assert_allclose(close, gs.sweep(NETWORK, **BACKWARD, devices=1), rtol=1e-5, atol=1e-5)
    said["seeds at once"] = planned_sizes(planned)
    chunks.plan_chunk = lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4))  # 10 chunks
    one = gs.sweep(NETWORK, **SMALL, devices=1)
    gs.sweep(NETWORK, **SMALL, store=folder, devices=jax.local_devices()[5:])
    (folder / "done").write_text("".join((folder / "done").read_text().splitlines(keepends=True)[:4]))
    kept = gs.sweep(NETWORK, **SMALL, store=folder)  # on eight, without a warning
    xarray.testing.assert_equal(kept.load(), one)
    xarray.testing.assert_equal(gs.sweep(NETWORK, **SMALL, devices=8), one)
    said["trained"] = trained()
    said["device"] = kept.attrs["device"]
    said["collectives"] = sorted({word for text in texts for word in COLLECTIVES if word in text})
    said["lowered"] = lowered()
    said["spread"] = sum("num_partitions=8" in text for text in texts)
    said["shared"] = shared(planned, texts)
    said["halved"] = halved(one)
    print(json.dumps(said))


def trained() -> int:
    """How many chunks a run on three devices is; its numbers are those of one, to the last bit."""
    planned: list[Any] = []

    def plan_chunk(job: Any, plan_chunk: Any = training.plan_chunk) -> Any:
        planned.append(plan_chunk(job))
        return planned[-1]

    train = partial(
        gs.train, gs.feedforward(3), data=(np.ones((8, 3)), np.arange(8) % 2), optimizer=optax.sgd,
        learning_rate=[0.1, 1], depth=1, seeds=2, steps=2, record=[2], batch=2, by_layer="log_output",
        sigma_w=[0.5, 1.0],
    )  # fmt: skip
    vars(training)["plan_chunk"] = plan_chunk
    some = train(devices=jax.local_devices()[5:])
    vars(training)["plan_chunk"] = lambda _: planned[0]
    one = train(devices=1)
    xarray.testing.assert_equal(some, one)
    return -(-4 // planned[0].cells) * -(-2 // planned[0].seeds)


def lowered() -> list[str]:
    """The accelerators for which the program of eight devices lowers."""
    jitted, given = program(NETWORK, depth=3, seeds=2)
    module = export.export(jitted, platforms=("cuda", "tpu"))(*given)
    assert module.nr_devices == 8
    return list(module.platforms)


def planned_sizes(planned: Any) -> list[int]:
    """Cells and seeds of a chunk on eight devices: many seeds, two seeds."""
    plan = plans.planned(NETWORK, depth=4, statistics="log_gain")
    sizes = [planned(plan, cells=64, seeds=16)[:2], planned(plan, cells=64, seeds=2)[:2]]
    return [size for chunk in sizes for size in chunk]


def halved(one: xarray.Dataset) -> str:
    """What is said where all devices run out of memory at once; the numbers are those of one device."""
    chosen = loop.program
    chunks.plan_chunk = lambda plan, **_: chunks.Chunk(2, 2, Tiling(2, 4))

    def program(*choice: Any) -> Any:
        def call(plan: Any, tiling: Any, gains: Any, drawn: Any, *others: Any) -> Any:
            if drawn.normals.shape[1] * gains["sigma_w"].shape[1] > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return chosen(*choice)(plan, tiling, gains, drawn, *others)

        return call

    vars(loop)["program"] = program
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        xarray.testing.assert_allclose(gs.sweep(NETWORK, **SMALL), one, atol=2e-6)
    return str(told[0].message)


def shared(planned: Any, texts: list[str]) -> dict[str, list[str]]:
    """The collectives of sweeps whose tangent columns all devices share, each with the computation it is in.

    They give the Dataset of one device, within rounding.
    """
    found = {}
    chunks.plan_chunk = lambda plan, **_: chunks.Chunk(CELLS[plan.direction], 2, Tiling(1, 4), 8)
    for way, options in SHARED.items():
        texts.clear()
        xarray.testing.assert_allclose(gs.sweep(**options), gs.sweep(**options, devices=1), rtol=0, atol=CLOSE[way])
        found[way] = collectives(texts[0])
    chunks.plan_chunk = planned
    texts.clear()
    wide = gs.sweep(**WIDE, max_memory="1MiB")  # more networks than devices, none of which fits one
    found["wide"] = collectives(texts[0])
    xarray.testing.assert_allclose(wide, gs.sweep(**WIDE), rtol=0, atol=2e-6)
    return found


def collectives(text: str) -> list[str]:
    """Those of a compiled program, such as "all-gather in ENTRY"."""
    found, computation = [], ""
    for line in text.splitlines():
        if line[:1].strip() and line.endswith("{"):
            computation = line.split()[0]
        found += [
            f"{word} in {computation}" for word in COLLECTIVES if f" {word}(" in line or f" {word}-start(" in line
        ]
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(Path(sys.argv[1]))
