"""What networks have learned, in words and as a table: scripts that train kinds of networks beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradsim.analysis.early_layers import table
from gradsim.plot.memory import with_error

if TYPE_CHECKING:
    import xarray


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
