"""An update computed again from what a step keeps: the same number, and never one that must be written for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array, lax, random

import gradsim as gs
from gradsim.tracking import track
from gradsim.tracking.again import updated

PARAMS = {"w": random.normal(random.key(0), (12, 16)), "b": jnp.ones(80)}
GRADIENTS = {"w": random.normal(random.key(1), (12, 16)).at[0].set(0), "b": jnp.linspace(-1e-3, 1, 80)}
SCHEDULE = optax.cosine_decay_schedule(0.1, 10)
COMPUTED = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(SCHEDULE, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "adamw": optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(SCHEDULE, weight_decay=0.1)),
    "amsgrad": optax.amsgrad(0.1),
    "nadam": optax.nadam(0.1),
    "radam": optax.radam(0.1),
    "rmsprop": optax.rmsprop(0.1),
    "adagrad": optax.adagrad(0.1),
    "yogi": optax.yogi(0.1),
    "lamb": optax.lamb(0.1),
    "adafactor": optax.adafactor(0.1),
    "nothing": optax.set_to_zero(),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "groups": optax.multi_transform({"a": optax.adam(0.1), "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
    "jitted": optax.stateless(jax.jit(lambda g, p: jax.tree.map(lambda x: -0.1 * jnp.tanh(x), g))),
}
WRITTEN = {
    "identity": optax.identity(),  # the gradient itself
    "skipping": optax.apply_if_finite(optax.adam(0.1), 3),  # a condition's result
    "several": optax.MultiSteps(optax.adam(0.1), 2),
    "lion": optax.lion(0.1),  # takes the old moment
    "rounded": optax.adam(0.1, mu_dtype="bfloat16"),  # takes the moment before it is rounded
    "noise": optax.chain(optax.add_noise(0.1, 0.5, random.key(2)), optax.sgd(0.1)),
    "cumulated": optax.stateless(jax.jit(lambda g, p: jax.tree.map(lambda x: jnp.cumsum(x, axis=0), g))),
}


def _extra(optimizer: Any) -> Any:
    return optax.with_extra_args_support(optimizer)


@pytest.mark.parametrize("name", [*COMPUTED, *WRITTEN])
def test_an_update_computed_again_is_the_update(name: str) -> None:
    optimizer = _extra((COMPUTED | WRITTEN)[name])

    @jax.jit
    def twice(gradients: Any, state: Any, params: Any) -> Any:
        _, state, _ = updated(optimizer.update, gradients, state, params, {})
        updates, state, again = updated(optimizer.update, gradients, state, params, {})
        for one, leaf in zip(again, jax.tree.leaves(updates), strict=True):
            written.append(any(operand is leaf for operand in one.operands))
        return updates, state, [one.compute(*one.operands) for one in again]

    written: list[bool] = []
    with jax.numpy_dtype_promotion("standard"):
        updates, after, again = twice(GRADIENTS, optimizer.init(PARAMS), PARAMS)
        state = optimizer.init(PARAMS)
        for _ in range(2):
            wanted, state = jax.jit(optimizer.update)(GRADIENTS, state, PARAMS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(_numbers(x), _numbers(y), rtol=1e-5, atol=1e-7), after, state)
    for one, update, exact in zip(again, jax.tree.leaves(updates), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(update, exact, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(one, exact, rtol=1e-5, atol=1e-7)
    assert set(written) == {name in WRITTEN}


def test_a_tracked_update_is_differentiated_as_the_optimizer_is() -> None:
    """With respect to a hyperparameter, through several updates and under vmap, records and all."""

    def loss(rate: Array, wrapped: bool, record: bool | None) -> Array:
        optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
        extra = {"record": record} if wrapped else {}
        optimizer = gs.track_gradients(optimizer, every=2) if wrapped else _extra(optimizer)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.tree.map(jnp.tanh, params), state, params, **extra)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = lax.scan(step, (PARAMS, optimizer.init(PARAMS)), length=3)
        return jnp.sum(params["w"] ** 2)

    rates = jnp.asarray([0.1, 0.2])
    with jax.numpy_dtype_promotion("standard"):
        wanted = jax.jit(jax.vmap(jax.grad(loss), (0, None, None)), static_argnums=(1, 2))(rates, False, None)
        for record in (None, True):
            found = jax.jit(jax.vmap(jax.grad(loss), (0, None, None)), static_argnums=(1, 2))(rates, True, record)
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert (abs(wanted) > 1).all()


def test_a_record_is_differentiated() -> None:
    """d ln ‖rate · g‖ / d rate = 1/rate, for each of the arrays; the norms of gradients and parameters do not move.

    Arrays are large and small, and of the large one the squares are far from one or not.
    """
    gradients = {"small": jnp.ones(80), "large": jnp.ones((80, 80)), "tiny": jnp.full((80, 80), 2e-20)}

    def logs(rate: Array) -> Array:
        optimizer = gs.track_gradients(optax.sgd(rate), every=1, records=1)
        return optimizer.update(gradients, optimizer.init(gradients), gradients)[1].logs[0]

    with jax.numpy_dtype_promotion("standard"):
        found = jax.jit(jax.jacrev(logs))(jnp.asarray(0.1))
    np.testing.assert_allclose(found, [[0, 10, 0]] * 3, rtol=1e-5)


def test_updates_of_narrow_gradients_are_recorded_in_float32() -> None:
    optimizer = gs.track_gradients(optax.adam(0.1), every=1)
    gradients = jax.tree.map(lambda x: x.astype("bfloat16"), GRADIENTS)
    with jax.numpy_dtype_promotion("standard"):
        updates, state = jax.jit(optimizer.update)(gradients, optimizer.init(gradients), gradients)
    found = gs.gradient_records(state).log_update.isel(step=0)
    for name, update in updates.items():
        assert update.dtype == "bfloat16"
        wanted = np.log(np.linalg.norm(np.asarray(update, np.float64)))
        np.testing.assert_allclose(found.sel(parameter=name), wanted, atol=5e-4)  # XLA may round once less


def test_arrays_that_are_alike_are_measured_by_one_program_and_others_are_not() -> None:
    """The rate of each group is a constant of its program; that of `alike` is the same."""
    params = dict.fromkeys(["slow", "fast", "alike"], jnp.ones((80, 64)))
    groups = {"slow": optax.sgd(0.1), "fast": optax.sgd(0.3), "alike": optax.sgd(0.1)}
    optimizer = optax.partition(groups, {name: name for name in params})
    found = []

    @jax.jit
    def update(gradients: Any) -> Any:
        found.extend(updated(_extra(optimizer).update, gradients, optimizer.init(params), params, {})[2])
        tracked = gs.track_gradients(optimizer)
        return tracked.update(gradients, tracked.init(params), params)[1]

    with jax.numpy_dtype_promotion("standard"):
        record = gs.gradient_records(update(params)).log_update.isel(step=0)
    alike, fast, slow = (one.compute for one in found)
    assert alike == slow
    assert hash(alike) == hash(slow)
    assert fast != slow
    for name, rate in (("slow", 0.1), ("fast", 0.3), ("alike", 0.1)):
        np.testing.assert_allclose(record.sel(parameter=name), np.log(rate * np.sqrt(80 * 64)), rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_parameters_that_are_given_up_to_a_step_are_not_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a record needs beside them does not grow with their number, but that of those measured together."""
    monkeypatch.setattr(track, "TOGETHER", 2 * 128**2)
    optimizer = gs.track_gradients(COMPUTED[name])

    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def room(layers: int) -> int:
        params = [jnp.ones((128, 128))] * layers
        with jax.numpy_dtype_promotion("standard"):
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, optimizer.init(params), params)
        memory = lowered.compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    array = 4 * 128**2
    assert array <= room(4)  # of a careful sum, so the number is one
    assert room(8) - room(4) < array / 2


