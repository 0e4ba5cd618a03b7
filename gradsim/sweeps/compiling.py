"""The first call of a program, which compiles it, where several threads measure or train."""

from functools import lru_cache
from threading import Lock
from typing import Any

from gradsim.sweeps.progress import Part, Progress


@lru_cache(maxsize=256)
def _first(program: Any, static: Any) -> Lock:
    """Held while a program is compiled: of networks alike that run side by side only one compiles it."""
    return Lock()


class Compiling:
    """Calls of programs by several threads, of which one compiles while the others wait.

    Args:
        doing: what they do once they are compiled, such as "training".
    """

    def __init__(self, bar: Progress | Part, doing: str, family: str) -> None:
        self._lock, self._known, self._bar, self._doing, self._family = Lock(), set[Any](), bar, doing, family

    def __call__(self, program: Any, static: Any, *args: Any, **options: Any) -> Any:
        if program in self._known:
            return program(static, *args, **options)
        with self._lock:
            if program in self._known:
                return program(static, *args, **options)
            self._bar.phase(f"compiling {self._family}")
            with _first(program, static):
                done = program(static, *args, **options)
            self._known.add(program)
            self._bar.phase(f"{self._doing} {self._family}")
            return done

    def update(self, amount: float | int) -> None:
        """So many more networks are done."""
        with self._lock:
            self._bar.update(amount)
