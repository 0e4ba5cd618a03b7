"""The scale at which a layer has the gain that is wanted, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STEP = 0.05  # nats of scale, for slopes
LEAST = 0.1  # slope of ln gain over ln scale below which the scale does not act
STEPS = 25
# Nats of scale that are searched where the slope does not lead there: first where initial kernels are, then below, as
# for units that are deep in saturation. From above, where it leads nowhere, only rounding comes to the target.
NEAR = np.arange(-8.0, 8.1)
SEARCHED = np.concatenate([np.arange(-80.0, -8.0, 4.0), NEAR])


Gain = Callable[[float], float]


class Solution(NamedTuple):
    """ln of the scale, None where there is none; d ln gain / d ln scale where it started, and at the solution; what was
    found wrong."""

    log_scale: float | None
    slope: float
    reason: str
    there: float = float("nan")


def slope(gain: Gain, at: float = 0.0) -> float:
    """d ln gain / d ln scale."""
    return (gain(at + STEP) - gain(at - STEP)) / (2 * STEP)


def solve(gain: Gain, aim: float, tolerance: float, rough: Gain | None = None) -> Solution:
    """`gain` is ln of the gain over ln of the scale, which starts at zero; `rough` is about the same, in less time.

    Where the gain grows with the scale, Newton's steps; where it does not, as in a layer that is saturated, the
    nearest crossing on which it does. The way there is sought roughly, and its end by the gain itself.
    """
    if rough is None:
        return _solved(gain, aim, tolerance)
    near = _solved(rough, aim, tolerance)
    if near.log_scale is None:
        return near
    with np.errstate(all="ignore"):
        x = _newton(gain, aim, tolerance, near.log_scale, near.there)
    return _solved(gain, aim, tolerance) if x is None else near._replace(log_scale=x)


def _solved(gain: Gain, aim: float, tolerance: float) -> Solution:
    with np.errstate(all="ignore"):
        here, start = gain(0.0), slope(gain)
        if np.isfinite(here) and abs(start) < LEAST and abs(gain(np.log(4.0)) - gain(-np.log(4.0))) < 2 * LEAST:
            reason = f"the scale does not act, as before a norm: d ln gain / d ln scale is {start:.2g}"
            return Solution(None, start, reason)
        x = _newton(gain, aim, tolerance, 0.0, start, here) if start >= LEAST else None
        if x is not None:
            return _where_it_acts(gain, x, start)
        gains = np.full(SEARCHED.size, np.nan)
        for scales in (NEAR, np.setdiff1d(SEARCHED, NEAR)):
            gains[np.isin(SEARCHED, scales)] = [gain(float(one)) for one in scales]
            x = _crossing(gain, aim, tolerance, gains)
            if x is not None:
                return _where_it_acts(gain, x, start)
        return Solution(None, start, _why(here, gains, aim))


def _where_it_acts(gain: Gain, x: float, start: float) -> Solution:
    """The solution, unless the gain only draws near to the target there, as that of an embedding before a norm."""
    there = slope(gain, x)
    if there >= LEAST:
        return Solution(x, start, "", there)
    times = f"with the kernel times {np.exp(x):.3g}, where d ln gain / d ln scale is {there:.2g}"
    return Solution(None, start, f"the scale hardly acts where its gain is the target, {times}")


def _newton(
    gain: Gain, aim: float, tolerance: float, x: float, rate: float, value: float | None = None
) -> float | None:
    """From x, where the gain's slope is `rate`, and its value known or not."""
    value = gain(x) if value is None else value
    for _ in range(STEPS):
        if abs(value - aim) <= tolerance:
            return x
        old, before = x, value
        x -= (value - aim) / float(np.clip(rate, LEAST, 4.0))
        value = gain(x)
        if not np.isfinite(value):
            return None
        if x != old:
            rate = (value - before) / (x - old)
    return None


def _crossing(gain: Gain, aim: float, tolerance: float, gains: np.ndarray) -> float | None:
    """Where the gain grows through the aim, nearest to the scale as it is."""
    below = (gains < aim) & ~np.isnan(gains)
    rising = np.flatnonzero(below[:-1] & (gains[1:] >= aim) & np.isfinite(gains[1:]))
    if not rising.size:
        return None
    middle = SEARCHED[rising] + SEARCHED[rising + 1]
    place = rising[np.argmin(np.abs(middle))]
    low, high = float(SEARCHED[place]), float(SEARCHED[place + 1])
    for _ in range(4 * STEPS):
        x = 0.5 * (low + high)
        value = gain(x)
        if abs(value - aim) <= tolerance:
            return x
        low, high = (x, high) if value < aim else (low, x)
    return None


def _why(here: float, gains: np.ndarray, aim: float) -> str:
    finite = np.isfinite(gains)
    if here == -np.inf:
        return "dead: its gain is 0, and no scale brings it to the target"
    if not finite.any():
        return "its gain is not finite at any scale"
    best = int(np.argmax(np.where(finite, gains, -np.inf)))
    if gains[best] < aim:
        at = np.exp(SEARCHED[best])
        most = f"its gain is at most {np.exp(gains[best]):.3g}, with the kernel times {at:.3g}"
        return f"saturated, or normalized behind it: {most}"
    least, most = np.exp(gains[finite].min()), np.exp(gains[best])
    return f"its gain, between {least:.3g} and {most:.3g}, does not grow through the target with the scale"
