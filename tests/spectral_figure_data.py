"""Small Datasets by hand for the figures of spectra: usual, flat and huge, with as many panels and lines as asked."""

from typing import Any

import numpy as np
import xarray
from figure_data import NAMES, TITLES, spread


def spectra(data: str, names: int, depths: int) -> dict[str, xarray.Dataset]:
    """What `singular_values` draws: by activation and law, the last isometric where there are two or more."""
    found = {}
    for law in ("gaussian", "orthogonal"):
        for place, name in enumerate(NAMES[:names]):
            depth = 2 ** np.arange(1, depths + 1)
            width = {"flat": 1e-3, "usual": 1.0, "huge": 1e5}[data] * depth[:, None]
            x, fine = width * np.linspace(-3, 1, 9), width * np.linspace(-3, 1, 30)
            y, line = np.exp(x / width) / width, np.exp(fine / width) / width
            lone = float(law == "orthogonal" and place > 0)
            each = {"zero": 0.2 * place, "theory_zero": 0.2 * place, "theory_isometric": lone, "spread": 1e-6,
                    "theory_log_isometric": 0.0 if lone else np.nan}  # fmt: skip
            variables: Any = {key: ("depth", np.full(depths, value)) for key, value in each.items()}
            variables |= {"log_sigma": (("depth", "bin"), x), "density": (("depth", "bin"), y),
                          "density_error": (("depth", "bin"), 0.1 * y), "theory": (("depth", "point"), line),
                          "theory_log_sigma": (("depth", "point"), fine)}  # fmt: skip
            found[f"{name}, {law}"] = xarray.Dataset(variables, {"depth": depth})
    return found


def conditions(data: str, maps: int, lines: int) -> dict[str, xarray.Dataset]:
    """What `conditions` draws: maps over weight gain and depth, then lines over time."""
    found = {}
    size = {"flat": 0.0, "usual": 3.0, "huge": 12.0}[data]
    weight, depth = np.linspace(0.5, 3, 7), 2 ** np.arange(6)
    for title in ("Gaussian weights", "Orthogonal weights")[:maps]:
        values = np.exp(size * weight[:, None, None] / 3 + spread("usual")[:, None]) * depth
        variables: Any = {"log_condition": (("sigma_w", "seed", "depth"), values),
                          "theory": (("theory_sigma_w", "theory_depth"), 1.2 * values.mean(1))}  # fmt: skip
        found[title] = xarray.Dataset(
            variables, {"sigma_w": weight, "depth": depth, "theory_sigma_w": weight, "theory_depth": depth}
        )
    for place, title in enumerate(TITLES[:lines]):
        values = np.exp(size * place / 7 + spread("usual")[:, None]) * depth
        found[title] = xarray.Dataset({"log_condition": (("seed", "time"), values)}, {"time": depth})
    return found
