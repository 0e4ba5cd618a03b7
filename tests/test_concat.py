"""Runs joined: along seeds, gains, networks and widths; what overlaps or differs is refused."""

from typing import Any

import jax
import numpy as np
import pytest
import xarray

import gradsim as gs
from gradsim.engine.tiling import Tiling
from gradsim.sweeps import chunks

NETWORK = gs.feedforward(5)
OPTIONS: dict[str, Any] = {"depth": 4, "sigma_w": [0.5, 1.0, 2.0]}


@pytest.fixture(autouse=True)
def one_cell_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of any shape then runs the same program."""
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(1, 4, Tiling(1, plan.depth)))


def sweep(network: Any = NETWORK, **options: Any) -> xarray.Dataset:
    return gs.sweep(network, **{**OPTIONS, "seeds": 4, **options})


def equal(joined: xarray.Dataset, whole: xarray.Dataset) -> None:
    for name in ("log_gain", "dead"):
        one = joined[name].transpose(*whole[name].dims)
        np.testing.assert_allclose(one, whole[name], atol=2e-6)
        assert one.attrs == whole[name].attrs
    for coordinate in whole.coords:
        xarray.testing.assert_equal(joined[coordinate].variable, whole[coordinate].variable)
    assert {name for name in whole.attrs if joined.attrs[name] != whole.attrs[name]} <= {"created", "command"}


def test_a_range_of_seeds_goes_on_where_another_ended() -> None:
    second = sweep(seeds=range(4, 8))
    np.testing.assert_array_equal(second["seed"], [4, 5, 6, 7])
    equal(gs.concat([second, sweep()]), sweep(seeds=8))


def test_a_gain_that_was_one_number_in_each_run_becomes_an_axis() -> None:
    equal(gs.concat([sweep(sigma_b=value) for value in (0.2, 0.0)]), sweep(sigma_b=[0.0, 0.2]))
    equal(gs.concat([sweep(sigma_w=part) for part in ([2.0], [0.5, 1.0])]), sweep())


def test_networks_and_widths_join_with_their_descriptions() -> None:
    apart = [sweep({name: gs.feedforward(5, name)}) for name in ("relu", "tanh")]
    together = sweep({name: gs.feedforward(5, name) for name in ("relu", "tanh")})
    equal(gs.concat(apart), together)
    equal(gs.concat([sweep(widths=[width]) for width in (5, 3)]), sweep(widths=[3, 5]))


def square(z: jax.Array) -> jax.Array:
    return z * z


def test_what_was_lost_in_one_run_stays_flagged_in_all() -> None:
    with pytest.warns(RuntimeWarning, match="left the range"):
        lost = sweep(gs.feedforward(3, square), sigma_w=8.0, depth=6)
    kept = sweep(gs.feedforward(3, square), sigma_w=1.0, depth=6)
    joined = gs.concat([kept, lost])
    assert joined["log_gain_lost"].dtype == bool
    assert not joined["log_gain_lost"].sel(sigma_w=1.0).any()
    xarray.testing.assert_equal(joined["log_gain_lost"].sel(sigma_w=8.0).variable, lost["log_gain_lost"].variable)
    assert joined["log_gain"].attrs["lost"] == lost["log_gain"].attrs["lost"] > 0
    assert joined["log_gain"].attrs["networks"] == 8


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (lambda: [sweep(), sweep(seeds=range(3, 7))], "datasets: seed 3 is in more than one run"),
        (lambda: [sweep(), sweep()], "datasets: the runs differ in nothing"),
        (lambda: [sweep(), sweep(seeds=range(4, 8), key=1)], "datasets: key is 0 in one run and 1 in another"),
        (lambda: [sweep(), sweep(seeds=range(4, 8), dtype="float64")], "datasets: dtype is"),
        (lambda: [sweep(), sweep(seeds=range(4, 8), depth=3)], "datasets: depth is 4 in one run and 3"),
        (lambda: [sweep(), sweep(seeds=range(4, 8), sigma_b=0.2)], "datasets: the runs differ in seed, sigma_b"),
        (lambda: [sweep(), sweep(seeds=range(4, 8), statistics="length")], "datasets: dead, length, log_gain is not"),
        (lambda: [sweep(), sweep(gs.feedforward(5, "relu"), seeds=range(4, 8))], "datasets: network is"),
        (lambda: [sweep()], "datasets: got 1; pass two or more"),
        (lambda: [sweep(inputs=np.ones((1, 5))), sweep(inputs=2 * np.ones((1, 5)), seeds=range(4, 8))], "inputs is"),
        (lambda: [sweep(), sweep(seeds=range(4, 8)).drop_attrs()], "datasets: one has no attribute 'direction'"),
    ],
)
def test_what_does_not_belong_together_is_refused(runs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gs.concat(runs())
