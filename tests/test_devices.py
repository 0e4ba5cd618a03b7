"""A sweep on several devices, and by several processes: the same numbers, no chunk twice, nothing sent between them."""

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray
from unrolled import own_checks
from wrong import refused, refused_each

import gradsim as gs
from gradsim.engine import plan as plans
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, machine
from gradsim.sweeps.stores import members

NETWORK = gs.feedforward(6)
SMALL: dict[str, Any] = {"depth": 4, "seeds": 4, "sigma_w": [0.5, 1.0, 1.5, 2.0]}  # 8 chunks
sweep = partial(gs.sweep, NETWORK, **SMALL)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4)))


def test_eight_devices_give_the_same_numbers(tmp_path: Path) -> None:
    """Bit for bit by the same chunk plan, however many there are; without a collective. Of their own process.

    Where they share one network's tangent columns, within rounding, and with one collective, after all steps.
    """
    command = [sys.executable, str(Path(__file__).with_name("eight_devices.py")), str(tmp_path / "a.zarr")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["collectives"] == []
    assert found["spread"] >= 3  # programs, each for all eight
    assert found["lowered"] == ["cuda", "tpu"]
    assert found["trained"] >= 3  # chunks, one for each of three devices
    assert found["device"] == "3 x cpu (cpu)"
    assert found["seeds at once"] == [64, 2, 16, 1]  # cells, seeds: 16 seeds on eight devices, and 2
    assert found["halved"].startswith("device: out of memory with 2 cells x 2 seeds at once")
    assert found["shared"] == {way: ["all-gather in ENTRY"] for way in ("forward", "backward", "pair", "wide")}


class Device:
    platform = "gpu"

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": self.limit, "bytes_in_use": 0}


def test_each_accelerator_has_a_chunk_and_the_smallest_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plans.planned(gs.feedforward(64), depth=10, statistics="log_gain")
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(2**36)] * 4)
    assert chunks.plan_chunk(plan, cells=1024, seeds=8)[:2] == (1024, 2)
    assert chunks.plan_chunk(plan, cells=1024, seeds=2)[:2] == (512, 1)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(2**36), Device(2**28)])
    assert chunks.memory_at_hand() == 2**28
    few = chunks.plan_chunk(plan, cells=1024, seeds=8)
    assert few.cells * few.seeds * chunks.predicted(plan).cell <= 2**27


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (0, ValueError), (2.5, ValueError), (99, ValueError), (True, TypeError), ("cpu", TypeError), ([0], TypeError),
        ([], ValueError), ([*jax.local_devices()[:1]] * 2, ValueError),
    ],
)  # fmt: skip
def test_what_are_no_devices(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^devices: got "), machine.used(devices=wrong):
        pass


def test_the_share_of_a_process_must_be_told_whole(tmp_path: Path) -> None:
    wrong: list[Any] = [-1, 0.5, True, "a"]
    refused("process", lambda: sweep(processes=2))
    refused("processes", lambda: sweep(process=1))
    refused("processes", lambda: sweep(process=1, processes=2))  # without a store
    with own_checks():
        refused_each("process", [2, *wrong], lambda one: sweep(process=one, processes=2, store=tmp_path))
        refused_each("processes", [0, *wrong], lambda one: sweep(process=0, processes=one, store=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_chunks")
def test_who_may_join_those_that_write(tmp_path: Path) -> None:
    """A process of another number, none of which is there, among as many; of the same sweep."""
    part = sweep(store=tmp_path, process=0, processes=2)
    assert part.attrs["done"] == 1 / 2
    with members.Member(tmp_path, 0, 2):
        for share in ({"process": 0, "processes": 2}, {"process": 1, "processes": 3}, {}):
            refused("store", lambda share=share: sweep(store=tmp_path, **share))  # type: ignore[misc]
        refused("store", lambda: gs.sweep(NETWORK, **SMALL | {"seeds": 5}, store=tmp_path, process=1, processes=2))
        second = sweep(store=tmp_path, process=1, processes=2)
        assert second.attrs["done"] == 1.0
        assert (tmp_path / "done.1").read_text().count("\n") == 4
    xarray.testing.assert_equal(second.load(), sweep())


@pytest.mark.usefixtures("small_chunks")
def test_what_one_of_several_has_measured_counts_for_all(tmp_path: Path) -> None:
    """A process alone joins what all have marked; a chunk that was measured anew counts by its later mark."""
    for process in (2, 0):
        sweep(store=tmp_path, process=process, processes=3)
    assert gs.open(tmp_path).attrs["done"] == 5 / 8
    assert not (tmp_path / "done.2").exists()  # joined by the second
    (tmp_path / "part0" / "log_gain" / "c.0.1.0").unlink()  # of chunk 2
    with pytest.warns(RuntimeWarning, match="1 of 5 chunks"):
        sweep(store=tmp_path, process=2, processes=3)
    assert (tmp_path / "done.2").read_text().startswith("[0,2,")
    xarray.testing.assert_equal(sweep(store=tmp_path).load(), sweep())
    assert sorted(file.name for file in tmp_path.glob("done*")) == ["done"]


JOINED = """
import sys
from functools import partial
import gradsim as gs
from gradsim import cli
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks
chunks.plan_chunk = lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4))
job = partial(gs.sweep, gs.feedforward(6), depth=4, seeds=4, sigma_w=[0.5, 1.0, 1.5, 2.0])
options = cli.parse({"quick": cli.Options()}, sys.argv[1:])
cli.run("some", options, lambda _: cli.perform({"a": job}), lambda _: "", lambda _: {})
"""
FIRST_PORT = 2**16 - 2**12  # of those that jax takes for a cluster, by the number of the job


def free_port() -> int:
    for port in range(FIRST_PORT, 2**16):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def launched(by: str, port: int, process: int) -> tuple[list[str], dict[str, str]]:
    """The options of a process on loopback, and what its launcher puts into its environment."""
    job, number = port - FIRST_PORT, str(process)
    slurm = {"JOB_ID": str(job), "STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": number, "LOCALID": number}
    world = {"SIZE": "2", "RANK": number, "LOCAL_RANK": number}
    environments = {
        "Slurm": {f"SLURM_{name}": value for name, value in slurm.items()},
        "Open MPI": {
            "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:1",
            **{f"OMPI_COMM_WORLD_{name}": value for name, value in world.items()},
        },
    }
    if by in environments:
        return ["--coordinator", "auto"], environments[by]
    return ["--coordinator", f"127.0.0.1:{port}", "--process", number, "--processes", "2"], {}


@pytest.mark.further
@pytest.mark.parametrize("by", ["Slurm", "Open MPI", "options"])
@pytest.mark.usefixtures("small_chunks")
def test_a_script_joins_its_processes_through_jax(by: str, tmp_path: Path) -> None:
    """By what a launcher tells each of them, put here by hand, or by what they are told; they share its sweep."""
    both, port = list[subprocess.Popen[str]](), free_port()
    for process in range(2):
        options, environment = launched(by, port, process)
        command = [sys.executable, "-c", JOINED, *options, "--store", str(tmp_path / "kept"), "--out", str(tmp_path)]
        both.append(subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        ))  # fmt: skip
    for number, one in enumerate(both):
        told, said = one.communicate(timeout=150)
        assert one.returncode == 0, said
        assert f"process {number} of 2 is done" in told
    for name in ("done", "done.1"):
        assert (tmp_path / "kept" / "a.zarr" / name).read_text().count("\n") == 4
    np.testing.assert_array_equal(gs.open(tmp_path / "kept" / "a.zarr").log_gain, sweep().log_gain)
