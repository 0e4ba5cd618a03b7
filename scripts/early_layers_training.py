"""Do the first layers of a deep network learn, and which cures make them?

Trains a sigmoid network of 50 layers on handwritten digits, and beside it what was invented against vanishing
gradients: ReLU with He's start, batch norm, residual blocks. Likewise over time: a tanh RNN that must copy the first
symbol it read, LSTM and GRU whose gates remember; and a ReLU RNN whose gradient explodes, with its gradient clipped.
The learning curves stand beside how much an update moves the weights of each layer; over time, beside the gradient that
each step gives. Where the first layers get nothing, learning halts; where they get little, it is slow.

Each network has the learning rate, out of the same ones for all, with which the others of its kind came out best. The
table has the accuracy of each, with errors over networks, and is also written as early_layers_training.csv.

examples:
  python scripts/early_layers_training.py
  python scripts/early_layers_training.py --networks sigmoid "ReLU, He" --depth 100 --steps 1000
  python scripts/early_layers_training.py --networks "tanh RNN" --length 100 --seeds 16
  python scripts/early_layers_training.py --preset paper --formats png pdf --out results
  python scripts/early_layers_training.py --data figures/early_layers_training.zarr
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray

import gradsim as gs
from gradsim import Network, cli
from gradsim.analysis.early_layers import by_the_others
from gradsim.cli import learned
from gradsim.plot.learning import learning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIPPED = 1.0  # the norm that a clipped gradient keeps at most


class Kind(NamedTuple):
    """A network, what it is beside the others, and what trains it."""

    group: str
    build: Callable[["Options"], Network]
    gains: dict[str, Any]
    optimizer: str


def _rnn(options: "Options", activation: str, law: str, **given: Any) -> Network:
    return gs.vanilla_rnn(options.hidden, activation, law, features=learned.FEATURES, **given)


DEPTH, TIME, EXPLOSION = "over depth", "over time", "explosion"
NETWORKS = {
    "sigmoid": Kind(DEPTH, lambda o: gs.feedforward(o.width, "sigmoid", "glorot_uniform"), {}, "adam"),
    "ReLU, He": Kind(DEPTH, lambda o: gs.feedforward(o.width, "relu", "he_normal"), {}, "adam"),
    "sigmoid, batch norm": Kind(DEPTH, lambda o: gs.batchnorm(o.width, o.batch, "sigmoid"), {}, "adam"),
    "sigmoid, residual": Kind(DEPTH, lambda o: gs.residual(o.width, "sigmoid"), {}, "adam"),
    "tanh RNN": Kind(TIME, lambda o: _rnn(o, "tanh", "torch_linear"), {}, "adam"),
    "LSTM": Kind(TIME, lambda o: gs.lstm(o.hidden, features=learned.FEATURES, chrono=max(2, o.length)), {}, "adam"),
    "GRU": Kind(TIME, lambda o: gs.gru(o.hidden, features=learned.FEATURES, chrono=max(2, o.length)), {}, "adam"),
    "ReLU RNN": Kind(EXPLOSION, lambda o: _rnn(o, "relu", "identity", initial="zero"), {"sigma_w": 1.1}, "sgd"),
    "ReLU RNN, clipped": Kind(
        EXPLOSION, lambda o: _rnn(o, "relu", "identity", initial="zero"), {"sigma_w": 1.1}, "clipped"
    ),
}


@dataclass(frozen=True)
class Options(learned.TrainingOptions):
    """Options of training and its early layers."""

    networks: tuple[str, ...] = tuple(NETWORKS)

    depth: int = 50
    """Layers of the deep networks."""

    width: int = 64
    """Units a layer."""

    adam_rates: tuple[float, ...] = (0.001, 0.01)
    """Learning rates of Adam; each network has the one with which the others came out best."""

    sgd_rates: tuple[float, ...] = (0.001, 0.03)
    """Learning rates of SGD, with and without clipping, likewise."""


LONG: dict[str, Any] = {
    "length": 100, "steps": 2000, "records": 20, "adam_rates": (0.0003, 0.001, 0.003, 0.01),
    "sgd_rates": (0.001, 0.003, 0.01, 0.03),
}  # fmt: skip
PRESETS = {
    "quick": Options(),
    "paper": Options("paper", seeds=16, **LONG),
    "accelerator": Options("accelerator", width=128, hidden=128, seeds=64, **LONG),
}


def optimizers() -> dict[str, Callable[[Any], Any]]:
    """Functions of the learning rate."""
    import optax

    def clipped(rate: Any) -> Any:
        return optax.chain(optax.clip_by_global_norm(CLIPPED), optax.sgd(rate))

    return {"adam": optax.adam, "sgd": optax.sgd, "clipped": clipped}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """Each kind of network is trained with each of its learning rates; Ctrl-C keeps what has been trained."""
    learned.check(options, NETWORKS)
    adam, sgd = cli.rates("adam_rates", options.adam_rates), cli.rates("sgd_rates", options.sgd_rates)
    rates, known, jobs = {"adam": adam, "sgd": sgd, "clipped": sgd}, optimizers(), {}
    for name in options.networks:
        kind = NETWORKS[name]
        jobs[name] = partial(
            gs.train, kind.build(options), optimizer=known[kind.optimizer], learning_rate=rates[kind.optimizer],
            **learned.training(options, options.depth if kind.group == DEPTH else None), **kind.gains,
        )  # fmt: skip
    return cli.perform_training(jobs, labelled, at_once=2)


def labelled(name: str, one: xarray.Dataset) -> xarray.Dataset:
    """Each network with the rate that the others chose, the group of all, and their optimizer."""
    return by_the_others(one).assign_attrs(group=NETWORKS[name].group, kind=NETWORKS[name].optimizer)


def report(datasets: Mapping[str, xarray.Dataset], folder: Path | None = None) -> str:
    """The table in words; and as early_layers_training.csv in the folder, if one is given."""
    return learned.report(datasets, "early_layers_training", folder)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"early_layers_training": learning(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("early_layers_training", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
