"""Training: exact gradients where floats have none, the sweep's own networks, divergence, what is recorded."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from families import FAMILIES

import gradsim as gs
from gradsim.draws import normal
from gradsim.engine.chain import Source
from gradsim.engine.streams import network_keys
from gradsim.engine.tiling import Tiling
from gradsim.sweeps.chunks import Chunk
from gradsim.training import loop, programs, tasks
from gradsim.training.loop import order
from gradsim.training.over_networks import over_networks, over_networks_in_place

DEEP, N, BATCH = 80, 64, 8
SGD: dict[str, Any] = {"data": "digits", "optimizer": optax.sgd, "batch": BATCH}


@pytest.fixture(scope="module")
def deep() -> xarray.Dataset:
    """A sigmoid network so deep that float32 has no gradient at its first layers."""
    network = gs.feedforward(N, "sigmoid")
    return gs.train(network, depth=DEEP, seeds=2, steps=3, record=[0, 3], learning_rate=0.1, **SGD)


def whole_loss(layers: Any, out: Any, x: Any, y: Any) -> Any:
    x = jax.lax.scan(lambda x, layer: (jax.nn.sigmoid(x @ layer[0] + layer[1]), None), x, layers)[0]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x @ out), y, axis=1))


@pytest.mark.further
def test_exact_gradient_is_that_of_float64_where_float32_has_none(deep: xarray.Dataset) -> None:
    """The whole loss written out, from the sweep's own draws, and its derivative by jax.grad in float64."""
    network, seed = gs.feedforward(N, "sigmoid"), 1
    data = tasks.get("digits", network, depth=DEEP, classes=None, held_out=0.2, key=0, dtype="float32")[0]
    i, keys = next(order(data, BATCH, 0, seed)), network_keys(jax.random.key(0), seed)
    source = Source.of(network, keys, None, "float32", DEEP)
    out = normal(jax.random.fold_in(keys.once, 1), (N, 10), jnp.float32) / np.float32(8)
    w = np.asarray(jax.jit(jax.vmap(lambda t: source.weights(t).w))(np.arange(DEEP)), np.float64)
    with jax.enable_x64(True):
        layers, x = (w, np.zeros((DEEP, N))), np.asarray(data.source.inputs[i], np.float64)
        gradient = jax.jit(jax.grad(whole_loss))(layers, np.asarray(out, np.float64), x, data.source.targets[i])
        norms = np.log([np.hypot(np.linalg.norm(w), np.linalg.norm(b)) for w, b in zip(*gradient, strict=True)])
    found = deep.sel(step=0, seed=seed)
    assert norms[0] < -104  # float32 ends at −103
    np.testing.assert_allclose(found.log_exact_gradient, norms, rtol=0, atol=2e-4)


def test_what_the_optimizer_sees_underflows_and_halts_the_first_layers(deep: xarray.Dataset) -> None:
    start, end = deep.sel(step=0), deep.sel(step=3)
    assert np.all(np.isneginf(start.log_gradient.isel(depth=0)))
    assert np.all(np.isneginf(start.log_update.isel(depth=0)))
    assert np.all(np.isfinite(start.log_exact_gradient))
    seen = np.isfinite(start.log_gradient.values) & (start.log_exact_gradient.values > -80)
    assert seen.any()
    difference = (start.log_gradient - start.log_exact_gradient).values[seen]
    np.testing.assert_allclose(difference, 0, atol=1e-3)
    np.testing.assert_array_equal(end.log_weight.isel(depth=0), start.log_weight.isel(depth=0))
    assert np.all(end.log_weight.isel(depth=-1) != start.log_weight.isel(depth=-1))


