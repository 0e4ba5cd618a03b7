"""The training runs of a script as data: said before, shown meanwhile, kept where Ctrl-C ends them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradsim.cli.jobs import Jobs, Name, Work, as_it_is, shared
from gradsim.cores import cores
from gradsim.engine.tiling import draw_bytes
from gradsim.sweeps import cost, grid
from gradsim.training import loop
from gradsim.training.train import BATCH, train

if TYPE_CHECKING:
    import xarray

CHOICES = frozenset(inspect.signature(train).parameters) - {"learning_rate"}  # what is no axis of cells


def foresee_training(network: Any, *, seeds: Any, steps: int, batch: int | None = None, **options: Any) -> Work:
    """What `gradsim.train` will do with these arguments, about: its arithmetic at a modest rate, and turns of loops."""
    several, numbers = grid.networks(network), grid.seeds(seeds)
    gains = [np.asarray(value) for name, value in options.items() if name not in CHOICES and value is not None]
    cells = numbers.size * math.prod(value.size for value in gains)
    depth = options.get("depth") or 1
    seconds = 0.0
    for one in several.each.values():
        entries = draw_bytes(one, "float32") / 4
        flops = 6 * (batch or BATCH) * entries * depth
        seconds += cells * steps * (flops / loop.RATE + loop.TURN * depth)
    shared = cores() if jax.default_backend() == "cpu" else 100  # networks at once, about
    others = seconds / shared + 2 * cost.compiling() * len(several.each)  # three programs, smaller ones
    return Work(cells * len(several.each), steps, others=others)


def rates(name: str, values: Sequence[float]) -> np.ndarray:
    """Learning rates of the option `name`. Raises: ValueError unless they are positive and finite."""
    for value in values:
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: got {value:g}; pass finite numbers above 0")
    return np.array(values)


def perform_training(
    jobs: Mapping[Name, partial[xarray.Dataset]],
    finish: Callable[[Name, xarray.Dataset], xarray.Dataset] = as_it_is,
    at_once: int = 1,
) -> dict[Name, xarray.Dataset]:
    """The Dataset of each job, `functools.partial` of `gradsim.train`, by its name, after `finish` of name and Dataset.

    Args:
        at_once: how many jobs are run at a time: one compiles while another trains.

    Each has a store of its own in the folder `kept`, if there is one.

    Raises: KeyboardInterrupt with what there is by then in its attribute `partial`, by name; `Shared` where this is one
        of several processes.
    """
    works = {name: foresee_training(*job.args, **job.keywords) for name, job in jobs.items()}
    with Jobs(works, at_once) as several:
        try:
            done = several.run(jobs, finish)
        except KeyboardInterrupt as interrupt:
            there = {name: finish(name, one) for name, one in several.interrupted.items()} | several.done
            interrupt.partial = {name: there[name] for name in jobs if name in there}  # type: ignore[attr-defined]
            raise
    shared(done)
    return done
