"""What tests of stores share."""

import signal
from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest
import xarray

from gradsim.sweeps import loop

Before = Callable[[Callable[[int, int], None]], None]


def before_calls(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, int], None]) -> None:
    """Before each call of the device something is done with its number and its networks."""
    calls, lock, chosen = list[int](), Lock(), loop.program

    def program(*choice: Any) -> Any:
        def call(plan: Any, tiling: Any, gains: Any, drawn: Any, *others: Any) -> Any:
            with lock:
                calls.append(1)
                number = len(calls)
            act(number, len(drawn.normals) * len(next(iter(gains.values()))))
            return chosen(*choice)(plan, tiling, gains, drawn, *others)

        return call

    monkeypatch.setattr(loop, "program", program)


def interrupt(call: int, _: int) -> None:
    """Ctrl-C at the fourth call."""
    if call == 4:
        signal.raise_signal(signal.SIGINT)


def same(
    kept: xarray.Dataset, whole: xarray.Dataset, compare: Callable[..., None] = xarray.testing.assert_identical
) -> None:
    """All but where and when it was made."""
    own = ("created", "command", "done")
    one, other = (each.assign_attrs(dict.fromkeys(own, "")) for each in (kept.load(), whole))
    compare(one, other)
    assert one.attrs == other.attrs
    assert {name: values.attrs for name, values in one.variables.items()} == {
        name: values.attrs for name, values in other.variables.items()
    }
    assert list(one.data_vars) == list(other.data_vars)
