"""`--store` and `--quiet` of every script, and what progress says of a sweep that goes on."""

import atexit
import io
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import xarray
from script_modules import SIZES, load

import gradsim as gs
from gradsim import cli
from gradsim.cli.resuming import command
from gradsim.cli.run import kept_in
from gradsim.engine.precision import CHOICES
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks, cost, loop, progress


@dataclass(frozen=True)
class Depth(cli.SweepOptions):
    depth: int = 3


NAMES = (("map", "tanh/2"), "plain")
JOB: dict[str, Any] = {"network": gs.feedforward(6), "depth": 4, "seeds": 4, "sigma_w": [0.5, 1.0]}


def script(options: cli.Options, depth: int = 4, at_once: int = 1) -> Any:
    """A run of a script of two sweeps, of four chunks each."""
    job = partial(gs.sweep, **JOB | {"depth": depth})

    def measure(_: Any) -> dict[str, xarray.Dataset]:
        found = cli.perform(dict.fromkeys(NAMES, job), at_once=at_once)
        return {"both": xarray.concat([found[name] for name in NAMES], "name")}

    return cli.run("some", options, measure, lambda _: "", lambda _: {})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each call of the device; at the sixth Ctrl-C is pressed."""
    made: list[int] = []
    chosen = loop.program
    command.set(None)  # of a script that another test has begun

    def program(*choice: Any) -> Any:
        def call(*args: Any) -> Any:
            made.append(1)
            if len(made) == 6:
                raise KeyboardInterrupt
            return chosen(*choice)(*args)

        return call

    monkeypatch.setattr(loop, "program", program)
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4)))
    monkeypatch.setattr(atexit, "register", lambda function: None)
    return made


def test_the_same_command_goes_on(tmp_path: Path, calls: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    options = cli.Options(out=tmp_path / "out", store=tmp_path / "kept")
    with pytest.raises(SystemExit) as stopped:
        script(options)
    assert stopped.value.code == 130
    said = capsys.readouterr().err
    assert f"the same command goes on from {tmp_path / 'kept'}" in said
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["map tanh%2F2.zarr", "plain.zarr"]
    assert gs.open(tmp_path / "kept" / "plain.zarr").attrs["done"] == 1 / 4
    script(options)
    assert len(calls) == 6 + 3  # those of the second sweep that were missing
    there = cli.load(tmp_path / "out" / "some.zarr")["both"].load()
    script(cli.Options(out=tmp_path / "other"))
    assert len(calls) == 9 + 8
    xarray.testing.assert_equal(cli.load(tmp_path / "other" / "some.zarr")["both"].load(), there)
    with pytest.raises(SystemExit, match=r"^error: depth: the store at .* was made with 4, and 3 came"):
        script(options, depth=3)


def test_two_at_once_go_on(tmp_path: Path, calls: list[int]) -> None:
    """What each has finished when Ctrl-C ends both is not measured again."""
    options = cli.Options(out=tmp_path / "out", store=tmp_path / "kept")
    with pytest.raises(SystemExit):
        script(options, at_once=2)
    ended, there = len(calls), [gs.open(path) for path in sorted((tmp_path / "kept").iterdir())]
    finished = round(sum(4 * one.attrs["done"] for one in there))
    assert 3 <= finished < 8  # five calls before, of which the last of each may be on its way
    script(options, at_once=2)
    assert len(calls) == ended + 8 - finished
    script(cli.Options(out=tmp_path / "other"))
    one, other = (cli.load(tmp_path / name / "some.zarr")["both"].load() for name in ("out", "other"))
    xarray.testing.assert_equal(one, other)


def test_resume_goes_on_with_the_options_of_then(
    tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with what belongs to a run or a process; an option given beside it overrides one of them."""
    monkeypatch.chdir(tmp_path)
    presets = {"quick": Depth()}
    first = ["--depth", "5", "--formats", "png", "pdf", "--store", "kept", "--quiet", "--process=0", "--processes=2"]
    assert script(cli.parse(presets, [*first, "--out", "out"])) == []
    again = cli.parse(presets, ["--resume", "kept", "--formats", "svg"])
    assert again == Depth(
        depth=5, formats=("svg",), out=Path("out"), store=Path("kept"), resume=Path("kept")
    )  # fmt: skip
    with pytest.raises(SystemExit):  # Ctrl-C
        script(again)
    script(cli.parse(presets, ["--resume", "kept"]))
    assert (tmp_path / "out" / "some.zarr").is_dir()
    assert len(calls) == 4 + 2 + 3  # of the first process, then one that was done and one that was not
    for arguments, message in (
        (["--resume", "none"], "resume: none was not begun by --store"),
        (["--resume", "kept", "--store", "kept"], "resume: it is itself the --store; pass one of them"),
        (["--resume", "kept", "--data", "out/some.zarr"], "resume: --data redraws"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {message}"):
            cli.parse(presets, arguments)
    with pytest.raises(SystemExit, match=r"^error: store: kept was begun by some\.py, and other\.py came"):
        cli.run("other", cli.parse(presets, ["--resume", "kept"]), lambda _: {}, lambda _: "", lambda _: {})


def test_a_full_disk_is_said_in_a_line(tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradsim.sweeps.stores.store.Store.keep", full)
    with pytest.raises(SystemExit, match=r"^error: store: cannot write into .* \(No space left.*\); 0 of 4 chunks"):
        script(cli.Options(out=tmp_path / "out", store=tmp_path / "kept"))


def test_processes_share_a_script_and_one_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says what it has done; the same command without them measures nothing more."""
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(2, 1, Tiling(2, 4)))
    options: dict[str, Any] = {"out": tmp_path / "out", "store": tmp_path / "kept"}
    for process, share in ((1, "50%"), (0, "100%")):
        assert script(cli.Options(**options, process=process, processes=2)) == []
        said = capsys.readouterr().out
        assert f"process {process} of 2 is done, and {share} of all is there" in said
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.setattr(loop, "program", None)
    script(cli.Options(**options, devices=1, max_memory="1GiB"))
    found = cli.load(tmp_path / "out" / "some.zarr")["both"].load()
    monkeypatch.undo()
    xarray.testing.assert_allclose(found.isel(name=0), gs.sweep(**JOB), atol=2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process": 0, "processes": 2}, "store: several processes meet in one; pass a folder"),
        ({"coordinator": "auto"}, "store: several processes meet in one; pass a folder"),
        ({"coordinator": "localhost:1", "store": Path("x")}, "process: got none; pass --process and --processes"),
        ({"process": 0, "store": Path("x")}, "processes: got None; pass process and processes together"),
        ({"process": 2, "processes": 2, "store": Path("x")}, "process: got 2; pass a whole number"),
        ({"devices": 99}, "devices: got 99; pass a whole number of at least 1 and at most"),
        ({"max_memory": "much"}, "max_memory: got 'much'; pass a number of bytes"),
        ({"precision": "TF32_TF32_F32_X3"}, "precision: got 'TF32_TF32_F32_X3', which XLA does not have for cpu"),
    ],
)
def test_what_processes_and_devices_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command.set([])
    with pytest.raises(SystemExit) as stopped:
        script(cli.SweepOptions(out=tmp_path, **options))
    assert not (tmp_path / "x").exists()  # before anything is written
    assert str(stopped.value).startswith(f"error: {message}")


def test_the_precision_asked_for_is_that_of_every_sweep(tmp_path: Path) -> None:
    """Each script that sweeps has the option; what has no choice of it is left as it is."""
    script(cli.SweepOptions(out=tmp_path, precision="high"))
    assert cli.load(tmp_path / "some.zarr")["both"].attrs["precision"] == "high"
    for name in SIZES:
        options = load(name).PRESETS["quick"]
        assert isinstance(options, cli.SweepOptions) == (name not in WITHOUT_SWEEPS)
    assert get_args(get_type_hints(cli.SweepOptions)["precision"]) == CHOICES


def test_what_comes_whole_is_kept_when_it_is_there(tmp_path: Path) -> None:
    """One result of two, as the second ends; by the options of the script alone."""
    done: list[str] = []

    def one(name: str, depth: int) -> xarray.Dataset:
        if len(done) == 1:
            done.append("ended")
            raise KeyboardInterrupt
        done.append(name)
        return xarray.Dataset({"exponent": ("depth", np.arange(depth) / 3), "status": ("depth", ["found"] * depth)})

    def run(depth: int = 3, **more: Any) -> Any:
        with (
            kept_in(Depth(store=tmp_path / "kept", depth=depth, **more)),
            cli.Jobs(dict.fromkeys("ab", cli.Work())) as jobs,
        ):
            return jobs.run({name: partial(one, name, depth) for name in "ab"})

    with pytest.raises(KeyboardInterrupt):
        run()
    found = run(devices=1)
    assert done == ["a", "ended", "b"]
    xarray.testing.assert_equal(found["a"], found["b"])
    xarray.testing.assert_equal(run()["b"], found["b"])
    assert done == ["a", "ended", "b"]
    with pytest.raises(ValueError, match=r"^depth: .*a\.zarr was made with 3, and 4 came"):
        run(depth=4)
    with pytest.raises(ValueError, match=r"^key: .*a\.zarr was made with 0, and 1 came"):
        run(key=1)


# They train, time, inspect, take exponents, which are at the highest precision, or keep a book of exact claims.
WITHOUT_SWEEPS = (
    "laws", "lyapunov_spectrum", "inspect_models", "scaling", "trainability", "early_layers_training",
    "trainability_boundary", "coordinate_check", "modern_training",
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_quiet_asks_for_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for quiet in (True, False):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        script(cli.Options(out=tmp_path, quiet=quiet))
        assert ("\r" in terminal.getvalue()) is not quiet


def test_rates_are_said_once_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of what was measured; what was there before is left out."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(cost, "machine_rate", lambda: 1e9)
    one = progress.Progress(100, lambda *_: None)
    assert not one.rates()
    one.found(40)
    assert one.rates() == "40% was there"
    for clock[0] in (10.0, 11.0, 12.0):
        one.counted(10, 5e8, 2.0)
        one.update(10)
    assert one.rates() == "5 networks/s, 0.25 of the matmul rate, about 10 s left, 40% was there"
