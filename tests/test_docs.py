"""The documentation: every public name is in the reference, once, with an example that names it."""

import re
from pathlib import Path

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
