"""What does a recurrent network forget, and after how many steps?

Measures, exactly and for every lag at once, the gradient that flows back from the last time step to each
earlier one, in recurrent networks as they are initialised: vanilla RNNs with sigmoid, tanh and ReLU, with
orthogonal and identity weights, LSTM and GRU as they are and with the biases that keep memories, and the
linear recurrent unit (LRU). A gradient that has fallen to 10^-8 moves no weight: what happened that long ago
is forgotten before training begins. The horizon is the number of steps over which it falls to a fraction.
Thin dashes are theory, exp(λ₁ lag) with the Lyapunov exponent of infinite width (Sompolinsky et al. 1988).

examples:
  python scripts/sequence_memory.py
  python scripts/sequence_memory.py --networks LSTM "LSTM, chrono" --length 3000 --fraction 0.01
  python scripts/sequence_memory.py --inputs digits-pixels --out results
  python scripts/sequence_memory.py --preset paper --formats png pdf
  python scripts/sequence_memory.py --data figures/sequence_memory.zarr
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

import gradsim as gs
from gradsim import Network, cli
from gradsim.analysis.horizon import by_lag
from gradsim.plot.memory import memory, with_error

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

# Title -> the network of (width, features, length), and gains that are not its defaults.
Build = Callable[[int, int, int], Network]
NETWORKS: dict[str, tuple[Build, dict[str, Any]]] = {
    "sigmoid RNN": (lambda n, features, length: gs.vanilla_rnn(n, "sigmoid", features=features), {}),
    "tanh RNN": (lambda n, features, length: gs.vanilla_rnn(n, "tanh", features=features), {}),
    "tanh RNN, orthogonal": (
        lambda n, features, length: gs.vanilla_rnn(n, "tanh", "orthogonal", features=features),
        {},
    ),
    "ReLU RNN, He": (lambda n, features, length: gs.vanilla_rnn(n, "relu", "he_normal", features=features), {}),
    # From zero, as in Le et al. 2015; the gain of the input weights then changes nothing.
    "ReLU RNN, identity": (
        lambda n, features, length: gs.vanilla_rnn(n, "relu", "identity", features=features, initial="zero"),
        {},
    ),
    "LSTM": (lambda n, features, length: gs.lstm(n, features=features), {}),
    "LSTM, forget bias 1": (lambda n, features, length: gs.lstm(n, features=features), {"forget_bias": 1.0}),
    "LSTM, chrono": (lambda n, features, length: gs.lstm(n, features=features, chrono=max(2, length)), {}),
    "GRU": (lambda n, features, length: gs.gru(n, features=features), {}),
    # The ring of Orvieto et al. 2023 for long memories.
    "LRU, ring 0.9 to 0.999": (
        lambda n, features, length: gs.linear_recurrence(n, features=features, ring=(0.9, 0.999)),
        {},
    ),
}
# Vanilla RNNs at unit gains: what theory needs to know of them.
ACTIVATIONS = {"sigmoid RNN": "sigmoid", "tanh RNN": "tanh"}
FEATURES = {"digits-pixels": 1, "digits-rows": 8}


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the sequence memory."""

    redraws: ClassVar[tuple[str, ...]] = (*cli.Options.redraws, "fraction")

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Which networks, by their titles in the figure."""

    width: int = 64
    """Units of the hidden state."""

    length: int = 1000
    """Time steps; the digits have 64 (pixels) or 8 (rows), and no more are taken."""

    seeds: int = 8
    """Independent networks of each kind: the lines are their means, the bands hold 80 % of them."""

    fraction: float = 1 / math.e
    """What is left of the gradient at the horizon."""

    inputs: Literal["gaussian", "digits-pixels", "digits-rows"] = "gaussian"
    """What is read: Gaussian noise of unit variance, as wide as the state, or scikit-learn's handwritten digits
    pixel by pixel or row by row."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=256, seeds=32),
    "accelerator": Options("accelerator", width=512, length=10_000, seeds=64),
}


def measure(options: Options) -> dict[str, "xarray.Dataset"]:
    """One backward sweep for each network."""
    images = cli.samples("gaussian" if options.inputs == "gaussian" else "digits")
    inputs = None if images is None else images.reshape(len(images), -1, FEATURES[options.inputs])
    features = options.width if inputs is None else inputs.shape[2]
    length = options.length if inputs is None else min(options.length, inputs.shape[1])
    if length < 2:
        raise ValueError(f"length: got {length}; pass at least 2, a horizon needs them")
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        raise ValueError(f"networks: got {', '.join(unknown)}; pass some of: {'; '.join(NETWORKS)}")
    jobs = {
        name: partial(
            gs.sweep, NETWORKS[name][0](options.width, features, length), depth=length, seeds=options.seeds,
            key=options.key, direction="backward", inputs=inputs, **NETWORKS[name][1],
        )
        for name in options.networks
    }  # fmt: skip
    measured = cli.perform(jobs)
    for name in measured.keys() & ACTIVATIONS if inputs is None else ():
        measured[name] = measured[name].assign(theory=("time", predicted(name, length), {"units": "nat"}))
    return measured


def predicted(name: str, length: int) -> np.ndarray:
    """The log gain λ₁ · lag at every time step, from inputs of unit variance."""
    exponent = gs.theory.vanilla_rnn(ACTIVATIONS[name], 1.0, 1.0).lyapunov
    return exponent * np.arange(length, 0, -1)


def report(datasets: Mapping[str, "xarray.Dataset"], fraction: float = 1 / math.e) -> str:
    """A table of the horizons, and of what is left at the longest lag."""
    longest = max(one.sizes["time"] for one in datasets.values())
    lines = [f"steps over which the gradient falls to {fraction:.3g}:"]
    lines.append(f"  {'network':24s}{'by crossing':>16s}{'by fit':>18s}{f'left after {longest:,}':>18s}")
    for name, one in datasets.items():
        found: dict[str, Any] = {str(key): float(value) for key, value in gs.horizon(one, fraction).items()}
        crossing = with_error(found["horizon_crossing"], found["horizon_crossing_error"])
        by_fit = with_error(found["horizon_fit"], found["horizon_fit_error"])
        exponent = float(by_lag(one).isel(lag=-1).mean("seed")) / math.log(10)
        left = "0" if math.isnan(exponent) else f"1e{exponent:+.1f}"  # NaN where every network is dead
        lines.append(
            f"  {name:24s}{crossing if found['crossed'] else f'> {longest:,}':>16s}"
            f"{by_fit if found['decays'] else 'does not fall':>18s}{left:>18s}"
        )
    return "\n".join(lines)


def draw(datasets: Mapping[str, "xarray.Dataset"], fraction: float = 1 / math.e) -> dict[str, "Figure"]:
    return {"sequence_memory": memory(datasets, fraction)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run(
        "sequence_memory", options, measure, partial(report, fraction=options.fraction),
        partial(draw, fraction=options.fraction),
    )  # fmt: skip


if __name__ == "__main__":
    main()
