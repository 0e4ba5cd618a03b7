"""Numbers hashed in one pass are those of jax.random, bit for bit."""

import jax
import numpy as np
import pytest
from jax import random

from gradsim import draws, threefry

LOWEST = float(threefry.LOWEST)


@pytest.mark.parametrize("count", [0, 1, 7, 2**17 + 3])
def test_words_and_numbers_are_those_of_jax(count: int) -> None:
    keys = random.split(random.key(7), 2)
    of_each = {
        "words": (lambda key: threefry.words(key, count), lambda key: random.bits(key, (count,), "uint32")),
        "uniform": (
            lambda key: threefry.uniform(key, count),
            lambda key: random.uniform(key, (count,), "float32", LOWEST, 1),
        ),
        "normal": (
            lambda key: draws.normal(key, (count,), "float32"),
            lambda key: random.normal(key, (count,), "float32"),
        ),
    }
    for name, (ours, theirs) in of_each.items():
        np.testing.assert_array_equal(jax.vmap(ours)(keys), jax.vmap(theirs)(keys), err_msg=name)


@pytest.mark.parametrize("key", [random.key(3, impl="rbg"), random.PRNGKey(3)], ids=["rbg", "raw"])
def test_keys_of_other_generators_draw_by_their_own(key: jax.Array) -> None:
    np.testing.assert_array_equal(threefry.uniform(key, 5), random.uniform(key, (5,), "float32", LOWEST, 1))
