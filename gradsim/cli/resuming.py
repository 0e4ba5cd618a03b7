"""`--resume`: a script goes on from a store with the options with which it was begun."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

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
    """Keep the command line of this script in the folder of its stores.

    Raises: ValueError where another script has begun these.
    """
    arguments = command.get()
    if (folder / COMMAND).exists() and (by := _told(folder)["script"]) != script:
        raise ValueError(f"store: {folder} was begun by {by}.py, and {script}.py came; pass another folder")
    if arguments is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    told = {"script": script, "arguments": without_own(arguments)}
    begun = folder / f"{COMMAND}.{os.getpid()}"
    begun.write_text(json.dumps(told, indent=1), encoding="utf-8")
    begun.replace(folder / COMMAND)


def begun(folder: Path) -> list[str]:
    """The command line with which the stores in this folder were begun. Exits with one line where there is none."""
    try:
        return [str(one) for one in _told(folder)["arguments"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"error: resume: {folder} was not begun by --store ({reason(error)}); pass a folder that was")


def _told(folder: Path) -> Any:
    return json.loads((folder / COMMAND).read_text(encoding="utf-8"))
