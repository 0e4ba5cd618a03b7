"""The box-counting dimension of the boundary between two kinds of points on a grid, with its error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradsim import arguments

if TYPE_CHECKING:
    import xarray

TILES = 4  # along each axis: the jackknife leaves out one of TILES² parts of the image
FINEST = 4  # cells: smaller boxes hold few points, between which thin parts of a boundary slip
COARSEST = 8  # boxes of this share of the image's side are the largest
FEWEST = 64  # points along a side


def box_dimension(inside: Any, finest: int = FINEST) -> xarray.Dataset:
    """The dimension of the boundary between the points of an image that are true and those that are false.

    A box of s × s cells has the points at its corners, edges and in it, (s + 1)² of them, and is mixed where it holds
    both kinds. The share of mixed boxes goes as s^(2 − D): D is fitted to its logarithm by least squares, over sizes
    from `finest` to an eighth of the shorter side, about √2 apart. Boxes lie everywhere, not on one grid, and their
    middles in one region whatever their size, so that a straight line has D = 1 exactly.

    Two errors are added in squares. `sampling_error`: another part of the boundary would give another D; the jackknife
    over 4 × 4 parts of the image. `scale_error`: a power law may not hold, or not yet; half the difference between
    the D of the smaller sizes and that of the larger.

    Args:
        inside: 2-d array of bools, at least 64 points a side.
        finest: the smallest box that is fitted, in cells. Smaller ones see too little: D of a Koch curve is 0.02 too
            low where 1 is fitted.

    Returns: over `size` (in cells) `mixed`, the share of boxes, from size 1 on, and `fitted`, that of the fitted law;
        and without axes `dimension`, `error`, `sampling_error`, `scale_error`: NaN where there is no boundary.
    Raises: ValueError or TypeError naming the argument.
    Source: Grebogi, McDonald, Ott & Yorke 1983 (basin boundaries); Sohl-Dickstein 2024 (of training).
    """
    import xarray  # 0.3 s: not at import

    image = np.asarray(inside)
    if image.ndim != 2 or image.dtype != bool or min(image.shape) < FEWEST:
        raise ValueError(
            f"inside: got {image.dtype} {list(image.shape)}; pass a 2-d array of bools with {FEWEST} points a side"
        )
    finest = arguments.size("finest", finest)
    largest = min(image.shape) // COARSEST
    if finest * 2 > largest:
        raise ValueError(f"finest: got {finest}; pass at most {largest // 2} for an image of {list(image.shape)}")
    sizes = np.unique(np.round(2 ** np.arange(0, np.log2(largest) + 1e-9, 0.5)).astype(int))
    parts = np.stack([_by_part(_mixed(image, int(size), int(sizes[-1]))) for size in sizes])  # [sizes, parts]
    shares, used = parts.mean(axis=1), sizes >= finest
    about = {"long_name": "share of boxes that are mixed", "units": "1"}
    coordinates = {"size": ("size", sizes, {"long_name": "side of a box", "units": "cell"})}
    found: dict[str, Any] = {"mixed": ("size", shares, about), "fitted": ("size", np.full(sizes.size, np.nan), about)}
    names = ("dimension", "error", "sampling_error", "scale_error")
    if not shares.all():
        return xarray.Dataset({**found, **dict.fromkeys(names, np.nan)}, coordinates)
    x = np.log(sizes[used])
    slope, offset = np.polyfit(x, np.log(shares[used]), 1)
    found["fitted"] = ("size", np.where(used, np.exp(offset) * sizes.astype(float) ** slope, np.nan), about)
    count = parts.shape[1]
    with np.errstate(divide="ignore"):
        without = np.log((parts[used].sum(axis=1, keepdims=True) - parts[used]) / (count - 1))
    slopes = _slope(x, without)
    sampling = np.sqrt((count - 1) * np.mean((slopes - slopes.mean()) ** 2))
    middle = x.size // 2
    ends = [_slope(x[part], np.log(shares[used][part])) for part in (slice(None, middle + 1), slice(middle, None))]
    scale = abs(float(ends[0] - ends[1])) / 2
    values = (2 - slope, np.hypot(sampling, scale), sampling, scale)
    return xarray.Dataset({**found, **dict(zip(names, map(float, values), strict=True))}, coordinates)


def _mixed(image: np.ndarray, size: int, largest: int) -> np.ndarray:
    """Whether each box is mixed; the middles of the boxes lie in one region for every size, to half a cell."""
    margin = (largest - size) // 2
    rows, columns = (side - largest for side in image.shape)
    sums = np.zeros((image.shape[0] + 1, image.shape[1] + 1), np.int64)
    sums[1:, 1:] = image.cumsum(axis=0).cumsum(axis=1)
    low_rows, low_columns = slice(margin, margin + rows), slice(margin, margin + columns)
    reach = size + 1
    high_rows, high_columns = (
        slice(margin + reach, margin + reach + rows),
        slice(margin + reach, margin + reach + columns),
    )
    held = (
        sums[high_rows, high_columns]
        - sums[low_rows, high_columns]
        - sums[high_rows, low_columns]
        + sums[low_rows, low_columns]
    )
    return (held > 0) & (held < reach**2)


def _by_part(mixed: np.ndarray) -> np.ndarray:
    """The share of mixed boxes in each of the parts of an image, which are equally large: what is over is left out."""
    rows, columns = (side // TILES for side in mixed.shape)
    cut = mixed[: rows * TILES, : columns * TILES].reshape(TILES, rows, TILES, columns)
    return cut.mean(axis=(1, 3)).ravel()


def _slope(x: np.ndarray, y: np.ndarray) -> Any:
    """That of least squares, of each column of y."""
    centred = x - x.mean()
    return centred @ y / (centred @ centred)
