"""The families of the atlas: how each is called, its two main gains, and the theory of it there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import gradsim as gs
from gradsim import theory
from gradsim.networks.network import Network

NONE: Mapping[str, Any] = MappingProxyType({})
TIMED = ("vanilla_rnn", "minimal_rnn", "gru", "lstm")  # with a mean field of infinite width
# One unit in e^(1.7 lag) carries the mean square of these: no sample shows it.
UNSEEN = ("min_gru", "min_lstm")
CHI = {"long_name": "growth of a squared gradient at the fixed point", "units": "1"}
TOKENS, BATCH = 4, 8
EVERY = 3  # of the points of a transformer has its theory, which takes a second for each


class Family(NamedTuple):
    """A function of `gradsim` by its name, the ranges of the two gains over which it is mapped, and its choices."""

    name: str
    gains: dict[str, tuple[float, float]]
    choices: Mapping[str, Any] = NONE
    others: Mapping[str, float] = NONE
    """Gains that are not its defaults."""
    sizes: Callable[[int], tuple[int, ...]] = lambda n: (n,)
    """Its sizes, of a state of so many numbers."""

    def build(self, width: int) -> Network:
        network: Network = getattr(gs, self.name)(*self.sizes(width), **self.choices)
        return network

    def call(self, width: int) -> str:
        """What builds it, as text."""
        given = [*map(repr, self.sizes(width)), *(f"{name}={value!r}" for name, value in self.choices.items())]
        return f"gs.{self.name}({', '.join(given)})".replace("'", '"')


def _transformer(position: str) -> Family:
    """Blocks of attention and a ReLU MLP that keeps the length of its input at σ_w = √2."""
    choices = {"activation": "relu", "norm": "rms", "position": position, "epsilon": 0.0}
    return Family(
        "transformer", {"sigma_q": (0.0, 2.0), "sigma_w": (0.0, 3.0)}, choices, sizes=lambda n: (n, 4, TOKENS, 2)
    )


OVER_DEPTH = {
    "residual": Family("residual", {"sigma_w": (0.2, 3.0), "branch_gain": (0.0, 1.5)}),
    "highway": Family("highway", {"sigma_w": (0.5, 4.0), "transform_bias": (-4.0, 2.0)}),
    "layer norm": Family("layernorm", {"sigma_w": (0.5, 3.0), "sigma_b": (0.0, 1.5)}),
    "batch norm": Family("batchnorm", {"sigma_w": (0.5, 3.0), "sigma_b": (0.0, 1.5)}, sizes=lambda n: (n // 2, BATCH)),
    "convolution": Family("convolutional", {"sigma_w": (0.5, 3.0), "sigma_b": (0.0, 1.5)}, sizes=lambda n: (n, 4)),
    "attention": Family(
        "attention",
        {"sigma_q": (0.0, 2.0), "branch_gain": (0.0, 1.5)},
        {"mlp": 0, "epsilon": 0.0},
        sizes=lambda n: (n, 4, TOKENS),
    ),
    "pre-norm": _transformer("pre"),
    "post-norm": _transformer("post"),
}
OVER_TIME = {
    "tanh RNN": Family("vanilla_rnn", {"sigma_w": (0.5, 3.0), "sigma_v": (0.05, 2.0)}),
    "minimalRNN": Family("minimal_rnn", {"sigma_w": (0.5, 12.0), "sigma_v": (0.05, 4.0)}),
    "LSTM": Family("lstm", {"sigma_w": (0.2, 6.0), "forget_bias": (-2.0, 6.0)}),
    "GRU": Family("gru", {"sigma_w": (0.2, 6.0), "update_bias": (-2.0, 6.0)}),
    "LRU": Family("linear_recurrence", {"radius": (0.9, 1.1), "sigma_v": (0.5, 2.0)}),
    "IndRNN": Family("indrnn", {"radius": (0.5, 1.5), "sigma_v": (0.1, 2.0)}, {"activation": "tanh"}),
    "minGRU": Family("min_gru", {"sigma_v": (0.1, 4.0), "update_bias": (-2.0, 6.0)}),
    "minLSTM": Family("min_lstm", {"sigma_v": (0.1, 4.0), "forget_bias": (-2.0, 6.0)}),
    "antisymmetric": Family(
        "antisymmetric_rnn", {"sigma_w": (0.2, 3.0), "damping": (0.0, 1.0)}, others={"step_size": 0.1}
    ),
    "coRNN": Family("cornn", {"step_size": (0.01, 0.4), "damping": (0.0, 8.0)}, sizes=lambda n: (n // 2,)),
    "unitary": Family("unitary_rnn", {"sigma_w": (0.8, 1.2), "sigma_b": (0.0, 1.5)}, sizes=lambda n: (n // 2,)),
    "S4D": Family("s4d", {"time_scale": (0.1, 10.0), "sigma_v": (0.5, 2.0)}, sizes=lambda n: (n // 8, 4)),
    "Mamba": Family("mamba", {"sigma_delta": (0.0, 2.0), "step_bias": (-2.0, 4.0)}, sizes=lambda n: (n // 16, 16)),
    "Mamba-2": Family("mamba2", {"sigma_delta": (0.0, 2.0), "step_bias": (-2.0, 4.0)}, sizes=lambda n: (n, n)),
    "RetNet": Family("retnet", {"time_scale": (0.1, 10.0), "sigma_k": (0.5, 2.0)}),
    "RWKV-6": Family("rwkv6", {"sigma_decay": (0.0, 2.0), "decay_bias": (-3.0, 3.0)}),
    "RWKV-7": Family("rwkv7", {"sigma_beta": (0.0, 4.0), "decay_bias": (-3.0, 3.0)}),
    "delta rule": Family("delta_net", {"beta": (0.0, 2.0), "sigma_beta": (0.0, 2.0)}, {"tied": False}),
    "mLSTM": Family("mlstm", {"sigma_gate": (0.0, 2.0), "forget_bias": (-3.0, 3.0)}),
    "sLSTM": Family("slstm", {"sigma_v": (0.0, 2.0), "forget_bias": (-3.0, 9.0)}, {"of": "cell"}),
}
FAMILIES = {**OVER_DEPTH, **OVER_TIME}


def predicted(family: Family, network: Network, axes: Mapping[str, np.ndarray], depth: int) -> dict[str, Any]:
    """Theory over the two gains as variables of a Dataset, those of these there are: `edge_of_chaos`, the first gain of
    no growth over the second; `chi` of the fixed point; `theory`, the log gain after each step, squares averaged.
    """
    (first, x), (second, y) = axes.items()
    if family.name in TIMED:
        return _fixed_points(family.name, second, x, y)
    if family.name == "convolutional":
        return _as_feedforward("tanh", x, y, depth)
    gains = {first: x[:, None], second: y}
    if family.name == "batchnorm":
        growth = theory.batchnorm_growth("relu", BATCH)  # at every σ_w, without a bias
        return {"chi": ((first, second), np.where(gains[second] == 0, growth, np.full((x.size, 1), np.nan)), CHI)}
    if family.name == "residual":
        path = theory.residual("relu", gains["sigma_w"], 0.0, depth, branch_gain=gains["branch_gain"]).log_gain
    elif family.name in ("attention", "transformer"):
        blocks = {"position": str(family.choices.get("position", "pre")), "mlp": family.name == "transformer"}
        path = _blocks(depth, blocks, {first: x[:, None], second: y})
    else:
        path = _closed(family, network, gains, depth)
    if not np.isfinite(path).any():
        return {}
    about = {"long_name": "root mean square, which few units may carry", "units": "nat"}
    return {"theory": ((first, second, network.axis), path, about)}


def _blocks(depth: int, blocks: Mapping[str, Any], gains: Mapping[str, np.ndarray]) -> np.ndarray:
    """The log gain of a stack of blocks at some of the points, [first, second, block]; else NaN."""
    (first, x), (second, y) = gains.items()
    path, some = np.full((x.size, y.size, depth), np.nan), np.s_[::EVERY, ::EVERY]
    few: dict[str, Any] = {first: x[::EVERY], second: y[::EVERY]}
    path[some] = theory.transformer(TOKENS, depth, "relu", **blocks, **few).log_gain
    return path


def _as_feedforward(activation: str, x: np.ndarray, y: np.ndarray, depth: int) -> dict[str, Any]:
    """Of many channels: the mean field of a feed-forward network (Xiao et al. 2018)."""
    both, point = ("sigma_w", "sigma_b"), theory.feedforward(activation, x[:, None], y)
    path = theory.log_gain(activation, x[:, None], y, depth).mean
    edge = theory.edge_of_chaos(activation, y)
    return {
        "chi": (both, point.chi, CHI),
        "xi_c": (both, point.xi_c, {"long_name": "depth scale of correlations", "units": "layer"}),
        "theory": ((*both, "depth"), path, {"long_name": "infinite width", "units": "nat"}),
        "edge_of_chaos": ("sigma_b", edge, {"long_name": "edge of chaos", "units": "1"}),
    }


def _fixed_points(name: str, second: str, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """From inputs of unit variance; of gated cells with weights drawn anew at each step."""
    chi: np.ndarray | None = None
    if name == "vanilla_rnn":
        edge, chi = theory.edge_of_chaos("tanh", y), theory.vanilla_rnn("tanh", x[:, None], y).chi
    elif name == "minimal_rnn":
        edge, chi = theory.recurrent_edge(name, y), theory.minimal_rnn(x[:, None], y).chi
    else:
        edge = theory.recurrent_edge(name, 1.0, gate_bias=y)
        if name == "gru":  # each point of an LSTM takes 0.1 s
            chi = theory.gru(x[:, None], 1.0, update_bias=y).chi
    found: dict[str, Any] = {"edge_of_chaos": (second, edge, {"long_name": "no growth", "units": "1"})}
    if chi is not None:
        found["chi"] = (("sigma_w", second), chi, CHI)
    return found


def _closed(family: Family, network: Network, gains: Mapping[str, np.ndarray], depth: int) -> np.ndarray:
    """The closed form at each point that has one, [first, second, step]; else NaN."""
    (first, x), (second, y) = gains.items()
    path = np.full((x.size, y.size, depth), np.nan)
    if family.name in UNSEEN:
        return path
    for place, one in np.ndenumerate(x[:, 0]):
        for other, two in enumerate(y):
            given = {**family.others, first: float(one), second: float(two)}
            try:
                path[place[0], other] = theory.log_memory(network, np.arange(1, depth + 1), **given)
            except ValueError:  # none is known there
                continue
    return path
