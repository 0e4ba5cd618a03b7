"""The sweeps of a script as data: what they will take is said before the first, and how far they are from then on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from gradsim.analysis import critical as bracketed
from gradsim.cli.results import kept_result
from gradsim.engine import plan as plans
from gradsim.sweeps import cost, grid
from gradsim.sweeps.machine import at_hand
from gradsim.sweeps.progress import Part, bar_or_lines
from gradsim.sweeps.sweep import partial_products, sweep
from gradsim.training.train import train

if TYPE_CHECKING:
    import xarray

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")
# Seconds, about, that theory, figures and saving take beside the measurements.
DRAWING = 3.0
# What is no choice of a plan, and no gain.
OTHERS = ("key", "inputs", "cotangent", "between", "max_lost")


class Work(NamedTuple):
    """Random networks, the longest one's steps, programs to be compiled, operations, and seconds of other things."""

    networks: int = 0
    steps: int = 0
    programs: frozenset[Any] = frozenset()
    flops: float = 0.0
    others: float = 0.0

    def seconds(self) -> float:
        """About how long it takes here."""
        return self.flops / cost.machine_rate() + cost.compiling() * len(self.programs) + self.others


def foresee(network: Any, *, seeds: Any, widths: Any = None, **options: Any) -> Work:
    """What `gradsim.sweep`, or `gradsim.critical` of its `gain`, will do with these arguments.

    Raises: ValueError or TypeError as they do, for what is wrong with the network or its plan.
    """
    several, numbers = grid.networks(network, widths), grid.seeds(seeds)
    points = 1
    if "between" in options:
        points = bracketed.POINTS * bracketed.ROUNDS
        options = {"burn_in": 20, "statistics": options.pop("statistic", "log_jvp"), **options}
        options.pop("gain", None)
    choices = ("depth", "statistics", "direction", "at", "burn_in", "dtype", "precision", "loss")
    chosen = {"statistics": "log_gain", **{name: options[name] for name in choices if name in options}}
    planned = [plans.planned(one, **chosen, narrow="between" not in options) for one in several.each.values()]
    gains = {name: options[name] for name in options if name not in (*choices, *OTHERS)}
    axes = grid.axes(several, gains, others=planned[0].gains)
    networks, flops, programs = 0, 0.0, set()
    for plan in planned:
        cells = points * grid.size(grid.own(plan, axes))
        networks += cells * numbers.size
        flops += cost.flops(plan, cells=cells, seeds=numbers.size)
        programs.add((plan, cells, numbers.size))
    return Work(networks, plan.burn_in + plan.depth, frozenset(programs), flops)


def as_it_is(_: Any, found: Result) -> Result:
    return found


class Jobs:
    """Measurements with names under one progress, which begins with a line that says what comes.

    Args:
        works: what each will do, by its name, in the order in which they are run.
        at_once: how many are run at a time.
    """

    def __init__(self, works: Mapping[Any, Work], at_once: int = 1) -> None:
        self.seconds, known = dict[Any, float](), frozenset[Any]()
        for name, work in works.items():  # a program that one has compiled is another's too
            self.seconds[name] = work._replace(programs=work.programs - known).seconds()
            known |= work.programs
        self.at_once, self.number = at_once, 0
        self.done, self.interrupted = dict[Any, Any](), dict[Any, Any]()
        total = sum(self.seconds.values())
        networks, steps = (
            sum(work.networks for work in works.values()),
            max((work.steps for work in works.values()), default=0),
        )
        number = f"{len(works)} measurements" if len(works) > 1 else "one measurement"
        what = f" of {networks:,} random networks, up to {steps:,} steps each" if networks else ""
        say(f"{number}{what}: {cost.words(total + DRAWING)}")
        self.progress = bar_or_lines(total)

    def __enter__(self) -> Jobs:
        self.progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.__exit__(*error)

    def run(
        self, jobs: Mapping[Name, Callable[[], Result]], finish: Callable[[Name, Result], Result] = as_it_is
    ) -> dict[Name, Result]:
        """The result of each of these jobs, by its name, after `finish` of name and result.

        A sweep or a training run has a store in the folder `kept`, if there is one, and other Datasets are kept there.
        Where Ctrl-C ends them, `done` and `interrupted` have what there is, the latter as `finish` has not seen it.
        """
        jobs = {name: _kept(name, job) for name, job in jobs.items()}
        if self.at_once == 1:
            return {name: self._one(name, job, finish) for name, job in jobs.items()}
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                started = [pool.submit(copy_context().run, self._one, name, job, finish) for name, job in jobs.items()]
                return {name: one.result() for name, one in zip(jobs, started, strict=True)}
            except BaseException:
                self.progress.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, name: Name, job: Callable[[], Result], finish: Callable[[Name, Result], Result]) -> Result:
        self.number += 1
        with Part(self.progress, f"{self.number}/{len(self.seconds)} {_title(name)}", self.seconds[name]) as part:
            part.phase("starting")
            try:
                found = job()
            except KeyboardInterrupt as interrupt:
                if hasattr(interrupt, "dataset"):
                    self.interrupted[name] = interrupt.dataset
                raise
            self.done[name] = found if at_hand().share()[1] > 1 else finish(name, found)  # which may need all of it
            return self.done[name]


