"""`track_gradients`: norms that no square underflows in, under every transformation, and what is read off them."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from flax import linen, nnx
from jax import Array, lax, random
from tracked import NAMES, PARAMS, gradient, gradient_by_hand, logs, once, run
from unrolled import own_checks
from wrong import KINDS, refused, refused_each

import gradsim as gs


def test_records_are_those_of_a_loop_by_hand_and_the_optimizer_is_unchanged() -> None:
    tracked = gs.track_gradients(optax.adam(0.1), every=3, records=4, stacked="blocks")
    after, state = run(tracked, 20)
    records = gs.gradient_records(state)
    assert records.step.values.tolist() == [9, 12, 15, 18]  # the newest of 0, 3, …, 18
    assert records.parameter.values.tolist() == NAMES
    assert records.layer.values.tolist() == [-1, -1, 0, 1, 2, 3, 4]
    params, plain = PARAMS, optax.adam(0.1)
    inner, update = plain.init(params), jax.jit(plain.update)
    for t in range(20):
        g = gradient_by_hand(t)
        with jax.numpy_dtype_promotion("standard"):
            updates, inner = update(g, inner, params)
        if t in records.step.values:
            one = records.sel(step=t)
            for name, tree in (("log_gradient", g), ("log_update", updates), ("log_parameter", params)):
                np.testing.assert_allclose(one[name], logs(tree), atol=2e-5)
            np.testing.assert_allclose(one.log_ratio, logs(updates) - logs(params), atol=4e-5)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), after, params)
    assert records.log_gradient.attrs == {"long_name": "log norm of the gradient", "units": "nat"}
    assert all({"long_name", "units"} <= records[name].attrs.keys() for name in records.data_vars)
    assert (records.attrs["every"], records.sizes) == (3, {"step": 4, "parameter": 7})
    assert {"gradsim_version", "jax_version", "device"} <= records.attrs.keys()


POWERS = {"bfloat16": [-100, -15, 0, 15, 100], "float32": [-100, -15, 0, 15, 100], "float16": [-15, 0, 15]}


def test_norms_whose_squares_leave_the_floats_are_right_and_zeros_are_counted() -> None:
    """Of arrays large enough that the plain sum of squares is tried, and of a small one."""
    drawn = np.random.default_rng(0).normal(size=5000) / 8
    drawn[1:3000:100] = 0
    optimizer = gs.track_gradients(optax.sgd(2.0), every=1)  # doubling is exact in every format
    update = jax.jit(lambda g: optimizer.update(g, optimizer.init(g), g)[1])
    for dtype, power in [(dtype, power) for dtype, powers in POWERS.items() for power in powers]:
        x = jnp.asarray(drawn, dtype) * jnp.asarray(2.0**power, dtype)
        found = gs.gradient_records(update({"large": x, "small": x[:1000]})).isel(step=0)
        for name, size in (("large", 5000), ("small", 1000)):
            one, exact = found.sel(parameter=name), np.asarray(x[:size], np.float64)
            np.testing.assert_allclose(one.log_gradient, np.log(np.linalg.norm(exact)), atol=1e-5)
            np.testing.assert_allclose(one.log_update, np.log(2 * np.linalg.norm(exact)), atol=1e-5)
            assert (one.zeros, one.non_finite, one.non_finite_update) == (np.count_nonzero(exact == 0), 0, 0)
            assert one.log_rounding.item() == pytest.approx(np.log(float(jnp.finfo(dtype).eps) / 2))


def test_zero_and_non_finite_entries_are_counted_and_left_out_of_the_norm() -> None:
    g = {"w": jnp.asarray([3.0, jnp.nan, 0.0, -4.0, jnp.inf, -jnp.inf]), "z": jnp.zeros((2, 2)),
         "c": jnp.asarray([3 + 4j, 0]), "none": None, "empty": jnp.zeros((0, 3)), "scalar": jnp.asarray(2.0),
         "whole": jnp.asarray(3)}  # fmt: skip
    one = gs.gradient_records(once(gs.track_gradients(optax.identity(), every=1), g)).isel(step=0)
    one = one.set_index(parameter="path")
    assert one.parameter.values.tolist() == ["c", "empty", "scalar", "w", "z"]
    assert one.zeros.values.tolist() == [1, 0, 0, 1, 4]
    assert one.non_finite.values.tolist() == one.non_finite_update.values.tolist() == [0, 0, 0, 3, 0]
    wanted = [np.log(5), -np.inf, np.log(2), np.log(5), -np.inf]
    np.testing.assert_allclose(one.log_gradient, wanted, atol=1e-6)
    assert np.isnan(one.log_parameter).all()  # they were not given
    assert np.isnan(one.log_ratio).all()


def test_under_scan_and_vmap_a_state_says_the_same() -> None:
    optimizer = gs.track_gradients(optax.sgd(0.1), every=2, records=3, stacked=["blocks"])
    _, state = run(optimizer, 7)
    alone = gs.gradient_records(state)

    @jax.jit
    def scanned(scale: Array) -> Any:
        def step(carry: Any, t: Array) -> Any:
            params, state = carry
            g = jax.tree.map(lambda x: scale * x, gradient(t))
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        return lax.scan(step, (PARAMS, optimizer.init(PARAMS)), jnp.arange(7))[0][1]

    members = gs.gradient_records(jax.jit(jax.vmap(scanned))(jnp.asarray([1.0, 2.0**60])))
    assert dict(members.sizes) == {"member": 2, "step": 3, "parameter": 7}
    np.testing.assert_allclose(members.log_gradient[0], alone.log_gradient, atol=2e-5)
    np.testing.assert_allclose(members.log_gradient[1] - 60 * np.log(2), alone.log_gradient, atol=2e-5)
    xarray.testing.assert_equal(members.zeros[0], alone.zeros)


def test_the_caller_says_when_to_record_and_the_steps_between_do_what_the_optimizer_does() -> None:
    """Among others within a chain, an optimizer of flax.nnx, under vmap, and with a ring that comes round."""
    plain = optax.chain(optax.clip(1e9), optax.adam(0.1))
    tracked = optax.chain(optax.clip(1e9), gs.track_gradients(optax.adam(0.1), records=2, stacked="blocks"))

    @partial(jax.jit, static_argnames="record", donate_argnums=1)
    def step(params: Any, state: Any, t: Any, record: bool) -> tuple[Any, Any]:
        updates, state = tracked.update(gradient(t), state, params, record=record)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tracked.init(PARAMS)
    with pytest.raises(ValueError, match="no update was recorded"):
        gs.gradient_records(state)
    with jax.numpy_dtype_promotion("standard"):
        for t in range(7):
            params, state = step(params, state, jnp.asarray(t), record=t in (1, 2, 6))
        wanted, _ = run(plain, 7)
        equations = [
            len(jax.make_jaxpr(lambda g, o=o, said=said: o.update(g, o.init(g), g, **said))(PARAMS).eqns)
            for o, said in ((plain, {}), (tracked, {"record": False}), (tracked, {"record": True}))
        ]
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    records = gs.gradient_records(state)
    assert records.step.values.tolist() == [2, 6]
    np.testing.assert_allclose(records.log_gradient[1], logs(gradient_by_hand(6)), atol=2e-5)
    assert equations[1] < equations[0] + 15 < equations[2], equations  # the rings are made, and updates counted

    model = Stack(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gs.track_gradients(optax.sgd(0.1)), wrt=nnx.Param)

    def update(model: Stack, optimizer: nnx.Optimizer[Stack], record: bool) -> None:
        gradient = nnx.grad(lambda model: jnp.mean(model(jnp.ones((2, 4)))))(model)
        optimizer.update(model, gradient, record=record)

    step_of_flax: Any = nnx.jit(update, static_argnames="record")
    with jax.numpy_dtype_promotion("standard"):
        for t in range(3):
            step_of_flax(model, optimizer, record=t == 1)
    assert gs.gradient_records(optimizer).step.values.tolist() == [1]

    one = gs.track_gradients(optax.sgd(0.1), every=3)
    member = jax.vmap(lambda scale: one.update({"w": scale}, one.init({"w": scale}), record=True)[1])
    several = jax.jit(member)(jnp.ones((4, 3)))
    assert dict(gs.gradient_records(several).sizes) == {"member": 4, "step": 1, "parameter": 1}


def test_multi_transform_multi_steps_and_chains_hold_records() -> None:
    groups = {"a": "slow", "blocks": "fast"}
    slow = gs.track_gradients(optax.sgd(0.1), every=2)
    fast = gs.track_gradients(optax.adam(0.1), every=2, stacked=True)
    _, state = run(optax.chain(optax.clip(1e9), optax.multi_transform({"slow": slow, "fast": fast}, groups)), 5)
    records = gs.gradient_records(state)
    assert sorted(records.parameter.values.tolist()) == NAMES
    same = records.sel(parameter=NAMES, step=4)
    np.testing.assert_allclose(same.log_gradient, logs(gradient_by_hand(4)), atol=2e-5)
    _, state = run(optax.MultiSteps(gs.track_gradients(optax.sgd(0.1), every=1), 2), 6)
    mean = jax.tree.map(lambda x, y: (x + y) / 2, gradient_by_hand(4), gradient_by_hand(5))
    records = gs.gradient_records(state)
    assert records.step.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(records.log_gradient[2].values[:2], logs(mean)[:2], atol=2e-5)


def test_extra_arguments_reach_the_optimizer_and_params_shaped_parts_can_be_mapped() -> None:
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=3)  # the shortest to compile
    optimizer = gs.track_gradients(optax.lbfgs(linesearch=search), every=1)
    loss = lambda params: jnp.sum((params["w"] - 1) ** 2)  # noqa: E731
    params = {"w": jnp.zeros(3)}
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, g = jax.value_and_grad(loss)(params)
        return optimizer.update(g, state, params, value=value, grad=g, value_fn=loss)

    updates, state = step(params, state)
    assert float(loss(optax.apply_updates(params, updates))) < 1
    optimizer = gs.track_gradients(optax.adam(0.1), every=1)
    state = optimizer.init(PARAMS)
    specs = optax.tree_utils.tree_map_params(optimizer, lambda _: "like", state, transform_non_params=lambda _: "other")
    assert specs.inner[0].mu["a"]["bias"] == "like"
    assert specs.logs == "other"
    jax.tree.map(lambda spec, leaf: None, specs, state)  # a prefix of the state, as sharding wants it
    copy = optax.tree_utils.tree_map_params(optimizer, lambda leaf: leaf, state)
    with jax.numpy_dtype_promotion("standard"):
        _, copy = jax.jit(optimizer.update)(gradient_by_hand(0), copy, PARAMS)
    assert gs.gradient_records(copy).parameter.values.tolist() == ["a/bias", "a/kernel", "blocks/kernel"]


class Stack(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs))(rngs.split(3))
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.out(nnx.scan(lambda x, block: jnp.tanh(block(x)), in_axes=(nnx.Carry, 0),
                                 out_axes=nnx.Carry)(x, self.blocks))  # fmt: skip


def test_an_optimizer_of_flax_nnx_holds_records() -> None:
    model = Stack(nnx.Rngs(0))
    tracked = gs.track_gradients(optax.adam(0.1), every=2, stacked=lambda path: path.startswith("blocks"))
    optimizer = nnx.Optimizer(model, tracked, wrt=nnx.Param)

    def loss(model: Stack) -> Array:
        return jnp.mean(model(jnp.ones((2, 4))) ** 2)

    @nnx.jit
    def step(model: Stack, optimizer: nnx.Optimizer[Stack]) -> None:
        optimizer.update(model, nnx.grad(loss)(model))

    before = nnx.jit(nnx.grad(loss))(model)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            step(model, optimizer)
    records = gs.gradient_records(optimizer)
    assert records.step.values.tolist() == [0, 2]
    assert records.parameter.values.tolist() == [
        *(f"blocks/{name}[{layer}]" for name in ("bias", "kernel") for layer in range(3)), "out/bias", "out/kernel"
    ]  # fmt: skip
    wanted = np.linalg.norm(np.asarray(before["blocks"]["kernel"][...])[1])
    found = records.log_gradient.sel(step=0, parameter="blocks/kernel[1]")
    assert float(found) == pytest.approx(np.log(wanted), abs=1e-5)


def test_a_train_state_of_flax_linen_holds_records() -> None:
    params = linen.Dense(2).init(random.key(0), jnp.ones((1, 3)))["params"]
    state: Any = nnx.Optimizer  # any object that has an opt_state
    state = type("TrainState", (), {"opt_state": once(gs.track_gradients(optax.sgd(0.1)), params, params)})()
    assert gs.gradient_records(state).parameter.values.tolist() == ["bias", "kernel"]


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax, gradsim as gs
jax.config.update("jax_num_cpu_devices", 4)
sizes = {"large": 8 * 1024, "small": 8}  # so large that the plain sum of squares is tried, and small
exact = {name: np.arange(1.0, 8 * size + 1, dtype=np.float32).reshape(8, size) for name, size in sizes.items()}
norms = np.concatenate([np.linalg.norm(one, axis=1) for one in exact.values()])
for kind in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(kind,))
    jax.set_mesh(mesh)
    place = jax.NamedSharding(mesh, jax.P("d"))
    optimizer = gs.track_gradients(optax.adam(0.1), every=1, stacked=True)
    w = jax.device_put(exact, place)
    updates, state = jax.jit(lambda w: optimizer.update(w, optimizer.init(w), w))(w)
    for update in updates.values():
        assert update.sharding.is_equivalent_to(place, 2), update.sharding
    found = gs.gradient_records(state)
    np.testing.assert_allclose(found.log_gradient.values[0], np.log(norms), atol=1e-5)
    assert not found.zeros.any()
"""


