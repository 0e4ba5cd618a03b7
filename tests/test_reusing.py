"""`--reuse`: what was measured by the same options, code, libraries and device is drawn again, and nothing else is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from script_modules import FOLDER, load, refusal, refuse

from gradsim.cli import reusing
from gradsim.cli.reusing import fingerprint

SCRIPT, STORE = load("derivatives"), "derivatives.zarr"
RUN = ["--points", "101", "--reuse", "--formats"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run has left what it has measured."""
    SCRIPT.main([*RUN, "--out", str(tmp_path)])
    return tmp_path


def measures(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> bool:
    """Whether another run measures."""
    with monkeypatch.context() as patch:
        patch.setattr(SCRIPT, "measure", refuse)
        patch.setattr("inspect.getfile", lambda _: FOLDER / "derivatives.py")
        try:
            SCRIPT.main([*RUN, "--out", str(folder), *arguments])
        except AssertionError:
            return True
    return False


def test_the_same_is_drawn_again_from_the_same_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    SCRIPT.main([*RUN, "--out", str(folder), "--no-reuse"])
    before = capsys.readouterr().out
    assert not measures(folder, monkeypatch)
    after = capsys.readouterr().out
    assert after.replace(", measured before", "") == before
    assert not measures(folder, monkeypatch, "--formats", "png", "--quiet")  # of which no number depends
    assert (folder / "derivatives.png").exists()


@pytest.mark.parametrize("arguments", [["--points", "102"], ["--key", "1"], ["--no-reuse"]])
def test_other_options_are_measured(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert measures(folder, monkeypatch, *arguments)


def test_what_is_damaged_or_was_not_finished_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = folder / STORE / "zarr.json"
    whole = attributes.read_text()
    attributes.write_text(json.dumps(json.loads(whole) | {"attributes": {}}))
    assert measures(folder, monkeypatch)
    attributes.write_text(whole[:20])
    assert measures(folder, monkeypatch)
    attributes.write_text(whole)
    assert not measures(folder, monkeypatch)
    shutil.rmtree(next(path for path in (folder / STORE).iterdir() if path.is_dir()))
    assert measures(folder, monkeypatch)


def test_the_fingerprint_knows_code_libraries_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, script = tmp_path / "package", tmp_path / "script.py"
    for name in ("engine/chain.py", "plot/atlas.py"):
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text("a = 1\n")
    script.write_text("b = 1\n")
    monkeypatch.setattr(reusing, "PACKAGE", package)
    monkeypatch.setattr(reusing, "DRAWING", package / "plot")

    def now(**options: Any) -> str:
        return fingerprint(script, options)

    first = now(width=4)
    assert now(width=4) == first != now(width=5)
    (package / "plot/atlas.py").write_text("a = 2\n")
    assert now(width=4) == first
    (package / "engine/chain.py").write_text("a = 2\n")
    second = now(width=4)
    script.write_text("b = 2\n")
    third = now(width=4)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0")
    fourth = now(width=4)
    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    fifth = now(width=4)
    monkeypatch.setattr("platform.node", lambda: "another")
    assert len({first, second, third, fourth, fifth, now(width=4)}) == 6


def test_it_is_refused_beside_data(folder: Path) -> None:
    said = refusal(SCRIPT.main, ["--data", str(folder / STORE), "--reuse"])
    assert said == "error: reuse: --data redraws what was measured; leave it out"
