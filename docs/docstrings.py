"""Docstrings as the package writes them, in reStructuredText.

They are plain text to be read in a terminal: names in single backticks, formulas and tables indented, sections such as
`Args:` and `Raises:`. Here formulas become literal blocks, sections lists, and names of the public interface links.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from docutils import nodes
from sphinx import addnodes

import gradsim
import gradsim.laws

ROOMS = {"theory": gradsim.theory, "plot": gradsim.plot, "laws": gradsim.laws, "inspection": gradsim.inspection}
TARGETS = {f"gradsim.{name}" for name in gradsim.__all__} | {
    f"gradsim.{room}.{name}" for room, module in ROOMS.items() for name in module.__all__
}
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Sources?|Gains): ?(.*)")
ENTRY = re.compile(r"(\**\w+(?:, \**\w+)*|[\w.]+(?: or [\w.]+)?): (.*)")
TITLES = {"Args": "Arguments", "Sources": "Sources"}


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process)
    app.connect("doctree-read", linked)
    return {"parallel_read_safe": True}


def linked(app: Any, document: nodes.document) -> None:
    """`gs.sweep` in the text of a page leads to the reference."""
    for literal_node in list(document.findall(nodes.literal)):
        target = "gradsim." + literal_node.astext().removeprefix("gs.")
        inside = isinstance(literal_node.parent, nodes.reference | addnodes.pending_xref)
        if literal_node.astext().startswith("gs.") and target in TARGETS and not inside:
            link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname)
            literal_node.replace_self(link)
            link += literal_node


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    parts = name.split(".")
    room = "gradsim." + (parts[1] + "." if len(parts) > 2 and parts[1] in ROOMS else "")
    lines[:] = Text(room, parts[-1], parameters(obj)).converted(lines)


def parameters(obj: Any) -> set[str]:
    try:
        return set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return set()


class Text:
    """One docstring: whose, and how its names are looked up."""

    def __init__(self, room: str, name: str, parameters: set[str]) -> None:
        self.room, self.name, self.parameters = room, name, parameters

    def converted(self, lines: list[str]) -> list[str]:
        out: list[str] = []
        rest = list(lines)
        while rest:
            if not rest[0].strip():
                rest.pop(0)
            elif rest[0].startswith(">>>"):
                out += [*taken(rest, lambda line: bool(line.strip())), ""]
            elif rest[0].startswith(" "):
                out += literal(taken(rest, lambda line: not line.strip() or line.startswith(" ")))
            elif found := SECTION.match(rest[0]):
                out += self.section(found[1], found[2], rest)
            elif self.is_entry(rest[0]):
                out += self.entries(taken(rest, lambda line: bool(line.strip()) and not SECTION.match(line)))
            else:
                more = taken(rest, lambda line: line[:1].strip() != "" and not SECTION.match(line))
                # Two spaces within a line set formulas apart: they stand as they are.
                formulas = any("  " in line for line in more)
                out += literal(more) if formulas else [self.inline(" ".join(more)), ""]
        return out

    def is_entry(self, line: str) -> bool:
        found = ENTRY.match(line)
        return bool(found) and {one.strip("* ") for one in found[1].split(",")} <= self.parameters  # type: ignore[index]

    def section(self, title: str, first: str, rest: list[str]) -> list[str]:
        rest.pop(0)
        shown = f"**{TITLES.get(title, title)}**"
        if not first:  # names, each with its text
            return [shown, "", *self.entries(taken(rest, lambda line: not line.strip() or line.startswith(" ")))]
        more = taken(rest, lambda line: bool(line.strip()) and not SECTION.match(line), least=0)
        if first.endswith(":") and more and more[0].startswith(" "):
            return [f"{shown} — {self.inline(first)}", "", *self.entries(more)]
        return [f"{shown} — {self.inline(' '.join([first, *map(str.strip, more)]))}", ""]

    def entries(self, lines: list[str]) -> list[str]:
        """Each line of the least indentation begins an entry; deeper ones go on with it."""
        full = [line for line in lines if line.strip()]
        least = min(indent(line) for line in full)
        items: list[str] = []
        for line in full:
            if indent(line) == least and (ENTRY.match(line.strip()) or not items or not items[-1].endswith(",")):
                items.append(line.strip())
            else:
                items[-1] += " " + line.strip()
        out = []
        for item in items:
            found = ENTRY.match(item)
            text = f"``{found[1]}`` — {self.inline(found[2])}" if found else self.inline(item)
            out += [f"* {text}"]
        return [*out, ""]

    def inline(self, text: str) -> str:
        """Names in backticks become links or code, all else plain text."""
        parts = text.split("`")
        if len(parts) % 2 == 0:
            return escaped(text)
        out = ""
        for number, part in enumerate(parts):
            if number % 2 == 0:
                out += escaped(part)
            else:
                before = "\\ " if out and out[-1] not in " (\n—/[" else ""
                after = parts[number + 1][:1]
                out += before + self.code(part) + ("\\ " if after and (after.isalnum() or after in "(_*=") else "")
        return out

    def code(self, text: str) -> str:
        if text not in self.parameters and text != self.name:
            for target in (text, self.room + text, "gradsim." + text):
                if target in TARGETS:
                    return f":py:obj:`{text} <{target}>`"
        return f"``{text}``"


def taken(rest: list[str], wanted: Callable[[str], bool], least: int = 1) -> list[str]:
    """Remove `least` lines from the front, and those after them as long as they are wanted."""
    count = least
    while count < len(rest) and wanted(rest[count]):
        count += 1
    out, rest[:count] = rest[:count], []
    return out


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def escaped(text: str) -> str:
    return re.sub(r"([\\*|_`])", r"\\\1", text)


def literal(lines: Iterable[str]) -> list[str]:
    """A formula or a table as it stands; what is Python in colours."""
    kept = list(lines)
    while kept and not kept[-1].strip():
        kept.pop()
    least = min(indent(line) for line in kept if line.strip())
    body = [line[least:] for line in kept]
    return [f".. code-block:: {language(body)}", "", *("   " + line for line in body), ""]


def language(body: list[str]) -> str:
    text = "\n".join(body)
    if "gs." not in text and "gradsim." not in text and "nnx" not in text:
        return "text"
    try:
        ast.parse(text.replace("…", "..."))
    except SyntaxError:
        return "text"
    return "python" if "…" not in text else "text"
