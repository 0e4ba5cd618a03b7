"""How deep can a network be, or how long a sequence, and still be trained?

Trains random networks over a grid of weight gains and depths for a fixed number of steps, and draws their accuracy
on held-out handwritten digits, with multiples of the depth scale ξ_c of mean-field theory over it: that over which two
inputs become alike, or unlike (Schoenholz et al. 2017, figure 5). Recurrent networks learn to copy a symbol over as
many steps as their sequences have, over their weight gain or the bias of the gate that forgets. Each cell shows the
best of the learning rates. Crosses mark where the gradient of the first layer is zero in float32 before training.

The table says at which depth the accuracy falls to half its best and how its rank over sigma_w goes with that of ξ_c;
then what was foreseen from the start alone: by a gradient that underflows, by a first update that rounding takes away,
and by a depth beyond 6 ξ_c. It is also written as trainability.csv.

examples:
  python scripts/trainability.py
  python scripts/trainability.py --cases tanh "tanh, orthogonal" --depths 5 10 20 40 80 --steps 400
  python scripts/trainability.py --cases "tanh RNN" --lengths 10 30 100 --seeds 8
  python scripts/trainability.py --preset paper --formats png pdf --out results
  python scripts/trainability.py --data figures/trainability.zarr
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray

import gradsim as gs
from gradsim import Network, cli
from gradsim.analysis.trainability import COUNTS, KEPT, MULTIPLE, kept, over_sizes, over_theory, summary, table
from gradsim.plot.memory import with_error
from gradsim.plot.style import words
from gradsim.plot.trainability import trainability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Case(NamedTuple):
    """One panel: networks of (width, features) over a gain, and what trains them."""

    build: Callable[[int, int], Network]
    gain: str
    ends: tuple[float, float]
    optimizer: str = "sgd"
    activation: str | None = None  # that of feed-forward networks, which have a theory


def _deep(activation: str, law: str, optimizer: str) -> Case:
    ends = {"tanh": (0.2, 3.0), "sigmoid": (0.5, 12.0), "relu": (0.2, 2.2)}[activation]
    return Case(lambda n, _: gs.feedforward(n, activation, law), "sigma_w", ends, optimizer, activation)


DEEP = {
    words(activation) + also + with_adam: _deep(activation, law, optimizer)
    for activation in ("tanh", "sigmoid", "relu")
    for law, also in (("gaussian", ""), ("orthogonal", ", orthogonal"))
    for optimizer, with_adam in (("sgd", ""), ("adam", ", Adam"))
}
CASES = {
    **DEEP,
    "tanh RNN": Case(lambda n, features: gs.vanilla_rnn(n, features=features), "sigma_w", (0.25, 2.5), "adam"),
    "LSTM": Case(lambda n, features: gs.lstm(n, features=features), "forget_bias", (-2.0, 6.0), "adam"),
    "GRU": Case(lambda n, features: gs.gru(n, features=features), "update_bias", (-2.0, 6.0), "adam"),
}
SHOWN = ("tanh", "tanh, orthogonal", "sigmoid, Adam", "ReLU", "tanh RNN", "LSTM", "GRU")
ALPHABET = 8  # symbols of the copy task, of which a blank is another


@dataclass(frozen=True)
class Options(cli.Options):
    """Options of the trainability."""

    cases: tuple[str, ...] = SHOWN
    """Panels: an activation, alone or with ", orthogonal" or ", Adam" or both; tanh RNN, LSTM, GRU."""

    depths: tuple[int, ...] = (4, 16, 64)
    """Layers of deep networks, which are 64 wide, as the digits have pixels."""

    lengths: tuple[int, ...] = (10, 50)
    """Steps of the sequences whose first symbol recurrent networks copy."""

    hidden: int = 32
    """Units of recurrent networks."""

    points: int = 8
    """Points of the grid along the gain."""

    sigma_b: float = 0.05
    """Bias gain of deep networks."""

    seeds: int = 3
    """Independent networks in each cell; errors are over them."""

    steps: int = 100
    """Updates of deep networks, of 32 samples each."""

    time_steps: int = 150
    """Updates of recurrent networks."""

    sgd_rates: tuple[float, ...] = (0.01, 0.1)
    """Learning rates of SGD, of which the best in each cell is shown."""

    adam_rates: tuple[float, ...] = (0.0005, 0.005)
    """Learning rates of Adam, likewise."""


FINE: dict[str, Any] = {
    "cases": tuple(CASES), "depths": (4, 8, 16, 32, 64, 128, 256), "lengths": (8, 16, 32, 64, 128),
    "sgd_rates": (0.001, 0.01, 0.1, 1.0), "adam_rates": (0.0001, 0.001, 0.01),
}  # fmt: skip
PRESETS = {
    "quick": Options(),
    "paper": Options("paper", points=16, steps=300, time_steps=500, **FINE),
    "accelerator": Options("accelerator", points=32, seeds=8, steps=1000, time_steps=2000, hidden=64, **FINE),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """A training run for each case and depth; what Ctrl-C leaves is joined likewise."""
    import optax

    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        raise ValueError(f"cases: got {'; '.join(unknown)}; pass some of: {'; '.join(CASES)}")
    rates = {"sgd": cli.rates("sgd_rates", options.sgd_rates), "adam": cli.rates("adam_rates", options.adam_rates)}
    jobs = {}
    for name in options.cases:
        case = CASES[name]
        gains: dict[str, Any] = {case.gain: cli.axis(case.gain, case.ends, options.points)}
        gains |= {"sigma_b": options.sigma_b} if case.activation else {}
        steps = options.steps if case.activation else options.time_steps
        for size in sorted(options.depths if case.activation else options.lengths):
            jobs[name, size] = partial(
                gs.train, case.build(64 if case.activation else options.hidden, ALPHABET + 1),
                data="digits" if case.activation else gs.copy_task(alphabet=ALPHABET),
                optimizer=getattr(optax, case.optimizer), learning_rate=rates[case.optimizer],
                depth=size, seeds=options.seeds, steps=steps, record=[0, steps], by_layer=KEPT, key=options.key,
                **gains,
            )  # fmt: skip
    try:
        return joined(cli.perform_training(jobs, kept, at_once=2))
    except KeyboardInterrupt as interrupt:
        interrupt.partial = joined(getattr(interrupt, "partial", {}))  # type: ignore[attr-defined]
        raise


def joined(measured: Mapping[Any, xarray.Dataset]) -> dict[str, xarray.Dataset]:
    """One Dataset for each case, over depth or length, with theory's depth scale beside it."""
    cases: dict[str, dict[int, xarray.Dataset]] = {}
    for (name, size), one in measured.items():
        cases.setdefault(name, {})[size] = one
    return {name: over_sizes(sizes, partial(_xi_c, name) if name in DEEP else None) for name, sizes in cases.items()}


