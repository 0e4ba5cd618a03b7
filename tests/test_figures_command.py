"""Several scripts in one process: each as from its own command line, and none stops another by failing."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gradsim.cli import figures

GOOD = "import sys\nprint('arguments', *sys.argv[1:], __name__)\n"


@pytest.fixture
def scripts(tmp_path: Path) -> dict[str, str]:
    bodies = {
        "good": GOOD,
        "refuses": "import sys\nsys.exit('error: width: got 0')\n",
        "breaks": "raise RuntimeError('broken')\n",
        "ends": GOOD + "sys.exit(0)\n",
        "interrupted": "import sys\nsys.exit(130)\n",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
    return {name: str(tmp_path / f"{name}.py") for name in bodies}


def test_one_that_fails_stops_no_other(scripts: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [scripts[name] for name in ("refuses", "breaks", "good", "ends")]
    assert figures.main([*chosen, "--", "--preset", "paper"]) == chosen[:2]
    out, err = capsys.readouterr()
    heads = [f"== {number}/4 {script} --preset paper" for number, script in enumerate(chosen, 1)]
    assert out.splitlines() == [
        *heads[:3],
        "arguments --preset paper __main__",
        heads[3],
        "arguments --preset paper __main__",
    ]
    assert err.startswith("error: width: got 0\n")
    assert "RuntimeError: broken" in err


def test_an_interrupt_ends_all(scripts: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="130"):
        figures.main([scripts["interrupted"], scripts["good"]])
    assert "arguments" not in capsys.readouterr().out


def test_a_missing_script_is_refused_before_any_is_run(
    scripts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        figures.main([scripts["good"], "missing.py"])
    out, err = capsys.readouterr()
    assert not out
    assert "nothing at missing.py; pass the path of a script" in err


def test_two_at_once_do_the_same_under_their_names(scripts: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    chosen = [scripts[name] for name in ("refuses", "breaks", "good", "ends")]
    assert figures.main([*chosen, "--at-once", "2", "--", "--preset", "paper"]) == chosen[:2]
    out, err = capfd.readouterr()
    heads = {f"{Path(path).stem}: == {i}/4 {path} --preset paper" for i, path in enumerate(chosen, 1)}
    said = {f"{name}: arguments --preset paper __main__" for name in ("good", "ends")}
    assert {*out.splitlines()} == heads | said
    assert "refuses: error: width: got 0\n" in err
    assert "breaks: RuntimeError: broken\n" in err


def test_an_interrupt_of_one_of_two_ends_all(
    scripts: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(2)\n")
    chosen = [scripts["interrupted"], str(tmp_path / "slow.py"), str(tmp_path / "slow.py"), *[scripts["good"]] * 9]
    with pytest.raises(SystemExit, match="130"):
        figures.main([*chosen, "--at-once", "2"])
    assert "9/12" not in capfd.readouterr().out


def test_none_goes_on_where_what_began_them_is_killed(tmp_path: Path) -> None:
    """As a batch system does; no handler sees it."""
    script = tmp_path / "slow.py"
    script.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(120)\n")
    command = [sys.executable, "-m", "gradsim.cli.figures", str(script), str(script), "--at-once", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as begun:
        assert begun.stdout is not None
        running: set[int] = set()
        while len(running) < 2:
            last = begun.stdout.readline().split()[-1]
            running |= {int(last)} if last.isdigit() else set()
        begun.kill()
    deadline = time.monotonic() + 30
    while (left := list(filter(goes_on, running))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def goes_on(process: int) -> bool:
    """Ended ones may wait as zombies for who will never ask."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
