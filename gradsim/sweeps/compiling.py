"""The first call of a program, which compiles it, where several threads measure or train."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

import jax

from gradsim import lapack
from gradsim.sweeps.progress import Part, Progress


@lru_cache(maxsize=256)
def _first(program: Any, static: Any) -> Lock:
    """Held while a program is compiled: of networks alike that run side by side only one compiles it."""
    return Lock()


class Compiling:
    """Calls of programs by several threads, of which one compiles while the others wait.

    Those that would wait for each other in LAPACK run one after the other.

    Args:
        doing: what they do once they are compiled, such as "training".
    """

    def __init__(self, bar: Progress | Part, doing: str, family: str) -> None:
        self._lock, self._bar, self._doing, self._family = Lock(), bar, doing, family
        self._turns = dict[Any, AbstractContextManager[Any]]()  # of the programs that are compiled

    def __call__(self, program: Any, static: Any, *args: Any, **options: Any) -> Any:
        if program not in self._turns:
            with self._lock:
                if program not in self._turns:
                    return self._compiled(program, static, *args, **options)
        return _taken(self._turns[program], program, static, *args, **options)

    def _compiled(self, program: Any, static: Any, *args: Any, **options: Any) -> Any:
        self._bar.phase(f"compiling {self._family}")
        with _first(program, static):
            turn = lapack.alone if lapack.waits(program, static, *args, **options) else nullcontext()
            done = _taken(turn, program, static, *args, **options)
        self._turns[program] = turn
        self._bar.phase(f"{self._doing} {self._family}")
        return done

    def update(self, amount: float | int) -> None:
        """So many more networks are done."""
        with self._lock:
            self._bar.update(amount)


def _taken(turn: AbstractContextManager[Any], program: Any, *args: Any, **options: Any) -> Any:
    """A call of a program; with a lock, to its end."""
    with turn as alone:
        done = program(*args, **options)
        return jax.block_until_ready(done) if alone else done