def test_records_do_not_depend_on_which_arrays_are_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(3, 5), (4, 80, 80), (7,), (90, 80), (2, 3)]
    gradients = [random.normal(random.key(0), shape).at[0].set(0.0) for shape in shapes]
    params = [jnp.full(shape, 1.0 + place) for place, shape in enumerate(shapes)]
    found = []
    for together in (1, 30, 2**20):
        monkeypatch.setattr(track, "TOGETHER", together)
        optimizer = gs.track_gradients(optax.sgd(0.1, momentum=0.9), stacked="1")
        with jax.numpy_dtype_promotion("standard"):
            updates, state = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
        found.append((updates, state.logs[0], state.counts[0]))
    values, entries = np.array([1, 2, 2, 2, 2, 3, 4, 5]), np.array([15, *[6400] * 4, 7, 7200, 6])
    np.testing.assert_allclose(found[0][1][:, 2], np.log(values) + np.log(entries) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found[0][2][:, 0], [5, 6400, 0, 0, 0, 1, 80, 3])
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)


def test_a_step_copies_fewer_parameters_than_without_records() -> None:
    """XLA copies what a step changes while the backward pass still reads it, unless updates wait."""

    def loss(weights: list[Array], x: Array) -> Array:
        for w in weights:
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2)

    def copies(optimizer: optax.GradientTransformation) -> int:
        def step(weights: list[Array], state: Any, x: Array) -> Any:
            updates, state = optimizer.update(jax.grad(loss)(weights, x), state, weights)
            return optax.apply_updates(weights, updates), state

        weights = [jnp.ones((128, 128))] * 8
        with jax.numpy_dtype_promotion("standard"):
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(weights, optimizer.init(weights), jnp.ones((32, 128)))
        text = lowered.compile().as_text()
        assert text is not None
        return text.count("f32[128,128]{1,0} copy(")

    plain = optax.sgd(0.1)
    assert copies(gs.track_gradients(plain)) <= copies(plain) // 2


@pytest.mark.parametrize("shape", [(2**22,), (2**11, 2**11), (2**4, 2**18)])
def test_norms_of_many_entries_keep_their_digits(shape: tuple[int, ...]) -> None:
    optimizer = gs.track_gradients(optax.sgd(1.0))
    gradient = random.normal(random.key(0), shape)
    with jax.numpy_dtype_promotion("standard"):
        _, state = jax.jit(optimizer.update)(gradient, optimizer.init(gradient), gradient)
    log = np.log(np.linalg.norm(np.asarray(gradient, "float64")))
    np.testing.assert_allclose(gs.gradient_records(state).log_gradient, log, rtol=0, atol=2e-6)


def _numbers(x: Array) -> Array:
    return random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
