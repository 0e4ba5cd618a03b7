"""What `lyapunov_exponents` refuses, before anything is compiled."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from unrolled import own_checks
from wrong import KINDS, refused, refused_each

import gradsim as gs
from gradsim.sweeps import lyapunov

BASE: dict[str, Any] = {"network": gs.feedforward(4), "depth": 8, "seeds": 2}
ARGUMENTS: dict[str, Any] = {
    "network": "network", "depth": "size", "seeds": "size", "key": "key", "burn_in": "count", "dtype": "choice",
    "inputs": "data", "sigma_w": "gain", "progress": [1, "yes", []],
    "count": [value for value in KINDS["size"] if value is not None] + [5],
    "vectors": [value for value in KINDS["choice"] if value is not None],
    "tolerance": [value for value in KINDS["fraction"] if value is not None] + [0.0, 1.0],
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_checks_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def compiled(*_: Any, **__: Any) -> None:
        raise AssertionError("a measurement was started before the arguments were checked")

    monkeypatch.setattr(lyapunov, "_keys", compiled)
    with own_checks():
        yield


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_lyapunov_exponents_refuse(argument: str) -> None:
    refused_each(argument, ARGUMENTS[argument], lambda value: gs.lyapunov_exponents(**{**BASE, argument: value}))


def test_steps_of_vectors() -> None:
    wrong: list[Any] = [0, 9, [1, 9], [], "middle", [1.5], [[1, 2]], {}, np.ones((2, 2)), True]
    refused_each("at", wrong, lambda at: gs.lyapunov_exponents(**BASE, vectors="covariant", at=at))
    refused("at", lambda: gs.lyapunov_exponents(**BASE, at=3))


def test_what_no_memory_holds() -> None:
    refused("count", lambda: gs.lyapunov_exponents(**{**BASE, "network": gs.feedforward(10**6)}))
    deep = {"network": gs.feedforward(64), "depth": 10**7, "seeds": 1, "vectors": "covariant"}
    refused("depth", lambda: gs.lyapunov_exponents(**deep))  # type: ignore[arg-type]
    refused("widht", lambda: gs.lyapunov_exponents(**BASE, widht=3))
