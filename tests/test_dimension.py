"""Box counting, against curves whose dimension is known."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path

from gradsim.analysis.dimension import box_dimension

POINTS = 192
# What stands in place of each side of the unit interval.
KOCH = np.array([0, 1 / 3, 0.5 + 0.5j / math.sqrt(3), 2 / 3, 1])
MINKOWSKI = np.array([0, 1, 1 + 1j, 2 + 1j, 2, 2 - 1j, 3 - 1j, 3, 4]) / 4


def curve(generator: np.ndarray, sides: int, level: int) -> np.ndarray:
    """The corners of a polygon, each of whose sides has been replaced by the generator `level` times."""
    corners = np.exp(-2j * np.pi * np.arange(sides + 1) / sides)
    for _ in range(level):
        start, end = corners[:-1, None], corners[1:, None]
        corners = np.append((start + (end - start) * generator[:-1]).ravel(), corners[-1])
    return corners


@cache
def snowflake() -> np.ndarray:
    """Koch's."""
    return inside(curve(KOCH, 3, 6))


def inside(corners: np.ndarray) -> np.ndarray:
    side = np.linspace(-1.4, 1.4, POINTS)
    x, y = np.meshgrid(side, side)
    path = Path(np.stack([corners.real, corners.imag], axis=1))
    return path.contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)


def carpet(level: int) -> np.ndarray:
    """Sierpinski's."""
    hole = np.array([[True, True, True], [True, False, True], [True, True, True]])
    found = np.ones((1, 1), bool)
    for _ in range(level):
        found = np.kron(found, hole)
    return found


@pytest.mark.parametrize(("slope", "off"), [(0.0, 1e-12), (0.37, 0.005), (-0.7, 0.005), (1.0, 0.03), (-1.7, 0.005)])
def test_a_straight_line_has_dimension_one(slope: float, off: float) -> None:
    """Near a corner of the image, where the line of slope 1 ends, large boxes miss it."""
    y, x = np.mgrid[:POINTS, :POINTS] / POINTS
    found = box_dimension(y > 0.52 + slope * (x - 0.5))
    assert float(found["dimension"]) == pytest.approx(1, abs=off)
    assert abs(float(found["dimension"]) - 1) < 2 * float(found["error"])
    assert float(found["error"]) < 0.15


@pytest.mark.parametrize(
    ("drawn", "dimension"),
    [
        (snowflake, math.log(4) / math.log(3)),
        (lambda: inside(curve(MINKOWSKI, 4, 4)), 1.5),
        (lambda: carpet(5), math.log(8) / math.log(3)),
        (lambda: np.random.default_rng(0).random((POINTS, POINTS)) < 0.5, 2.0),
    ],
    ids=["Koch", "Minkowski", "Sierpinski", "noise"],
)
def test_known_dimensions_lie_within_two_errors(drawn: Callable[[], np.ndarray], dimension: float) -> None:
    image = drawn()
    found = box_dimension(image)
    assert abs(float(found["dimension"]) - dimension) <= 2 * float(found["error"])
    assert float(found["error"]) < 0.06
    assert float(box_dimension(~image)["dimension"]) == float(found["dimension"])


def test_fine_boxes_see_too_little_of_a_fractal() -> None:
    """Why the fit begins at four cells."""
    image = snowflake()
    assert float(box_dimension(image, finest=1)["dimension"]) < float(box_dimension(image)["dimension"]) - 0.01


def test_the_parts_of_the_error() -> None:
    """Of a straight line with specks no power law holds; of noise in one corner alone the parts of the image differ."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:POINTS, :POINTS]
    specks = box_dimension((y > POINTS / 2) ^ (generator.random((POINTS, POINTS)) < 0.003))
    assert float(specks["scale_error"]) > 0.1 > float(specks["sampling_error"])
    corner = box_dimension(
        np.where((y < POINTS / 3) & (x < POINTS / 3), generator.random((POINTS, POINTS)) < 0.5, y > x + 0.5)
    )
    assert float(corner["sampling_error"]) > 0.1
    for found in (specks, corner):
        parts = math.hypot(float(found["scale_error"]), float(found["sampling_error"]))
        assert float(found["error"]) == pytest.approx(parts)


def test_shares_of_mixed_boxes_are_counted() -> None:
    """A horizontal line is in s of the n rows of boxes of each size, wherever it lies between the margins."""
    y = np.mgrid[:64, :64][0]
    found = box_dimension(y >= 30)
    rows = 64 - 8
    np.testing.assert_allclose(found["mixed"], found["size"] / rows, rtol=1e-12)


def test_no_boundary_has_no_dimension() -> None:
    found = box_dimension(np.ones((64, 64), bool))
    assert np.isnan(found["dimension"])
    assert not found["mixed"].any()


@pytest.mark.parametrize(
    ("image", "finest", "message"),
    [
        (np.ones((64, 64)), 4, "inside: got float64"),
        (np.ones(64, bool), 4, "inside: got bool"),
        (np.ones((64, 63), bool), 4, "inside: got bool"),
        (np.ones((64, 64), bool), 5, "finest: got 5; pass at most 4"),
        (np.ones((64, 64), bool), 0, "finest: got 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(image: Any, finest: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_dimension(image, finest)
