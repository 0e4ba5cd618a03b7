"""What compiling costs: the phases of each family's program, and the time to a first figure."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import jax
import numpy as np

import gradsim as gs
from gradsim.sweeps import loop

WIDTH, GAINS = 64, np.linspace(0.5, 1.0, 16)  # 16 x 16 values of a family's first two gains
SIZES = {"depth": 20, "seeds": 4}
BACKWARD = {"direction": "backward", "statistics": ("log_gradient", "log_weight_gradient")}
PHASES = ("trace", "lower", "compile")
SCRIPTS = ("phase_diagram", "remedies")


def families() -> list[gs.Network]:
    """Every family of this width, all else as it is by default."""
    plain = (gs.feedforward, gs.residual, gs.highway, gs.layernorm, gs.mirrored)
    recurrent = (gs.vanilla_rnn, gs.minimal_rnn, gs.lstm, gs.gru, gs.linear_recurrence)
    today = (
        gs.indrnn, gs.min_gru, gs.min_lstm, gs.antisymmetric_rnn, gs.cornn, gs.unitary_rnn, gs.mamba2, gs.retnet,
        gs.rwkv6, gs.rwkv7, gs.delta_net, gs.mlstm,
        gs.slstm,
    )  # fmt: skip
    blocks = [gs.attention(WIDTH, 4, 8), gs.transformer(WIDTH, 4, 8, activation="silu", gated=True, qk_norm=True)]
    several = [gs.batchnorm(WIDTH, 8), gs.convolutional(WIDTH, 8), *blocks, gs.s4d(4), gs.mamba(4)]
    return [*several, *(family(WIDTH) for family in (*plain, *recurrent, *today))]


class Reached(Exception):
    """The program of a sweep is about to run; carries it and what it would be given."""


def program(network: gs.Network, **options: Any) -> tuple[Any, ...]:
    """The jitted function that a sweep of this network calls first, and its arguments; nothing runs."""
    chosen = loop.program

    def reached(*choice: Any) -> Any:
        def call(*given: Any) -> NoReturn:
            raise Reached(chosen(*choice), given)

        return call

    gains: Any = dict.fromkeys(list(network.gains)[:2], GAINS)
    with patch.object(loop, "program", reached):
        try:
            gs.sweep(network, **{**SIZES, **options}, **gains, progress=False)
        except Reached as caught:
            return caught.args
    raise RuntimeError("program: the sweep ended without calling it")


def phases(network: gs.Network, **options: Any) -> dict[str, list[float]]:
    """Seconds of each phase by the clock, and of all cores; jax remembers nothing from before."""
    jitted, given = program(network, **options)
    jax.clear_caches()
    found, stage = {}, jitted
    for phase, inputs in zip(PHASES, (given, (), ()), strict=True):
        start = time.perf_counter(), time.process_time()
        stage = getattr(stage, phase)(*inputs)
        found[phase] = [time.perf_counter() - start[0], time.process_time() - start[1]]
    return found


def rows() -> list[dict[str, Any]]:
    """One row a family and direction; to be called in a process without a persistent cache."""
    networks = families()
    phases(networks[0])  # the compiler's own start
    ways: tuple[dict[str, Any], ...] = ({}, BACKWARD)
    return [
        {"name": one.family, "direction": way.get("direction", "forward"), **phases(one, **way)}
        for way in ways
        for one in networks
    ]


def table(turns: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The median of each row over the turns: seconds {phase: […]} as `seconds` and `cpu_seconds`."""
    found = []
    for same in zip(*turns, strict=True):
        middle = np.median([[row[phase] for phase in PHASES] for row in same], axis=0)  # [phase, clock]
        clock, cores = (dict(zip(PHASES, column.tolist(), strict=True)) for column in middle.T)
        found.append({key: same[0][key] for key in ("name", "direction")} | {"seconds": clock, "cpu_seconds": cores})
    return found


def first_figures(folder: Path) -> list[dict[str, Any]]:
    """Seconds of scripts of that folder at their quick preset, each with an empty cache and then with its own."""
    found = []
    for script in SCRIPTS:
        with tempfile.TemporaryDirectory() as place:
            kept = {"JAX_COMPILATION_CACHE_DIR": place, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
            for state in ("empty", "full"):
                command = [sys.executable, str(folder / f"{script}.py"), "--out", f"{place}/figures"]
                start, cores = time.perf_counter(), _children()
                _run(command, {**os.environ, **kept})
                seconds, cpu = time.perf_counter() - start, _children() - cores
                found.append({"script": script, "cache": state, "seconds": seconds, "cpu_seconds": cpu})
    return found


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {Path(command[1]).name} failed: {done.stderr.strip().splitlines()[-1]}")


def _children() -> float:
    """Seconds of all cores that processes started and ended by this one have taken; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system
