"""What a reader cannot read in a figure: text that leaves it, texts that overlap, two ticks that read alike."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradsim.plot.style import STYLE

SLACK = 1.0  # pixels, at 100 to the inch


@contextmanager
def _recorded() -> Iterator[list[Text]]:
    """The texts that are drawn meanwhile: ticks out of range or of hidden axes are not."""
    drawn: list[Text] = []
    draw = Text.draw

    def record(text: Text, renderer: Any) -> None:
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        draw(text, renderer)

    Text.draw = record  # type: ignore[method-assign, assignment]
    try:
        yield drawn
    finally:
        Text.draw = draw  # type: ignore[method-assign]


def drawn_texts(figure: Figure) -> list[Text]:
    """All texts that a reader sees."""
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context(STYLE), _recorded() as texts:
        canvas.draw()
    return list(dict.fromkeys(texts))


def faults(figure: Figure) -> list[str]:
    """Each fault of the figure in a line; none in one that can be read."""
    texts = drawn_texts(figure)
    boxes = [Text.get_window_extent(text) for text in texts]
    said = [" ".join(text.get_text().split()) for text in texts]
    width, height = figure.bbox.width, figure.bbox.height
    found = [
        f"{name!r} leaves the figure"
        for name, box in zip(said, boxes, strict=True)
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK
    ]
    for (one, a), (other, b) in combinations(zip(said, boxes, strict=True), 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if min(across, up) > SLACK:
            found.append(f"{one!r} and {other!r} overlap by {across:.0f} x {up:.0f} pixels")
    return found + _alike(figure, texts)


def _alike(figure: Figure, texts: list[Text]) -> list[str]:
    seen = set(map(id, texts))
    found = []
    for ax in figure.findobj(matplotlib.axes.Axes):
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            labels = [tick.label1.get_text() for tick in ticks if id(tick.label1) in seen]
            read = [reading(label) for label in labels]
            found += [f"the ticks {labels} read alike"] if len(set(read)) < len(read) else []
    return found


def reading(label: str) -> str | float:
    """The number that a label says, as 10^{-3}, 2·10^{5}, −7 or 1/8; else its words."""
    plain = label.replace("$", "").replace("\\mathdefault", "").replace("\u2212", "-").replace("\\cdot", "·")
    plain = re.sub(r"^\{(.*)\}$", r"\1", plain).replace(" ", "").replace(",", "")
    power = re.fullmatch(r"(?:([\d.]+)(?:·|\\times))?10\^\{(-?\d+)\}", plain)
    if power:
        number = float(f"{power[1] or 1}e{power[2]}")
        return number if 0 < number < float("inf") else f"{power[1] or 1}e{power[2]}"
    try:
        return float(plain)
    except ValueError:
        return label
