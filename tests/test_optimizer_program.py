"""Whether an optimizer mixes entries is read off its program; where none are mixed each layer is trained by itself."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import gradsim as gs
from gradsim.training import programs
from gradsim.training.optimizer_program import by_entries


def number(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, "float32")


PARAMETERS = {"layers": {"w": number(4, 8, 8), "b": number(4, 8)}, "read_out": {"w": number(8, 2), "b": number(2)}}
RATE = number()


def of_matrices(parameters: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 2, parameters)


def of_name(parameters: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1] == jax.tree_util.DictKey("b"), parameters)


def labelled(rate: Any, labels: Any) -> Any:
    return optax.partition({"sgd": optax.sgd(rate), "adam": optax.adam(rate)}, labels)


def kept(shape: tuple[int, ...]) -> Any:
    """An optimizer that holds numbers of its own for the layers."""
    return optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: leaf * np.ones(shape, np.float32), updates))


@pytest.mark.parametrize(
    ("make", "alone"),
    [
        (optax.sgd, True),
        (lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True), True),
        (optax.adam, True),
        (lambda rate: optax.adamw(rate, mask=of_matrices), True),
        (lambda rate: optax.adam(optax.cosine_decay_schedule(0.01, 100)), True),
        (lambda rate: optax.inject_hyperparams(optax.rmsprop)(learning_rate=rate), True),
        (lambda rate: optax.chain(optax.clip(1.0), optax.lion(rate)), True),
        (lambda rate: labelled(rate, {"layers": "sgd", "read_out": "adam"}), True),
        (lambda rate: optax.MultiSteps(optax.adam(rate), 2).gradient_transformation(), True),
        (lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)), False),
        (optax.lamb, False),
        (optax.adafactor, False),
        (optax.contrib.muon, False),
        (lambda rate: optax.apply_if_finite(optax.sgd(rate), 3), False),
        (lambda rate: optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(0)), optax.sgd(rate)), False),
        (lambda rate: optax.adamw(rate, mask=of_name), False),
        (lambda rate: labelled(rate, {"layers": {"w": ["sgd"] * 4, "b": "adam"}, "read_out": "sgd"}), False),
        (lambda rate: kept((8,)), False),
    ],
)  # fmt: skip
def test_entries_that_are_mixed_or_told_apart_are_seen(make: Any, alone: bool) -> None:
    assert by_entries(make, RATE, PARAMETERS) == alone


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam])
def test_layers_train_apart_as_in_a_stack(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit where XLA adds alike; momenta go on from call to call."""
    options: dict[str, Any] = {"depth": 3, "seeds": 2, "steps": 12, "record": [4, 12], "batch": 8, "data": "digits"}

    def trained(rate: float) -> Any:
        return gs.train(gs.feedforward(16), sigma_w=[1.0, 2.0], optimizer=optimizer, learning_rate=rate, **options)

    apart = trained(0.01)
    calls = iter(range(100))
    monkeypatch.setattr(programs, "by_entries", lambda *_: next(calls) < 0)
    jax.clear_caches()
    stacked = trained(0.01)
    assert next(calls) > 0
    for name in apart.data_vars:
        np.testing.assert_allclose(apart[name], stacked[name], rtol=2e-6, atol=2e-6, err_msg=str(name))
