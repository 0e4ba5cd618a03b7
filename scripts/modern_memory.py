"""What do the recurrences of today remember, and for how many steps?

Measures, exactly and at every lag from 1 to thousands of steps, what is left of a gradient in minGRU and minLSTM, LSTM
and GRU beside them, diagonal state spaces (the linear recurrent unit, S4D, Mamba, Mamba-2), linear attention (RetNet,
RWKV-6, RWKV-7, mLSTM, the delta rule), and in IndRNN, unitary, antisymmetric and coupled oscillatory networks, as they
start. Lines are closed forms of the mean square; points are measured, root mean squares over networks with their
standard errors, hollow where so few networks carry the mean that no sample of this size shows it. Gates that read the
input alone forget e-fold in little more than a step; decays spread over units make a power of time; what is orthogonal
keeps all. What is left after 10, 100, … steps is also written as modern_memory.csv.

In the delta rule and the antisymmetric network weights are drawn anew at each step, as their closed forms assume; in
Mamba and Mamba-2 the steps do not read the input. minGRU and minLSTM have a closed form as well, which is
not drawn: one unit in e^(1.7 lag) carries that mean, more than any sample has.

examples:
  python scripts/modern_memory.py
  python scripts/modern_memory.py --networks Mamba RetNet LSTM --length 3000 --seeds 32
  python scripts/modern_memory.py --preset paper --formats png pdf --out results
  python scripts/modern_memory.py --data figures/modern_memory.zarr
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

import gradsim as gs
from gradsim import Network, cli
from gradsim.analysis.memory import mean_square
from gradsim.plot.modern_memory import modern_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 40  # lags that are kept, as many in every decade

# Title -> the network of this width, and gains that are not its defaults.
NETWORKS: dict[str, tuple[Callable[[int], Network], dict[str, Any]]] = {
    "LSTM": (lambda n: gs.lstm(n), {"forget_bias": 1.0}),
    "GRU": (lambda n: gs.gru(n), {}),
    "minLSTM": (lambda n: gs.min_lstm(n), {}),
    "minGRU": (lambda n: gs.min_gru(n), {}),
    "LRU": (lambda n: gs.linear_recurrence(n), {}),
    "S4D": (lambda n: gs.s4d(max(1, n // 4), 4, initial="gaussian"), {}),
    "Mamba": (lambda n: gs.mamba(max(1, n // 8), 16, initial="gaussian"), {"sigma_delta": 0.0}),
    "Mamba-2": (lambda n: gs.mamba2(n, n, initial="gaussian"), {"sigma_delta": 0.0}),
    "RetNet": (lambda n: gs.retnet(n, min(8, n)), {}),
    "RWKV-6": (lambda n: gs.rwkv6(n), {}),
    "RWKV-7": (lambda n: gs.rwkv7(n), {}),
    "mLSTM": (lambda n: gs.mlstm(n, min(4, n)), {}),
    "sLSTM": (lambda n: gs.slstm(n, of="cell"), {}),
    "delta rule": (lambda n: gs.delta_net(n, tied=False), {"sigma_beta": 0.0}),
    "IndRNN": (lambda n: gs.indrnn(n, "identity"), {}),
    "unitary": (lambda n: gs.unitary_rnn(n), {}),
    "antisymmetric": (lambda n: gs.antisymmetric_rnn(n, "identity", tied=False), {}),
    "coRNN": (lambda n: gs.cornn(n), {}),
}


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the memory of today's recurrences."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Which networks, by their titles in the figure."""

    width: int = 16
    """Units, channels times numbers of a memory, or the size of a key; a multiple of 8 for all networks."""

    length: int = 10_000
    """The longest lag, in steps."""

    seeds: int = 16
    """Independent networks of each kind; means and errors are over them."""


