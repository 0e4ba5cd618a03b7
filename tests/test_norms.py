"""The pure function: the same numbers as a sweep's, under every transformation that JAX offers but reverse mode."""

import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES

import gradsim as gs

WIDTH, DEPTH = 6, 5
NETWORK = gs.feedforward(WIDTH)


def keys(seeds: range) -> jax.Array:
    return jax.vmap(partial(jax.random.fold_in, jax.random.key(3)))(jnp.arange(seeds.start, seeds.stop))


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "direction"), [("feedforward", "forward"), ("minimal_rnn", "backward")])
def test_mapped_over_keys_it_is_a_sweep(name: str, direction: str) -> None:
    """64 networks at three gains; a sweep divides them into chunks and blocks."""
    network, other = FAMILIES[name], "log_jvp" if direction == "forward" else "log_weight_gradient"
    sigma_w, statistics = np.array([0.5, 1.0, 2.0]), ("log_gain", "length", other)
    options: dict[str, Any] = {"depth": DEPTH, "direction": direction, "statistics": statistics, "burn_in": 1}
    swept = gs.sweep(network, key=3, seeds=64, sigma_w=sigma_w, sigma_b=0.3, **options)

    @jax.jit
    def one(key: jax.Array) -> dict[str, jax.Array]:
        gains: dict[str, Any] = {"sigma_w": jnp.asarray(sigma_w, jnp.float32), "sigma_b": 0.3}
        return gs.jacobian_norms(network, key, gains, **options)

    found = jax.vmap(one)(keys(range(64)))
    for statistic in statistics:
        values = np.moveaxis(np.asarray(found[statistic]), 0, 1)
        np.testing.assert_allclose(values, swept[statistic], rtol=1e-6, atol=1e-6)


# The steps of the other families are made of the same operations.
TWICE = ("feedforward", "layernorm", "batchnorm", "attention", "lstm", "linear_recurrence")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", TWICE)
def test_its_derivative_in_a_gain_is_that_of_central_differences(name: str) -> None:
    """In float64, of the log gain at every depth; with sigma_b moved along, since batch norm takes sigma_w away."""
    network = FAMILIES[name]
    moved = [gain for gain in ("sigma_w", "sigma_b", "sigma_o", "radius") if gain in network.gains]
    step = 1e-5

    @jax.jit
    @jax.vmap
    def both(value: jax.Array) -> tuple[jax.Array, jax.Array]:
        def log_gain(value: jax.Array) -> jax.Array:
            gains: dict[str, Any] = dict.fromkeys(moved, value)
            return gs.jacobian_norms(network, jax.random.key(1), gains, depth=DEPTH, dtype="float64")["log_gain"]

        return jax.jvp(log_gain, (value,), (jnp.ones_like(value),))

    with jax.enable_x64(True):
        values, slopes = map(np.asarray, both(0.9 + step * jnp.array([-1.0, 0.0, 1.0], jnp.float64)))
    differences = (values[2] - values[0]) / (2 * step)
    assert np.any(np.abs(differences) > 1e-2)
    np.testing.assert_allclose(slopes[1], differences, rtol=1e-6, atol=1e-6)


