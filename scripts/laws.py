"""Does gradsim reproduce what is known? Every published and exact law, measured on real networks.

Each law is a formula with a source: exact results at finite width (A), mean-field theory and its first corrections
(B), spectra (C), residual and normalized networks (D), recurrent networks (E), initialization schemes (F). Networks
are drawn, measured through the public interface, and compared with the formula: random numbers in standard errors,
all others within a tolerance. One row that does not hold, and the script ends with an error.

Writes laws.csv, laws.md (the same table to read) and a figure beside it; and claims.csv and claims.md, popular claims
that are wrong or loose with the measured number beside each.

examples:
  python scripts/laws.py
  python scripts/laws.py --only A1 A4 D2
  python scripts/laws.py --preset paper --out results
  python scripts/laws.py --data figures/laws.zarr
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import xarray

from gradsim import cli
from gradsim.laws import ERRORS, LAWS, Check, Law
from gradsim.laws.claims import CLAIMS, Claim
from gradsim.plot.laws import laws as laws_figure
from gradsim.sweeps import dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# About how many seconds a law takes to compile, and to measure at effort 1.
COMPILING, EFFORT = 2.0, 1.0


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the laws."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "only")

    only: tuple[str, ...] = ()
    """Ids of the laws to measure, as in the first column of the table; all of them if none is named."""

    effort: int = 1
    """Networks of each law, as a multiple of the quick preset's; errors fall as its square root."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", effort=16),
    "accelerator": Options("accelerator", effort=64),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """All checks of the chosen laws as one table, in the order of the law book."""
    unknown = [name for name in options.only if name not in LAWS]
    if unknown:
        raise ValueError(f"only: got {', '.join(unknown)}; pass some of: {'; '.join(LAWS)}")
    chosen = [law for law in LAWS.values() if not options.only or law.id in options.only]
    with cli.Jobs({law.id: cli.Work(others=COMPILING + options.effort * EFFORT) for law in chosen}) as several:
        checks = several.run({law.id: partial(law.measure, options.effort, options.key) for law in chosen})
    rows = [row(law, check) for law in chosen for check in checks[law.id]]
    columns = {key: ("check", [one[key] for one in rows]) for key in rows[0]}
    choices = {"effort": options.effort, "key": options.key, "standard_errors": ERRORS}
    return {"laws": xarray.Dataset(columns, attrs={**dataset.provenance(), **choices})}


def row(law: Law, check: Check) -> dict[str, object]:
    texts = {"law": law.id, "statement": law.statement, "source": law.source}
    return {**texts, **check._asdict(), "z": check.z, "holds": check.holds}


def columns(table: xarray.Dataset) -> list[dict[str, str]]:
    """Each check in words, for the terminal and for the page."""
    frame = table.to_dataframe()
    return [
        {
            "law": one.law,
            "statement": one.statement,
            "quantity": one.quantity,
            "predicted": f"{one.predicted:.8g}",
            "measured": f"{one.measured:.8g}",
            "error": f"{'±' if one.kind == 'sampled' else '≤'} {one.error:.2g}",
            "z": f"{one.z:+.1f}" if one.kind == "sampled" else "",
            "holds": "yes" if one.holds else "NO",
        }
        for one in frame.itertuples()
    ]


def report(datasets: Mapping[str, xarray.Dataset], folder: Path) -> str:
    """The table in words; and as laws.csv and laws.md in the folder."""
    table = datasets["laws"]
    rows, shown = columns(table), ("law", "quantity", "predicted", "measured", "error", "z", "holds")
    widths = {key: max(len(key), *(len(one[key]) for one in rows)) for key in shown}
    lines = ["  ".join(f"{key:<{widths[key]}}" for key in shown)]
    lines += ["  ".join(f"{one[key]:<{widths[key]}}" for key in shown) for one in rows]
    order = ["law", "statement", "source", *Check._fields, "z", "holds"]  # that of a store is not kept
    table.to_dataframe()[order].to_csv(folder / "laws.csv", index=False)
    (folder / "laws.md").write_text(page(table, rows), encoding="utf-8")
    there = set(zip(table["law"].values.tolist(), table["quantity"].values.tolist(), strict=True))
    wrong = [one for one in CLAIMS if (one.law, one.quantity) in there]
    if wrong:
        lines += write_claims(table, wrong, folder)
    lines += [summary(table), f"table   {folder / 'laws.csv'}", f"page    {folder / 'laws.md'}"]
    return "\n".join(lines)


def write_claims(table: xarray.Dataset, wrong: Sequence[Claim], folder: Path) -> list[str]:
    """What is said and is not so, each with the check that says otherwise, as claims.csv and claims.md."""
    frame = table.to_dataframe().set_index(["law", "quantity"])
    rows = []
    for one in wrong:
        check = frame.loc[(one.law, one.quantity)]
        rows.append({**one._asdict(), **{name: float(check[name]) for name in ("predicted", "measured", "error")}})
    heads = list(rows[0])
    with (folder / "claims.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, heads)
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        "# Popular claims that are wrong or loose",
        "",
        f"The last columns are checks of [the laws](laws.md) (`{table.attrs['command']}`).",
        "",
        "| claim | what holds | law | quantity | if it were so | predicted | measured |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        numbers = (f"{row['predicted']:.4g}", f"{row['measured']:.4g} ± {row['error']:.2g}")
        cells = [*(str(row[key]) for key in ("claim", "holds", "law", "quantity", "claimed")), *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "claims.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [f"claims  {folder / 'claims.md'}"]


def summary(table: xarray.Dataset) -> str:
    laws = len(set(table["law"].values.tolist()))
    return f"{int(table['holds'].sum())} of {table.sizes['check']} checks of {laws} laws hold"


def page(table: xarray.Dataset, rows: Sequence[Mapping[str, str]]) -> str:
    """The table in Markdown."""
    heads = list(rows[0])
    origin = f"`{table.attrs['command']}`, gradsim {table.attrs['gradsim_version']}, jax {table.attrs['jax_version']}"
    lines = [
        "# The laws, measured",
        "",
        f"{summary(table)} ({origin}). A sampled number (±, one standard error) holds within "
        f"{table.attrs['standard_errors']:g} errors, any other within its tolerance (≤).",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
    ]
    lines += ["| " + " | ".join(one[key].replace("|", "\\|") for key in heads) + " |" for one in rows]
    return "\n".join(lines) + "\n"


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"laws": laws_figure(datasets["laws"])}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    files = cli.run("laws", options, measure, partial(report, folder=options.out), draw)
    broken = xarray.open_zarr(options.data or options.out / "laws.zarr", group="laws", consolidated=False)
    if not bool(broken["holds"].all()):
        sys.exit("error: a law does not hold, see the table")
    return files


if __name__ == "__main__":
    main()
