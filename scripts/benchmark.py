"""How fast, how small: what this machine can do and what share of it gradsim reaches.

Everything is measured in one run and in turns, so that ratios hold on a noisy machine: each
repetition times every contender, and ratios are medians over the repetitions. Rates count only the arithmetic that
must be done (the tangents' matrix products) against a plain matrix product of the same shape.

Everything takes some twenty minutes on two cores.

examples:
  python scripts/benchmark.py
  python scripts/benchmark.py --parts rates --repeats 9
  python scripts/benchmark.py --parts compile first_figure --out results
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import gradsim as gs
from gradsim import cli, plot
from gradsim.arguments import whole
from gradsim.cli import compiling, lyapunov, matmul_rate, own_models, spectra, stores, training
from gradsim.cli.baselines import jax_baseline, lstm_baseline, torch_baseline
from gradsim.cli.matmul_rate import sweeping
from gradsim.cli.run import interruptible
from gradsim.cli.timing import medians, timed
from gradsim.plot.benchmark import PANELS, benchmark
from gradsim.sweeps.dataset import provenance

Part = Literal[
    "rates", "baselines", "memory", "startup", "compile", "first_figure", "training", "spectra", "lyapunov", "store",
    "models",
]  # fmt: skip
PARTS: tuple[Part, ...] = get_args(Part)
RUN = ("created", "gradsim_commit", "jax_version", "command")


@dataclass(frozen=True)
class Options:
    """Measure gradsim's speed, memory and start-up on the device at hand."""

    out: Path = Path("figures/benchmarks")
    """Folder for benchmark-<device>.json and .png. Parts in the file of this device are kept until measured anew."""
    parts: tuple[Part, ...] = PARTS
    """What to measure: rates (share of the matmul rate), baselines (jax.jacfwd, torch.func), memory (peak against
    depth and seeds), startup (import and a first sweep), compile (tracing, lowering and compiling each family),
    first_figure (scripts with an empty and with a full compilation cache), training (1,024 networks at once, against
    one after another and batched products; memory against steps), spectra (all singular values of long products,
    against an SVD of each), lyapunov (all exponents and the largest, against lyapax), store (one of 10,000 chunks
    opened and gone on with; a sweep with a store against one without), models (inspecting a Flax model against its
    gradient; a training step with records of its gradients against one without). How time grows is what scaling.py
    measures."""
    repeats: int = 5
    """Turns; each times every contender once."""
    depth: int = 200
    """Steps of the networks in `rates`."""


def check(options: Options) -> None:
    """Raises: ValueError naming the option that is wrong."""
    for name in ("repeats", "depth"):
        whole(name, getattr(options, name))
    for part in options.parts:
        if options.parts.count(part) > 1:
            raise ValueError(f"parts: got {part!r} more than once; pass each once")
    if not options.parts:
        raise ValueError(f"parts: got none; pass one or more of: {', '.join(PARTS)}")
    cli.writable(options.out)


def baselines(options: Options, width: int = 64, networks: int = 1024, depth: int = 30) -> dict[str, Any]:
    """Exact norms at every depth of 1,024 random networks: gradsim against jax.vmap(jax.jacfwd) and torch.func."""
    keys, sigma_w = jax.random.split(jax.random.key(0), networks), jnp.linspace(0.5, 3, networks)
    x = jax.random.normal(jax.random.key(1), (networks, width))
    contenders = {
        "gradsim": sweeping(gs.feedforward(width), networks, depth),
        "jax.vmap(jax.jacfwd)": jax_baseline(keys, sigma_w, x, depth),
        **torch_baseline(np.asarray(sigma_w), np.asarray(x), depth),
    }
    best, ratios = medians(timed(contenders, options.repeats), "gradsim")
    for name, ratio in ratios.items():
        print(f"{name:28s} {best[name]:8.3f} s, {ratio:6.1f} times gradsim's time")
    found = {"width": width, "networks": networks, "depth": depth, "seconds": best, "ratio": ratios}
    return {**found, "lstm": lstm(options)}


def lstm(options: Options, width: int = 64, networks: int = 32, length: int = 20) -> dict[str, Any]:
    """The Jacobian of the whole state: gradsim after every step, torch.func of torch.nn.LSTMCell after the last."""
    others = lstm_baseline(width, networks, length)
    if not others:
        print("torch is not installed: no row for torch.nn.LSTMCell")
        return {}
    turns = timed({"gradsim": sweeping(gs.lstm(width), networks, length), **others}, options.repeats)
    best, ratios = medians(turns, "gradsim")
    (ratio,) = (ratios[name] for name in others)
    print(f"torch.func of LSTMCell, {networks} networks of {width}, {length} steps: {ratio:.1f} times gradsim's time")
    return {"width": width, "networks": networks, "length": length, "seconds": best, "ratio": ratio}


