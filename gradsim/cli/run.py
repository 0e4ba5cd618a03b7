"""One run of a script: measure or load, save, report, draw."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradsim.cli.options import Chosen, check_counts
from gradsim.cli.saving import Datasets, load, save, writable
from gradsim.compilation_cache import enable_compilation_cache

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
            enable_compilation_cache()
            datasets = measure(options)
            print(f"data    {save(datasets, options.out / f'{name}.zarr', name)}")
        else:
            datasets = load(options.data, name)
        print(report(datasets))
        files = [
            file
            for title, figure in draw(datasets).items()
            for file in plot.save(figure, options.out / title, options.formats)
        ]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        if options.data is None and not isinstance(error, ValueError | TypeError):
            raise
        sys.exit(f"error: {_said(error, name, options)}")
    for file in files:
        print(f"figure  {file}")
    return files


def _said(error: Exception, name: str, options: Chosen) -> str:
    """What was wrong, in one line: with an option, else with the data that were to be redrawn."""
    line = " ".join(str(error).split())
    if options.data is None or line.partition(":")[0] in options.redraws:
        return line
    what = f"holds no {line}" if isinstance(error, KeyError) else f"cannot be drawn ({line})"
    return f"data: {options.data} {what}; pass what {name}.py has saved"