def _xi_c(name: str, sigma_w: np.ndarray, sigma_b: float) -> np.ndarray:
    return gs.theory.feedforward(CASES[name].activation or "", sigma_w, sigma_b).xi_c


def report(datasets: Mapping[str, xarray.Dataset], folder: Path | None = None) -> str:
    """The tables in words; that of what was foreseen as trainability.csv in the folder, if one is given."""
    lines = ["depth at which accuracy falls to half its best, against theory's ξ_c over sigma_w:"]
    lines.append(f"  {'case':26s}{'best':>6s}{'rank correlation':>20s}{'depth / ξ_c':>16s}{'cells':>7s}")
    for name, one in datasets.items():
        found = summary(one)
        best = 2 * found.attrs["threshold"]
        if "xi_c" not in found:
            lines.append(f"  {name:26s}{best:6.0%}")
            continue
        rank, (multiple, error, cells) = found["rank"].values, over_theory(found)
        apart = rank.std(ddof=1) / math.sqrt(rank.size) if rank.size > 1 else math.nan
        ranks = with_error(rank.mean(), round(apart, 6))  # ranks may agree to rounding
        line = f"  {name:26s}{best:6.0%}{ranks:>20s}{with_error(multiple, error):>16s}{cells:7d}"
        lines.append(line.replace("nan", "  \u2013"))
    found = table(datasets)
    lines.append("networks foreseen not to train, from the start alone:")
    heads = ("foreseen, fails", "foreseen, trains", "not, fails", "not, trains")
    lines.append(f"  {'by':12s}{'case':26s}" + "".join(f"{head:>18s}" for head in heads))
    for row in found.to_dataframe().to_dict("records"):
        lines.append(f"  {row['predictor']:12s}{row['case']:26s}" + "".join(f"{row[key]:18,d}" for key in COUNTS))
    if folder is not None:
        found.to_dataframe().to_csv(folder / "trainability.csv", index=False)
        lines.append(f"table   {folder / 'trainability.csv'}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"trainability": trainability({name: summary(one) for name, one in datasets.items()}, MULTIPLE)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("trainability", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