def memory(options: Options) -> list[dict[str, Any]]:
    """Peak memory of fresh processes, against depth and seeds; the result, part of it, holds every depth and seed.

    Of a grid of one block of cells, and of one of two. Medians over processes taken in turns: a compiler with
    several threads leaves peaks some 5 % apart.
    """
    sizes = [(100, 4), (1000, 4), (5000, 4), (100, 64)]
    code = (
        "import benchmark, gradsim as gs; from gradsim.cli.timing import peak_memory; "
        "result = benchmark.sweeping(gs.feedforward(64), {}, {}, {})().nbytes; print(peak_memory(), result)"
    )
    turns, table = range(max(1, options.repeats // 2)), []
    for cells in (256, 512):
        read = [[fresh_process(code.format(cells, *size)).split() for size in sizes] for _ in turns]
        peaks, results = np.median(np.asarray(read, int), axis=0).astype(int).T.tolist()
        for (depth, seeds), peak, result in zip(sizes, peaks, results, strict=True):
            table.append({"depth": depth, "seeds": seeds, "cells": cells, "peak_bytes": peak, "result_bytes": result})
            print(
                f"{cells:3d} cells, depth {depth:4d}, {seeds:2d} seeds: peak {peak / 2**20:.0f} MiB, "
                f"{peak / peaks[0]:.2f} of the first; the result is {result / 2**20:.0f} MiB"
            )
    return table


def fresh_process(code: str, **environment: str) -> str:
    """What a new interpreter prints last, run beside this file."""
    command, environment = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: a measuring process failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip().splitlines()[-1]


def startup(options: Options) -> dict[str, float]:
    """Seconds to import, and to compile a first sweep."""
    clock = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    modules = ("jax", "gradsim")
    best = dict.fromkeys(modules, np.inf)
    for _ in range(options.repeats):
        for module in modules:
            best[module] = min(best[module], float(fresh_process(clock.format(module))))
    first = (
        "import time, benchmark, gradsim as gs; call = benchmark.sweeping(gs.feedforward(64), 256, 50); "
        "t = time.perf_counter(); call(); t, u = time.perf_counter(), t; call(); v = time.perf_counter(); "
        "print(t - u - (v - t))"
    )
    found = {f"import_{name}": seconds for name, seconds in best.items()}
    found["import_beyond_jax"] = best["gradsim"] - best["jax"]
    found["compile_first_sweep"] = float(fresh_process(first))
    for name, seconds in found.items():
        print(f"{name:20s} {seconds:6.2f} s")
    return found


def compilation(options: Options) -> list[dict[str, Any]]:
    """Seconds in which each family's program is traced, lowered and compiled, by the clock and of all cores.

    Medians over fresh processes, which keep nothing on disk.
    """
    code = "import json; from gradsim.cli import compiling; print(json.dumps(compiling.rows()))"
    turns = range(max(1, options.repeats // 2))
    table = compiling.table([json.loads(fresh_process(code, JAX_ENABLE_COMPILATION_CACHE="0")) for _ in turns])
    for row in table:
        seconds = ", ".join(f"{phase} {row['seconds'][phase]:5.2f}" for phase in compiling.PHASES)
        total, cores = sum(row["seconds"].values()), sum(row["cpu_seconds"].values())
        print(f"{row['name']:17s} {row['direction']:8s} {seconds}: {total:6.2f} s, {cores:6.2f} CPU s")
    total, cores = (sum(sum(row[clock].values()) for row in table) for clock in ("seconds", "cpu_seconds"))
    print(f"{'all of them':53s}       {total:6.2f} s, {cores:6.2f} CPU s")
    return table


def first_figure(options: Options) -> list[dict[str, Any]]:
    """Seconds in which a script draws its first figures with an empty compilation cache, then with its own."""
    table = compiling.first_figures(Path(__file__).parent)
    for row in table:
        print(f"{row['script']:14s} {row['cache']:5s} cache: {row['seconds']:6.1f} s, {row['cpu_seconds']:6.1f} CPU s")
    return table


def trained(options: Options) -> dict[str, Any]:
    """The rates of training, and peak memory of fresh processes against the steps."""
    code = "from gradsim.cli import timing, training; training.together(training.optax.adam, {})(); "
    code += "print(timing.peak_memory())"
    peaks = {steps: int(fresh_process(code.format(steps))) for steps in (100, 500)}
    for steps, peak in peaks.items():
        print(f"{steps:4d} steps: peak {peak / 2**20:.0f} MiB")
    return {"rates": training.rows(options.repeats), "peak_bytes": peaks}


MEASURES: dict[Part, Callable[[Options], Any]] = {
    "rates": lambda options: matmul_rate.rows(options.repeats, options.depth),
    "baselines": baselines,
    "memory": memory,
    "startup": startup,
    "compile": compilation,
    "first_figure": first_figure,
    "training": trained,
    "spectra": lambda options: spectra.rows(options.repeats),
    "lyapunov": lambda options: lyapunov.rows(options.repeats),
    "store": lambda options: stores.costs(options.repeats),
    "models": lambda options: own_models.rows(options.repeats),
}


def measured_before(path: Path, device: str) -> dict[str, Any]:
    """The parts that the file has of this device, and `runs`: what each was measured by."""
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    if not isinstance(before, dict) or before.get("device") != device or "runs" not in before:
        return {"runs": {}}
    return {name: before[name] for name in ("runs", *PARTS) if name in before}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Measure the parts asked for, then write the JSON and the figure; returns what was written.

    Exits with one line where an option is wrong or nothing can be written, before anything is measured.
    """
    options: Any = tyro.cli(Options, args=arguments, description=__doc__)
    try:
        check(options)
    except ValueError as error:
        sys.exit(f"error: {error}")
    device = jax.local_devices()[0]
    kind = device.device_kind if device.platform != "cpu" else f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    name = device.platform if device.platform == "cpu" else device.device_kind.replace(" ", "-")
    stem = options.out / f"benchmark-{name}"
    results: dict[str, Any] = {**provenance(), "device": f"{kind}, float32 at highest precision"}
    results = {**results, **measured_before(stem.with_suffix(".json"), results["device"])}
    for part in options.parts:
        print(f"-- {part}")
        results[part], results["runs"][part] = MEASURES[part](options), {name: provenance()[name] for name in RUN}
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    figures = plot.save(benchmark(results), stem) if PANELS.keys() & results.keys() else []
    files = [stem.with_suffix(".json"), *figures]
    print("wrote", *files)
    return files


if __name__ == "__main__":
    with interruptible([]):
        main()
