"""Maps and profiles to be drawn, and what a figure says: for the tests of figures."""

import json
from typing import Any

import numpy as np
import xarray

import gradsim as gs

WEIGHT, BIAS = np.linspace(0.5, 3, 26), np.linspace(0.1, 1.5, 15)


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def maps(shift: float = 0.0, activation: str = "tanh") -> xarray.Dataset:
    """Maps whose growth is zero on σ_w = 1 + σ_b / 2 + shift."""
    growth = WEIGHT[:, None] - 1 - BIAS / 2 - shift
    depth = np.arange(1, 5)
    coordinates: Any = {
        "sigma_w": ("sigma_w", WEIGHT, {"long_name": "weight gain σ_w", "units": "1"}),
        "sigma_b": ("sigma_b", BIAS, {"long_name": "bias gain σ_b", "units": "1"}),
        "seed": [0, 1],
        "depth": ("depth", depth, {"units": "layer"}),
    }
    values = growth[..., None, None] * depth + np.array([-0.1, 0.1])[:, None]
    return xarray.Dataset(
        {"log_gain": (("sigma_w", "sigma_b", "seed", "depth"), values)},
        coordinates,
        attrs={"burn_in": 1, "network": json.dumps({"": gs.feedforward(4, activation).describe()})},
    )


def schemes() -> xarray.Dataset:
    depth = np.arange(1, 6)
    slopes = np.array([[-1.0, 0.0], [0.5, 10.0], [-20.0, 0.2]])
    seeds = np.linspace(-0.5, 0.5, 11)
    values = slopes[..., None, None] * depth + seeds[:, None]
    values[2, 0] = np.nan
    return xarray.Dataset(
        {
            "log_gain": (("activation", "initializer", "seed", "depth"), values),
            "theory": (("activation", "initializer", "depth"), slopes[..., None] * depth),
        },
        {"activation": ["sigmoid", "tanh", "relu"], "initializer": ["lecun_normal", "orthogonal"], "depth": depth},
    )
