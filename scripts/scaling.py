"""What does a map cost, on this machine and on a larger one, and what bounds it there?

Measures, on the machine at hand, time and memory of one sweep as its cells, seeds, depth, width and devices grow, and
the share of the matrix-product rate that it reaches at each width. On a CPU several devices are virtual ones and share
its cores: their time shows what is lost by sharing out, not what further hardware would win.

For machines that are not at hand costs are computed, never measured: the least that the roofline allows (Williams,
Waterman & Patterson 2009), by the arithmetic and the bytes of a step's compiled program and by published peaks. A step
multiplies the tangents, then passes over them with slopes, rescaling and norm: in a narrow network these passes, and
not the products, bound it. The figure shows below which width, and what a kernel would win that does both at once, or
keeps the tangents on the chip from step to step. The table is also written as scaling.csv.

examples:
  python scripts/scaling.py
  python scripts/scaling.py --widths 64 128 --factors 1 2 --turns 5
  python scripts/scaling.py --preset paper --formats png pdf --out results
  python scripts/scaling.py --data figures/scaling.zarr
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray

import gradsim as gs
from gradsim import cli
from gradsim.cli.growing import grown, over_devices, sweeping, widened
from gradsim.cli.roofline import MACHINES, WAYS, Machine, Map, Step, crossing, share_of_rate, step_of
from gradsim.cli.timing import timed
from gradsim.plot.scaling import scaling
from gradsim.sweeps.cost import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("cells", "seeds", "depth")
SMALL = Map(256, 4, 64, 50)  # is measured as well
MAPS = {
    "small": SMALL,
    "64 × 64": Map(64 * 64, 16, 128, 100),
    "256 × 256": Map(256 * 256, 64, 256, 1000),
}
CPU = "this machine"


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the costs."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "device_counts")

    cells: int = 64
    """Cells of the sweep that grows."""

    seeds: int = 2
    """Independent networks in each of its cells."""

    width: int = 64
    """Units a layer of it."""

    depth: int = 40
    """Layers of it."""

    factors: tuple[int, ...] = (1, 4, 16)
    """So many times as many cells, seeds and layers."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Units a layer, at which the share of the matrix-product rate is measured."""

    device_counts: tuple[int, ...] = (1, 2, 4)
    """How many devices share one sweep; none leaves that out."""

    turns: int = 2
    """Turns; each times every sweep once."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", cells=256, depth=100, widths=(16, 32, 64, 128, 256, 512), turns=7),
    "accelerator": Options("accelerator", cells=1024, depth=100, widths=(16, 32, 64, 128, 256, 512, 1024), turns=7),
}
ANALYSED, WIDTHS = 1024, (16, 32, 64, 128, 256, 512, 1024)  # cells and widths of the steps whose bytes are counted


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """What was measured over each axis, and what a step does over the width."""
    for name, several in (("factors", options.factors), ("widths", options.widths)):
        if several != tuple(sorted(set(several))):
            raise ValueError(f"{name}: got {several}; pass numbers that rise")
    base = {"width": options.width, "cells": options.cells, "seeds": options.seeds, "depth": options.depth}
    jobs: dict[str, Any] = {
        axis: partial(grown, axis, [base[axis] * factor for factor in options.factors], base, options.turns)
        for axis in AXES
    }
    jobs["width"] = partial(widened, options.widths, base, options.turns)
    jobs["step"] = steps
    jobs["map"] = partial(small_map, options.turns)
    if options.device_counts:
        jobs["devices"] = partial(
            over_devices, options.device_counts, options.width, options.cells, options.depth, options.turns
        )
    compiling = 3.0  # seconds of a program and its turns, about
    works = {name: cli.Work(others=compiling * (1 if name == "map" else len(options.widths))) for name in jobs}
    with cli.Jobs(works) as several_jobs:
        return several_jobs.run(jobs)


def steps() -> xarray.Dataset:
    """What a step does, over the width: computed from its compiled program."""
    found = [step_of(gs.feedforward(width), ANALYSED) for width in WIDTHS]
    variables: dict[str, Any] = {
        name: ("width", [getattr(one, name) for one in found]) for name in Step._fields if name != "cells"
    }
    return xarray.Dataset(variables, {"width": list(WIDTHS)}, attrs={"cells": ANALYSED, "label": "computed"})


def small_map(turns: int) -> xarray.Dataset:
    """The seconds of the smallest map, measured."""
    seconds = timed({"map": sweeping(SMALL.width, SMALL.cells, SMALL.seeds, SMALL.depth)}, turns)["map"]
    about = {"long_name": "time, measured", "units": "s"}
    return xarray.Dataset({"seconds": ("turn", seconds, about)}, attrs={"label": "measured"})


def steps_of(datasets: Mapping[str, xarray.Dataset]) -> dict[int, Step]:
    """The steps by their widths."""
    one = datasets["step"]
    each = one.to_dataframe().to_dict("index")
    return {int(width): Step(int(one.attrs["cells"]), **row) for width, row in each.items()}


def here(datasets: Mapping[str, xarray.Dataset], width: int) -> float:
    """The rate that sweeps of this width, or of the next that was measured, reach on the machine at hand.

    That of the fastest turn: whatever else runs there only takes time.
    """
    one = datasets["width"]
    rate = shares(datasets) * one["rate"].max()
    return float(rate.sel(width=width, method="nearest"))


def table(datasets: Mapping[str, xarray.Dataset]) -> list[dict[str, Any]]:
    """A row for each map and machine: seconds as compiled and by the better kernels, and how each number was found."""
    known, rows = steps_of(datasets), []
    for name, one in MAPS.items():
        operations = 2.0 * one.cells * one.seeds * one.width**3 * one.depth
        shared = {"map": name, "cells": one.cells, "seeds": one.seeds, "width": one.width, "depth": one.depth}
        shared |= {"tflop": operations / 1e12, "result_gib": one.result_bytes / 2**30}
        if one == SMALL:
            rows.append({**shared, "machine": CPU, "label": "measured", WAYS[0]: float(datasets["map"].seconds.min())})
        by_rate = {"machine": CPU, "label": "computed", WAYS[0]: operations / here(datasets, one.width)}
        rows.append({**shared, **by_rate, "source": "the rate of sweeps of its width, measured here"})
        for title, machine in MACHINES.items():
            ways = {way: one.seconds(known[one.width], way, machine) for way in WAYS}
            rows.append({**shared, "machine": title, "label": "computed", **ways, "source": machine.source})
    return rows


def report(datasets: Mapping[str, xarray.Dataset], folder: Path | None = None) -> str:
    """The table in words; and as scaling.csv in the folder, if one is given."""
    rows, known = table(datasets), steps_of(datasets)
    lines = ["what a map costs; computed: the least that published peaks allow, by how the tangents are kept"]
    lines.append(f"  {'map':10s}{'machine':22s}{'':10s}" + "".join(f"{way:>20s}" for way in WAYS))
    for row in rows:
        cells = "".join(f"{spoken(row.get(way)):>20s}" for way in WAYS)
        lines.append(f"  {row['map']:10s}{row['machine']:22s}{row['label']:10s}{cells}")
    lines.append("width below which the elementwise passes take longer than the products (computed):")
    for title, machine in one_of_each().items():
        lines.append(f"  {title:22s}{crossing(machine, known):6.0f}")
    if folder is not None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (folder / "scaling.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {key: f"{one:.4g}" if isinstance(one, float) else one for key, one in row.items()} for row in rows
            )
        lines.append(f"table   {folder / 'scaling.csv'}")
    return "\n".join(lines)


def spoken(seconds: float | None) -> str:
    """A time with its unit."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.2g} s" if seconds < 90 else words(seconds).removeprefix("about ")


