"""One run of a script: measure or load, save, report, draw."""

from __future__ import annotations

import atexit
import gc
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import jax

from gradsim.arguments import reason
from gradsim.cli.jobs import Shared, kept, precision
from gradsim.cli.options import Chosen, Options, check_counts
from gradsim.cli.results import asked
from gradsim.cli.resuming import remember
from gradsim.cli.reusing import fingerprint, measured_before
from gradsim.cli.saving import Datasets, load, save, writable
from gradsim.compilation_cache import enable_compilation_cache
from gradsim.engine.precision import refuse_elsewhere
from gradsim.sweeps.machine import used
from gradsim.sweeps.progress import lines_only

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERRUPTED = 130  # what shells take for a Ctrl-C


def run(
    name: str,
    options: Chosen,
    measure: Callable[[Chosen], Datasets],
    report: Callable[[Datasets], str],
    draw: Callable[[Datasets], Mapping[str, Figure]],
) -> list[Path]:
    """Measure (or load), save the data, say what was measured, draw, and say where all went.

    Exits with one line where an option is wrong or a folder cannot be used, before anything is computed; and where
    Ctrl-C is pressed, with what has been saved by then.
    """
    from gradsim import plot

    saved: list[Path] = []
    with interruptible(saved):
        try:
            check_counts(options)
            writable(options.out)
            if options.data is None:
                try:
                    datasets = _measured(name, options, measure, saved)
                except Shared as done:
                    print(done)
                    return []
            else:
                datasets = load(options.data, name)
            print(report(datasets))
            for title, figure in draw(datasets).items():
                saved += plot.save(figure, options.out / title, options.formats)
        except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
            if options.data is None and not isinstance(error, ValueError | TypeError) and not _of_store(error):
                raise
            sys.exit(f"error: {_said(error, name, options)}")
    figures = saved[options.data is None :]
    for file in figures:
        print(f"figure  {file}")
    return figures


def _measured(name: str, options: Chosen, measure: Callable[[Chosen], Datasets], saved: list[Path]) -> Datasets:
    """What the script measures, saved; or what it has measured before, where the options allow that."""
    store, own = options.out / f"{name}.zarr", {n: one for n, one in _own(options).items() if n not in options.redraws}
    mark = partial(fingerprint, Path(inspect.getfile(measure)), own)  # once JAX has joined the processes
    found = measured_before(store, name, mark()) if options.reuse and options.coordinator is None else None
    if found is not None:
        print(f"data    {store}, measured before")
    else:
        enable_compilation_cache()
        gc.set_threshold(100_000, 20, 50)  # tracing makes objects by the million, and little garbage
        atexit.register(gc.freeze)  # nor need the interpreter look for any before it ends
        Thread(target=import_module, args=("matplotlib.figure",), daemon=True).start()  # while programs compile
        with kept_on_interrupt(saved, store, name), kept_in(options):
            if options.store is not None:
                remember(options.store, name)
            found = measure(options)
        save(found, store, name, mark())
        print(f"data    {store}")
    saved.append(store)
    return found


@contextmanager
def interruptible(saved: list[Path]) -> Iterator[None]:
    """Ctrl-C ends the process with a line that names the files saved by then."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; saved: {', '.join(map(str, saved)) or 'nothing'}", file=sys.stderr)
        atexit.register(_leave)
        sys.exit(INTERRUPTED)


@contextmanager
def kept_in(options: Options) -> Iterator[None]:
    """While it is open, sweeps are kept in the folder of the options, by the devices and processes and at the precision
    that they name, and progress is said as they ask.

    Raises: ValueError naming the option.
    """
    join(options)
    chosen = getattr(options, "precision", "highest")
    folder, lines, products = kept.set(options.store), lines_only.set(options.quiet), precision.set(chosen)
    told = asked.set(_own(options))
    try:
        with used(options.devices, options.max_memory, options.process, options.processes) as machine:
            refuse_elsewhere(chosen, machine.devices[0])
            yield
    except KeyboardInterrupt:
        if options.store is not None:
            print(
                f"the same command goes on from {options.store}, and so does --resume {options.store}", file=sys.stderr
            )
        raise
    finally:
        kept.reset(folder)
        precision.reset(products)
        asked.reset(told)
        lines_only.reset(lines)


def _own(options: Options) -> dict[str, Any]:
    """The options on which a script's numbers depend, as JSON holds them."""
    shared = {field.name for field in fields(Options)} - {"key"}
    return json.loads(json.dumps({name: one for name, one in vars(options).items() if name not in shared}, default=str))


def join(options: Options) -> None:
    """Join the processes through JAX, where the options ask for it.

    Raises: ValueError where they cannot be joined, or have no store to meet in.
    """
    several = options.coordinator is not None or (options.processes or 1) > 1
    if several and options.store is None:
        raise ValueError("store: several processes meet in one; pass a folder that all of them see")
    if options.coordinator is None or jax.distributed.is_initialized():
        return
    found = options.coordinator == "auto"
    if not found and (options.process is None or options.processes is None):
        raise ValueError("process: got none; pass --process and --processes with --coordinator HOST:PORT")
    try:
        if found:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(options.coordinator, options.processes, options.process)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"coordinator: JAX cannot join the processes ({reason(error)}); pass HOST:PORT of the first one, or "
            "--process and --processes alone"
        ) from error


@contextmanager
def kept_on_interrupt(saved: list[Path], store: Path, name: str) -> Iterator[None]:
    """Where Ctrl-C ends a measurement that hands over what it has (`partial`, by name), that is saved."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if kept := getattr(interrupt, "partial", None):
            saved.append(save(kept, store, name))
        raise


def _of_store(error: Exception) -> bool:
    """Whether a store can no longer be written."""
    return isinstance(error, OSError) and str(error.strerror).startswith("store: ")


def _leave() -> None:
    """End the process at once: what was interrupted on the device may crash while the interpreter is taken down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _said(error: Exception, name: str, options: Chosen) -> str:
    """What was wrong, in one line: with an option, else with the data that were to be redrawn."""
    line = " ".join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
    if options.data is None or line.partition(":")[0] in options.redraws:
        return line
    what = f"holds no {line}" if isinstance(error, KeyError) else f"cannot be drawn ({line})"
    return f"data: {options.data} {what}; pass what {name}.py has saved"