def test_sharded_parameters_have_the_norms_of_the_whole() -> None:
    run = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def no_checker() -> Iterator[None]:
    with own_checks():
        yield


WRONG: dict[str, Any] = {
    "optimizer": [None, "adam", 0.1, {}, [], optax.adam, optax, optax.adam(0.1).init, KINDS["size"][-1]],
    "every": KINDS["size"], "records": KINDS["size"], "stacked": [None, 3, 1.5, {}, [3], 1j, KINDS["size"][-2]],
}  # fmt: skip


def test_a_record_that_is_no_static_bool_is_refused(no_checker: None) -> None:
    optimizer, w = gs.track_gradients(optax.sgd(0.1)), {"w": jnp.ones(3)}
    state = optimizer.init(w)
    refused_each(
        "record", [1, 0.5, "yes", [], jnp.asarray(True)], lambda value: optimizer.update(w, state, record=value)
    )
    with pytest.raises(TypeError, match=r"record: got a traced value; .* static_argnames"):
        jax.jit(lambda yes: optimizer.update(w, state, record=yes))(True)


@pytest.mark.parametrize("argument", WRONG)
def test_track_gradients_refuses(argument: str, no_checker: None) -> None:
    refused_each(
        argument, WRONG[argument], lambda value: gs.track_gradients(**{"optimizer": optax.sgd(0.1), argument: value})
    )


def test_what_the_parameters_do_not_have_is_refused(no_checker: None) -> None:
    for stacked in ("block", ["a", "missing"], "a/kern", ""):
        refused("stacked", lambda stacked=stacked: gs.track_gradients(optax.sgd(0.1), stacked=stacked).init(PARAMS))  # type: ignore[misc]
    refused("stacked", lambda: gs.track_gradients(optax.sgd(0.1), stacked=True).init({"w": jnp.asarray(1.0)}))
