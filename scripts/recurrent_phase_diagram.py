"""Where do gradients vanish in time, where do they explode, and what do the gates change?

Measures random recurrent networks exactly at every sequence length, and draws the growth of the gradient a step:
blue where it vanishes, red where it explodes, a black line where it does neither. LSTM over weight gain
and forget-gate bias, GRU over weight gain and update-gate bias, the tanh RNN and the minimalRNN over the gains
of state and input weights. Where gates are held open, a wide stripe of almost no growth replaces the thin line
of the tanh RNN. Dashes are its mean-field theory, in which inputs act as biases drawn anew at each step
(Sompolinsky et al. 1988). Dots are theory for gated networks whose weights too are drawn anew at each step
(Chen et al. 2018, Gilboa et al. 2019): the measured ones keep theirs, and part from it where gates are held open.

examples:
  python scripts/recurrent_phase_diagram.py
  python scripts/recurrent_phase_diagram.py --families LSTM --lengths 10 100 1000 --width 32
  python scripts/recurrent_phase_diagram.py --inputs digits-rows
  python scripts/recurrent_phase_diagram.py --preset paper --formats png pdf --out results
  python scripts/recurrent_phase_diagram.py --data figures/recurrent_phase_diagram.zarr --lengths 5 100
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

import gradsim as gs
from gradsim import Network, cli
from gradsim.plot.recurrent import recurrent_diagram

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

# Title -> the network of (width, features), and the ranges of its two gains.
Build = Callable[[int, int], Network]
FAMILIES: dict[str, tuple[Build, dict[str, tuple[float, float]]]] = {
    "LSTM": (lambda n, features: gs.lstm(n, features=features), {"sigma_w": (0.2, 6.0), "forget_bias": (-2.0, 6.0)}),
    "GRU": (lambda n, features: gs.gru(n, features=features), {"sigma_w": (0.2, 6.0), "update_bias": (-2.0, 6.0)}),
    "tanh RNN": (
        lambda n, features: gs.vanilla_rnn(n, features=features),
        {"sigma_w": (0.5, 3.0), "sigma_v": (0.05, 2.0)},
    ),
    # Its inputs are as wide as its state, whatever their features.
    "minimalRNN": (lambda n, features: gs.minimal_rnn(n), {"sigma_w": (0.5, 12.0), "sigma_v": (0.05, 4.0)}),
}
FEATURES = {"digits-pixels": 1, "digits-rows": 8}


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the recurrent phase diagram."""

    redraws: ClassVar[tuple[str, ...]] = (*cli.Options.redraws, "preset", "lengths")

    families: tuple[str, ...] = tuple(FAMILIES)
    """Which families, one row of maps each."""

    lengths: tuple[int, ...] = (10, 30, 100)
    """Sequence lengths, one column each; the digits have 64 (pixels) or 8 (rows) steps, and no more are taken."""

    width: int = 48
    """Units of the hidden state."""

    seeds: int = 8
    """Independent networks at each point; the map is their mean."""

    points: int = 16
    """Points of the grid along each gain."""

    inputs: Literal["gaussian", "digits-pixels", "digits-rows"] = "gaussian"
    """What is read: Gaussian noise of unit variance, as wide as the state, or scikit-learn's handwritten digits
    pixel by pixel or row by row (through a fixed random matrix where inputs must be as wide as the state)."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", lengths=(10, 100, 1000), width=128, seeds=8, points=32),
    "accelerator": Options("accelerator", lengths=(10, 100, 1000, 10_000), width=256, seeds=16, points=64),
}


def measure(options: Options) -> dict[str, "xarray.Dataset"]:
    """One forward sweep for each family, with every length among its steps."""
    unknown = [name for name in options.families if name not in FAMILIES]
    if unknown:
        raise ValueError(f"families: got {', '.join(unknown)}; pass some of: {', '.join(FAMILIES)}")
    inputs = sequences(options.inputs)
    features = options.width if inputs is None else inputs.shape[2]
    jobs, gains = {}, dict[str, dict[str, Any]]()
    for name in options.families:
        build, ranges = FAMILIES[name]
        network = build(options.width, features)
        gains[name] = {gain: cli.axis(gain, ends, options.points) for gain, ends in ranges.items()}
        jobs[name] = partial(
            gs.sweep, network, depth=max(shown(options.lengths, inputs)), seeds=options.seeds, key=options.key,
            inputs=widened(inputs, network.input_shape[0], options.key), **gains[name],
        )  # fmt: skip
    measured = cli.perform(jobs)
    return measured if inputs is not None else {n: one.assign(edge(n, gains[n])) for n, one in measured.items()}


def edge(name: str, gains: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Theory's σ_w of no growth over the other gain, from inputs of unit variance, as the figure names its line."""
    attributes = {"long_name": "weight gain σ_w of no growth", "units": "1"}
    (other,) = set(gains) - {"sigma_w"}
    if name == "tanh RNN":
        # Fresh noise through V at each step has the variance σ_v², as a bias does in a deep network.
        return {"edge_of_chaos": (other, gs.theory.edge_of_chaos("tanh", gains[other]), attributes)}
    if name == "minimalRNN":
        line = gs.theory.recurrent_edge("minimal_rnn", gains[other])
    else:
        line = gs.theory.recurrent_edge(name.lower(), 1.0, gate_bias=gains[other])
    return {"untied_edge": (other, line, attributes)}


