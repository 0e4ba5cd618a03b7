"""The documentation: every public name is in the reference, once, with an example; pages that run; what they tell."""

import csv
import re
from pathlib import Path

import pytest

import gradsim as gs
import gradsim.laws

DOCS = Path(__file__).parents[1] / "docs"
NAMES = (
    set(gs.__all__)
    | {f"theory.{name}" for name in gs.theory.__all__}
    | {f"plot.{name}" for name in gs.plot.__all__}
    | {f"laws.{name}" for name in gradsim.laws.__all__}
    | {f"inspection.{name}" for name in gs.inspection.__all__}
)
MODULES = {"theory", "plot", "inspection"}
HOW_TO = {
    *("activation", "initializer", "architecture", "statistic", "data", "time", "theory", "finite_width", "flax_model"),
    *("vanished", "tuning", "critical_start", "training", "low_precision", "resuming", "accelerators", "memory"),
}


def entries() -> list[tuple[str, str]]:
    """(name, the code of its example), as they stand in the reference."""
    found = []
    for page in sorted((DOCS / "reference").glob("*.md")):
        blocks = re.split(r"```\{eval-rst\}\n\.\. [\w:]+:: gradsim\.", page.read_text("utf-8"))
        for block in blocks[1:]:
            name, rest = block.split("\n", 1)
            found.append((name, "\n".join(re.findall(r"```\{code-cell\}\n(.*?)```", rest, re.DOTALL))))
    return found


def test_every_public_name_is_in_the_reference_once() -> None:
    names = [name for name, _ in entries()]
    assert sorted(names) == sorted(NAMES | {"laws"})


def test_every_public_name_has_an_example_that_runs() -> None:
    without = [name for name, code in entries() if name not in MODULES | {"laws"} and not code.strip()]
    assert without == []


def test_each_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            listed |= {
                (page.parent / line).resolve() for line in block.split("\n") if line and not line.startswith(":")
            }
    pages = {page.with_suffix("").resolve() for page in DOCS.rglob("*.md")}
    assert pages - listed == {(DOCS / "index").resolve()}


def cells(page: Path) -> list[str]:
    """The code of a page that runs when the site is built, without the tags of each cell."""
    return [
        re.sub(r"\A(:.*\n)+", "", cell)
        for cell in re.findall(r"```\{code-cell\}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]


def test_every_snippet_of_a_how_to_page_runs() -> None:
    pages = {page.stem: page for page in (DOCS / "how_to").glob("*.md")}
    assert pages.keys() == HOW_TO | {"index"}
    for name in HOW_TO:
        text = pages[name].read_text("utf-8")
        assert text.startswith("---\nfile_format: mystnb\n"), name
        assert cells(pages[name]), name
        assert not re.search(r"^```(python|py)$", text, re.MULTILINE), name


@pytest.mark.further
def test_a_stranger_measures_an_architecture_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first page to a figure by links and what stands on the pages alone."""
    place, way = DOCS / "index.md", ("ten_minutes", "how_to/architecture")
    for step in way:
        assert re.search(rf"(\]\({step}\.md\)|:link: {step}\n)", place.read_text("utf-8"))
        place = DOCS / f"{step}.md"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells(place):
        exec(cell.replace("%matplotlib inline", ""), names)
    assert (tmp_path / "leaky.png").stat().st_size > 10_000


@pytest.mark.parametrize("table", ["remedies", "transformer_depth", "modern_memory"])
def test_the_page_of_cures_knows_every_network_that_was_measured(table: str) -> None:
    page = (DOCS / "cures.md").read_text("utf-8")
    with (DOCS.parent / "figures" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        assert [row["network"] for row in csv.DictReader(file) if f'"{row["network"]}": ' not in page] == []
