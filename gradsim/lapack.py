"""LAPACK on a CPU: one matrix a call, and no threads of its own.

A call with many matrices hands them to the threads of the device and waits in one of them. As many such calls at once
as there are threads wait for each other for ever (jaxlib 0.10): on two cores those for two orthogonal matrices of one
layer, or for programs of two devices or of two Python threads. A call with one matrix waits for nothing. Programs in
which functions of the user's own make the others (`waits`) run one after the other.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib import import_module
from threading import Lock
from typing import Any

import jax
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from threadpoolctl import threadpool_limits

from gradsim.programs import once


class _Limit:
    """The one limit of the process, and how many are within it."""

    def __init__(self) -> None:
        self.lock, self.within, self.held = Lock(), 0, ExitStack()

    def enter(self) -> None:
        with self.lock:
            if not self.within:
                import_module("scipy.linalg.cython_lapack")  # or jaxlib loads it later, and it would know no limit
                self.held.enter_context(threadpool_limits(1, "blas"))
            self.within += 1

    def leave(self) -> None:
        with self.lock:
            self.within -= 1
            if not self.within:
                self.held.close()


_limit = _Limit()


@contextmanager
def in_one_thread() -> Iterator[None]:
    """OpenBLAS without threads of its own: two that wait for each other take 4 times as long for a QR of width 128.

    The limit is the whole process's, and ends with the last of those that measure side by side.
    """
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


def one_by_one(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """The same function of an array, called on a CPU for one after the other where it is mapped over several."""

    @sequential_vmap
    def sequential(array: Array) -> Any:
        return function(array)

    return lambda array: lax.platform_dependent(array, cpu=sequential, default=function)


alone = Lock()  # of the process: held by a program that waits, to its end
MANY = re.compile(r"custom_call @(?:lapack|blas)_\w+\([^\n]*?: \(tensor<\d+x\d+x\d+x")  # as a program is lowered


@once
def waits(program: Any, *given: Any, **options: Any) -> bool:
    """Whether a jitted program calls LAPACK with many matrices on a CPU, as a function of the user's own may."""
    lower = getattr(program, "lower", None)
    return lower is not None and MANY.search(lower(*given, **options).as_text()) is not None


@lru_cache(maxsize=256)
def needed(law: Callable[..., Array], shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a law of draws, law(key, shape, dtype), calls LAPACK on a CPU."""
    drawn = jax.jit(lambda key: law(key, shape, dtype)).trace(jax.random.key(0))
    return "lapack_" in drawn.lower(lowering_platforms=("cpu",)).as_text()