def sequences(inputs: str) -> np.ndarray | None:
    """None for Gaussian noise, or every digit as a sequence [samples, time, features]."""
    images = cli.samples("gaussian" if inputs == "gaussian" else "digits")
    return None if images is None else images.reshape(len(images), -1, FEATURES[inputs])


def widened(inputs: np.ndarray | None, features: int, key: int) -> np.ndarray | None:
    """The inputs as they are, or through a fixed random matrix where the network wants them wider."""
    if inputs is None or inputs.shape[2] == features:
        return inputs
    matrix = np.random.default_rng(key).standard_normal((inputs.shape[2], features)) / np.sqrt(inputs.shape[2])
    return np.asarray(inputs @ matrix)


def shown(lengths: Sequence[int], inputs: np.ndarray | None) -> tuple[int, ...]:
    """The lengths that the inputs have."""
    longest = max(lengths) if inputs is None else inputs.shape[1]
    return tuple(sorted({min(length, longest) for length in lengths}))


def report(datasets: Mapping[str, "xarray.Dataset"], lengths: Sequence[int] = (10, 30, 100)) -> str:
    """How much of each map hardly vanishes or explodes over the sequence: |log gain| below ln 10."""
    lines = ["share of the map where the gradient stays within a factor of ten over the whole sequence:"]
    for name, one in datasets.items():
        shares = []
        for length in held(datasets, lengths):
            grown = gs.growth(one.sel(time=slice(1, length)), since=0) * length
            shares.append(f"{float((np.abs(grown) < np.log(10)).mean()):5.0%} at {length:,}")
        lines.append(f"  {name:12s}{', '.join(shares)} steps")
    return "\n".join(lines)


def held(datasets: Mapping[str, "xarray.Dataset"], lengths: Sequence[int]) -> tuple[int, ...]:
    """The lengths among the steps that were measured, the longest one in place of those beyond."""
    longest = min(one.sizes["time"] for one in datasets.values())
    return tuple(sorted({min(length, longest) for length in lengths}))


def draw(datasets: Mapping[str, "xarray.Dataset"], lengths: Sequence[int] = (10, 30, 100)) -> dict[str, "Figure"]:
    return {"recurrent_phase_diagram": recurrent_diagram(datasets, held(datasets, lengths))}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run(
        "recurrent_phase_diagram", options, measure, partial(report, lengths=options.lengths),
        partial(draw, lengths=options.lengths),
    )  # fmt: skip


if __name__ == "__main__":
    main()
