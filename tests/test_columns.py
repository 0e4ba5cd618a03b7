"""Tangent columns shared by devices, here by a vmap with their axis: the sum at the end, and when it is done."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_devices import Device
from wrong import refused

import gradsim as gs
from gradsim import Statistic
from gradsim.engine import columns
from gradsim.engine import plan as plans
from gradsim.engine.norms import norms
from gradsim.engine.products import Share
from gradsim.engine.streams import ahead, extent, network_keys
from gradsim.engine.tiling import Tiling
from gradsim.scaled import Scaled, join, log
from gradsim.sweeps import chunks
from gradsim.sweeps.stores import sheet

GAIN = gs.STATISTICS["log_gain"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_far_outside_the_floats_are_summed_at_the_largest(dtype: str) -> None:
    """Against logarithms in float64: 3 columns of 11 on each of 4 devices, one of which has a zero that is none."""
    generator = np.random.default_rng(0)
    mantissa, exponent = generator.uniform(0.5, 1.0, (4, 9)), generator.integers(-20, 20, (4, 9)) - 100_000
    exponent[:, 0] = [9000, -9000, 9001, 0]
    mantissa[0, 1], exponent[0, 1] = 0.0, 2**20
    mantissa[:, 2] = 0.0
    mantissa[3, 3] = np.nan
    with jax.enable_x64(dtype == "float64"):
        value = Scaled(jnp.asarray(mantissa, dtype), jnp.asarray(exponent, jnp.int32))
        share = Share("column", 4)
        joined = jax.vmap(lambda one: columns.joined([GAIN], {"log_gain": one}, share, 11), axis_name="column")
        found = log(joined(value)["log_gain"])
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = 2 * (np.log(np.asarray(value.mantissa, np.float64)) + exponent * np.log(2))
        expected = (np.logaddexp.reduce(squares, axis=0) + np.log(3 / 11)) / 2
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), rtol=0, atol=1e-6 if dtype == "float32" else 1e-10)
    assert (found[:, 2] == -np.inf).all()
    assert np.isnan(found[:, 3]).all()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "network", [gs.lstm(5), gs.batchnorm(3, 4), gs.pair(gs.feedforward(7))], ids=["parts", "batch", "pair"]
)
def test_every_share_has_the_norm_of_the_whole(network: Any) -> None:
    """Observed parts, states of several leaves, tiles that do not divide a share, two chains."""
    plan = plans.planned(network, depth=6, statistics=("log_gain", "length"))
    drawn = ahead(network_keys(jax.random.key(0), 0), extent(network, 6, given=False))
    gains = {name: jnp.full(2, value) for name, value in plan.gains.items()}
    run = partial(norms, plan, Tiling(2, 3, 2), drawn, gains, None, None)

    @jax.jit
    def both() -> Any:
        return run(), jax.vmap(lambda _: run(share=Share("column", 3)), axis_name="column")(jnp.arange(3))

    whole, shared = both()
    for name in ("log_gain", "length"):
        one, each = join(whole[name]), join(shared[name])
        np.testing.assert_allclose(each, np.broadcast_to(one, each.shape), rtol=2e-6)


def test_when_devices_share_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they outnumber the networks and it is sooner done, or none has the memory; by sums over columns alone."""
    wide = partial(plans.planned, gs.feedforward(1024), depth=10)
    devices: list[Any] = [Device(2**36)] * 8
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    alone = chunks.plan_chunk(wide(statistics=("log_gain", "log_jvp")), cells=1, seeds=1)
    assert alone == chunks.Chunk(1, 1, alone.tiling, 8)
    assert chunks.plan_chunk(wide(statistics="log_gain"), cells=7, seeds=1)[:2] == (7, 1)
    for statistics in ("log_jvp", "log_spectral", ("log_gain", "log_second_moment"), ("log_gain", "log_condition")):
        assert chunks.plan_chunk(wide(statistics=statistics), cells=1, seeds=1).devices == 1
    for cells, seeds in ((8, 1), (4, 2)):
        assert chunks.plan_chunk(wide(statistics="log_gain"), cells=cells, seeds=seeds).devices == 1
    narrow = plans.planned(gs.feedforward(8), depth=10, statistics="log_gain")
    assert chunks.plan_chunk(narrow, cells=2, seeds=3).devices == 1
    devices[:] = [Device(2 * 20 * 2**20)] * 8
    large = chunks.plan_chunk(wide(statistics="log_gain"), cells=64, seeds=4)  # 24 MiB each, and 20 may be used
    assert large.devices == 8
    needs = chunks.predicted(wide(statistics="log_gain"), 8)
    assert large.cells * large.seeds * needs.cell + large.seeds * 2 * needs.draw <= 20 * 2**20
    with pytest.raises(ValueError, match=r"^width: .*; several devices share log_gain alone of all tangents$"):
        chunks.plan_chunk(wide(statistics="log_spectral"), cells=1, seeds=1)


def test_a_store_says_how_many_share(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One device alone goes on with what several have begun; a store from before says nothing."""
    monkeypatch.setattr(chunks, "plan_chunk", lambda plan, **_: chunks.Chunk(1, 1, Tiling(1, 4), 8))
    kept = gs.sweep(gs.feedforward(3), depth=2, seeds=2, store=tmp_path / "a.zarr")
    text = (tmp_path / "a.zarr" / "zarr.json").read_text()
    assert kept.attrs["done"] == 1.0
    assert sheet.read(text).parts[0].chunk == chunks.Chunk(1, 1, Tiling(1, 4), 8, "brief")
    before = text.replace('"chunk": [1, 1, 1, 4, 0, 8]', '"chunk": [1, 1, 1, 4, 0]')
    assert before != text
    assert sheet.read(before).parts[0].chunk.devices == 1
    assert sheet.read(text.replace('"effort": "brief", ', "")).parts[0].chunk.effort == "level 1"
    with pytest.raises(ValueError, match="compiled"):
        sheet.read(text.replace('"effort": "brief"', '"effort": "none"'))


def test_what_devices_cannot_share_says_so() -> None:
    base: dict[str, Any] = {"long_name": "of my own", "units": "1", "measure": GAIN.measure, "by_column": True}
    assert Statistic("own", **base, needs=("all",)).by_column
    for wrong in ({}, {"needs": ("all", "one")}, {"needs": ("all",), "costly": True}):
        refused("by_column", lambda wrong=wrong: Statistic("own", **base, **wrong))  # type: ignore[misc]
