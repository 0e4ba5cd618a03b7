"""Every example that a script's --help shows runs, at small sizes, and writes the figures that the script names."""

import json
import re
import shlex
from pathlib import Path

import pytest
from script_modules import FOLDER, load

from gradsim.laws import LAWS
from gradsim.laws.record import exact
from gradsim.plot import style
from gradsim.plot.benchmark import PANELS

# What makes an example small, the same shapes as in the scripts' other tests: these sizes come after its own options,
SIZES = {
    "phase_diagram": "--width 8 --scheme-width 8 --depth 4 --burn-in 2 --seeds 2 --points-w 5 --points-b 3 "
    "--scheme-depth 3",
    "depth_profile": "--width 8 --depth 4 --seeds 3",
    "derivatives": "--points 101",
    "sequence_memory": "--width 6 --length 12 --seeds 3",
    "recurrent_phase_diagram": "--width 6 --lengths 3 6 --seeds 2 --points 4",
    "early_layers": "--width 6 --depths 3 --seeds 2",
    "remedies": "--width 8 --depth 20 --length 30 --seeds 4",
    "residual_phase_diagram": "--width 8 --depth 8 --points 4 --max-depth 16 --seeds 2",
    "batchnorm_explosion": "--width 32 --depth 8 --burn-in 4 --seeds 3 --batches 6 12",
    "critical_lines": "--widths 12 24 --depth 12 --burn-in 4 --seeds 300 --points 2",
    "finite_width": "--widths 2 4 --ratio 2 --seeds 400",
    "laws": "--effort 1",
}
# and these before, so that an example's own names count.
FEWER = {
    "phase_diagram": "--activations tanh --rows tanh --schemes lecun_normal he_normal",
    "depth_profile": "--activations tanh --schemes lecun_normal he_normal torch_linear",
    "sequence_memory": '--networks "tanh RNN" "LSTM, chrono"',
    "recurrent_phase_diagram": '--families "tanh RNN" minimalRNN',
    "early_layers": "--activations sigmoid --deepest 40",
    "remedies": '--networks "sigmoid, Glorot" "ReLU, He" "tanh RNN"',
    "batchnorm_explosion": "--activations relu",
    "critical_lines": "--activations tanh relu",
}
MEASURED = "figures/benchmarks/benchmark-cpu.json"
FIGURES = {
    "phase_diagram": ["phase_diagram", "schemes"],
    "critical_lines": ["critical_lines", "finite_width_scaling"],
}


def examples(name: str) -> list[list[str]]:
    """The options of each example in the docstring of a script, the first of which has none."""
    lines = str(load(name).__doc__).partition("examples:\n")[2].strip().splitlines()
    commands = [shlex.split(line) for line in lines]
    assert all(command[:2] == ["python", f"scripts/{name}.py"] for command in commands)
    return [command[2:] for command in commands]


def small(name: str, example: list[str]) -> list[str]:
    """The example with small sizes around it; the digits are 64 wide."""
    sizes = re.sub(r"--\S*width \d+", "", SIZES[name]) if "digits" in example else SIZES[name]
    return [*shlex.split(FEWER.get(name, "")), *example, *shlex.split(sizes)]


EXAMPLES = [(name, shlex.join(example)) for name in SIZES for example in examples(name)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse figures; and laws that hold at once, as their own tests measure them."""
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 50)
    for name, law in LAWS.items():
        monkeypatch.setitem(LAWS, name, law._replace(measure=lambda effort, key: [exact("one", 1.0, 1.0, 1e-9)]))


@pytest.fixture(scope="module")
def saved() -> dict[str, Path]:
    """The data that the first example of each script has saved."""
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


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_runs(
    name: str, example: str, saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shlex.split(example)
    if "--data" in given:
        place = given.index("--data") + 1
        assert given[place] == f"figures/{name}.zarr"
        given[place] = str(saved[name])
    else:
        given = small(name, given)
    files = load(name).main([*given, "--out", str(tmp_path)])
    endings = ["png", "pdf"] if "--formats png pdf" in example else ["pdf"] if "--formats pdf" in example else ["png"]
    assert files == [tmp_path / f"{title}.{end}" for title in FIGURES.get(name, [name]) for end in endings]
    assert all(file.stat().st_size > 0 for file in files)
    store = tmp_path / f"{name}.zarr"
    assert store.exists() == ("--data" not in given)
    said = capsys.readouterr().out
    assert all(str(file) in said for file in [*files, *([store] if store.exists() else [])])
    saved.setdefault(name, store)
