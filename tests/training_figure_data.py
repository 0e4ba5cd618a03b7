"""Small Datasets by hand for the figures of training: as those of figure_data.py."""

from typing import Any

import numpy as np
import xarray
from figure_data import DEEP, TITLES, gain, paths, spread, steps


def trainable(data: str, count: int) -> dict[str, xarray.Dataset]:
    """What `trainability` draws; every other case is recurrent."""
    reach = {"flat": 0.0, "usual": 1.0, "huge": 3.0}[data]
    found = {}
    for place in range(count):
        axis, name = ("length", "forget_bias") if place % 2 else ("depth", "sigma_w")
        gains, size = np.linspace(-2.0, 6.0, 5), np.array([4, 16, 64])
        accuracy = np.clip(1 - reach * gains[:, None, None] / 6 + spread(data)[:, None] / 10 - 0.1 * size / 64, 0, 1)
        lost = np.where(accuracy < 0.1, -np.inf, -1.0)
        one = xarray.Dataset(
            {"accuracy": ((name, "seed", axis), accuracy), "log_gradient": ((name, "seed", axis), lost),
             "half": ((name, "seed"), 4 + 30 * accuracy.mean(-1))},
            {name: gain(name, gains), axis: (axis, size, {"units": "layer"})},
        )  # fmt: skip
        if axis == "depth":
            one = one.assign(xi_c=(name, 1 + gains**2), xi_c_line=("line", 1 + gains**2)).assign_coords(line=gains)
        found[(*TITLES, *DEEP)[place]] = one
    return found


def learnt(data: str, count: int, groups: int) -> dict[str, xarray.Dataset]:
    """What `learning` draws: the first group over depth, the others over time."""
    step, found = np.arange(0, 40, 10), {}
    for group in range(groups):
        axis = "time" if group else "depth"
        for place in range(count):
            values = np.broadcast_to(paths(data, count, 12)[place][:, None], (5, 4, 12))
            accuracy = np.clip(0.2 + 0.2 * step / 10 + spread(data)[:, None] / 10, 0, 1) * np.ones(4)
            found[f"{(DEEP, TITLES)[group > 0][place]}{' ' * group}"] = xarray.Dataset(
                {"log_update": (("seed", "step", axis), values), "log_exact_gradient": (("seed", "step", axis), values),
                 "accuracy": (("seed", "step"), accuracy)},
                {"step": step, axis: steps(axis, 12)}, {"group": f"over {axis}, {group}"},
            )  # fmt: skip
    return found


def windows(data: str, count: int) -> tuple[dict[str, xarray.Dataset], dict[str, xarray.Dataset | None]]:
    """Images of a boundary, each enlarged tenfold, and their box counts; of a flat one there is no boundary."""
    images: dict[str, xarray.Dataset] = {}
    counts: dict[str, xarray.Dataset | None] = {}
    for place in range(count):
        side = 10.0 ** (np.linspace(-2, 2, 12) / 10**place)
        slope = {"flat": 0.0, "usual": 1.0, "huge": 1e5}[data]
        ratio = np.where(
            np.arange(144).reshape(12, 12) == 5, np.inf, slope * (np.arange(12) - 5.5)[:, None] * np.ones(12)
        )
        axes = {name: gain(name, side * middle) for name, middle in (("read_out_rate", 0.25), ("hidden_rate", 50.0))}
        about = {"zoom": 10.0**place, "center": [50.0, 0.25]}
        images[f"zoom {place}"] = xarray.Dataset({"log_ratio": (("read_out_rate", "hidden_rate"), ratio)}, axes, about)
        sizes = np.array([1, 2, 4, 8, 16])
        mixed = np.minimum(1.0, sizes / 20)
        counts[f"zoom {place}"] = (
            None if place == 2 else xarray.Dataset(
                {"mixed": ("size", mixed), "fitted": ("size", np.where(sizes > 2, mixed, np.nan)),
                 "dimension": np.nan if data == "flat" else 1 + place / 10, "error": 0.1},
                {"size": sizes},
            )
        )  # fmt: skip
    return images, counts


def coordinates(data: str, count: int) -> tuple[dict[str, xarray.Dataset], dict[str, xarray.Dataset]]:
    """Sizes over width and depth of so many kinds, and their powers."""
    quantities = ("activation", "activation_change", "output", "output_change", "update")
    slopes = {"flat": 0.0, "usual": 1.0, "huge": 100.0}[data] * np.linspace(-2, 1, count)
    sizes, powers = {}, {}
    for axis, kind, values in (("width", "parametrization", [64, 128, 256, 512]), ("depth", "scaling", [4, 16, 64])):
        names = [f"{kind} {place}" for place in range(count)] if count > 3 else ["standard", "1/√L", "1"][:count]
        logs = slopes[:, None, None] * np.log(values) + spread(data)[:, None] * 0.1
        coords: Any = {kind: names, axis: values}
        sizes[axis] = xarray.Dataset(dict.fromkeys(quantities, ((kind, "seed", axis), logs)), coords)
        fitted = np.broadcast_to(slopes, (len(quantities), count))
        found = {"power": fitted, "error": 0 * fitted + 0.05, "derived": fitted.round()}
        powers[axis] = xarray.Dataset(
            {name: (("quantity", kind), one) for name, one in found.items()},
            {"quantity": list(quantities), kind: names},
        )
    return sizes, powers


def gradients(data: str, count: int) -> xarray.Dataset:
    """What `gradient_records` draws: parameters of long and short names, some of whose entries are zero or lost."""
    names = [f"{title} {place}/layers/kernel[{place}]" for place, title in enumerate((*TITLES, *DEEP)[:count])]
    logs = paths(data, count, 12)[:, 0].T
    zeros = np.zeros((12, count), int)
    lost = zeros + (np.arange(12)[:, None] == 11) * (data == "usual")
    values = {"log_gradient": np.where((logs < -5) & (data != "flat"), -np.inf, logs), "log_update": logs,
              "log_parameter": 0 * logs, "log_ratio": logs / 2, "zeros": zeros, "non_finite": lost,
              "non_finite_update": zeros}  # fmt: skip
    return xarray.Dataset(
        {name: (("step", "parameter"), one) for name, one in values.items()},
        {"step": 1000 * np.arange(12), "parameter": names, "log_rounding": ("parameter", np.full(count, -16.6))},
    )
