"""Small Datasets by hand for the figure of two inputs: usual, flat and huge, with as many networks as asked."""

import numpy as np
import xarray
from figure_data import TITLES


def two_inputs(data: str, count: int) -> tuple[dict[str, xarray.Dataset], xarray.Dataset]:
    """What `two_inputs` draws: profiles by depth, and the map of depth scales."""
    power = {"flat": 0.0, "usual": 1.0, "huge": 8.0}[data]
    depth = np.arange(1, {"flat": 4, "usual": 31, "huge": 301}[data])
    profiles = {}
    for place, title in enumerate(TITLES[:count]):
        values = (1 + depth) ** (-power * (1 + place / 3))
        parts = {"decorrelation": values, "gradient": values**2}
        variables = {name: ("depth", part) for name, part in parts.items()}
        variables |= {f"{name}_error": ("depth", 0.1 * part) for name, part in parts.items()}
        if place % 2 == 0:
            variables |= {f"{name}_theory": ("depth", 1.1 * part) for name, part in parts.items()}
        profiles[title] = xarray.Dataset(variables, {"depth": depth})
    gains = {"sigma_w": np.linspace(0.5, 3, 5), "line": np.linspace(0.5, 3, 17), "sigma_b": np.linspace(0.1, 1, 4)}
    scales = [
        np.exp(np.minimum(power / np.abs(gains[name][:, None] - 1.4 - gains["sigma_b"] / 3 + 1e-3), 100))
        for name in ("sigma_w", "line")
    ]
    scales[0][-1] = np.nan if data == "usual" else np.inf
    return profiles, xarray.Dataset(
        {
            "xi_c": (("sigma_w", "sigma_b"), scales[0]),
            "xi_c_error": (("sigma_w", "sigma_b"), 0.1 * scales[0]),
            "theory": (("line", "sigma_b"), scales[1]),
            "edge": ("sigma_b", 1.4 + gains["sigma_b"] / 3),
        },
        gains,
    )
