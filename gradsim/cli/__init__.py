"""What only scripts and benchmarks need: options, jobs, saving, running, timing."""

from gradsim.cli.jobs import Jobs, Work, at_precision, foresee, perform
from gradsim.cli.options import Options, SweepOptions, axis, parse, samples
from gradsim.cli.run import run
from gradsim.cli.saving import load, save, writable
from gradsim.cli.schemes import join_schemes, schemes
from gradsim.cli.training_runs import perform_training, rates

__all__ = [
    "Jobs",
    "Options",
    "SweepOptions",
    "Work",
    "at_precision",
    "axis",
    "foresee",
    "join_schemes",
    "load",
    "parse",
    "perform",
    "perform_training",
    "rates",
    "run",
    "samples",
    "save",
    "schemes",
    "writable",
]
