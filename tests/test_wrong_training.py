"""Every wrong argument of `gradsim.train` gets one line that names it, before anything is compiled."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest
import wrong
from wrong import KINDS, nothing_measured, refused, refused_each

import gradsim as gs
from gradsim.training import loop

INPUTS, LABELS = np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 3
SEQUENCES = np.random.default_rng(1).normal(size=(40, 5, 2))
ONES: list[Any] = [np.zeros((2, 2, 2)), np.ones(3)]
WRONG: dict[str, Any] = {
    "network": "network", "depth": "size or None", "seeds": "size", "steps": "size", "key": "key",
    "by_layer": [*KINDS["flag"], "log_gain", ["log_update", "length"], {"log_update"}], "dtype": "choice",
    "sigma_w": "gain", "sigma_in": "gain", "sigma_out": "gain",
    "batch": [value for value in KINDS["size"] if value is not None] + [33, 10**6],
    "held_out": [*KINDS["fraction"], 0.0, 1.0, 0.001],
    "classes": [value for value in KINDS["size"] if value is not None] + [1],
    "record": [*wrong.NO_NUMBER[1:], *wrong.BAD_NUMBER, 0, 2.5, [-1], [11], [1, 1], [0.5], "x", ["x"]],
    "learning_rate": [*KINDS["gain"], 0.0, [0.1, 0.0], -0.1, 1e-60],
    "optimizer": [
        None, "adam", 0.1, {}, wrong.ARRAY, lambda rate: rate, lambda: optax.sgd(0.1), lambda rate: None, np.sin,
        jax.nn.relu, optax.adam(0.1).init, optax,
    ],
    "data": [
        None, 3, "mnist", "digits_rows", "copy", gs.copy_task(), {}, [], (INPUTS,), (INPUTS, LABELS, LABELS), INPUTS,
        (INPUTS, LABELS[:-1]), (INPUTS, LABELS - 1), (INPUTS[:, 0], LABELS), (INPUTS, "x"), ("x", LABELS),
        (np.full((40, 6), np.nan), LABELS), (INPUTS, np.full(40, np.nan)), (INPUTS, np.zeros(40, int)), ONES,
        (INPUTS.astype(complex), LABELS), (INPUTS, LABELS.astype(bool)), (1e300 * INPUTS, LABELS), wrong.OTHER,
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_checks_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def trained(*_: Any) -> None:
        raise AssertionError("training was started before the arguments were checked")

    monkeypatch.setattr(loop, "train_chunks", trained)
    with nothing_measured(monkeypatch):
        yield


def call(**options: Any) -> Any:
    base = {
        "network": gs.feedforward(6), "data": (INPUTS, LABELS), "optimizer": optax.sgd, "learning_rate": 0.1,
        "depth": 2, "seeds": 2, "steps": 10,
    }  # fmt: skip
    return gs.train(**{**base, **options})


@pytest.mark.parametrize("argument", WRONG)
def test_train_refuses(argument: str) -> None:
    values = WRONG[argument]
    if argument == "depth":  # a network over depth has no length of its own
        values = KINDS["size"]
    refused_each(argument, values, lambda value: call(**{argument: value}))


def test_a_finished_optimizer_has_a_rate_and_another_needs_one() -> None:
    refused("learning_rate", lambda: call(optimizer=optax.sgd(0.1)))
    refused("learning_rate", lambda: call(learning_rate=None))


def test_an_optimizer_that_does_not_take_the_parameters_is_refused_at_once() -> None:
    def labelled(rate: Any) -> Any:
        return optax.multi_transform({"all": optax.sgd(rate)}, {"layers": "all", "head": "all"})

    refused("optimizer", lambda: call(optimizer=labelled))


def test_data_that_does_not_fit_the_family_is_refused_with_what_does() -> None:
    for network in (gs.lstm(4), gs.vanilla_rnn(4)):
        refused("data", partial(call, network=network, data="digits"))
        refused("data", partial(call, network=network))  # no time
    refused("data", lambda: call(network=gs.attention(4, 2, 5), data="digits"))  # 64 features for 5 tokens
    refused("depth", lambda: call(network=gs.lstm(4), data=(SEQUENCES, LABELS), depth=6))
    refused("depth", lambda: call(network=gs.lstm(4), data=gs.copy_task(3), depth=2))
    refused("depth", lambda: call(network=gs.lstm(4), data="adding", depth=1))
    refused("batch", lambda: call(network=gs.batchnorm(4, 8), batch=4))
    refused("batch", lambda: call(network=gs.batchnorm(4, 20)))  # more than are held out
    refused("classes", lambda: call(network=gs.lstm(4), data="copy", depth=4, classes=3))
    refused("data", lambda: call(classes=2))  # the labels run to 2
    refused("classes", lambda: call(data=(INPUTS, LABELS.astype(float)), classes=3))


def test_gains_of_no_network_and_networks_without_weights_are_refused() -> None:
    refused("forget_bias", lambda: call(forget_bias=1.0))
    refused("layers", lambda: call(network=gs.residual(6, scaling="inverse_depth", layers=3)))


@pytest.mark.parametrize("argument", ["symbols", "alphabet"])
def test_copy_task_refuses(argument: str) -> None:
    values: Any = KINDS["size"] if argument == "symbols" else [*KINDS["size"], 1]
    refused_each(argument, values, lambda value: gs.copy_task(**{argument: value}))
