"""Pages quote numbers that were measured: {{ expressions }} and {% loops %} in them read the tables under figures/."""

import ast
import csv
import json
import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

import gradsim.laws

SPACE = "\N{NO-BREAK SPACE}"
FIGURES = Path(__file__).parents[1] / "figures"
# Of the gallery: what comes first, and the figures of scripts that draw more than one of their own name.
FIRST = ("derivatives", "phase_diagram", "depth_profile", "early_layers", "sequence_memory", "remedies", "atlas")
MORE = {
    "phase_diagram": ["schemes.png"],
    "atlas": ["atlas_families.png"],
    "critical_lines": ["finite_width_scaling.png"],
    "benchmark": ["benchmarks/benchmark-cpu.png"],
}


def setup(app: Any) -> dict[str, Any]:
    app.connect("source-read", render)
    return {"parallel_read_safe": True}


def render(app: Any, name: str, source: list[str]) -> None:
    """A number that is not there is an error, and ends the build."""
    if "{{" in source[0] or "{%" in source[0]:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        source[0] = environment.from_string(source[0]).render(context())


def context() -> dict[str, Any]:
    return {
        "remedies": {row["network"]: row for row in table("remedies")},
        "memory": by_network("modern_memory"),
        "transformers": {row["network"]: row for row in table("transformer_depth")},
        "learning": {row["network"]: row for row in table("early_layers_training")},
        "learning_today": {row["network"]: row for row in table("modern_training")},
        "trainability": table("trainability"),
        "laws": by_law(),
        "scripts": scripts(),
        "benchmarks": {
            path.stem: json.loads(path.read_text("utf-8")) for path in (FIGURES / "benchmarks").glob("*.json")
        },
        "power": power,
        "rounded": rounded,
    }


def table(name: str) -> list[dict[str, Any]]:
    """The rows of figures/name.csv, numbers as numbers."""
    with (FIGURES / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{key: number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def by_network(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of figures/name.csv of each network."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table(name):
        found.setdefault(str(row["network"]), []).append(row)
    return found


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def by_law() -> list[tuple[gradsim.laws.Law, list[dict[str, Any]]]]:
    """Each law of the book, with the stored rows in which it was measured."""
    rows = table("laws")
    return [(law, [row for row in rows if row["law"] == law.id]) for law in gradsim.laws.LAWS.values()]


def power(nats: float) -> str:
    """A logarithm in nats as a number to read, 4 × 10⁻³²."""
    exponent = math.floor(nats / math.log(10))
    mantissa = math.exp(nats - exponent * math.log(10))
    if -2 <= exponent <= 3:
        return f"{math.exp(nats):.2g}" if exponent < 2 else f"{math.exp(nats):.0f}"
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa:.1f}{SPACE}×{SPACE}10{digits}"


def rounded(value: float, error: float | None = None, digits: int = 2) -> str:
    """A number to so many significant digits; with an error, to the digit that it leaves."""
    if error is None:
        return (f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}").replace("-", "−")
    places = max(0, -math.floor(math.log10(error))) if error > 0 else 2
    return f"{value:.{places}f}{SPACE}±{SPACE}{error:.{places}f}".replace("-", "−")


class Script(NamedTuple):
    """One of scripts/, as its docstring has it, and what it drew."""

    name: str
    question: str
    text: str
    examples: str
    figures: list[str]


def scripts() -> list[Script]:
    """All scripts; a figure that none of them drew is an error."""
    names = sorted(path.stem for path in (FIGURES.parent / "scripts").glob("*.py"))
    found = [script(name) for name in (*FIRST, *(name for name in names if name not in FIRST))]
    drawn = {figure for one in found for figure in one.figures}
    unclaimed = {str(path.relative_to(FIGURES)) for path in FIGURES.rglob("*.png")} - drawn
    if unclaimed:
        raise ValueError(f"no script draws {', '.join(sorted(unclaimed))}: name them in MORE")
    return found


def script(name: str) -> Script:
    source = (FIGURES.parent / "scripts" / f"{name}.py").read_text("utf-8")
    said, _, examples = (ast.get_docstring(ast.parse(source)) or "").partition("\nexamples:\n")
    question, _, text = said.strip().partition("\n\n")
    figures = [one for one in (f"{name}.png", *MORE.get(name, ())) if (FIGURES / one).exists()]
    return Script(name, " ".join(question.split()), text, textwrap.dedent(examples).strip(), figures)
