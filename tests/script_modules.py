"""The scripts as modules, and what makes a run of each small."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from gradsim import cli

FOLDER = Path(__file__).parents[1] / "scripts"
# What makes a run small: these sizes come after its own options,
SIZES = {
    "phase_diagram": "--width 8 --scheme-width 8 --depth 4 --burn-in 2 --seeds 2 --points-w 5 --points-b 3 "
    "--scheme-depth 3",
    "atlas": "--width 8 --depth 4 --seeds 2 --points-w 5 --points-b 3 --family-width 16 --length 4 --points-x 4 "
    "--points-y 3",
    "depth_profile": "--width 8 --depth 4 --seeds 3",
    "derivatives": "--points 101",
    "sequence_memory": "--width 6 --length 12 --seeds 3",
    "modern_memory": "--width 4 --length 12 --seeds 3",
    "transformer_depth": "--width 8 --heads 2 --tokens 2 --depth 4 --seeds 3 --points 2",
    "recurrent_phase_diagram": "--width 6 --lengths 3 6 --seeds 2 --points 4",
    "lyapunov_spectrum": "--width 3 --widths 3 --map-width 3 --points 3 --depth 8 --seeds 2",
    "early_layers": "--width 6 --depths 3 --seeds 2",
    "remedies": "--width 8 --depth 20 --length 30 --seeds 4",
    "residual_phase_diagram": "--width 8 --depth 8 --points 4 --max-depth 16 --seeds 2",
    "batchnorm_explosion": "--width 32 --depth 8 --burn-in 4 --seeds 3 --batches 6 12",
    "critical_lines": "--widths 24 12 --depth 12 --burn-in 4 --seeds 300 --points 2",
    "finite_width": "--widths 4 2 --ratio 2 --seeds 400",
    "laws": "--effort 1",
    "two_inputs": "--width 8 --depth 4 --seeds 3 --points 3 --burn-in 2 --map-depth 4 --map-seeds 3",
    "trainability": "--depths 3 --lengths 4 --hidden 4 --points 2 --seeds 2 --steps 2 --time-steps 2 --sgd-rates 0.1",
    "early_layers_training": "--depth 4 --width 8 --length 4 --hidden 4 --seeds 2 --steps 2 --records 2 "
    "--adam-rates 0.001 0.01 --sgd-rates 0.01 0.1",
    "modern_training": "--depth 2 --width 4 --length 4 --hidden 4 --seeds 2 --steps 2 --records 2 --rates 0.001 0.01",
    "trainability_boundary": "--points 64 --width 4 --samples 4 --batch 4 --steps 24",
    "coordinate_check": "--activation tanh --widths 6 8 --layers 2 --depth-width 4 --batch 2 --seeds 3",
    "singular_values": "--width 6 --depths 2 3 --seeds 3",
    "dynamical_isometry": "--width 4 --max-depth 4 --burn-in 2 --seeds 2 --points 3",
    "low_precision": "--width 6 --depth 6 --seeds 2 --points 3 --train-depth 2 --train-width 4 --train-seeds 2 "
    "--steps 2",
    "inspect_models": "--layers 3 --blocks 1 --length 64 --width 4 --seeds 1 --steps 2",
    "scaling": "--cells 4 --seeds 1 --width 4 --depth 2 --device-counts",
}
# and these before, so that its own names count.
FEWER = {
    "phase_diagram": "--activations tanh --rows tanh --schemes lecun_normal he_normal",
    "atlas": '--activations tanh --families "tanh RNN" RetNet',
    "depth_profile": "--activations tanh --schemes lecun_normal he_normal torch_linear",
    "sequence_memory": '--networks "tanh RNN" "LSTM, chrono"',
    "modern_memory": '--networks minGRU unitary "delta rule"',
    "transformer_depth": "--networks post-norm GPT-2",
    "recurrent_phase_diagram": '--families "tanh RNN" minimalRNN',
    "lyapunov_spectrum": "--gated",
    "early_layers": "--activations sigmoid --deepest 40",
    "remedies": '--networks "sigmoid, Glorot" "ReLU, He" "tanh RNN"',
    "batchnorm_explosion": "--activations relu",
    "critical_lines": "--activations tanh",
    "two_inputs": '--networks "ReLU, He" "mirrored ReLU"',
    "trainability": '--cases tanh "tanh RNN"',
    "early_layers_training": '--networks sigmoid "tanh RNN"',
    "modern_training": "--networks ReZero minGRU",
    "trainability_boundary": "--zooms 1 10",
    "coordinate_check": "--depths",
    "singular_values": "--activations hard_tanh",
    "dynamical_isometry": '--families "tanh, residual"',
    "low_precision": "--train-points 0",
    "inspect_models": "--models mlp",
    "scaling": "--factors 1 2 --widths 4 8 --turns 1",
}


def load(name: str) -> ModuleType:
    """scripts/name.py, executed once."""
    if (module := sys.modules.get(f"scripts_{name}")) is None:
        spec = importlib.util.spec_from_file_location(f"scripts_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # tyro reads the options' docstrings from there
        spec.loader.exec_module(module)
    return module


def small(name: str, example: list[str]) -> list[str]:
    """The example with small sizes around it; the digits are 64 wide."""
    sizes = re.sub(r"--\S*width \d+", "", SIZES[name]) if "digits" in example else SIZES[name]
    return [*shlex.split(FEWER.get(name, "")), *example, *shlex.split(sizes)]


def measured(name: str, *arguments: str) -> Any:
    """What a small run of a script measures, with these arguments of its own, by its module; nothing is drawn."""
    module = load(name)
    return module.measure(cli.parse(module.PRESETS, small(name, list(arguments))))


def refusal(main: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> str:
    """The one line with which a script refuses these arguments."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    message = str(stopped.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def refuse(*args: Any, **options: Any) -> NoReturn:
    """In place of what must not be called."""
    raise AssertionError("something was computed")
