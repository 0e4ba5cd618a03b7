"""The arguments of every family, right ones, and of which kind each is: tests pass wrong ones in their place."""

from typing import Any

NETWORK_KINDS = {
    "width": "size", "channels": "size", "size": "size", "kernel": "size", "batch": "size", "heads": "size",
    "tokens": "size", "order": "size", "values": "size", "layer": "fraction",
    "mlp": "numbers", "dimensions": "size", "features": "size or None", "chrono": "size or None",
    "layers": "size or None", "activation": "function", "initializer": "function", "input_initializer": "function",
    "tied": "flag", "skip": "flag", "causal": "flag", "gated": "flag", "qk_norm": "flag", "final_norm": "flag",
    "epsilon": "numbers", "form": "choice", "norm": "choice", "scaling": "choice", "position": "choice",
    "place": "choice", "padding": "choice", "of": "choice", "initial": "choice", "forget": "choice",
    "transformer.heads": "count",
}  # fmt: skip
RECURRENT: dict[str, Any] = {"width": 4, "initializer": "gaussian", "features": 3, "initial": "zero", "tied": True}
NETWORKS: dict[str, dict[str, Any]] = {
    "feedforward": {"width": 4, "activation": "tanh", "initializer": "gaussian", "tied": False},
    "residual": {
        "width": 4, "activation": "tanh", "initializer": "gaussian", "form": "two_layer", "scaling": "inverse_depth",
        "layers": 3, "tied": False,
    },
    "highway": {"width": 4, "activation": "tanh", "initializer": "gaussian", "tied": False},
    "layernorm": {
        "width": 4, "activation": "tanh", "initializer": "gaussian", "form": "pre", "norm": "layer", "epsilon": 1e-6,
        "scaling": "inverse_depth", "layers": 3, "tied": False,
    },
    "batchnorm": {
        "width": 4, "batch": 4, "activation": "tanh", "initializer": "gaussian", "place": "before", "of": "batch",
        "epsilon": 1e-6, "tied": False,
    },
    "convolutional": {
        "channels": 3, "size": 4, "kernel": 3, "dimensions": 1, "padding": "circular", "activation": "tanh",
        "initializer": "gaussian", "tied": False,
    },
    "attention": {
        "width": 4, "heads": 2, "tokens": 3, "mlp": 2, "activation": "tanh", "initializer": "gaussian", "norm": "pre",
        "skip": True, "causal": False, "epsilon": 1e-6, "scaling": "inverse_depth", "layers": 3, "tied": False,
    },
    "transformer": {
        "width": 4, "heads": 2, "tokens": 3, "mlp": 2, "activation": "tanh", "initializer": "gaussian", "gated": False,
        "norm": "rms", "position": "pre", "qk_norm": True, "causal": False, "skip": True, "epsilon": 1e-6,
        "scaling": "inverse_depth", "layers": 3, "final_norm": True, "tied": False,
    },
    "vanilla_rnn": {
        "width": 4, "activation": "tanh", "initializer": "gaussian", "features": 3, "input_initializer": "gaussian",
        "initial": "zero", "tied": True,
    },
    "minimal_rnn": {
        "width": 4, "initializer": "gaussian", "input_initializer": "gaussian", "initial": "zero", "tied": True,
    },
    "lstm": {
        "width": 4, "initializer": "gaussian", "of": "state", "features": 3, "input_initializer": "gaussian",
        "chrono": 8, "initial": "zero", "tied": True,
    },
    "gru": {
        "width": 4, "initializer": "gaussian", "of": "state", "features": 3, "input_initializer": "gaussian",
        "chrono": 8, "initial": "zero", "tied": True,
    },
    "linear_recurrence": {"width": 4, "features": 3, "initial": "zero", "tied": True},
    "antisymmetric_rnn": {"activation": "tanh", "input_initializer": "gaussian", **RECURRENT},
    "cornn": {"activation": "tanh", "input_initializer": "gaussian", **RECURRENT},
    "indrnn": {"activation": "tanh", **RECURRENT},
    "min_gru": RECURRENT,
    "min_lstm": RECURRENT,
    "unitary_rnn": {"width": 4, "features": 3, "initial": "zero", "tied": True},
    "s4d": {"width": 4, "order": 2, "initial": "zero", "tied": True},
    "mamba": {"width": 4, "order": 2, "initial": "zero", "tied": True},
    "mamba2": {"heads": 2, "values": 1, **RECURRENT},
    "retnet": {"heads": 2, "values": 1, **RECURRENT},
    "rwkv6": {"heads": 2, "values": 1, "layer": 0.5, **RECURRENT},
    "rwkv7": {"heads": 2, "values": 1, "layer": 0.5, **RECURRENT},
    "delta_net": {"heads": 2, "values": 1, **RECURRENT},
    "mlstm": {"heads": 2, "values": 1, **RECURRENT},
    "slstm": {
        "heads": 2, "forget": "exp", "of": "cell", "layer": 0.5, "input_initializer": "gaussian", **RECURRENT,
    },
}  # fmt: skip
