"""Checks of what a user passes: each failure is one line that says the name, what came, what may come."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np


def _shown(value: Any) -> str:
    """`value` in a message of one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:120]} …"


def whole(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """`value` as an int of at least `minimum`, and at most `maximum`."""
    wanted = f"a whole number of at least {minimum}" + (f" and at most {maximum}" if maximum is not None else "")
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {_shown(value)} of type {type(value).__name__}; pass {wanted}")
    number: Any = int(value) if isinstance(value, Integral) else float(value)
    is_whole = isinstance(number, int) or number.is_integer()
    if not is_whole or number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name}: got {_shown(value)}; pass {wanted}")
    return int(number)


def key(value: Any) -> int:
    """The number of a random stream; JAX makes its key of 32 bits."""
    return whole("key", value, minimum=0, maximum=2**32 - 1)


def in_dtype(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` in the run's dtype, none of which may turn into inf or 0 there."""
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(dtype)
    lost = ~np.isfinite(cast) | ((cast == 0) & (values != 0))
    if lost.any():
        hint = "; or take dtype='float64'" if dtype == "float32" else ""
        raise ValueError(f"{name}: got {values[lost].flat[0]}, beyond {dtype}; pass values within its range{hint}")
    return cast


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """`value`, which must be one of `options`."""
    options = tuple(options)
    if not isinstance(value, str):
        raise TypeError(
            f"{name}: got {_shown(value)} of type {type(value).__name__}; pass one of: {', '.join(options)}"
        )
    if value not in options:
        raise ValueError(f"{name}: got {_shown(value)}; pass one of: {', '.join(options)}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {_shown(value)} of type {type(value).__name__}; pass True or False")
    return bool(value)


def gain(name: str, value: Any) -> np.ndarray:
    """`value` as a float64 number or 1-d array: finite, and not negative unless it is a bias."""
    may_be_negative = name.endswith("_bias")
    wanted = f"a finite {'' if may_be_negative else 'non-negative '}number or a 1-d array of them"
    array = numbers(name, value, wanted)
    if array.ndim > 1:
        raise ValueError(f"{name}: got an array of shape {array.shape}; pass {wanted}")
    if array.size == 0:
        raise ValueError(f"{name}: got an empty axis; pass {wanted}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: got {array[~np.isfinite(array)].flat[0]}; pass {wanted}")
    if not may_be_negative and np.any(array < 0):
        raise ValueError(f"{name}: got {array[array < 0].flat[0]}; pass {wanted}")
    if len(np.unique(array)) < array.size:
        raise ValueError(f"{name}: the values repeat; pass each point of an axis once")
    return array


def samples(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as a float array [samples, *shape] without NaN or inf."""
    wanted = f"an array of shape [samples, {', '.join(map(str, shape))}]"
    array = numbers(name, value, f"{wanted} of numbers")
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or array.shape[0] == 0:
        raise ValueError(f"{name}: got shape {list(array.shape)}; pass {wanted}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(array))} entries are NaN or infinite; pass {wanted}")
    return array


def numbers(name: str, value: Any, wanted: str) -> np.ndarray:
    """`value` as a float64 array, of any shape; `wanted` says in a message what may come."""
    try:
        array = np.asarray(value)
    except Exception as error:  # a ragged list, or an object that does not become an array
        raise TypeError(f"{name}: got {_shown(value)} of type {type(value).__name__}; pass {wanted}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: got {_shown(value)} of type {type(value).__name__}; pass {wanted}")
    return array.astype(np.float64)
