"""Networks that have left the range of floats: they are no survivors to pass over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradsim import arguments

if TYPE_CHECKING:
    import xarray


def lost_networks(dataset: xarray.Dataset, statistic: str) -> xarray.DataArray | None:
    """Which networks lost a number of this statistic at any depth held, over all other axes; None where none did."""
    flag = dataset.get(f"{statistic}_lost")
    if flag is None:
        return None
    return flag.any([name for name in ("depth", "time", "start", "lag") if name in flag.dims])


def checked(dataset: xarray.Dataset, statistic: str, max_lost: float, who: str) -> None:
    """Say that some networks of the Dataset were lost, and refuse where they are more than a share.

    Args:
        max_lost: the share of the networks (seeds) of one cell.
        who: what averages over them.

    Raises: ValueError past the share, RuntimeWarning below it.
    """
    max_lost = arguments.share("max_lost", max_lost)
    lost = lost_networks(dataset, statistic)
    if lost is None or not bool(lost.any()):
        return
    worst = lost.mean("seed") if "seed" in lost.dims else lost.astype(float)
    share, seeds = float(worst.max()), lost.sizes.get("seed", 1)
    if share > max_lost:
        raise ValueError(
            f"max_lost: {round(share * seeds)} of {seeds} networks of a cell left the range of floats ({statistic}): "
            f"{who} would be that of the survivors; lower the gains or the depth, take dtype='float64', or pass a "
            f"share of at least {np.ceil(share * 100) / 100:g}"
        )
    arguments.warn(
        f"{who}: {int(lost.sum())} of {lost.size} networks left the range of floats ({statistic}); "
        "it is that of the others"
    )
