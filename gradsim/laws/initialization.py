"""Laws that made the initialization schemes."""

import numpy as np

from gradsim.laws.record import Check, Law, sampled
from gradsim.networks.depth.feedforward import feedforward
from gradsim.sweeps.sweep import sweep


def glorot(effort: int, key: int) -> list[Check]:
    n, depth = 32, 10
    networks = {name: feedforward(n, "identity", name) for name in ("torch_linear", "glorot_uniform")}
    log_gain = sweep(networks, depth=depth, seeds=200 * effort, key=key).log_gain.sel(depth=depth)
    return [
        sampled("U[±1/√n], L = 10: 3^L E‖J‖²/n", np.exp(2 * log_gain.sel(network="torch_linear")) * 3.0**depth, 1.0),
        sampled("glorot_uniform, L = 10: E‖J‖²/n", np.exp(2 * log_gain.sel(network="glorot_uniform")), 1.0),
    ]


def he(effort: int, key: int) -> list[Check]:
    n = 96
    networks = {name: feedforward(n, "relu", name) for name in ("glorot_normal", "he_normal")}
    log_gain = sweep(networks, depth=22, seeds=100 * effort, key=key).log_gain.sel(depth=22)
    return [
        sampled("glorot_normal, L = 22: 2^L E‖J‖²/n", np.exp(2 * log_gain.sel(network="glorot_normal")) * 2.0**22, 1.0),
        sampled("he_normal, L = 22: E‖J‖²/n", np.exp(2 * log_gain.sel(network="he_normal")), 1.0),
    ]


LAWS = (
    Law("F1", "U[±1/√n] shrinks squared gradients threefold a layer", "Glorot & Bengio 2010", glorot),
    Law("F2", "Xavier with ReLU shrinks them twofold, He keeps them", "He et al. 2015", he),
)
