"""The scripts of what trains: the numbers in their tables, from data made by hand and from small runs."""

import atexit
import csv
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import xarray
from jax import Array
from script_modules import load, measured, small

import gradsim as gs
from gradsim import cli
from gradsim.analysis import trainability as analysis
from gradsim.analysis.early_layers import by_the_others, table
from gradsim.cli import learned
from gradsim.cli.flax_models import CLASSES, PIXELS, TITLES, Sizes, make
from gradsim.training import tasks

trainability, early, modern = map(load, ("trainability", "early_layers_training", "modern_training"))


def over_depth(accuracy: Any, **variables: Any) -> xarray.Dataset:
    """What `trainability` measures: accuracies [gain, learning_rate, seed, depth] of networks 4, 16 and 64 deep."""
    values = np.asarray(accuracy, float)
    dims = ("sigma_w", "learning_rate", "seed", "depth")
    rest = {name: np.zeros(values.shape) for name in ("log_gradient", "log_update")} | variables
    every: dict[str, Any] = {"accuracy": values, **rest}
    gains = np.arange(1, len(values) + 1.0)
    return xarray.Dataset(
        {name: (dims[: np.ndim(one)], one) for name, one in every.items()}, {"depth": [4, 16, 64], "sigma_w": gains}
    )


@pytest.mark.parametrize(
    ("accuracy", "depth"),
    [
        ([1.0, 0.75, 0.25], 32.0),  # half-way in ln depth
        ([1.0, 0.5, 0.0], 16.0),
        ([0.4, 0.9, 0.9], 4.0),
        ([0.9, 0.9, 0.9], 64.0),
        ([0.9, 0.1, 0.9], 8.0),  # the first fall counts
        ([0.9, math.nan, 0.1], math.nan),
    ],
)
def test_the_depth_of_half_the_accuracy(accuracy: list[float], depth: float) -> None:
    found = analysis.trainable_size(over_depth([[[accuracy]]])["accuracy"], 0.5)
    np.testing.assert_allclose(found.values.item(), depth, rtol=1e-12)


def test_one_depth_alone_is_a_bound() -> None:
    one = over_depth([[[[0.9, 0, 0]]]])["accuracy"].isel(depth=[0])
    assert analysis.trainable_size(one, 0.5).item() == pytest.approx(4)


def test_ranks_are_those_of_scipy() -> None:
    from scipy.stats import spearmanr

    x, y = np.random.default_rng(0).integers(0, 6, (2, 30)).astype(float)
    assert analysis.rank_correlation(x, y) == pytest.approx(float(spearmanr(x, y).statistic), abs=1e-12)
    assert analysis.rank_correlation(np.append(x, np.nan), np.append(y, 1)) == analysis.rank_correlation(x, y)
    assert math.isnan(analysis.rank_correlation(x, np.ones(30)))


def test_the_best_learning_rate_of_each_cell_and_its_ranks() -> None:
    good, poor = [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]
    one = over_depth([[[poor] * 2, [good] * 2], [[good] * 2, [poor] * 2], [[poor] * 2] * 2], xi_c=[2.0, 4.0, 1.0])
    found = analysis.summary(one)
    assert found.attrs["threshold"] == 0.5
    np.testing.assert_allclose(found["half"].transpose("seed", "sigma_w"), [[32, 32, 8]] * 2, rtol=1e-12)
    np.testing.assert_allclose(found["rank"], math.sqrt(3) / 2, rtol=1e-12)  # two depths tie
    level, error, cells = analysis.over_theory(found)
    ratios = np.log([32 / 2, 32 / 4, 8 / 1])
    assert (level, error) == pytest.approx(
        (math.exp(ratios.mean()), math.exp(ratios.mean()) * ratios.std(ddof=1) / 3**0.5)
    )
    assert cells == 3


def test_the_confusion_counts_every_network_once() -> None:
    accuracy = np.array([1.0, 1.0, 0.1]) * np.ones((1, 1, 4, 1))
    gradient, update = np.zeros((2, 1, 1, 4, 3))
    gradient[..., 2] = [-np.inf, -np.inf, -90, -80]  # two of the four that fail
    update[..., 1] = [-17, -16, 0, 0]  # one that trains, though foreseen: 2⁻²⁴ is e^-16.6
    one = over_depth(accuracy, log_gradient=gradient, log_update=update, xi_c=[2.0])
    found = analysis.table({"tanh": one, "again": one}).to_dataframe().set_index(["predictor", "case"])
    assert found.loc[("underflow", "tanh")].tolist() == [2, 0, 2, 8]
    assert found.loc[("rounding", "tanh")].tolist() == [0, 1, 4, 7]
    assert found.loc[("6 xi_c", "tanh")].tolist() == [4, 4, 0, 4]
    assert found.loc[("underflow", "all")].tolist() == [4, 0, 4, 16]


@pytest.mark.further
def test_trainability_measures_what_train_does() -> None:
    one = measured("trainability")["tanh"]
    assert one["accuracy"].sizes == {"sigma_w": 2, "learning_rate": 1, "seed": 2, "depth": 1}
    again = gs.train(
        gs.feedforward(64), optimizer=optax.sgd, learning_rate=[0.1], depth=3, seeds=2, steps=2, record=[0, 2],
        sigma_w=one["sigma_w"].values, sigma_b=0.05,
    )  # fmt: skip
    np.testing.assert_array_equal(one["accuracy"].isel(depth=0), again["accuracy"].sel(step=2))
    for name in analysis.KEPT:
        np.testing.assert_array_equal(one[name].isel(depth=0), again[name].sel(step=0, depth=1))
    scale = gs.theory.feedforward("tanh", one["sigma_w"].values, 0.05).xi_c
    np.testing.assert_array_equal(one["xi_c"], scale)


