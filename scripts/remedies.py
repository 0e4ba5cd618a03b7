"""Which remedies keep gradients alive, over depth and over time?

Measures, exactly, a network whose gradient vanishes and one whose gradient explodes, and beside them what was
invented against both: better starts (He, orthogonal, identity), batch norm, layer norm, residual blocks,
transformers, LSTM and GRU with gates as they are and held open, and the recurrences of today. Lines show the gradient
through a whole network of each depth or sequence length, bands hold 80 % of the networks. The table gives the growth a
layer or step over the second half, the horizon (how far the gradient travels before it has fallen or grown by a factor)
and the share of dead networks, whose gradient is exactly zero; it is also written as remedies.csv.

examples:
  python scripts/remedies.py
  python scripts/remedies.py --depth 200 --length 1000 --seeds 32
  python scripts/remedies.py --networks "tanh RNN" LSTM "LSTM, chrono" --factor 100
  python scripts/remedies.py --preset paper --formats png pdf --out results
  python scripts/remedies.py --data figures/remedies.zarr
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray

import gradsim as gs
from gradsim import Network, cli
from gradsim.analysis.growth import growth
from gradsim.analysis.horizon import horizon
from gradsim.networks.depth.batchnorm import batchnorm
from gradsim.networks.depth.normalized import layernorm
from gradsim.networks.depth.residual import residual
from gradsim.networks.time.gated import gru, lstm
from gradsim.networks.time.recurrent import vanilla_rnn
from gradsim.plot.memory import with_error
from gradsim.plot.remedies import remedies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE, START, NORM, SKIP, GATE = "baseline", "better start", "normalization", "skip connection", "gate"
LINEAR, BOUND = "linear memory", "constrained weights"


@dataclass(frozen=True)
class Options(cli.SweepOptions):
    """Options of the remedies."""

    may_be_none: ClassVar[tuple[str, ...]] = (*cli.Options.may_be_none, "networks")
    redraws: ClassVar[tuple[str, ...]] = (*cli.Options.redraws, "factor")

    networks: tuple[str, ...] = ()
    """Which networks, by their titles in the figure; all unless given."""

    width: int = 64
    """Units of a layer or of a hidden state."""

    depth: int = 50
    """Layers of the deep networks."""

    length: int = 200
    """Time steps of the recurrent networks, which read Gaussian noise of unit variance."""

    seeds: int = 16
    """Independent networks of each kind; bands and errors are over them."""

    batch: int = 8
    """Samples in a batch, for batch norm."""

    factor: float = 10.0
    """The horizon is where the gradient has fallen or grown by this factor."""


# Title -> what kind of remedy it is, the network, and gains that are not its defaults.
Build = Callable[[Options], Network]
NETWORKS: dict[str, tuple[str, Build, dict[str, Any]]] = {
    "sigmoid, Glorot": (BASELINE, lambda o: gs.feedforward(o.width, "sigmoid", "glorot_uniform"), {}),
    "tanh, large weights": (BASELINE, lambda o: gs.feedforward(o.width, "tanh"), {"sigma_w": 4.0}),
    "ReLU, Glorot": (START, lambda o: gs.feedforward(o.width, "relu", "glorot_uniform"), {}),
    "ReLU, He": (START, lambda o: gs.feedforward(o.width, "relu", "he_normal"), {}),
    "tanh, orthogonal": (START, lambda o: gs.feedforward(o.width, "tanh", "orthogonal"), {}),
    "ReLU, batch norm": (NORM, lambda o: batchnorm(o.width, o.batch, "relu"), {}),
    "ReLU, layer norm": (NORM, lambda o: layernorm(o.width, "relu"), {}),
    "ReLU, residual": (SKIP, lambda o: residual(o.width, "relu"), {}),
    "ReLU, pre-norm residual": (SKIP, lambda o: layernorm(o.width, "relu", form="pre"), {}),
    "tanh RNN": (BASELINE, lambda o: vanilla_rnn(o.width, "tanh"), {}),
    "tanh RNN, large weights": (BASELINE, lambda o: vanilla_rnn(o.width, "tanh"), {"sigma_w": 4.0}),
    "tanh RNN, orthogonal": (START, lambda o: vanilla_rnn(o.width, "tanh", "orthogonal"), {}),
    "ReLU RNN, identity": (START, lambda o: vanilla_rnn(o.width, "relu", "identity", initial="zero"), {}),
    "LSTM": (GATE, lambda o: lstm(o.width), {}),
    "LSTM, forget bias 1": (GATE, lambda o: lstm(o.width), {"forget_bias": 1.0}),
    "LSTM, chrono": (GATE, lambda o: lstm(o.width, chrono=max(2, o.length)), {}),
    "GRU": (GATE, lambda o: gru(o.width), {}),
    "GRU, chrono": (GATE, lambda o: gru(o.width, chrono=max(2, o.length)), {}),
}

TOKENS = 4  # of a transformer's state


def _blocks(options: Options, position: str, **given: Any) -> Network:
    """Blocks whose ReLU MLP keeps the length of what it reads, as attention does."""
    return gs.transformer(options.width, min(4, options.width), TOKENS, 1, "relu", position=position, **given)


def _units(options: Options, of: int) -> int:
    """So many channels that their states, each of this size, have together the width."""
    return max(1, options.width // of)


HE = {"sigma_w": 2**0.5}
NETWORKS |= {
    "transformer, pre-norm": (NORM, lambda o: _blocks(o, "pre"), HE),
    "transformer, post-norm": (NORM, lambda o: _blocks(o, "post"), HE),
    "transformer, DeepNorm": (SKIP, lambda o: _blocks(o, "post", scaling="deepnorm", layers=o.depth), HE),
    "minGRU": (GATE, lambda o: gs.min_gru(o.width), {}),
    "minLSTM": (GATE, lambda o: gs.min_lstm(o.width), {}),
    "sLSTM": (GATE, lambda o: gs.slstm(o.width, of="cell"), {}),
    "mLSTM": (LINEAR, lambda o: gs.mlstm(o.width, min(4, o.width)), {}),
    "S4D": (LINEAR, lambda o: gs.s4d(_units(o, 4), 4), {}),
    "Mamba": (LINEAR, lambda o: gs.mamba(_units(o, 16), 16), {}),
    "RetNet": (LINEAR, lambda o: gs.retnet(o.width, min(8, o.width)), {}),
    "RWKV-7": (LINEAR, lambda o: gs.rwkv7(o.width), {}),
    "delta rule": (LINEAR, lambda o: gs.delta_net(o.width), {}),
    "IndRNN, linear": (BOUND, lambda o: gs.indrnn(o.width, "identity"), {}),
    "unitary": (BOUND, lambda o: gs.unitary_rnn(o.width), {}),
    "antisymmetric": (BOUND, lambda o: gs.antisymmetric_rnn(o.width), {}),
    "coRNN": (BOUND, lambda o: gs.cornn(o.width), {}),
}

PRESETS = {
    "quick": Options(),
    "paper": Options("paper", width=256, depth=200, length=1000, seeds=32, batch=16),
    "accelerator": Options("accelerator", width=512, depth=500, length=10_000, seeds=64, batch=16),
}


def measure(options: Options) -> dict[str, xarray.Dataset]:
    """One forward sweep for each network, which holds every depth or length up to the last."""
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        raise ValueError(f"networks: got {', '.join(unknown)}; pass some of: {'; '.join(NETWORKS)}")
    if min(options.depth, options.length) < 2:
        raise ValueError(f"depth, length: got {options.depth}, {options.length}; pass at least 2")
    _fraction(options.factor)
    jobs = {}
    for name in options.networks or NETWORKS:
        _, build, gains = NETWORKS[name]
        network = build(options)
        steps = options.length if network.axis == "time" else options.depth
        jobs[name] = partial(gs.sweep, network, depth=steps, seeds=options.seeds, key=options.key, **gains)
    return {name: one.assign_attrs(kind=NETWORKS[name][0]) for name, one in cli.perform(jobs).items()}


def _fraction(factor: float) -> float:
    if not 1 < factor < np.inf:
        raise ValueError(f"factor: got {factor}; pass a number above 1")
    return 1 / factor


def table(datasets: Mapping[str, xarray.Dataset], factor: float = 10.0) -> xarray.Dataset:
    """One entry a network: growth a step over the second half, horizon, dead share, with standard errors.

    `change` says what the gradient has done at the horizon: "falls", "grows", or "holds" where it has done neither
    within the `steps` measured, and the horizon is NaN.
    """
    alike: dict[tuple[str, int], list[str]] = {}
    for name, one in datasets.items():
        axis = "time" if "time" in one.dims else "depth"
        alike.setdefault((axis, one.sizes[axis]), []).append(name)
    parts = []
    for (axis, _), names in alike.items():
        several = [_held(datasets[name]).assign_coords(network=name) for name in names]
        both = xarray.concat(several, "network", data_vars="all", combine_attrs="drop_conflicts", join="outer")
        parts.append(_rows(both, axis, factor))
    found = xarray.concat(parts, "network", data_vars="all", combine_attrs="drop")
    return found.sel(network=list(datasets)).assign_attrs(factor=factor)


def _held(one: xarray.Dataset) -> xarray.Dataset:
    """What the table reads of a Dataset, which flags lost networks where there are any."""
    lost = one.get("log_gain_lost", xarray.zeros_like(one["log_gain"], bool))
    return one[["log_gain", "dead"]].assign(log_gain_lost=lost).reset_coords(drop=True)


def _rows(several: xarray.Dataset, axis: str, factor: float) -> xarray.Dataset:
    """Those of networks that were measured over the same steps."""
    slopes = growth(several.rename(seed="draw"), max_lost=1.0)  # the horizon refuses where too many are lost
    last, count = several.isel({axis: -1}, drop=True), several.sizes["network"]
    return xarray.Dataset(
        {
            "axis": ("network", [axis] * count),
            "steps": ("network", [several.sizes[axis]] * count),
            "growth": slopes.mean("draw"),
            "growth_error": slopes.std("draw", ddof=1) / np.sqrt(slopes.count("draw")),
            **_horizon(several, _fraction(factor)),
            "dead": last["dead"].mean("seed"),
            "log_gain": last["log_gain"].mean("seed"),
        }
    ).drop_attrs()


def _horizon(several: xarray.Dataset, fraction: float) -> dict[str, xarray.DataArray]:
    """The nearer of the two: where the gradient has fallen to the fraction, or grown by its inverse."""
    flipped = several.assign(log_gain=-several["log_gain"])
    falls, grows = horizon(several, fraction), horizon(flipped, fraction)
    fallen, grown = (one["horizon_crossing"].fillna(np.inf) for one in (falls, grows))
    nearer = xarray.where(fallen <= grown, falls, grows)
    steps, change = nearer["horizon_crossing"], xarray.where(fallen <= grown, "falls", "grows")
    return {
        "horizon": steps,
        "horizon_error": nearer["horizon_crossing_error"],
        "change": change.where(steps.notnull(), "holds"),
    }


def report(datasets: Mapping[str, xarray.Dataset], factor: float = 10.0, folder: Path | None = None) -> str:
    """The table in words; and as remedies.csv in the folder, if one is given."""
    found = table(datasets, factor)
    lines = [f"growth of the gradient, and how far it goes before it has changed by a factor of {factor:g}:"]
    lines.append(f"  {'network':28s}{'growth (nat/step)':>20s}{'horizon (steps)':>24s}{'dead':>6s}")
    for name in found["network"].values.tolist():
        row = {str(key): value.item() for key, value in found.sel(network=name).data_vars.items()}
        horizon_words = with_error(row["horizon"], row["horizon_error"])
        where = f"> {row['steps']:,}" if row["change"] == "holds" else f"{row['change']} {horizon_words}"
        lines.append(f"  {name:28s}{with_error(row['growth'], row['growth_error']):>20s}{where:>24s}{row['dead']:6.0%}")
    if folder is not None:
        found.to_dataframe().to_csv(folder / "remedies.csv")
        lines.append(f"table   {folder / 'remedies.csv'}")
    return "\n".join(lines)


def draw(datasets: Mapping[str, xarray.Dataset], factor: float = 10.0) -> dict[str, "Figure"]:
    return {"remedies": remedies(datasets, table(datasets, factor))}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the script with these arguments, those of the command line unless given; returns the figures."""
    options = cli.parse(PRESETS, arguments, str(__doc__))
    return cli.run(
        "remedies", options, measure, partial(report, factor=options.factor, folder=options.out),
        partial(draw, factor=options.factor),
    )  # fmt: skip


if __name__ == "__main__":
    main()