def shares(datasets: Mapping[str, xarray.Dataset]) -> xarray.DataArray:
    """The share that sweeps reach at each width, in their fastest turn, of the highest rate of plain products.

    Whatever else runs on the machine only takes time, of either: a ratio within a turn may be anything.
    """
    one = datasets["width"]
    products = 2.0 * one["width"] ** 3 * one["cells"] * one.attrs["seeds"] * one.attrs["depth"]
    return products / one["seconds"].min("turn") / one["rate"].max()


def one_of_each() -> dict[str, Machine]:
    """The machines of one device: what bounds a kernel is no matter of how many there are."""
    return {name: machine for name, machine in MACHINES.items() if machine.count == 1}


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    known, machines = steps_of(datasets), one_of_each()
    widths = np.array(sorted(known))
    roof = xarray.DataArray(
        [
            [[share_of_rate(known[n], way, one.rate, one.bandwidth) for n in widths] for way in WAYS]
            for one in machines.values()
        ],
        {"machine": list(machines), "way": list(WAYS), "width": widths},
    )
    grows = {axis: one for axis, one in datasets.items() if axis in (*AXES, "width", "devices")}
    grows["width"] = grows["width"].assign(seconds=grows["width"]["seconds"] / grows["width"]["cells"])  # of one cell
    return {"scaling": scaling(grows, shares(datasets), roof, table(datasets), WAYS[0])}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("scaling", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