@pytest.mark.parametrize("names", ["log_gradient", ["log_output", "log_update"]])
def test_what_is_asked_for_by_layer_is_what_all_of_it_holds(names: Any, deep: xarray.Dataset) -> None:
    network, wanted = gs.feedforward(N, "sigmoid"), {names} if isinstance(names, str) else {*names}
    options = {**SGD, "learning_rate": 0.1, "steps": 3, "record": [0, 3], "by_layer": names}
    some = gs.train(network, depth=DEEP, seeds=2, **options)
    of_all = {"loss", "mean_loss", "held_out_loss", "accuracy", "log_gradient_norm", "diverged", "diverged_at"}
    assert {*some.data_vars} == of_all | wanted
    for name in wanted:
        xarray.testing.assert_allclose(some[name], deep[name], rtol=1e-6)
        np.testing.assert_array_equal(some[name].coords["step"], [0, 3])
    assert ("depth" in some.coords) == any("depth" in deep[name].dims for name in wanted)


def test_a_step_of_sgd_moves_by_rate_times_gradient(deep: xarray.Dataset) -> None:
    last = deep.isel(depth=-1)
    expected = np.log(0.1) + last.log_exact_gradient - last.log_weight
    np.testing.assert_allclose(last.log_update, expected, atol=1e-5)
    assert np.all(np.isneginf(deep.log_change.sel(step=0)))
    assert np.all(np.isfinite(last.log_change.sel(step=3)))
    assert np.all(np.isfinite(last.log_output_change.sel(step=3)))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "lstm_cell"])  # a loss of h is not one of c
def test_every_family_trains_by_the_gradient_of_the_sweep(name: str) -> None:
    """`log_weight_gradient` of a backward sweep from the loss of a sample, or of a batch that is a state; it learns."""
    network, key, length = FAMILIES[name], 5, 3
    samples, shape = network.input_shape[0] if tasks.coupled(network) else 1, tasks.sample_shape(network)
    random = np.random.default_rng(0)
    if samples > 1:
        inputs, labels = random.normal(size=(20, *shape)), np.arange(20) % 3
    else:  # the same again and again
        inputs = np.stack([random.normal(size=(length, *shape) if network.driven else shape)] * 20)
        labels = np.ones(20, int)
    trained = gs.train(
        network, data=(inputs, labels), classes=3, optimizer=optax.adam(0.03), depth=length, seeds=1, steps=30, key=key,
        batch=samples, record=[0, 30], by_layer=["log_gradient", "log_exact_gradient"],
    )  # fmt: skip
    data = tasks.get((inputs, labels), network, depth=length, classes=3, held_out=0.2, key=key, dtype="float32")[0]
    i = next(order(data, samples, key, 0))
    keys, targets = network_keys(jax.random.key(key), 0), data.source.targets[i]

    def loss(state: Any) -> Any:
        rows = jnp.concatenate([leaf.reshape(samples, -1) for leaf in jax.tree.leaves(network.output(state))], axis=1)
        size = rows.shape[1]
        out = normal(jax.random.fold_in(keys.once, 1), (size, 3), jnp.float32) / np.float32(np.sqrt(size))
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(rows @ out), targets, axis=1))

    given = data.source.inputs[i][None] if tasks.coupled(network) else data.source.inputs[i]
    swept = gs.sweep(
        network, depth=length, seeds=1, key=key, inputs=given, direction="backward", statistics="log_weight_gradient",
        loss=loss,
    )  # fmt: skip
    expected = swept.log_weight_gradient.sel(parameter="all").values
    for found in (trained.log_exact_gradient, trained.log_gradient):
        np.testing.assert_allclose(found.values[:, 0], expected, rtol=0, atol=2e-5)
    assert not trained.diverged.any()
    assert np.all(trained.loss.isel(step=-1) < 0.9 * trained.loss.isel(step=0))


