"""Options of a script: presets, the command line, and what is checked before anything is computed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from gradsim.arguments import gain, whole
from gradsim.cli.resuming import begun, command


@dataclass(frozen=True)
class Options:
    """Options of every script."""

    may_be_none: ClassVar[tuple[str, ...]] = ("key", "burn_in", "formats", "process")
    """Whole numbers that may be 0, and lists that may be empty."""

    redraws: ClassVar[tuple[str, ...]] = ("out", "data", "formats", "quiet")
    """What is read where nothing is measured; with `data` all else is refused."""

    preset: Literal["quick", "paper", "accelerator"] = "quick"
    """How fine and how long: quick for a laptop in about a minute, paper for a workstation in about an hour,
    accelerator for a GPU or TPU. An option given beside it overrides the preset's value."""

    out: Path = Path("figures")
    """Folder for the figures, and for the data as NAME.zarr; made if missing."""

    data: Path | None = None
    """A NAME.zarr that an earlier run saved: redraw from it without computing."""

    reuse: bool = False
    """Redraw from the NAME.zarr in `out` where an earlier run has measured it with the same options, the same gradsim
    and libraries, on this machine; measure otherwise."""

    formats: tuple[Literal["png", "pdf", "svg"], ...] = ("png",)
    """File formats of the figures; none saves the data only."""

    key: int = 0
    """The whole number from which all randomness derives."""

    store: Path | None = None
    """A folder that keeps every chunk of a sweep or a training run as soon as it is done: the same command goes on from
    there after an end of any kind. What comes whole, such as exponents or critical gains, is kept when it is there."""

    resume: Path | None = None
    """Go on from this folder, which --store has begun, with the options of then; those given beside it come first."""

    quiet: bool = False
    """Say how far it is in lines now and then, also where a bar could move."""

    devices: int | None = None
    """How many of the devices here measure, a chunk each at a time; all unless given."""

    max_memory: str | None = None
    """The most memory of a device that sweeps use, such as 2GiB; half of what is free unless given."""

    process: int | None = None
    """The number of this process, from 0, of several that measure into the same store; the same command without it
    draws when all are done."""

    processes: int | None = None
    """How many processes there are."""

    coordinator: str | None = None
    """HOST:PORT of the first process, where JAX shall join all of them; or auto, where it finds that, and which process
    this is, by Slurm, Open MPI, Kubernetes or a TPU pod. Chunks need nothing from each other: --process and --processes
    alone do as well, and one that dies then ends no other."""


@dataclass(frozen=True)
class SweepOptions(Options):
    """Options of every script that sweeps."""

    precision: Literal[
        "highest", "high", "default", "TF32_TF32_F32_X3", "BF16_BF16_F32_X9", "BF16_BF16_F32_X6", "BF16_BF16_F32_X3"
    ] = "highest"
    """Of the matrix products of a step: where float32 is slow, as on some GPUs and on TPUs, products in three parts of
    TF32 or nine of bfloat16 keep its digits, and the others lose some; a CPU has float32 alone."""


Chosen = TypeVar("Chosen", bound=Options)


def parse(presets: Mapping[str, Chosen], arguments: Sequence[str] | None = None, description: str = "") -> Chosen:
    """The options on the command line; what is not given there has its preset's value.

    Exits with one line where `data` stands beside what only measuring reads, and where nothing is there to go on from.
    """
    import tyro

    arguments = typed = list(sys.argv[1:] if arguments is None else arguments)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default="quick")
    early.add_argument("--inputs", default="gaussian")
    early.add_argument("--resume", type=Path)
    if (folder := early.parse_known_args(arguments)[0].resume) is not None:
        arguments = [*begun(folder), *arguments]
    given = early.parse_known_args(arguments)[0]
    default: Any = presets.get(given.preset, presets["quick"])  # an unknown preset is tyro's to refuse
    if given.inputs == "digits":  # 8 x 8 pixels
        default = replace(default, **{field.name: 64 for field in fields(default) if field.name.endswith("width")})
    options: Chosen = tyro.cli(type(default), args=arguments, default=default, description=description)
    if options.data is not None and (useless := _unread(options, typed)):
        them = "them" if len(useless) > 1 else "it"
        sys.exit(f"error: {', '.join(useless)}: --data redraws what was measured; leave {them} out")
    if options.resume is not None:
        if options.store is not None:
            sys.exit("error: resume: it is itself the --store; pass one of them")
        options = replace(options, store=options.resume)
    command.set(arguments)
    return options


def _unread(options: Options, arguments: Sequence[str]) -> list[str]:
    """The options among the arguments that are not read where nothing is measured."""
    flags = {argument.partition("=")[0][2:].replace("-", "_") for argument in arguments if argument[:2] == "--"}
    flags |= {flag.removeprefix("no_") for flag in flags}  # a choice of yes and no has both
    return [field.name for field in fields(options) if field.name in flags and field.name not in options.redraws]


def check_counts(options: Options) -> None:
    """Every whole number among the options counts something, and every list holds some, each name once."""
    for name, value in vars(options).items():
        none = name in options.may_be_none
        if isinstance(value, tuple) and not value and not none:
            raise ValueError(f"{name}: got none; pass one or more")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and isinstance(value, tuple) and value.count(one) > 1:
                raise ValueError(f"{name}: got {one!r} more than once; pass each once")
            if isinstance(one, int) and not isinstance(one, bool):
                whole(name, one, minimum=0 if none else 1)


def axis(name: str, limits: tuple[float, float], points: int) -> np.ndarray:
    """`points` evenly spaced values of the gain `name`. Raises: ValueError unless there are two, and they rise."""
    if points < 2:
        raise ValueError(f"points of {name}: got {points}; pass a whole number of at least 2")
    if not limits[0] < limits[1] or not np.isfinite(limits).all():
        raise ValueError(
            f"{name}: got the range {limits[0]:g} to {limits[1]:g}; pass the smaller end first, both finite"
        )
    return gain(name, np.linspace(*limits, points))


def samples(inputs: str, *widths: int) -> np.ndarray | None:
    """The inputs of this name, for networks of these widths: None for "gaussian", else handwritten digits.

    Raises: ValueError for a width other than 64, or where scikit-learn, which holds the digits, is missing.
    """
    if inputs == "gaussian":
        return None
    for width in widths:
        if width != 64:
            raise ValueError(f"width: got {width}; the digits have 8 x 8 pixels, pass 64")
    from gradsim.digits import digits

    try:
        return digits()
    except ImportError as error:
        raise ValueError(f"inputs: {error}") from error
