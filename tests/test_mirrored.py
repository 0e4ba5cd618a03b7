"""Mirrored networks: a ReLU one is linear, its Jacobian the same for every input."""

import jax
import numpy as np

import gradsim as gs
from gradsim.engine.streams import network_keys


def test_a_mirrored_relu_network_has_one_jacobian_for_all_inputs() -> None:
    network = gs.mirrored(6)
    found = gs.sweep(
        gs.pair(network), depth=12, seeds=4, statistics=("log_gain", "gradient_correlation", "correlation"),
        sigma_b=0.4, dtype="float64",
    )  # fmt: skip
    np.testing.assert_allclose(found.gradient_correlation, 1, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.log_gain[..., 0], found.log_gain[..., 1], rtol=0, atol=1e-14)
    keys = network_keys(jax.random.key(0), 2)
    with jax.enable_x64(True):
        weights = [network.draw(jax.random.fold_in(keys.weights, t), "float64").w for t in range(12)]
    linear = np.linalg.multi_dot([np.asarray(w[:6]) for w in weights])
    expected = 0.5 * np.log(np.sum(linear**2) / 6)
    np.testing.assert_allclose(found.log_gain.sel(seed=2, depth=12), expected, rtol=0, atol=1e-12)