@pytest.fixture(scope="module")
def six_at_once() -> Iterator[None]:
    """Two cells and three seeds in each call, of few networks as of many: one program serves all."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "plan_chunk", lambda _: Chunk(2, 3, Tiling(6, 60)))
        yield


@pytest.fixture(scope="module")
def grid(six_at_once: None) -> xarray.Dataset:
    """Rates from a modest one to one that diverges at once, over gains and seeds, of two networks."""
    networks = {"tanh": gs.feedforward(16), "skip": gs.residual(16)}
    return gs.train(
        networks, depth=2, seeds=3, steps=60, record=20, learning_rate=[0.03, 1e30], sigma_w=[1.0, 1.5],
        branch_gain=[0.5, 1.0], by_layer=False, **SGD,
    )  # fmt: skip


def test_divergence_is_a_result_and_stays_where_it_is(grid: xarray.Dataset) -> None:
    skip = grid.sel(network="skip")
    modest, wild = skip.sel(learning_rate=0.03), skip.sel(learning_rate=1e30)
    assert not modest.diverged.any()
    assert np.all(np.isnan(modest.diverged_at))
    assert np.all(np.isfinite(modest.loss))
    assert np.all(np.isfinite(modest.held_out_loss))
    assert wild.diverged.isel(step=-1).all()
    assert not wild.diverged.isel(step=0).any()
    assert np.all(wild.diverged_at <= 20)
    assert np.all(wild.diverged_at >= 1)
    assert np.all(wild.accuracy.isel(step=-1) == 0)
    assert np.all(modest.accuracy.isel(step=-1) > 0.4)


def test_axes_names_and_order(grid: xarray.Dataset) -> None:
    assert grid.loss.dims == ("network", "sigma_w", "branch_gain", "learning_rate", "seed", "step")
    assert grid.step.values.tolist() == [0, 20, 40, 60]
    assert np.isnan(grid.mean_loss.isel(step=0)).all()
    tanh = grid.sel(network="tanh")
    np.testing.assert_array_equal(tanh.loss.sel(branch_gain=0.5), tanh.loss.sel(branch_gain=1.0))  # it has none
    assert all("long_name" in variable.attrs for variable in grid.data_vars.values())


def test_one_cell_alone_is_that_of_the_grid(grid: xarray.Dataset) -> None:
    alone = gs.train(
        gs.feedforward(16), depth=2, seeds=range(1, 3), steps=60, record=[60], learning_rate=0.03, sigma_w=1.5,
        by_layer=False, **SGD,
    )  # fmt: skip
    same = grid.sel(network="tanh", sigma_w=1.5, branch_gain=1.0, learning_rate=0.03, seed=[1, 2], step=[60])
    np.testing.assert_allclose(alone.held_out_loss, same.held_out_loss, rtol=1e-5)
    assert float(np.abs(alone.loss.sel(seed=1) - alone.loss.sel(seed=2)).max()) > 0


@pytest.mark.parametrize("axis", ["seed", "learning_rate", "sigma_w", "network"])
def test_parts_of_a_run_join(axis: str, grid: xarray.Dataset) -> None:
    parts = [grid.isel({axis: [1]}), grid.isel({axis: [0]}), grid.isel({axis: slice(2, None)})]
    joined = gs.concat([part for part in parts if part.sizes[axis]])
    order = [1, 0] if axis == "network" else range(grid.sizes[axis])
    xarray.testing.assert_identical(joined.drop_attrs(), grid.isel({axis: order}).drop_attrs())
    assert {name for name in grid.attrs if joined.attrs[name] != grid.attrs[name]} <= {"network"}


def test_runs_of_other_experiments_do_not_join(grid: xarray.Dataset) -> None:
    one, other = grid.isel(seed=[0]), grid.isel(seed=[1, 2])
    with pytest.raises(ValueError, match="optimizer is 'sgd' in one run and 'adam' in another"):
        gs.concat([one, other.assign_attrs(optimizer="adam")])
    with pytest.raises(ValueError, match="the runs differ in step as well as in seed"):
        gs.concat([one, other.isel(step=slice(1, None))], along="seed")
    with pytest.raises(ValueError, match="optimizer is 'sgd' in one run and None in another"):
        gs.concat([one, gs.sweep(gs.feedforward(4), depth=2, seeds=range(1, 3), statistics="length")], along="seed")


def test_a_file_opens_as_it_was(grid: xarray.Dataset, tmp_path: Any) -> None:
    one = grid.sel(network="tanh", drop=True)  # Zarr has no stable form of text
    one.to_zarr(tmp_path / "one.zarr", consolidated=False)
    with xarray.open_zarr(tmp_path / "one.zarr", consolidated=False) as again:
        xarray.testing.assert_identical(again.load(), one)


@pytest.mark.further
def test_a_schedule_that_branches_on_the_rate_trains_each() -> None:
    """optax's warm-up asks in Python whether the peak is zero; a program each then, with the same axis."""
    options: dict[str, Any] = {**SGD, "depth": 2, "seeds": 2, "steps": 20, "record": [0, 20], "by_layer": False}
    rates = [0.01, 0.1]

    def warm(rate: Any) -> Any:
        return optax.sgd(optax.warmup_cosine_decay_schedule(0.0, rate, 5, 20))

    both = gs.train(gs.feedforward(16), **{**options, "optimizer": warm, "learning_rate": rates})
    assert both.loss.dims == ("learning_rate", "seed", "step")
    one = gs.train(gs.feedforward(16), **{**options, "optimizer": warm(rates[1])})
    np.testing.assert_allclose(both.loss.sel(learning_rate=rates[1]), one.loss, rtol=1e-6)
    assert np.all(both.loss.sel(learning_rate=rates[0], step=20) > one.loss.sel(step=20))


