"""Every example that a script's --help shows runs, at small sizes, and writes the figures that the script names."""

import json
import re
import shlex
from pathlib import Path

import pytest
from script_modules import FOLDER, SIZES, load, refuse, small

import gradsim as gs
from gradsim import cli
from gradsim.laws import LAWS
from gradsim.laws.record import exact
from gradsim.plot import style
from gradsim.plot.benchmark import PANELS

# Time steps of small runs on digits.
STEPS = {"sequence_memory": 12, "recurrent_phase_diagram": 6}
# What a run is drawn again with to show what it has shown.
AGAIN = {"recurrent_phase_diagram": ["--lengths", "3", "6"]}
MEASURED = "figures/benchmarks/benchmark-cpu.json"
FIGURES = {
    "phase_diagram": ["phase_diagram", "schemes"],
    "atlas": ["atlas", "atlas_families"],
    "critical_lines": ["critical_lines", "finite_width_scaling"],
}


def examples(name: str) -> list[list[str]]:
    """The options of each example in the docstring of a script, the first of which has none."""
    lines = str(load(name).__doc__).partition("examples:\n")[2].strip().splitlines()
    commands = [shlex.split(line) for line in lines]
    assert all(command[:2] == ["python", f"scripts/{name}.py"] for command in commands)
    return [command[2:] for command in commands]


EXAMPLES = [(name, shlex.join(example)) for name in SIZES for example in examples(name)]
# A sample has the first example of these scripts, and draws it again: sweeps over depth and time, training, laws.
SAMPLED = ("phase_diagram", "sequence_memory", "trainability_boundary", "laws")
RUNS = [
    pytest.param(name, example, marks=[pytest.mark.further] if example or name not in SAMPLED else [])
    for name, example in EXAMPLES
    if "--data" not in example
]
REDRAWN = [
    pytest.param(name, example, marks=[] if name in SAMPLED else [pytest.mark.further])
    for name, example in EXAMPLES
    if "--data" in example
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse figures; and laws that hold at once, as their own tests measure them."""
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 50)
    for name, law in LAWS.items():
        monkeypatch.setitem(LAWS, name, law._replace(measure=lambda effort, key: [exact("one", 1.0, 1.0, 1e-9)]))


@pytest.fixture(scope="module")
def saved() -> dict[str, tuple[Path, list[str]]]:
    """The folder of the first example of each script, and the lines that it printed."""
    return {}


def test_every_script_shows_examples() -> None:
    names = {file.stem for file in FOLDER.glob("*.py")}
    assert names == {*SIZES, "benchmark"}
    assert all(len(examples(name)) > 1 and not examples(name)[0] for name in names)


@pytest.mark.parametrize("example", [shlex.join(example) for example in examples("benchmark")])
def test_an_example_of_the_benchmark_writes_what_was_measured(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been measured once stands for each part; there are no small sizes."""
    module, measured = load("benchmark"), json.loads((FOLDER.parent / MEASURED).read_text())
    monkeypatch.setattr(
        module, "MEASURES", {part: lambda _, part=part: measured.get(part, []) for part in module.PARTS}
    )
    files = module.main([*shlex.split(example), "--out", str(tmp_path)])
    drawn = PANELS.keys() & set(shlex.split(example) if "--parts" in example else module.PARTS)
    assert [file.suffix for file in files] == [".json", ".png"][: 1 + bool(drawn)]
    written = json.loads(files[0].read_text())
    assert {part: measured.get(part, []) for part in module.PARTS if part in written}.items() <= written.items()


def check_files(name: str, example: str, files: list[Path], folder: Path) -> None:
    """The figures are those that the example asks for, and none is empty."""
    endings = ["png", "pdf"] if "--formats png pdf" in example else ["pdf"] if "--formats pdf" in example else ["png"]
    assert files == [folder / f"{title}.{end}" for title in FIGURES.get(name, [name]) for end in endings]
    assert all(file.stat().st_size > 0 for file in files)


@pytest.mark.parametrize(("name", "example"), RUNS)
def test_an_example_runs(
    name: str, example: str, saved: dict[str, tuple[Path, list[str]]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    files = load(name).main([*small(name, shlex.split(example)), "--out", str(tmp_path)])
    check_files(name, example, files, tmp_path)
    said, progress = capsys.readouterr()
    assert re.match(r"(one|\d+) measurements?[^\n]*: (about|a few) ", progress)
    store = tmp_path / f"{name}.zarr"
    assert all(str(file) in said for file in [*files, store])
    assert "nan" not in said
    saved.setdefault(name, (tmp_path, said.splitlines()))
    if "--inputs" in example:
        for one in cli.load(store).values():
            assert one.attrs["inputs"].startswith("given, 1797 samples")
            assert one.sizes.get("time") == STEPS.get(name)


@pytest.mark.parametrize(("name", "example"), REDRAWN)
def test_an_example_redraws_the_same_without_computing(
    name: str, example: str, saved: dict[str, tuple[Path, list[str]]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for module, function in ((gs, "sweep"), (gs, "critical"), (gs, "train"), (gs.theory, "log_gain")):
        monkeypatch.setattr(module, function, refuse)
    for law in LAWS:
        monkeypatch.setitem(LAWS, law, LAWS[law]._replace(measure=refuse))
    folder, said = saved[name]
    given = shlex.split(example.replace(f"figures/{name}.zarr", str(folder / f"{name}.zarr")))
    assert str(folder) in shlex.join(given)
    files = load(name).main([*given, *AGAIN.get(name, []), "--out", str(tmp_path)])
    check_files(name, example, files, tmp_path)
    first = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first  # and no data
    out, err = capsys.readouterr()
    assert not err
    again = out.replace(str(tmp_path), str(folder)).splitlines()
    assert [said[0].split()[0], *again] == ["data", *said[1:]]
