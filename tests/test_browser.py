"""The page of the atlas and the documentation in a real browser: from disk, without a network, without a complaint."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
ATLAS = ROOT / "figures" / "atlas.html"
DOCS = ROOT / "build" / "docs"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    """One page for all tests; starting a browser is most of their time."""
    program = browser.executable()
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(browser.NAMES)} is on the path, and CHROMIUM names none")
    with browser.browsing(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def book() -> dict[str, Any]:
    """What the page stores, read without a browser."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', ATLAS.read_text("utf-8"))
    assert found is not None
    stored: dict[str, Any] = json.loads(found[1])
    return stored


def numbers(page: browser.Page) -> dict[str, str]:
    """The table beneath the map."""
    text = page.run('document.getElementById("numbers").innerText').replace("−", "-")
    return dict(row.split("\t") for row in text.strip().split("\n"))


def stored(book: dict[str, Any], name: str, across: int, up: int) -> list[float]:
    """The two gains, the log gain with its error, that of theory, and the growth at a point of a map."""
    (one,) = (one for one in book["maps"] if one["name"] == name)
    gains = [axis["values"] for axis in one["axes"]]
    cell, found = across * len(gains[1]) + up, [gains[0][across], gains[1][up]]
    for key in ("mean", "error", "theory"):
        whole = np.frombuffer(base64.b64decode(one[key]), "<i4").reshape(-1, len(one["steps"]))
        found.append(float(whole[cell, -1]) * book["unit"])
    return [*found, one["growth"][cell]]


def shows(text: str, value: float, digits: int) -> None:
    """A number to that many digits: off by half of the last at most."""
    assert float(text) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits), abs=1e-12)


def middle(book: dict[str, Any], page: browser.Page, across: int, up: int) -> tuple[float, float]:
    """Where on the screen the middle of that cell of the first map is."""
    left, top, width, height = page.run(
        '(r => [r.left, r.top, r.width, r.height])(document.getElementById("map").getBoundingClientRect())'
    )
    columns, rows = (len(axis["values"]) for axis in book["maps"][0]["axes"])
    before, after, above, below = page.run("[LEFT, RIGHT, TOP, BOTTOM]")
    x, y = (across + 0.5) / columns * (width - before - after), (up + 0.5) / rows * (height - above - below)
    return left + before + x, top + height - below - y


def agrees(page: browser.Page, book: dict[str, Any], name: str, across: int, up: int) -> None:
    """What is read at that point is what is stored."""
    text = " ".join(list(numbers(page).values())[:4])
    read = re.findall(r"-?\d[\d.]*(?:e[+-]\d+)?", text)
    wanted = stored(book, name, across, up)
    assert len(read) == len(wanted)
    for number, value, digits in zip(read, wanted, (4, 4, 4, 2, 4, 4), strict=True):
        shows(number, value, digits)


def test_the_atlas_is_small_and_needs_no_network(page: browser.Page) -> None:
    assert ATLAS.stat().st_size < 5e6
    page.open(ATLAS.as_uri())
    assert page.requests == [ATLAS.as_uri()]
    assert page.complaints == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


def test_moving_over_the_atlas_reads_the_stored_numbers(page: browser.Page, book: dict[str, Any]) -> None:
    name = book["maps"][0]["name"]
    page.resize(1000, 900)
    page.open(f"{ATLAS.as_uri()}#{name}")
    columns, rows = (len(axis["values"]) for axis in book["maps"][0]["axes"])
    last = columns - 1, rows - 1
    for place in ((0, 0), (3, 5), last):
        page.point(*middle(book, page, *place))
        agrees(page, book, name, *place)
    page.run('document.getElementById("map").focus()')
    page.press("ArrowLeft")
    page.press("ArrowDown")
    page.press("ArrowRight")  # from the edge back to it, and one down
    agrees(page, book, name, last[0], last[1] - 1)
    page.resize(390, 800, dark=True)  # a phone
    page.touch(*middle(book, page, 2, 1))
    agrees(page, book, name, 2, 1)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.complaints == []


def test_what_is_copied_is_what_is_shown(page: browser.Page, book: dict[str, Any]) -> None:
    name = book["maps"][-1]["name"]
    page.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.resize(1000, 900)
    page.open(ATLAS.as_uri())
    page.run(f'choose({json.dumps(name)}); document.getElementById("copy").click()')
    page.wait('document.getElementById("said").textContent === "copied"')
    *rows, call = page.run("navigator.clipboard.readText()").replace("−", "-").split("\n")
    assert dict(row.split(": ") for row in rows) == numbers(page)
    assert call == page.run('document.getElementById("call").textContent')
    assert page.complaints == []


@pytest.mark.parametrize("name", ["index.html", "how_to/architecture.html"])
def test_the_documentation_opens_from_disk(page: browser.Page, name: str) -> None:
    if not (DOCS / name).exists():
        pytest.skip("no documentation is built: make docs")
    page.resize(390, 800, dark=True)
    page.open((DOCS / name).as_uri())
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert page.complaints == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("word", ["log_gain", "gradsim.sweep"])
def test_the_documentation_is_searched_without_a_server(page: browser.Page, word: str) -> None:
    if not (DOCS / "search.html").exists():
        pytest.skip("no documentation is built: make docs")
    page.open(f"{(DOCS / 'search.html').as_uri()}?q={word}")
    page.wait("document.body.innerText.includes('Search finished')")
    page.wait("document.querySelector('#search-results').innerText.includes('Measuring')")
    assert page.complaints == []
