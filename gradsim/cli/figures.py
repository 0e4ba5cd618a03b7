"""Several scripts, some at a time in processes that start JAX once: python -m gradsim.cli.figures --help."""

import argparse
import io
import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TextIO

import jax

from gradsim.cli.run import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> list[str]:
    """Run each script with the options that follow a `--`; returns those that failed, which stop no other."""
    parser = argparse.ArgumentParser(prog="python -m gradsim.cli.figures", description=__doc__, allow_abbrev=False)
    parser.add_argument("scripts", nargs="+", type=_script, metavar="SCRIPT", help="for example scripts/laws.py")
    parser.add_argument(
        "--at-once", type=int, default=1, choices=range(1, 65), metavar="N", help="how many run at a time"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    here, options = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    chosen = parser.parse_args(here)
    numbered = list(enumerate(chosen.scripts, 1))
    heads = [f"== {number}/{len(numbered)} {' '.join([script, *options])}" for number, script in numbered]
    if chosen.at_once == 1:
        done = [_one(script, head, options) for script, head in zip(chosen.scripts, heads, strict=True)]
    else:
        done = _overlapping(chosen.scripts, heads, options, chosen.at_once)
    return [script for script, succeeded in zip(chosen.scripts, done, strict=True) if not succeeded]


def _script(path: str) -> str:
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"nothing at {path}; pass the path of a script")
    return path


def _overlapping(scripts: Sequence[str], heads: Sequence[str], options: Sequence[str], at_once: int) -> list[bool]:
    """Whether each succeeds, in as many processes; Ctrl-C, which reaches them all, ends all."""
    with ProcessPoolExecutor(min(at_once, len(scripts)), get_context("spawn"), _bound_to_parent) as pool:
        futures = [pool.submit(_named, script, head, options) for script, head in zip(scripts, heads, strict=True)]
        try:
            return [future.result() for future in futures]
        except (KeyboardInterrupt, SystemExit):
            pool.shutdown(wait=False, cancel_futures=True)
            sys.exit(INTERRUPTED)


def _bound_to_parent() -> None:
    """Where the parent is killed this process ends at once, which would else go on with the scripts that wait."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


class Named(io.TextIOBase):
    """A stream whose lines begin with the name of who writes them."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name, self.line = stream, name, ""

    def write(self, text: str) -> int:
        *lines, self.line = (self.line + text).split("\n")
        self.stream.write("".join(f"{self.name}: {line}\n" for line in lines))
        self.stream.flush()
        return len(text)


def _named(script: str, head: str, options: Sequence[str]) -> bool:
    name = Path(script).stem
    with redirect_stdout(Named(sys.stdout, name)), redirect_stderr(Named(sys.stderr, name)):
        return _one(script, head, options)


def _one(script: str, head: str, options: Sequence[str]) -> bool:
    print(head, flush=True)
    succeeded = _succeeds(script, options)
    jax.clear_caches()  # a process may hold some 65,000 memory maps, and each program takes a hundred
    return succeeded


def _succeeds(script: str, options: Sequence[str]) -> bool:
    """Whether the script runs to its end, as from the command line; Ctrl-C ends all."""
    before, sys.argv = sys.argv, [script, *options]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:
            raise
        if isinstance(stopped.code, str):
            print(stopped.code, file=sys.stderr, flush=True)
        return not stopped.code
    except Exception:
        traceback.print_exc()
        return False
    finally:
        sys.argv = before
    return True


if __name__ == "__main__":
    if failed := main():
        sys.exit(f"error: failed: {', '.join(failed)}")
