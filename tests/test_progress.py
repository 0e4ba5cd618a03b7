"""What is said while it is measured: bars and lines, what it will take, and Ctrl-C."""

import atexit
import io
import sys
from functools import partial
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import xarray
from script_modules import refuse

import gradsim as gs
from gradsim import cli
from gradsim.engine.plan import planned
from gradsim.sweeps import cost, progress, sweep

SMALL: Any = {"depth": 3, "seeds": 2}
small = partial(gs.sweep, gs.feedforward(4), **SMALL)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of a notebook without ipywidgets."""
    fake: Any = ModuleType("IPython")
    fake.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    small(progress=False)
    assert not terminal.getvalue()
    small()
    assert "measuring feedforward: 100%" in terminal.getvalue()


@pytest.mark.usefixtures("notebook")
def test_a_notebook_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    small()
    assert "measuring feedforward: 100%" in capsys.readouterr().err


def test_elsewhere_nothing_is_shown_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    small()
    assert not capsys.readouterr().err
    gs.critical(gs.feedforward(4), between=(0.5, 3), progress=True, **SMALL)
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("measured in ")
    assert "\r" not in said


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Soon where something new is done, later where it goes on; what is soon over is not named."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = progress.Lines()
    one = progress.Progress(8, lines)
    for clock[0], words in ((1, "brief"), (3, "compiling"), (6, "compiling"), (12.9, "compiling"), (13, "compiling"),
                            (14, "measuring"), (16, "measuring")):  # fmt: skip
        one.phase(words)
        one.update(1)
        lines(one, False)
    said = capsys.readouterr().err.splitlines()
    assert said == [" 25% after 3 s, compiling", " 62% after 13 s, compiling", " 88% after 16 s, measuring"]
    lines(one, True)
    assert not capsys.readouterr().err  # it was interrupted
    one.update(1)
    lines(one, True)
    assert capsys.readouterr().err == "measured in 16 s\n"


def test_compiling_is_a_phase_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    whole = progress.Progress(10, lambda *_: None)
    monkeypatch.setattr(whole, "phase", said.append)
    with progress.Part(whole, "1/2 first", 4):
        small()
        small(progress=False)
        small()  # no more than its share
        assert whole.done == 4
    with progress.Part(whole, "2/2 other", 6):
        assert whole.done == 4
    assert whole.done == 10
    assert said == ["1/2 first: compiling feedforward", "1/2 first: measuring feedforward"] * 2


def test_a_line_says_what_comes(capsys: pytest.CaptureFixture[str]) -> None:
    measured = cli.perform({("tanh", 1): small, "relu": partial(small, sigma_w=[1.0, 2.0])})
    assert list(measured) == [("tanh", 1), "relu"]
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("2 measurements of 6 random networks, up to 3 steps each: about ")
    assert last.startswith("measured in ")


def test_what_is_wrong_with_the_last_is_said_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure_cells", refuse)
    for wrong, words in (({"depth": 0}, "depth: got 0"), ({"sigma": 1.0}, "sigma: neither"), ({"seeds": 0}, "seeds")):
        with pytest.raises(ValueError, match=f"^{words}"):
            cli.perform({"right": small, "wrong": partial(small, **wrong)})


def test_the_work_of_a_sweep() -> None:
    work = cli.foresee(gs.feedforward(8), widths=[4, 8], sigma_w=[1.0, 2.0], burn_in=2, key=1, **SMALL)
    assert (work.networks, work.steps, len(work.programs)) == (8, 5, 2)
    work = cli.foresee(gs.feedforward(8), between=(1, 2), gain="sigma_w", statistic="log_gain", sigma_b=[1, 2], **SMALL)
    assert (work.networks, work.steps) == (2 * 2 * 2 * 17, 23)


def test_the_arithmetic_is_that_of_the_tangents() -> None:
    """Where the state is wide, those of the matrix products; twice the seeds or cells are twice as many."""
    plan = planned(gs.feedforward(1024), depth=10, statistics="log_gain")
    assert cost.flops(plan, cells=64, seeds=2) == pytest.approx(64 * 2 * 10 * 2 * 1024**3, rel=0.1)
    assert cost.flops(plan, cells=64, seeds=4) == 2 * cost.flops(plan, cells=64, seeds=2)
    recurrent = planned(gs.lstm(512), depth=10, statistics="log_gain")
    assert cost.flops(recurrent, cells=64, seeds=1) == pytest.approx(64 * 10 * 2 * 1024 * 4 * 512**2, rel=0.2)
    assert cost.machine_rate() > 1e6


def test_times_are_said_as_roughly_as_they_are_known() -> None:
    said = [cost.words(seconds) for seconds in (0.1, 4.4, 22, 61, 100, 540, 4000, 90 * 60, 3600 * 1234)]
    assert said == ["a few seconds", "about 4 s", "about 20 s", "about 60 s", "about 2 min", "about 9 min",
                    "about 70 min", "about 2 h", "about 1,230 h"]  # fmt: skip


@pytest.mark.parametrize("after_saving", [False, True])
def test_an_interrupt_ends_with_a_line(
    after_saving: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(atexit, "register", lambda function: None)
    measure: Any = (lambda _: {"one": xarray.Dataset()}) if after_saving else interrupted
    with pytest.raises(SystemExit) as stopped:
        cli.run("some", cli.Options(out=tmp_path), measure, interrupted, interrupted)
    assert stopped.value.code == 130
    what = tmp_path / "some.zarr" if after_saving else "nothing"
    assert capsys.readouterr().err == f"interrupted; saved: {what}\n"


def test_an_interrupt_ends_what_runs_beside() -> None:
    begun, ended = Event(), Event()

    def interrupted() -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    def beside() -> None:
        begun.set()
        try:
            while True:
                small()
        finally:
            ended.set()

    works = {name: cli.Work(others=1.0) for name in ("interrupted", "beside")}
    with pytest.raises(KeyboardInterrupt), cli.Jobs(works, at_once=2) as several:
        several.run({"interrupted": interrupted, "beside": beside})
    assert ended.is_set()