def test_trainability_writes_its_table(tmp_path: Path) -> None:
    one = over_depth(np.array([1.0, 0.8, 0.1]) * np.ones((2, 1, 3, 1)), xi_c=[2.0, 4.0])
    said = trainability.report({"tanh": one}, tmp_path)
    assert str(tmp_path / "trainability.csv") in said
    rows = list(csv.DictReader((tmp_path / "trainability.csv").read_text().splitlines()))
    assert sum(int(rows[0][name]) for name in analysis.COUNTS) == 18
    assert "nan" not in said


@pytest.mark.further
def test_the_table_of_early_layers_is_that_of_its_networks(tmp_path: Path) -> None:
    datasets = measured("early_layers_training")
    found = table(datasets)
    for name, one in datasets.items():
        row = found.sel(network=name)
        last = one["accuracy"].sel(step=2).values
        assert row["accuracy"].item() == pytest.approx(np.mean(last))
        assert row["error"].item() == pytest.approx(abs(last[0] - last[1]) / 2)  # of two networks
        rates = one["learning_rate"].values.tolist()
        assert rates.count(row["learning_rate"].item()) == max(map(rates.count, rates))
    moved = datasets["sigmoid"]["log_update"].sel(depth=1).mean().item() / math.log(10)
    assert found["log10_first"].sel(network="sigmoid").item() == pytest.approx(moved)
    given = datasets["tanh RNN"]["log_exact_gradient"].sel(step=0, time=4).mean().item() / math.log(10)
    assert found["log10_last"].sel(network="tanh RNN").item() == pytest.approx(given)
    assert "early_layers_training.csv" in early.report(datasets, tmp_path)
    rows = csv.DictReader((tmp_path / "early_layers_training.csv").read_text().splitlines())
    assert [row["network"] for row in rows] == ["sigmoid", "tanh RNN"]


def test_a_network_has_the_rate_that_the_others_chose() -> None:
    """The third network is best at the second rate: it moves the others there, and has itself the first."""
    reached = [[0.5, 0.5, 0.1, 0.5], [0.2, 0.2, 0.9, 0.2], [math.nan, 0.4, 0.4, 0.4]]
    accuracy = np.stack([np.full((3, 4), 0.1), reached], axis=-1)
    rates = {"learning_rate": [0.1, 0.2, 0.3], "seed": range(4)}
    data = xarray.Dataset({"accuracy": (("learning_rate", "seed", "step"), accuracy)}, rates)
    one = by_the_others(data)
    np.testing.assert_array_equal(one["learning_rate"], [0.2, 0.2, 0.1, 0.2])
    np.testing.assert_array_equal(one["accuracy"].isel(step=-1), [0.2, 0.2, 0.1, 0.2])
    np.testing.assert_allclose(one["tried"], np.nan_to_num(reached).mean(1))


@pytest.mark.parametrize("name", modern.NETWORKS)
def test_every_network_of_today_can_be_trained(name: str) -> None:
    """It has the gains it is given, weights to train, and reads what it is trained on."""
    options, kind = modern.Options(hidden=8), modern.NETWORKS[name]
    network = kind.build(options)
    assert set(kind.gains(options)) <= set(network.gains)
    assert network.parameters
    data = "digits" if kind.group == modern.BLOCKS else gs.copy_task(alphabet=learned.SYMBOLS)
    assert tasks.get(data, network, depth=4, classes=None, held_out=0.2, key=0, dtype="float32")


def test_every_network_of_early_layers_builds() -> None:
    options = early.Options(width=4, hidden=4)
    for name, kind in early.NETWORKS.items():
        assert set(kind.gains) <= set(kind.build(options).gains), name
        assert kind.optimizer in early.optimizers()


@pytest.mark.parametrize("name", TITLES)
def test_every_model_that_is_inspected_gives_logits(name: str) -> None:
    def logits(x: Array) -> Array:
        model, variables = make(name, Sizes(width=4, layers=3, blocks=1, length=64), 0, x)
        return model(x) if variables is None else model.apply(variables, x, mutable=["batch_stats"])[0]

    with jax.numpy_dtype_promotion("standard"):  # which Flax relies on
        found = jax.eval_shape(logits, jax.ShapeDtypeStruct((5, PIXELS), "float32"))
    assert found.shape == (5, CLASSES)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["trainability", "early_layers_training"])
def test_what_has_been_trained_is_kept_on_ctrl_c(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last training run that is called for is interrupted; those before it are saved, and can be drawn."""
    module, train, calls = load(name), gs.train, []

    def interrupted(*args: Any, **options: Any) -> xarray.Dataset:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(gs, "train", interrupted)
    monkeypatch.setattr(atexit, "register", lambda function: None)
    monkeypatch.setattr(cli, "perform_training", lambda *a, at_once, **k: _perform(*a, **k))
    with pytest.raises(SystemExit, match="130"):
        module.main([*small(name, []), "--out", str(tmp_path)])
    kept = cli.load(tmp_path / f"{name}.zarr")
    assert list(kept) == [{"trainability": "tanh", "early_layers_training": "sigmoid"}[name]]
    assert module.main(["--data", str(tmp_path / f"{name}.zarr"), "--out", str(tmp_path)])


_perform = cli.perform_training  # one at a time, so that it is known which comes last
