"""What a sweep runs over beside gains: widths, numbers, gains that some lack, ranges of seeds, own statistics."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import gradsim as gs
from gradsim.sweeps.dataset import described

WIDTH = 6
NETWORK = gs.feedforward(WIDTH, "tanh")


def sweep(network: Any = NETWORK, **options: Any) -> xarray.Dataset:
    return gs.sweep(network, **{"depth": 4, "seeds": 3, **options})


def test_networks_named_by_numbers_have_a_numeric_axis() -> None:
    by_number = sweep({3: gs.feedforward(3), 6: NETWORK})
    assert by_number["network"].dtype.kind == "i"
    widths = sweep(widths=[3, 6])
    assert widths["log_gain"].dims == ("width", "seed", "depth")
    assert widths["width"].attrs["units"] == "unit"
    np.testing.assert_array_equal(widths["log_gain"].sel(width=6), by_number["log_gain"].sel(network=6))
    np.testing.assert_array_equal(widths["log_gain"].sel(width=6), sweep()["log_gain"])


def test_inputs_that_are_as_wide_as_the_state_stay_so_at_other_widths() -> None:
    widths = sweep(gs.minimal_rnn(4), widths=[5])
    np.testing.assert_array_equal(widths["log_gain"].sel(width=5), sweep(gs.minimal_rnn(5))["log_gain"])
    fixed = gs.vanilla_rnn(4, features=2)
    assert described(sweep(fixed, widths=[5]))["5"]["features"] == 2


def test_a_gain_that_some_networks_lack_is_swept_in_those_that_have_it() -> None:
    residual = gs.residual(WIDTH, "tanh", form="post_activation")
    both = sweep({"plain": NETWORK, "skip": residual}, branch_gain=[0.5, 1.0], sigma_w=[1.0, 2.0])
    assert both["log_gain"].dims == ("network", "branch_gain", "sigma_w", "seed", "depth")
    plain, skip = (both["log_gain"].sel(network=name) for name in ("plain", "skip"))
    np.testing.assert_array_equal(plain.sel(branch_gain=0.5), plain.sel(branch_gain=1.0))
    np.testing.assert_array_equal(plain.sel(branch_gain=0.5), sweep(sigma_w=[1.0, 2.0])["log_gain"])
    alone = sweep(residual, branch_gain=[0.5, 1.0], sigma_w=[1.0, 2.0])["log_gain"]
    np.testing.assert_allclose(skip, alone, atol=1e-6)
    fixed = sweep({"plain": NETWORK, "skip": residual}, branch_gain=0.5)
    np.testing.assert_array_equal(fixed["branch_gain"], [np.nan, 0.5])
    with pytest.raises(ValueError, match="forget_bias: neither an option of sweep nor a gain of feedforward, residual"):
        sweep({"plain": NETWORK, "skip": residual}, forget_bias=0.5)


def test_a_range_of_seeds_is_those_of_the_whole() -> None:
    data = np.random.default_rng(0).normal(size=(3, WIDTH))
    whole = sweep(seeds=6, inputs=data)
    part = sweep(seeds=range(1, 6, 2), inputs=data)
    np.testing.assert_array_equal(part["seed"], [1, 3, 5])
    np.testing.assert_allclose(part["log_gain"], whole["log_gain"].sel(seed=part["seed"]), atol=2e-6)


def test_a_statistic_of_ones_own_is_measured_beside_the_named_ones() -> None:
    """The largest entry of the state, a plain array, against a sweep's own reading of a network of one unit."""
    largest = gs.Statistic("largest", "largest entry", "1", lambda view: jnp.max(jnp.abs(view.state.mantissa)))
    one = sweep(gs.feedforward(1, "tanh"), statistics=["length", largest])
    assert one["largest"].attrs["long_name"] == "largest entry"
    powers = np.log2(np.sqrt(one["length"]) / one["largest"])  # the state's mantissa lacks a power of two
    np.testing.assert_allclose(powers, np.round(powers), atol=1e-5)