def test_its_derivative_in_the_input_and_the_key_of_a_seed() -> None:
    """A tanh network from an input of one's own, against central differences along a direction."""
    inputs, along = np.random.default_rng(0).normal(size=(2, WIDTH))

    def last(inputs: jax.Array) -> jax.Array:
        return gs.jacobian_norms(NETWORK, jax.random.key(1), inputs=inputs, depth=3, dtype="float64")["log_gain"][-1]

    @jax.jit
    @jax.vmap
    def both(inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(last, (inputs,), (jnp.asarray(along),))

    with jax.enable_x64(True):
        values, slopes = map(np.asarray, both(inputs + 1e-5 * np.array([-1, 0, 1])[:, None] * along))
    assert slopes[1] == pytest.approx((values[2] - values[0]) / 2e-5, rel=1e-6)
    swept = gs.sweep(NETWORK, depth=3, seeds=1, inputs=inputs[None], dtype="float64")
    assert swept.log_gain.shape == (1, 3)  # of another key, hence another network
    assert np.isfinite(values).all()


def test_mantissa_and_exponent_keep_the_digits_that_a_float32_logarithm_loses() -> None:
    chain = gs.feedforward(3, "identity", "identity")
    measured = partial(gs.jacobian_norms, chain, jax.random.key(0), {"sigma_w": 1e-3}, depth=2000)
    pair = jax.jit(partial(measured, exponents=True))()["log_gain"]
    exact = 2000 * np.log(np.float64(np.float32(1e-3)))
    assert float(gs.STATISTICS["log_gain"].finish(pair)[-1]) == pytest.approx(exact, rel=1e-7)
    assert float(jax.jit(measured)()["log_gain"][-1]) == pytest.approx(exact, rel=1e-6)


def test_gains_of_one_shape_are_one_grid() -> None:
    grid = {"sigma_w": jnp.ones((2, 3)), "sigma_b": jnp.linspace(0, 1, 6).reshape(2, 3)}
    measured = jax.jit(lambda gains: gs.jacobian_norms(NETWORK, jax.random.key(0), gains, depth=DEPTH)["log_gain"])
    found, one = measured(grid), measured({"sigma_b": 0.6})
    assert found.shape == (2, 3, DEPTH)
    np.testing.assert_allclose(found[1, 0], one, atol=1e-6)


SHARDED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
import jax, jax.numpy as jnp, numpy as np
import gradsim as gs
from jax.sharding import AxisType, NamedSharding, PartitionSpec
assert jax.device_count() == 8
keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(16))
def norms(key):
    return gs.jacobian_norms(gs.feedforward(6), key, {"sigma_w": jnp.array([0.5, 2.0])}, depth=5)["log_gain"]
alone = jax.jit(jax.vmap(norms))(keys)
mesh = jax.make_mesh((8,), ("seeds",), axis_types=(AxisType.Auto,))
along = PartitionSpec("seeds")
spread = jax.device_put(keys, NamedSharding(mesh, along))
mapped = jax.shard_map(jax.vmap(norms), mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
for found in (jax.jit(jax.vmap(norms))(spread), jax.jit(mapped)(spread)):
    assert len(found.sharding.device_set) == 8, found.sharding
    np.testing.assert_allclose(found, alone, atol=1e-6)
print("same")
"""


@pytest.mark.further
def test_on_eight_devices_it_gives_the_same() -> None:
    """A sharded array of keys, and shard_map; virtual devices need a process of their own."""
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr


def test_bad_input_is_refused_when_traced() -> None:
    measured = partial(gs.jacobian_norms, NETWORK, jax.random.key(0))
    with pytest.raises(ValueError, match="gains: got 'sigma_q'; the gains of feedforward: sigma_w, sigma_b"):
        measured({"sigma_q": 1.0}, depth=2)
    with pytest.raises(ValueError, match="gains: got the shapes"):
        measured({"sigma_w": jnp.ones(2), "sigma_b": jnp.ones(3)}, depth=2)
    with pytest.raises(ValueError, match="dtype: got 'float64' where JAX rounds it to float32"):
        measured(depth=2, dtype="float64")
    with pytest.raises(TypeError, match=r"key: got uint32\[2\]; pass one key"):
        gs.jacobian_norms(NETWORK, jax.random.PRNGKey(0), depth=2)
    with pytest.raises(TypeError, match="key: got key"):
        gs.jacobian_norms(NETWORK, keys(range(2)), depth=2)
    with pytest.raises(ValueError, match=r"inputs: got shape \[5\]; pass \[6\]"):
        jax.jit(lambda inputs: measured(inputs=inputs, depth=2))(jnp.ones(5))
