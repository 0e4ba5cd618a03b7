"""What only scripts and benchmarks need: options, saving, running, timing."""

from gradsim.cli.options import Options, axis, parse, samples
from gradsim.cli.run import run
from gradsim.cli.saving import load, save, writable
from gradsim.cli.schemes import schemes

__all__ = ["Options", "axis", "load", "parse", "run", "samples", "save", "schemes", "writable"]
