"""Several scripts one after the other in one process, so that JAX starts once: python -m gradsim.cli.figures --help."""

import argparse
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import jax

from gradsim.cli.run import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> list[str]:
    """Run each script with the options that follow a `--`; returns those that failed, which stop no other."""
    parser = argparse.ArgumentParser(prog="python -m gradsim.cli.figures", description=__doc__, allow_abbrev=False)
    parser.add_argument("scripts", nargs="+", type=_script, metavar="SCRIPT", help="for example scripts/laws.py")
    given = list(sys.argv[1:] if arguments is None else arguments)
    here, options = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    scripts = parser.parse_args(here).scripts
    failed = []
    for number, script in enumerate(scripts, 1):
        print(f"== {number}/{len(scripts)} {' '.join([script, *options])}", flush=True)
        if not _succeeds(script, options):
            failed.append(script)
        jax.clear_caches()  # a process may hold some 65,000 memory maps, and each program takes a hundred
    return failed


def _script(path: str) -> str:
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"nothing at {path}; pass the path of a script")
    return path


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
