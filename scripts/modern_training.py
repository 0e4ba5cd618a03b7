"""Do transformers and the recurrences of today train as they start?

Trains transformers on handwritten digits, with norms before and after each branch, and with ReZero; and over time
recurrences of today that must copy the first symbol they read: gates that see the input alone, as they are and held
open, the two memories of xLSTM, a diagonal state space, the delta rule. All as in early_layers_training.py, whose table
this one continues: the same data, updates and learning rates, of which each network has the one with which the others
of its kind came out best. Learning curves stand beside how much an update moves each block; over time, beside the
gradient that each step gives. Networks are few and small, so that the quick preset stays quick.

The table has the accuracy of each, with errors over networks, and is also written as modern_training.csv.

examples:
  python scripts/modern_training.py
  python scripts/modern_training.py --networks pre-norm post-norm --depth 50 --steps 1000
  python scripts/modern_training.py --networks minGRU "minGRU, open" --length 100 --seeds 16
  python scripts/modern_training.py --preset paper --formats png pdf --out results
  python scripts/modern_training.py --data figures/modern_training.zarr
"""

import math
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

TOKENS = 4  # a quarter of a digit each
BLOCKS, GATES, LINEAR = "transformers", "gates of the input", "linear memories"


class Kind(NamedTuple):
    """A network, what it is beside the others, and gains that are not its defaults."""

    group: str
    build: Callable[["Options"], Network]
    gains: Callable[["Options"], dict[str, Any]] = lambda o: {}


def _blocks(position: str, scaling: str = "constant") -> Kind:
    """A ReLU MLP keeps the length of what it reads, as attention does."""

    def build(options: "Options") -> Network:
        heads = min(2, options.width)
        return gs.transformer(options.width, heads, TOKENS, 1, "relu", position=position, scaling=scaling)

    return Kind(BLOCKS, build, lambda o: {"sigma_w": math.sqrt(2)})


def _open(options: "Options") -> dict[str, Any]:
    """A gate that forgets e-fold in about as many steps as there are."""
    return {"update_bias": math.log(max(2, options.length))}


NETWORKS = {
    "pre-norm": _blocks("pre"),
    "post-norm": _blocks("post"),
    "ReZero": _blocks("none", "rezero"),
    "minGRU": Kind(GATES, lambda o: gs.min_gru(o.hidden, features=learned.FEATURES)),
    "minGRU, open": Kind(GATES, lambda o: gs.min_gru(o.hidden, features=learned.FEATURES), _open),
    "sLSTM": Kind(GATES, lambda o: gs.slstm(o.hidden, features=learned.FEATURES)),
    "mLSTM": Kind(GATES, lambda o: gs.mlstm(o.hidden, min(4, o.hidden), features=learned.FEATURES)),
    "Mamba": Kind(LINEAR, lambda o: gs.mamba(max(1, o.hidden // 4), 4)),
    "delta rule": Kind(LINEAR, lambda o: gs.delta_net(o.hidden, features=learned.FEATURES)),
}


@dataclass(frozen=True)
class Options(learned.TrainingOptions):
    """Options of training today's networks."""

    networks: tuple[str, ...] = tuple(NETWORKS)

    depth: int = 12
    """Blocks of a transformer, each of attention and an MLP."""

    width: int = 16
    """Numbers of a token."""

    rates: tuple[float, ...] = (0.001, 0.01)
    """Learning rates of Adam; each network has the one with which the others came out best."""


LONG: dict[str, Any] = {"length": 100, "steps": 2000, "records": 20, "rates": (0.0003, 0.001, 0.003, 0.01)}
PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=32, depth=25, seeds=16, **LONG),
    "accelerator": Options("accelerator", width=64, depth=25, hidden=128, seeds=64, **LONG),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """Each kind of network is trained with each of its learning rates; Ctrl-C keeps what has been trained."""
    import optax

    learned.check(options, NETWORKS)
    rates, jobs = cli.rates("rates", options.rates), {}
    for name in options.networks:
        kind = NETWORKS[name]
        jobs[name] = partial(
            gs.train, kind.build(options), optimizer=optax.adam, learning_rate=rates,
            **learned.training(options, options.depth if kind.group == BLOCKS else None), **kind.gains(options),
        )  # fmt: skip
    return cli.perform_training(jobs, labelled, at_once=2)


def labelled(name: str, one: xarray.Dataset) -> xarray.Dataset:
    """Each network with the rate that the others chose, and the group of all."""
    return by_the_others(one).assign_attrs(group=NETWORKS[name].group, kind="adam")


def report(datasets: Mapping[str, xarray.Dataset], folder: Path | None = None) -> str:
    """The table in words; and as modern_training.csv in the folder, if one is given."""
    return learned.report(datasets, "modern_training", folder)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"modern_training": learning(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("modern_training", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
