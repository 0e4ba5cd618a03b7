"""What laws of wide networks share: inputs of exact lengths and cosines, two widths extrapolated, checks."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradsim.laws.record import Check, estimated, exact
from gradsim.networks.depth.transformer import Transformer
from gradsim.sweeps.sweep import sweep

ROOT2 = math.sqrt(2)
EXACT: dict[str, Any] = {"norm": "rms", "epsilon": 0.0}


def alike(tokens: int, width: int, c: float = 0.0, q: float = 1.0) -> np.ndarray:
    """One input [1, tokens, width] whose tokens have squares q · width and correlations c, both exactly."""
    gram = q * width * ((1 - c) * np.eye(tokens) + c)
    return np.linalg.cholesky(gram)[None] @ np.eye(tokens, width)


def at_infinity(
    make: Callable[[int], Transformer], widths: tuple[int, int], power: float, seeds: tuple[int, int], depth: int,
    statistics: tuple[str, ...] = ("log_gain",), c: float = 0.0, key: int = 0, **gains: Any,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Powers E‖J‖²/n and lengths after the last block, [cells], of two widths extrapolated by width^−power; errors."""
    found: list[dict[str, np.ndarray]] = []
    for width, count in zip(widths, seeds, strict=True):
        network = make(width)
        data = sweep(
            network, depth=depth, seeds=count, key=key, statistics=statistics, inputs=alike(network.tokens, width, c),
            **gains,
        )  # fmt: skip
        last = data.isel(depth=-1).transpose(..., "seed")
        found.append({name: np.asarray(last[name]) for name in statistics})
        found[-1] |= {"log_gain": np.exp(2 * found[-1]["log_gain"])} if "log_gain" in statistics else {}
        if "token_spread" in statistics:  # squared it is (1 − 1/n)(1 − c)
            found[-1]["token_spread"] = 1 - found[-1]["token_spread"] ** 2 / (1 - 1 / network.tokens)
    ratio = (widths[1] / widths[0]) ** power
    far, near = ratio / (ratio - 1), 1 / (ratio - 1)
    limits = {}
    for name in statistics:
        small, large = found[0][name], found[1][name]
        errors = [one.std(axis=-1, ddof=1) / math.sqrt(one.shape[-1]) for one in (small, large)]
        limits[name] = (far * large.mean(-1) - near * small.mean(-1), np.hypot(far * errors[1], near * errors[0]))
    return limits


def exactly(quantity: str, measured: Any, predicted: Any, tolerance: float) -> Check:
    """Of several numbers together."""
    return exact(quantity, np.array(measured, np.float64), np.array(predicted, np.float64), tolerance)


def in_the_limit(quantity: str, limit: tuple[np.ndarray, np.ndarray], target: float) -> Check:
    """Of one cell."""
    return estimated(quantity, float(limit[0]), float(limit[1]), target)