PRESETS = {
    "quick": Options(),
    "paper": Options("paper", length=100_000, seeds=64),
    "accelerator": Options("accelerator", width=64, length=100_000, seeds=256),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """A sweep for each network, and what is kept of it."""
    if options.seeds < 2:
        raise ValueError(f"seeds: got {options.seeds}; pass at least 2, errors are over them")
    if unknown := [name for name in options.networks if name not in NETWORKS]:
        raise ValueError(f"networks: got {', '.join(unknown)}; pass some of: {', '.join(NETWORKS)}")
    networks = {name: NETWORKS[name][0](options.width) for name in options.networks}
    jobs = {
        name: partial(
            gs.sweep, network, depth=options.length, seeds=options.seeds, key=options.key,
            **NETWORKS[name][1],
        )
        for name, network in networks.items()
    }  # fmt: skip
    return {name: kept(networks[name], one, NETWORKS[name][1]) for name, one in cli.perform(jobs).items()}


def kept(network: Network, swept: xarray.Dataset, gains: Mapping[str, float]) -> xarray.Dataset:
    """Some lags of a sweep, with the closed form there where there is one."""
    lags = np.unique(np.geomspace(1, swept.sizes["time"], POINTS).round().astype(int))
    found = swept[["log_gain", "dead"]].sel(time=lags)
    if network.family in ("min_gru", "min_lstm"):
        return found
    try:
        theory = gs.theory.log_memory(network, lags, **gains)
    except ValueError:  # none is known
        return found
    return found.assign(theory=("time", theory, {"units": "nat"}))


def table(datasets: Mapping[str, xarray.Dataset]) -> xarray.Dataset:
    """What is left after 10, 100, … steps, over network and time: `left`, ½ ln of the mean square over networks in nat,
    its `error`, whether it is `carried_by_few` of them, and `theory`, NaN where there is no closed form.
    """
    lags, rows = decades(datasets), []
    for name, one in datasets.items():
        found = mean_square(one).sel(time=lags, method="nearest")
        theory = found["theory"] if "theory" in found else np.nan * found["error"]
        found = found.rename(log_root="left").assign(theory=theory)[["left", "error", "carried_by_few", "theory"]]
        rows.append(found.assign_coords(network=name))
    return xarray.concat(rows, "network", data_vars="all", coords="minimal", compat="override", join="exact")


def decades(datasets: Mapping[str, xarray.Dataset]) -> list[int]:
    """10, 100, … steps, as far as was measured."""
    longest = max(int(one["time"][-1]) for one in datasets.values())
    return [10**power for power in range(1, 6) if 10**power <= longest] or [longest]


def report(datasets: Mapping[str, xarray.Dataset], folder: Path | None = None) -> str:
    """What is left at some lags, and by how many standard errors measurement and closed form differ; and the former as
    modern_memory.csv in the folder, if one is given."""
    lags = decades(datasets)
    lines = ["left of the gradient, root mean square (closed form) after"]
    lines.append(f"  {'steps':14s}" + "".join(f"{lag:>26,}" for lag in lags) + f"{'largest difference':>22s}")
    for name, one in datasets.items():
        found = mean_square(one)
        cells = []
        for lag in lags:
            at = found.sel(time=lag, method="nearest")
            error = "" if at.carried_by_few else f" ± {100 * float(at.error):.2g} %"
            cells.append(
                shown(float(at.log_root)) + error + (f" ({shown(float(at.theory))})" if "theory" in at else "")
            )
        apart = f"{float(abs(found.residual).max()):.1f} s.e." if "residual" in found else ""
        lines.append(f"  {name:14s}" + "".join(f"{cell:>26s}" for cell in cells) + f"{apart:>22s}")
    if folder is not None:
        kept = ["left", "error", "carried_by_few", "theory"]
        table(datasets).drop_vars("seed", errors="ignore").to_dataframe()[kept].to_csv(folder / "modern_memory.csv")
        lines.append(f"table   {folder / 'modern_memory.csv'}")
    return "\n".join(lines)


def shown(log: float) -> str:
    """A number by its logarithm, also one that no float holds."""
    exponent = log / np.log(10)
    return f"{10**exponent:.3g}" if exponent > -4 else f"1e{exponent:.1f}"


def draw(datasets: Mapping[str, xarray.Dataset]) -> dict[str, "Figure"]:
    return {"modern_memory": modern_memory(datasets)}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run("modern_memory", options, measure, partial(report, folder=options.out), draw)


if __name__ == "__main__":
    main()