def test_what_is_recorded_is_kept_on_an_interrupt(six_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: Any, count: int, room: int, take: Any = loop.Batches.take) -> Any:
        if next(turns) == 2:
            raise KeyboardInterrupt
        return take(self, count, room)

    turns = iter(range(100))
    monkeypatch.setattr(loop.Batches, "take", take)
    with pytest.raises(KeyboardInterrupt) as caught:
        gs.train(gs.feedforward(16), depth=2, seeds=1, steps=60, record=20, learning_rate=0.1, by_layer=False, **SGD)
    partial = caught.value.dataset  # type: ignore[attr-defined]
    assert np.isfinite(partial.loss.sel(step=[0, 20, 40])).all()
    assert np.isnan(partial.loss.sel(step=60)).all()


def test_steps_take_no_second_room_for_the_networks() -> None:
    """Their states are given up, and each next one is put where it was; the numbers are those of a plain map."""
    states, inputs = jnp.arange(32 * 1024.0).reshape(32, 1024), jnp.linspace(0, 1, 32)

    def function(one: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.tanh(one * x)

    advance = jax.jit(lambda *given: over_networks_in_place(function, *given), donate_argnums=0)
    memory = advance.lower(states, inputs).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes == states.nbytes
    assert memory.temp_size_in_bytes < states.nbytes / 8
    expected = over_networks(function, states, inputs)
    np.testing.assert_array_equal(advance(states, inputs), expected)


@pytest.mark.parametrize(("options", "library"), [({}, jax.__version_info__ < (0, 11)), (programs.ON_CPU, False)])
def test_records_take_the_compilers_own_products(options: dict[str, Any], library: bool) -> None:
    """Where jaxlib hands products to a library that is slow for outer ones; elsewhere nothing is switched off."""
    x = jax.ShapeDtypeStruct((8, 256), "float32")
    product = jax.jit(lambda a, b: (a[:, :, None] * b[:, None, :]) @ jnp.ones((256, 4)), compiler_options=options)
    assert ("ynn_fusion" in str(product.lower(x, x).compile().as_text())) == library


def test_import_loads_none_of_what_takes_long() -> None:
    """Which is what training, figures, data and some of the theory need."""
    late = ("optax", "flax", "matplotlib", "sklearn", "xarray", "zarr", "scipy.stats", "scipy.special")
    code = f"import sys, gradsim; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
