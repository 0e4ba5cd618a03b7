"""Small instances of every family: one that is registered here goes through all of test_conformance.py."""

import gradsim as gs
from gradsim import Network

FAMILIES: dict[str, Network] = {
    "feedforward": gs.feedforward(7, "gelu", "torch_linear"),
    "feedforward_tied": gs.feedforward(6, "softsign", "orthogonal", tied=True),
    "residual": gs.residual(6),
    "highway": gs.highway(6),
    "layernorm": gs.layernorm(6, form="pre"),
    "batchnorm": gs.batchnorm(4, 4, "tanh"),
    "convolutional": gs.convolutional(3, 4, activation="tanh"),
    "attention": gs.attention(4, 2, 3),
    "vanilla_rnn": gs.vanilla_rnn(6, features=3),
    "minimal_rnn": gs.minimal_rnn(6),
    "lstm": gs.lstm(4, features=3),
    "lstm_cell": gs.lstm(4, of="cell"),
    "gru": gs.gru(5),
    "linear_recurrence": gs.linear_recurrence(5),
}