def perform(
    jobs: Mapping[Name, partial[xarray.Dataset]],
    finish: Callable[[Name, xarray.Dataset], xarray.Dataset] = as_it_is,
    at_once: int = 2,
) -> dict[Name, xarray.Dataset]:
    """The Dataset of each job, `functools.partial` of `gradsim.sweep` or `gradsim.critical`, by its name, after
    `finish` of name and Dataset.

    Args:
        at_once: how many jobs are run at a time where a CPU has as many cores and nobody has asked for its devices:
            one compiles, or is finished, while another measures.

    Each sweep has a store of its own in the folder `kept`, if there is one.

    Raises: ValueError or TypeError for what is wrong with any of them, before the first is measured; `Shared` where
        this is one of several processes.
    """
    jobs = {name: at_precision(job) for name, job in jobs.items()}
    if at_hand().share()[1] > 1:  # what has no store is measured by who draws
        jobs = {name: job for name, job in jobs.items() if job.func in (sweep, partial_products)}

    at_once = min(at_once, at_hand().threads)
    with Jobs({name: foresee(*job.args, **job.keywords) for name, job in jobs.items()}, at_once) as several:
        found = several.run(jobs, finish)
    shared(found)
    return found


def shared(found: Mapping[Name, xarray.Dataset]) -> None:
    """Raises: Shared where this is one of several processes, with what there is of all they measure."""
    process, processes = at_hand().share()
    if processes > 1:
        there = sum(one.attrs["done"] for one in found.values()) / max(1, len(found))
        raise Shared(
            f"process {process} of {processes} is done, and {there:.0%} of all is there; when all is, the same command "
            f"without --process, --processes and --coordinator draws from {kept.get()}"
        )


class Shared(Exception):
    """One of several processes has done its share: there is nothing whole to go on with."""


# Of the matrix products of all sweeps of a script.
precision: ContextVar[str] = ContextVar("precision", default="highest")


def at_precision(job: partial[xarray.Dataset]) -> partial[xarray.Dataset]:
    """The job with the `precision` that the script was asked for, if it has a choice of it."""
    if precision.get() == "highest" or job.func not in (sweep, partial_products, bracketed.critical):
        return job
    return partial(job, precision=precision.get())


# The folder of all stores of a script.
kept: ContextVar[Path | None] = ContextVar("kept", default=None)


def _kept(name: Hashable, job: Callable[[], Result]) -> Callable[[], Result]:
    """The job with a store that bears its name, or else what it gives kept whole, as none of several processes does."""
    folder = kept.get()
    if folder is None:
        return job
    if isinstance(job, partial) and job.func in (sweep, partial_products, train):
        return partial(job, store=_path(folder, name))
    return job if at_hand().share()[1] > 1 else partial(kept_result, _path(folder, name), job)


def _path(folder: Path, name: Hashable) -> Path:
    """That of what bears this name."""
    return folder / f"{quote(_title(name), safe=' ,=+()')}.zarr"


def _title(name: Hashable) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def say(line: str) -> None:
    """A line about how it goes, beside what the script reports."""
    print(line, file=sys.stderr, flush=True)
