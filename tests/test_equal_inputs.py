"""A pair of equal inputs is the single network twice, bit for bit: at every width, in every family, either way."""

from typing import Any

import numpy as np
import pytest

import gradsim as gs
from gradsim import Network

DEPTH = 3
CASES = [
    (gs.feedforward(5), "forward", "float32"),
    (gs.feedforward(7, "softsign", "orthogonal", tied=True), "backward", "float32"),
    (gs.vanilla_rnn(6, features=3), "forward", "float64"),
    (gs.layernorm(7, form="pre"), "backward", "float64"),
    (gs.feedforward(6), "backward", "float64"),
    (gs.feedforward(16), "forward", "float32"),
    (gs.feedforward(33), "backward", "float32"),
    (gs.feedforward(64), "forward", "float64"),
    (gs.layernorm(6, form="pre"), "forward", "float32"),
    (gs.lstm(5, features=3), "forward", "float32"),
    (gs.gru(6), "backward", "float32"),
    (gs.residual(9, scaling="inverse_sqrt_index"), "backward", "float32"),
]
OF_ONE = {"forward": ("log_gain", "log_jvp", "length"), "backward": ("log_gain", "log_gradient", "log_weight_gradient")}
OF_BOTH = {
    "forward": ("correlation", "gradient_correlation", "jvp_correlation", "log_decorrelation"),
    "backward": ("gradient_correlation", "loss_gradient_correlation", "weight_gradient_correlation"),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("network", "direction", "dtype"), CASES)
def test_equal_inputs_are_the_single_network_twice(network: Network, direction: str, dtype: str) -> None:
    options: dict[str, Any] = {"depth": DEPTH, "seeds": 2, "direction": direction, "dtype": dtype}
    of_one, of_both = OF_ONE[direction], OF_BOTH[direction]
    one = gs.sweep(network, statistics=of_one, **options)
    two = gs.sweep(gs.pair(network), statistics=(*of_one, *of_both), input_correlation=1.0, **options)
    for name in of_one:
        for half in range(2):
            np.testing.assert_array_equal(two[name].sel(input=half), one[name], err_msg=name)
    for name in set(of_both) - {"log_decorrelation"}:
        # Weights that meet a state of zero have no gradient, and no gradient has no direction.
        has = np.isfinite(one.log_weight_gradient) if name.startswith("weight") else True
        np.testing.assert_array_equal(two[name], np.where(has, 1.0, np.nan), err_msg=name)
    if direction == "forward":
        assert np.isnan(two.log_decorrelation).all()  # the logarithm of zero


@pytest.mark.further
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_of_a_grid_and_of_one_seed_too(direction: str) -> None:
    """Beside other cells, and with the inputs apart the first chain is the single network."""
    network = gs.feedforward(7)
    options: dict[str, Any] = {"depth": DEPTH, "seeds": 1, "direction": direction, "sigma_w": [0.9, 1.4, 2.0]}
    one = gs.sweep(network, statistics=OF_ONE[direction], **options)
    both = {c: gs.sweep(gs.pair(network), statistics=OF_ONE[direction], input_correlation=c, **options) for c in (0, 1)}
    for name in OF_ONE[direction]:
        for half in (both[1][name].sel(input=0), both[1][name].sel(input=1), both[0][name].sel(input=0)):
            np.testing.assert_array_equal(half, one[name], err_msg=name)
