"""Wrong things to pass, and what must come of them: one line of gradsim's own that names the argument."""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import xarray
from unrolled import own_checks

import gradsim as gs
from gradsim.sweeps.sweep import measure_cells

PACKAGE = Path(gs.__file__).parent
NAN, INF = float("nan"), float("inf")
SLOW = 60.0  # seconds that no refusal takes, even on a busy machine; work beyond all memory would take for ever


class Opaque:
    """An object of no kind that anything takes, whose repr has two lines."""

    def __repr__(self) -> str:
        return "<an\nobject>"


ARRAY = np.ones((2, 2))
DATAARRAY = xarray.DataArray(ARRAY, dims=("sigma_w", "depth"), name="log_gain")
# Another script's file: no seeds, no depth, no gains.
OTHER = xarray.Dataset({"value": (("activation", "z"), ARRAY)}, {"activation": ["a", "b"], "z": [0.0, 1.0]})
NO_NUMBER: list[Any] = [None, "x", ["a"], {"a": 1}, 1j, True, [[1.0], [1.0, 2.0]], Opaque(), OTHER, b"1"]
BAD_NUMBER: list[Any] = [NAN, INF, -INF, -1, []]

# Each kind of argument: what is wrong with it whatever the call.
KINDS: dict[str, list[Any]] = {
    "size": [*NO_NUMBER, *BAD_NUMBER, 0, 2.5, ARRAY, DATAARRAY],
    "count": [*NO_NUMBER, *BAD_NUMBER, 2.5, ARRAY, DATAARRAY],
    "numbers": [*NO_NUMBER, *BAD_NUMBER, [1.0, NAN], -1e200, np.array([None]), [[-1.0, 1.0], [1.0, 1.0]]],
    "signed": [*NO_NUMBER, NAN, INF, [], -1e200, np.array([None])],
    "gain": [*NO_NUMBER, *BAD_NUMBER, [1.0, NAN], [1.0, 1.0], ARRAY, 1e300],
    "fraction": [*NO_NUMBER, *BAD_NUMBER, 2.0, ARRAY, DATAARRAY],
    "choice": [None, "x", "", 3, ["a"], {"a": 1}, NAN, True, Opaque(), ARRAY, DATAARRAY, OTHER, b"x"],
    "flag": [None, "yes", 1, 0.0, [], [True], {}, NAN, Opaque(), ARRAY, DATAARRAY],
    "function": [None, "x", "", 3, ["tanh"], {"a": 1}, NAN, True, Opaque(), ARRAY, DATAARRAY, lambda: None],
    "network": [None, "x", 3, [], {}, {"a": 3}, {"a": None}, gs.feedforward, gs.Network, Opaque(), ARRAY, DATAARRAY],
    "dataset": [None, "x", 3, [], {}, {"log_gain": 1}, ["log_gain"], NAN, Opaque(), ARRAY, DATAARRAY, OTHER,
                xarray.Dataset()],
    "key": [None, "x", [], {}, 1j, True, NAN, INF, -1, 0.5, 2**70, Opaque(), ARRAY, DATAARRAY],
    "data": ["x", {}, 1j, True, 3.0, NAN, [], [[1.0], [1.0, 2.0]], Opaque(), ARRAY, np.ones((2, 4), complex), OTHER,
             np.full((2, 4), NAN), np.full((2, 4), 1e300), np.ones((0, 4))],
}  # fmt: skip
KINDS |= {
    f"{kind} or None": [value for value in KINDS[kind] if value is not None]
    for kind in ("size", "count", "numbers", "signed")
}


def shown(value: Any) -> str:
    """A wrong thing, for the name of a failure."""
    return f"{type(value).__name__} {' '.join(repr(value).split())[:40]}"


Names = str | tuple[str, ...]  # the argument, or several where either may be to blame


def problem(name: Names, call: Callable[[], Any]) -> str:
    """What is not as it must be: the call raises one line that begins with the name, from a frame of gradsim, soon."""
    start = perf_counter()
    try:
        call()
    except (TypeError, ValueError) as error:
        message, frame = str(error), Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not message.startswith(name) or ":" not in message:
            return f"the message does not begin with {name!r}: {message}"
        if "\n" in message:
            return f"more than one line: {message}"
        if len(message) < 24 or len(message) > 600:
            return f"too short to say what may come, or too long to be read: {message}"
        if PACKAGE not in frame.parents:
            return f"raised by {frame}: {message}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "accepted"
    took = perf_counter() - start
    return f"took {took:.0f} s" if took > SLOW else ""


def refused(name: Names, call: Callable[[], Any]) -> None:
    """The call must be refused as `problem` says."""
    found = problem(name, call)
    assert not found, found


def refused_each(name: Names, values: str | Sequence[Any], call: Callable[[Any], Any]) -> None:
    """Each of these, or of a kind, must be refused; all that are not are named together."""
    values = KINDS[values] if isinstance(values, str) else values
    found = [(value, problem(name, partial(call, value))) for value in values]
    wrong = [f"{shown(value)}: {said}" for value, said in found if said]
    assert not wrong, "\n".join([f"{name}, {len(wrong)} of {len(found)}:", *wrong])


@contextmanager
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library's own checks alone: no type checker before them, and no measurement after them."""

    def compiled(*_: Any, **__: Any) -> None:
        raise AssertionError("a measurement was started before the arguments were checked")

    monkeypatch.setattr(sys.modules[measure_cells.__module__], "program", compiled)
    with own_checks():
        yield
