"""What is hashed ahead in blocks is what one network hashes for itself; and few programs do it for all sizes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import gradsim as gs
from gradsim.engine import plan as plans
from gradsim.engine.streams import Ahead, ahead, extent, network_keys
from gradsim.networks.network import Network
from gradsim.sweeps import hashed
from gradsim.sweeps.hashed import hashed_ahead


def one_by_one(network: Network, steps: int, seeds: np.ndarray, *, given: bool) -> list[np.ndarray]:
    wanted = extent(network, steps, given=given)
    drawn = jax.jit(jax.vmap(lambda seed: ahead(network_keys(random.key(7), seed), wanted)))(seeds.astype(np.uint32))
    keys = (jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in drawn)
    return [np.asarray(random.key_data(leaf) if is_key else leaf) for leaf, is_key in zip(drawn, keys, strict=True)]


def blocks(network: Network, steps: int, seeds: np.ndarray, dtype: str = "float32", *, given: bool) -> Ahead:
    with jax.enable_x64(dtype == "float64"):
        plan = plans.planned(network, depth=steps, statistics="log_gain", dtype=dtype)
        return hashed_ahead(plan, 7, seeds, given=given)


@pytest.mark.parametrize(
    ("network", "steps", "seeds", "given"),
    [
        (gs.feedforward(8), 70, np.arange(3, 70), False),
        (gs.vanilla_rnn(5, features=3), 3, np.arange(2), False),
        (gs.vanilla_rnn(5, features=3), 3, np.arange(2), True),
        (gs.vanilla_rnn(600), 450, np.arange(1), False),  # whose inputs are drawn as they are read
    ],
)
def test_blocks_are_what_each_network_hashes(network: Network, steps: int, seeds: np.ndarray, given: bool) -> None:
    wanted = one_by_one(network, steps, seeds, given=given)
    for dtype in ("float32", "float64"):
        for found, one in zip(blocks(network, steps, seeds, dtype, given=given), wanted, strict=True):
            assert found.dtype == one.dtype
            np.testing.assert_array_equal(found, one)


def test_few_programs_hash_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, tuple[int, ...]]] = []

    def noted(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
        def call(values: Any, *rest: Any, **named: Any) -> Any:
            made.append((function.__name__, np.shape(values if np.ndim(values) else rest[0])))
            return jitted(function, *static)(values, *rest, **named)

        return call

    jitted = hashed._jitted
    monkeypatch.setattr(hashed, "_jitted", noted)
    for width, steps, seeds in ((4, 3, 1), (8, 100, 5), (8, 200, 65)):
        blocks(gs.feedforward(width), steps, np.arange(seeds), given=False)
    assert set(made) == {("_streams", (64,)), ("_folded", (64, 2)), ("_normals", (64, 2))}
