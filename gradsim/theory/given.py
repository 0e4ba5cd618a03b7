"""What a theory is given: numbers that broadcast, and a depth, checked before anything is computed."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from gradsim import arguments
from gradsim.activations import Activation

ActivationLike = str | Callable[[Array], Array] | Activation
# NumPy's own ArrayLike counts an int or a float as complex, which a checker at run time does not.
Number = ArrayLike | float | int | Sequence[Any]

RANGE, SMALLEST = (0.0, 1e150), 1e-150  # a gain's square must stay inside the floats
SQUARED = ("sigma_", "branch_")
MOST = 10**8  # numbers in an array of all cells and layers: 0.8 GB, of which there are a few
LAYERS = 10**6  # one after the other: a minute or two

Bounds = Mapping[str, tuple[float, float]]


def broadcast(
    bounds: Bounds = MappingProxyType({}), /, *, most: int = MOST, **named: Any
) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """The named arguments as flat float64 arrays of one shape, and that shape.

    Each lies within its bounds, which are `RANGE` unless given.
    Raises: TypeError for what is not numeric; ValueError for an empty array, NaN, what is out of bounds, shapes
    that do not broadcast and more than `most` cells.
    """
    arrays = {name: _within(name, value, *bounds.get(name, RANGE)) for name, value in named.items()}
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError as error:
        raise ValueError(f"{', '.join(named)}: shapes do not broadcast: {shapes}") from error
    cells = math.prod(shape)
    if cells > most:
        raise ValueError(f"{', '.join(named)}: got {cells:,} cells, from shapes {shapes}; pass at most {most:,}")
    return [np.array(np.broadcast_to(array, shape)).ravel() for array in arrays.values()], shape


def layers(
    depth: Any, bounds: Bounds = MappingProxyType({}), /, **named: Any
) -> tuple[int, list[np.ndarray], tuple[int, ...]]:
    """The depth, then as from `broadcast`; every cell is followed through every layer, so both bound each other."""
    depth = arguments.whole("depth", depth, maximum=LAYERS)
    return depth, *broadcast(bounds, most=MOST // depth, **named)


def _within(name: str, value: Any, low: float, high: float) -> np.ndarray:
    """`value` as float64 numbers from low to high."""
    kind = "finite non-negative number" if (low, high) == RANGE else f"number from {low:g} to {high:g}"
    wanted = f"a {kind} or an array of them"
    array = arguments.numbers(name, value, wanted)
    if array.size == 0:
        raise ValueError(f"{name}: got an empty array; pass {wanted}")
    wrong = ~((array >= low) & (array <= high))  # NaN is, too
    if name.startswith(SQUARED):
        wrong |= (array > 0) & (array < SMALLEST)
    if np.any(wrong):
        first = array[wrong].flat[0]
        limit = f", at most {high:g}" if high < first < np.inf else f", 0 or at least {SMALLEST:g}" if first > 0 else ""
        raise ValueError(f"{name}: got {first}; pass {wanted}{limit if np.isfinite(first) else ''}")
    return array
