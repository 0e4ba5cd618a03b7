"""Checks of what a user passes: each failure is one line that says the name, what came, what may come."""

import inspect
import math
import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

# Frames that are not the user's: gradsim, and the checkers of types that tests put around its functions.
OWN = ("gradsim", "jaxtyping", "beartype")


def shown(value: Any) -> str:
    """`value` in a message of one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:120]} …"


def whole(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """`value` as an int of at least `minimum`, and at most `maximum`."""
    wanted = f"a whole number of at least {minimum}" + (f" and at most {maximum}" if maximum is not None else "")
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: {got(value)}; pass {wanted}")
    number: Any = int(value) if isinstance(value, Integral) else float(value)
    is_whole = isinstance(number, int) or number.is_integer()
    if not is_whole or number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name}: got {shown(value)}; pass {wanted}")
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
        raise TypeError(f"{name}: {got(value)}; pass one of: {', '.join(options)}")
    if value not in options:
        raise ValueError(f"{name}: got {shown(value)}; pass one of: {', '.join(options)}")
    return value


def flag(name: str, value: Any) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: {got(value)}; pass True or False")
    return bool(value)


def gain(name: str, value: Any) -> np.ndarray:
    """`value` as a float64 number or 1-d array: finite, not negative unless it is a bias, a correlation within ±1."""
    may_be_negative = name.endswith(("_bias", "_correlation"))
    wanted = f"a finite {'' if may_be_negative else 'non-negative '}number or a 1-d array of them"
    if name.endswith("_correlation"):
        wanted = "a number from -1 to 1 or a 1-d array of them"
    array = numbers(name, value, wanted)
    if array.ndim > 1:
        raise ValueError(f"{name}: got an array of shape {array.shape}; pass {wanted}")
    if array.size == 0:
        raise ValueError(f"{name}: got an empty axis; pass {wanted}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: got {array[~np.isfinite(array)].flat[0]}; pass {wanted}")
    if not may_be_negative and np.any(array < 0):
        raise ValueError(f"{name}: got {array[array < 0].flat[0]}; pass {wanted}")
    if name.endswith("_correlation") and np.any(np.abs(array) > 1):
        raise ValueError(f"{name}: got {array[np.abs(array) > 1].flat[0]}; pass {wanted}")
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
        raise TypeError(f"{name}: {got(value)}; pass {wanted}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: {got(value)}; pass {wanted}")
    return array.astype(np.float64)


def shape_of(name: str, value: Any) -> tuple[int, ...]:
    """The shape of an array or of nested lists."""
    try:
        return np.shape(value)
    except Exception as error:  # a ragged list, or an object that does not become an array
        raise TypeError(f"{name}: {got(value)}; pass an array") from error


def warn(message: str) -> None:
    """A RuntimeWarning at the user's own line: that which called into gradsim."""
    frame, level, outermost = inspect.currentframe(), 0, 1
    while frame is not None:
        level += 1
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in OWN:
            outermost = level
        frame = frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=outermost + 1)


def share(name: str, value: Any) -> float:
    """`value` as a number from 0 to 1."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: {got(value)}; pass a number from 0 to 1")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name}: got {shown(value)}; pass a number from 0 to 1")
    return float(value)


def text(name: str, value: Any) -> str:
    """`value`, which must be a string with something in it."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: {got(value)}; pass a string")
    if not value:
        raise ValueError(f"{name}: got an empty string; pass a name")
    return value


def function(name: str, value: Any) -> Any:
    """`value`, which must be callable and, being a static choice, have a hash."""
    if not callable(value):
        raise TypeError(f"{name}: {got(value)}; pass a function")
    try:
        hash(value)
    except TypeError as error:
        kind = type(value).__name__
        raise TypeError(f"{name}: {kind} has no hash; pass a function, or an object of a frozen dataclass") from error
    return value


def choices(name: str, value: Any, options: Iterable[str], least: int = 0) -> tuple[str, ...]:
    """`value`, a tuple of at least so many of the `options`."""
    options = tuple(options)
    if not isinstance(value, tuple):
        raise TypeError(f"{name}: {got(value)}; pass a tuple of: {', '.join(options)}")
    if len(value) < least:
        raise ValueError(f"{name}: got {shown(value)}; pass {least} or more of: {', '.join(options)}")
    return tuple(choice(name, one, options) for one in value)


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def got(value: Any) -> str:
    """What came, and its type, in one line."""
    return f"got {shown(value)} of type {type(value).__name__}"


def size(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as the size of an array: a whole number of at least `minimum` that 32 bits hold."""
    return whole(name, value, minimum, 2**31 - 1)


def divisor(name: str, value: int, of: str, whole: int) -> None:
    """Nothing, if `value` divides the number `whole` of the argument `of`."""
    if whole % value:
        small = [n for n in range(1, math.isqrt(whole) + 1) if whole % n == 0]
        divisors = sorted({*small, *(whole // n for n in small)})
        raise ValueError(f"{name}: got {value}, which does not divide {of}={whole}; pass one of: {divisors}")


def number(name: str, value: Any, wanted: str, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float between `low` and `high`, which are themselves outside; `wanted` says so in a message."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name}: {got(value)}; pass {wanted}")
    if not low < float(value) < high:  # NaN is not
        raise ValueError(f"{name}: got {shown(value)}; pass {wanted}")
    return float(value)
