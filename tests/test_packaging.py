"""What users install: the wheel by itself, the source archive with all that its commands need, one version."""

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
import sys
sys.path.insert(0, sys.argv[1])
import gradsim, importlib.metadata
print(gradsim.__file__)
print(importlib.metadata.version("gradsim"))
maps = gradsim.sweep(gradsim.feedforward(4), depth=2, seeds=1)
assert maps.attrs["gradsim_version"] == importlib.metadata.version("gradsim")
print(maps.log_gain.shape)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), "--target"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    subprocess.run([*build, "wheel"], cwd=tree, check=True, capture_output=True)
    return folder


def test_the_wheel_works_where_there_is_nothing_else_of_it(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "gradsim/py.typed" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gradsim").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    place, pip = str(tmp_path / "installed"), [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--target", place, str(wheel)], check=True, capture_output=True)
    # Alone but for what it needs: -I knows neither this folder nor PYTHONPATH.
    alone = [sys.executable, "-I", "-c", SMOKE, place]
    run = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:3] == [f"{place}/gradsim/__init__.py", VERSION, "(1, 2)"]


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
