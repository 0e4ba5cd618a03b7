"""What users install: the wheel by itself, the source archive with all that its commands need, one version."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
SMOKE = """
import gradsim, importlib.metadata
print(gradsim.__file__)
print(importlib.metadata.version("gradsim"))
maps = gradsim.sweep(gradsim.feedforward(4), depth=2, seeds=1)
assert maps.attrs["gradsim_version"] == importlib.metadata.version("gradsim")
print(maps.log_gain.shape)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_works_where_there_is_nothing_else_of_it(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    assert "gradsim/py.typed" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gradsim").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", SMOKE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split("\n")[:3] == [str(tmp_path / "gradsim" / "__init__.py"), VERSION, "(1, 2)"]


def test_the_source_archive_has_what_its_commands_need(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    wanted = ["Makefile", "requirements.lock", "requirements-docs.lock", "LICENSE", "CITATION.cff", "docs/conf.py"]
    wanted += ["figures/laws.csv", "tests/conftest.py", "scripts/laws.py", "gradsim/py.typed"]
    assert [name for name in wanted if name not in names] == []


def test_there_is_one_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [VERSION]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## ([\d.]+)", changes, re.MULTILINE)[0] == VERSION
