"""What is learned: digits and their labels, the copy task, the adding problem, arrays; what each family reads."""

from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import gradsim as gs
from gradsim.training import tasks
from gradsim.training.loop import order
from gradsim.training.tasks import Data, Sample

RNN = gs.vanilla_rnn(8)


def get(data: Any, network: gs.Network = RNN, depth: int | None = None, key: int = 0) -> Data:
    return tasks.get(data, network, depth=depth, classes=None, held_out=0.2, key=key, dtype="float32")[0]


@partial(jax.jit, static_argnums=0)
def taken(task: Any, source: Any, numbers: Any) -> Sample:
    return jax.vmap(task.take, in_axes=(None, 0))(source, numbers)


def samples(data: Data, numbers: Any) -> Sample:
    return jax.tree.map(np.asarray, taken(data.task, data.source, np.asarray(numbers, np.int32)))


def test_digits_are_all_there_with_their_labels() -> None:
    data, raw = get("digits_rows"), load_digits()
    assert data.task.shape == (8, 8)
    assert data.training + data.held_out.size == 1797
    known = {image.tobytes(): label for image, label in zip(gs.digits().astype("float32"), raw.target, strict=True)}
    for image, label in zip(data.source.inputs, data.source.targets, strict=True):
        assert known[image.reshape(64).tobytes()] == label[0]
    assert not np.array_equal(get("digits_rows", key=1).source.targets, data.source.targets)
    assert get("digits_pixels", depth=20).task.shape == (20, 1)


def test_copy_task_shows_symbols_then_blanks() -> None:
    data = get(gs.copy_task(symbols=3, alphabet=5), depth=11)
    shown = samples(data, np.arange(200))
    assert shown.inputs.shape == (200, 11, 6)
    np.testing.assert_array_equal(shown.inputs.sum(axis=-1), 1)
    np.testing.assert_array_equal(shown.inputs.argmax(axis=-1)[:, :3], shown.targets)
    np.testing.assert_array_equal(shown.inputs[:, 3:, 5], 1)
    assert set(shown.targets.ravel()) == set(range(5))
    assert not np.array_equal(shown.targets, samples(data, data.held_out[:200]).targets)


@pytest.mark.parametrize("length", [2, 7, 1000])
def test_adding_problem_marks_one_value_in_each_half(length: int) -> None:
    drawn = samples(get("adding", depth=length), np.arange(100))
    values, marks = drawn.inputs[..., 0], drawn.inputs[..., 1]
    np.testing.assert_array_equal(marks[:, : length // 2].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, length // 2 :].sum(axis=1), 1)
    np.testing.assert_allclose((values * marks).sum(axis=1), drawn.targets[:, 0], rtol=1e-6)
    assert values.min() >= 0
    assert values.max() < 1


def test_every_epoch_has_each_training_sample_once() -> None:
    data, batches = get("digits_rows"), order(get("digits_rows"), 100, 0, 3)
    numbers = np.concatenate([next(batches) for _ in range(15)])
    assert np.array_equal(np.sort(numbers[: data.training]), np.arange(data.training))
    assert not np.array_equal(next(order(data, 100, 0, 3)), next(order(data, 100, 0, 4)))


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (gs.feedforward(64), None),
        (gs.feedforward(12), (64, 12)),
        (gs.batchnorm(12, 8), (64, 12)),
        (gs.convolutional(3, 8, dimensions=2), (1, 3)),
        (gs.convolutional(4, 16), None),
        (gs.attention(8, 2, 8), None),
        (gs.attention(12, 2, 16), (4, 12)),
    ],
)
def test_read_in_is_there_where_sizes_differ(network: gs.Network, sizes: Any) -> None:
    assert tasks.read_in(get("digits", network, depth=2).task, network) == sizes


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("network", "options"),
    [
        (gs.linear_recurrence(32), {"data": gs.copy_task(alphabet=4), "depth": 8, "dtype": "float64"}),
        (gs.attention(8, 2, 8), {"data": "digits", "depth": 1}),
    ],
    ids=["copy", "attention"],
)
def test_learns(network: gs.Network, options: dict[str, Any]) -> None:
    """Well above chance on what has never been seen."""
    trained = gs.train(
        network, optimizer=optax.adam, learning_rate=0.01, seeds=2, steps=200, record=[0, 200], by_layer=False,
        **options,
    )  # fmt: skip
    assert np.all(trained.accuracy.sel(step=200) > 0.75)
    assert np.all(trained.accuracy.sel(step=0) < 0.5)


def test_learns_real_numbers_from_arrays_in_float64() -> None:
    """A linear target is found to a small error by the whole data as one batch."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(50, 6))
    targets = inputs @ random.normal(size=(6, 2))
    trained = gs.train(
        gs.feedforward(6, "identity"), data=(inputs, targets), optimizer=optax.adam(0.01), depth=1, seeds=1, steps=2000,
        batch=40, record=[0, 1000, 2000], dtype="float64", by_layer=False,
    )  # fmt: skip
    assert trained.attrs["loss"] == "squared error"
    assert float(trained.held_out_loss.sel(step=2000, seed=0)) < 1e-6
    assert float(trained.accuracy.sel(step=2000, seed=0)) == 1
