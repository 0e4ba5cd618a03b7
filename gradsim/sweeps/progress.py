"""How far a measurement is: a bar in a terminal or a notebook, lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from gradsim import arguments
from gradsim.sweeps import cost

# Seconds from one line to the next: where something new has begun, and where it only goes on.
NEW, SAME = 3.0, 10.0
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """What is being done, and what share of it is done; reported by a thread, for a call may take long.

    Args:
        total: the work in all, in any unit; that done is `update`d.
        show: called with this object and whether it is the last time, about once a second.
    """

    def __init__(self, total: float | int, show: Any) -> None:
        self.start = time.monotonic()
        self.total, self.done, self.had, self.words, self.stopped = total, 0.0, 0.0, "", False
        self.networks, self.products, self.seconds, self.machine = 0, 0.0, 0.0, 1.0
        self._show, self._ended = show, Event()
        self._thread = Thread(target=self._report, daemon=True)

    def phase(self, words: str) -> None:
        """From now on this is done."""
        self.words = words

    def update(self, amount: float | int) -> None:
        """So much more is done. Raises: KeyboardInterrupt where another thread was interrupted."""
        self.done += amount
        if self.stopped:
            raise KeyboardInterrupt

    def counted(self, networks: int, products: float | int, seconds: float | int) -> None:
        """So many networks more were measured in that time, in so many operations of matrix products."""
        self.machine = (
            cost.machine_rate()
        )  # while the devices rest; of those in use, which the reporting thread knows not
        self.networks, self.products = self.networks + networks, self.products + products
        self.seconds += seconds

    def rates(self) -> str:
        """How fast it goes, how long it will take, and what was there; in words, as far as they are known."""
        said = []
        if self.seconds > 0:
            said.append(f"{self.networks / self.seconds:,.0f} networks/s")
            said.append(f"{self.products / self.seconds / self.machine:.2f} of the matmul rate")
            if self.done > self.had:
                left = (self.total - self.done) * (time.monotonic() - self.start) / (self.done - self.had)
                said.append(f"{cost.words(left)} left")
        if self.had:
            said.append(f"{min(1.0, self.had / self.total):.0%} was there")
        return ", ".join(said)

    def found(self, amount: float | int) -> None:
        """So much was done before."""
        self.had += amount
        self.done += amount

    def _report(self) -> None:
        while not self._ended.wait(0.5):
            self._show(self, False)

    def __enter__(self) -> Progress:
        self.start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.done = self.done if kind else self.total
        self._ended.set()
        self._thread.join()
        self._show(self, True)


class Part:
    """One of several measurements of a whole, and the work that it is there; sweeps made while it is open are its own.

    Args:
        whole: the progress that is shown; nothing is if None.
    """

    def __init__(self, whole: Progress | None = None, name: str = "", weight: float | int = 0.0) -> None:
        self.whole, self.name, self.weight = whole, name, weight
        self.total, self.left = math.inf, weight

    def phase(self, words: str) -> None:
        """From now on this is done."""
        if self.whole is not None:
            self.whole.phase(f"{self.name}: {words}")

    def update(self, amount: float | int) -> None:
        """So much more of `total` is done."""
        if self.whole is not None:
            self.whole.update(self._share(amount))

    def found(self, amount: float | int) -> None:
        """So much of `total` was done before."""
        if self.whole is not None:
            self.whole.found(self._share(amount))

    def counted(self, networks: int, products: float | int, seconds: float | int) -> None:
        """So many networks more were measured in that time, in so many operations of matrix products."""
        if self.whole is not None:
            self.whole.counted(networks, products, seconds)

    def _share(self, amount: float | int) -> float | int:
        share = min(self.left, amount / self.total * self.weight)
        self.left -= share
        return share

    def __enter__(self) -> Part:
        self._token = _part.set(self)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        _part.reset(self._token)
        if kind is None:
            self.total = 1.0
            self.update(math.inf)


# Of the thread at hand.
_part: ContextVar[Part | None] = ContextVar("part", default=None)
lines_only: ContextVar[bool] = ContextVar("lines_only", default=False)


@contextmanager
def reporting(progress: Any, total: float | int) -> Iterator[Progress | Part]:
    """The progress of a measurement of this much work, shown as the argument `progress` asks.

    Raises: TypeError for anything but True, False or None.
    """
    asked = arguments.flag("progress", progress) if progress is not None else None
    part = _part.get()
    if asked is False or (asked is None and part is None and not interactive()):
        yield Part()
    elif part is not None:
        part.total = total
        yield part
    else:
        with bar_or_lines(total) as whole:
            yield whole


def bar_or_lines(total: float | int) -> Progress:
    """A progress as a bar where one can be seen to move, else as lines."""
    return Progress(total, Bar(total) if interactive() else Lines())


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def interactive() -> bool:
    """Whether somebody sees a bar move: in a terminal or a notebook, unless lines are asked for."""
    return not lines_only.get() and (sys.stderr.isatty() or in_notebook())


class Bar:
    """A bar of tqdm, which stays where something was done."""

    def __init__(self, total: float | int) -> None:
        kind: Any = tqdm
        if in_notebook() and find_spec("ipywidgets"):  # without them tqdm warns, and text does as well
            from tqdm.notebook import tqdm as kind
        self.bar = kind(total=total, bar_format=BAR, desc="starting")

    def __call__(self, progress: Progress, last: bool) -> None:
        self.bar.n, self.bar.initial = min(progress.done, progress.total), progress.had
        self.bar.set_postfix_str(progress.rates(), refresh=False)
        self.bar.set_description_str(progress.words or "starting")
        if last:
            self.bar.close()


class Lines:
    """A line now and then: soon where something new is done, less often where it goes on."""

    def __init__(self) -> None:
        self.start = self.said = time.monotonic()
        self.words = ""

    def __call__(self, progress: Progress, last: bool) -> None:
        now = time.monotonic()
        if last and progress.done >= progress.total:
            print(f"measured in {now - self.start:.0f} s", file=sys.stderr, flush=True)
        elif not last and progress.words and now - self.said >= (SAME if progress.words == self.words else NEW):
            self.words, self.said = progress.words, now
            share = min(1.0, progress.done / progress.total)
            said = ", ".join(
                filter(None, [f"{share:4.0%} after {now - self.start:.0f} s", self.words, progress.rates()])
            )
            print(said, file=sys.stderr, flush=True)
