"""What scripts share that train kinds of networks beside each other: options, data, and a table of what was learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim.analysis.early_layers import table
from gradsim.cli.options import Options
from gradsim.plot.memory import with_error

if TYPE_CHECKING:
    import xarray

SYMBOLS, FEATURES = 8, 9  # of the copy task: a blank is one more


@dataclass(frozen=True)
class TrainingOptions(Options):
    """Options of each of them."""

    networks: tuple[str, ...] = ()
    """Which networks, by their titles in the figure."""

    length: int = 40
    """Steps of the sequences whose first symbol recurrent networks copy."""

    hidden: int = 32
    """Numbers of a recurrent state."""

    seeds: int = 8
    """Independent networks of each kind, at least 2; errors are over them."""

    batch: int = 32
    """Samples of an update."""

    steps: int = 300
    """Updates."""

    records: int = 6
    """How often gradients and updates are recorded."""


def check(options: TrainingOptions, known: Collection[str]) -> None:
    """Raises: ValueError where a network is none of the known, or seeds are too few to choose a rate."""
    if unknown := [name for name in options.networks if name not in known]:
        raise ValueError(f"networks: got {'; '.join(unknown)}; pass some of: {'; '.join(known)}")
    if options.seeds < 2:
        raise ValueError(f"seeds: got {options.seeds}; pass at least 2, the others choose the rate of each")


def training(options: TrainingOptions, depth: int | None) -> dict[str, Any]:
    """What `gradsim.train` takes beside a network and its optimizer: digits through so many layers, or else the copy
    task over time."""
    from gradsim.training.tasks import copy_task

    record = np.unique(np.linspace(0, options.steps, options.records + 1).round().astype(int)).tolist()
    task: dict[str, Any] = {"data": "digits", "depth": depth, "by_layer": "log_update"}
    if depth is None:
        task = {"data": copy_task(alphabet=SYMBOLS), "depth": options.length, "by_layer": "log_exact_gradient"}
    return task | {
        "seeds": options.seeds, "steps": options.steps, "batch": options.batch, "key": options.key, "record": record,
    }  # fmt: skip


def report(datasets: Mapping[str, xarray.Dataset], name: str, folder: Path | None = None) -> str:
    """`gradsim.analysis.early_layers.table` in words; and as NAME.csv in the folder, if one is given."""
    found = table(datasets)
    lines = ["accuracy on held-out data, and log10 of the relative update of the first and the last layer"]
    lines.append("(over time: of the gradient that the first and the last step give, before training):")
    lines.append(
        f"  {'network':22s}{'optimizer':>10s}{'rate':>8s}{'accuracy':>18s}{'diverged':>10s}{'first':>9s}{'last':>7s}"
    )
    for network in found["network"].values.tolist():
        row = {str(key): value.item() for key, value in found.sel(network=network).data_vars.items()}
        lines.append(
            f"  {network:22s}{row['optimizer']:>10s}{row['learning_rate']:8g}"
            f"{with_error(row['accuracy'], row['error']):>18s}{row['diverged']:10.0%}"
            f"{row['log10_first']:9.1f}{row['log10_last']:7.1f}"
        )
    if folder is not None:
        found.to_dataframe().to_csv(folder / f"{name}.csv")
        lines.append(f"table   {folder / f'{name}.csv'}")
    return "\n".join(lines)
