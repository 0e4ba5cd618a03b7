"""One run of a script: measure or load, save, report, draw."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradsim.cli.options import Chosen, check_counts
from gradsim.cli.saving import Datasets, load, save, writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(
    name: str,
    options: Chosen,
    measure: Callable[[Chosen], Datasets],
    report: Callable[[Datasets], str],
    draw: Callable[[Datasets], Mapping[str, Figure]],
) -> list[Path]:
    """Measure (or load), save the data, say what was measured, draw, and say where all went.

    Exits with one line where an option is wrong or a folder cannot be used, before anything is computed.
    """
    from gradsim import plot

    try:
        check_counts(options)
        writable(options.out)
        if options.data is None:
            datasets = measure(options)
            print(f"data    {save(datasets, options.out / f'{name}.zarr')}")
        else:
            datasets = load(options.data)
        print(report(datasets))
        files = [
            file
            for title, figure in draw(datasets).items()
            for file in plot.save(figure, options.out / title, options.formats)
        ]
    except (ValueError, TypeError) as error:
        sys.exit(f"error: {error}")
    except KeyError as error:
        if options.data is None:
            raise
        sys.exit(f"error: data: {options.data} holds no {error}; pass what {name}.py has saved")
    for file in files:
        print(f"figure  {file}")
    return files
