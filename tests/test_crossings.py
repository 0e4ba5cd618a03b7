"""Capabilities that meet: two inputs, narrow formats, steps that know their number, stores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import same

import gradsim as gs

NUMBERED = gs.residual(4, "tanh", form="post_activation", scaling="inverse_sqrt_index")
INPUTS = np.random.default_rng(0).standard_normal((2, 2, 4)).astype("float32")
OPTIONS: dict[str, Any] = {"depth": 3, "seeds": 2, "dtype": "float8_e5m2", "loss_scale": [1.0, 2.0**-12]}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_each_chain_of_a_pair_has_a_rounded_one_beside_it(direction: str, tmp_path: Path) -> None:
    """With the numbers that its own input alone gives; and a store holds what memory does."""
    pair = {"network": gs.pair(NUMBERED), "inputs": INPUTS, "direction": direction, **OPTIONS}
    found = gs.sweep(**pair)
    same(gs.sweep(**pair, store=tmp_path / "a.zarr"), found)
    for half in range(2):
        one = gs.sweep(NUMBERED, inputs=INPUTS[:, half], direction=direction, **OPTIONS)
        of_half = found.isel(input=half)
        for name in ("zeros", "overflow"):
            np.testing.assert_array_equal(of_half[name], one[name], err_msg=name)
        for name in ("log_gain", "energy_kept", "noise", "angle"):
            np.testing.assert_allclose(of_half[name], one[name], rtol=2e-6, atol=2e-6, err_msg=name)
        assert (one.zeros > 0).any()
    assert (found.noise.isel(input=0) != found.noise.isel(input=1)).any()


def test_a_store_holds_the_spectra_of_two_inputs(tmp_path: Path) -> None:
    call: dict[str, Any] = {
        "network": gs.pair(NUMBERED), "depth": 3, "seeds": 2, "statistics": ("correlation", "log_singular_values"),
        "at": [1, 3], "input_correlation": [0.0, 1.0],
    }  # fmt: skip
    kept, whole = gs.sweep(**call, store=tmp_path / "a.zarr"), gs.sweep(**call)
    assert whole["rank"].dims == ("input_correlation", "seed", "depth", "input")
    same(kept, whole)
