"""`--resume`: a script goes on from a store with the options with which it was begun."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

from gradsim.arguments import reason

COMMAND = "command.json"
# What belongs to one run or process, and not to what is measured.
VALUES = ("store", "resume", "process", "processes", "coordinator", "devices", "max_memory")

# The command line of this script.
command: ContextVar[Sequence[str] | None] = ContextVar("command", default=None)


def without_own(arguments: Sequence[str]) -> list[str]:
    """The arguments that say what is measured, and how it is drawn."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in VALUES:
        own.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name)
    own.add_argument("--quiet", action=argparse.BooleanOptionalAction)
    return own.parse_known_args(arguments)[1]


def remember(folder: Path, script: str) -> None:
    """Keep the command line of this script in the folder of its stores."""
    arguments = command.get()
    if arguments is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    told = {"script": script, "arguments": without_own(arguments)}
    begun = folder / f"{COMMAND}.partial"
    begun.write_text(json.dumps(told, indent=1), encoding="utf-8")
    begun.replace(folder / COMMAND)


def begun(folder: Path) -> list[str]:
    """The command line with which the stores in this folder were begun. Exits with one line where there is none."""
    try:
        told = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
        return [str(one) for one in told["arguments"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"error: resume: {folder} was not begun by --store ({reason(error)}); pass a folder that was")


def refuse_others(folder: Path, script: str) -> None:
    """Raises: ValueError where another script has begun the stores in this folder."""
    if (folder / COMMAND).exists():
        by = json.loads((folder / COMMAND).read_text(encoding="utf-8"))["script"]
        if by != script:
            raise ValueError(f"store: {folder} was begun by {by}.py, and {script}.py came; pass another folder")
