"""The first call of a program, which compiles it, where several threads train."""

from functools import lru_cache
from threading import Lock
from typing import Any

from gradsim.sweeps.progress import Part, Progress
from gradsim.training.programs import Run


@lru_cache(maxsize=256)
def _first(program: Any, run: Run) -> Lock:
    """Held while a program is compiled: of networks alike that train side by side only one compiles it."""
    return Lock()


class Compiling:
    """Calls of programs by several threads, of which one compiles while the others wait."""

    def __init__(self, bar: Progress | Part, family: str) -> None:
        self._lock, self._known, self._bar, self._family = Lock(), set[Any](), bar, family

    def __call__(self, program: Any, run: Run, *args: Any) -> Any:
        if program in self._known:
            return program(run, *args)
        with self._lock:
            if program in self._known:
                return program(run, *args)
            self._bar.phase(f"compiling {self._family}")
            with _first(program, run):
                done = program(run, *args)
            self._known.add(program)
            self._bar.phase(f"training {self._family}")
            return done

    def update(self, amount: float | int) -> None:
        """So many more networks are done."""
        with self._lock:
            self._bar.update(amount)
