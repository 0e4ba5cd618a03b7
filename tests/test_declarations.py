"""What every family declares: dtypes and shapes of its step, its weights and gains; of each in families.py."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from families import FAMILIES
from jax import random

import gradsim as gs
from gradsim import Network
from gradsim.networks.network import leaves_of

families = pytest.mark.parametrize("network", FAMILIES.values(), ids=FAMILIES.keys())


@families
def test_networks_are_compared_by_value(network: Network) -> None:
    """Equal networks share one compilation."""
    copy = dataclasses.replace(network)
    assert copy is not network
    assert copy == network
    assert hash(copy) == hash(network)


@families
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_and_steps_keep_dtype_and_shape(network: Network, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        gains = {name: jax.ShapeDtypeStruct((), dtype) for name in network.gains}
        first = network.initial_shape if network.driven else network.input_shape
        state = jax.eval_shape(network.initial_state, gains, jax.ShapeDtypeStruct(first, dtype))
        inputs = jax.ShapeDtypeStruct(network.input_shape, dtype) if network.driven else None
        inputs = jax.ShapeDtypeStruct((), "int32") if network.numbered else inputs
        weights = jax.eval_shape(lambda: network.draw(random.key(0), jnp.dtype(dtype)))
        new, preactivations = jax.eval_shape(network.step, weights, gains, state, inputs)
    assert str(jax.tree.structure(new)) == str(jax.tree.structure(state))
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves((weights, state, preactivations)))
    assert len(preactivations) == len(network.activations)


@families
def test_parameters_are_fields_of_the_weights_and_name_their_gain(network: Network) -> None:
    weights = jax.eval_shape(lambda: network.draw(random.key(0), "float32"))
    for field, gain in network.parameters.items():
        assert leaves_of(weights, field)
        assert gain in network.gains


@families
def test_bad_gains_and_inputs_are_refused(network: Network) -> None:
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # the library's own checks
    bad: list[tuple[str, Any]] = [("sigma_nonsense", 1.0), *((name, float("nan")) for name in network.gains)]
    bad += [("inputs", np.ones((2, 1, 1, 1, 1, 3)))]
    try:
        for name, value in bad:
            with pytest.raises(ValueError, match=f"^{name}: "):
                gs.sweep(network, depth=2, seeds=1, **{name: value})
    finally:
        jaxtyping.config.update("jaxtyping_disable", disabled)
