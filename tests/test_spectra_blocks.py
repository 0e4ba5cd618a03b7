"""Chains at hand are measured by all cores of a CPU, in blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradsim as gs
from gradsim.cores import cores
from gradsim.sweeps import spectra


@pytest.mark.parametrize(("dtype", "exponents"), [("float32", False), ("float64", True)])
def test_chains_at_hand_are_measured_spectra_as_those_of_a_program_are(
    monkeypatch: pytest.MonkeyPatch, dtype: str, exponents: bool
) -> None:
    """Five blocks of three chains of 14, one of them exactly singular, two not finite."""
    monkeypatch.setattr(spectra, "_block", lambda *_: 3)
    chains = np.random.default_rng(2).normal(size=(2, 7, 6, 4, 4)).astype(dtype)
    chains[0, 3, 2] = 0
    chains[1, 6, 5, 0, 0], chains[1, 0, 4, 2, 1] = np.nan, np.inf
    powers = np.arange(2 * 7 * 6, dtype=np.int32).reshape(2, 7, 6)
    with jax.enable_x64(dtype == "float64"):
        given = gs.Scaled(jnp.asarray(chains), jnp.asarray(powers))
        measure = partial(gs.log_singular_values, at=[2, 6], exponents=exponents)
        found, whole = measure(given), jax.jit(measure)(given)
    assert found.rank.shape == (2, 7, 2)
    assert found.rank[0, 3].tolist() == [4, 0]
    for chain in (0, 6):  # what is not finite is neither 0 nor any number
        assert found.converged[1, chain].tolist() == [True, False]
        values = found.values.mantissa if exponents else found.values
        np.testing.assert_array_equal(np.isnan(values[1, chain]).sum(-1), [0, 4])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_blocks_fill_the_cores() -> None:
    for chains, n in [(2, 4), (7, 64), (256, 64), (1000, 16), (5, 2000)]:
        size = spectra._block(chains, n, 4)
        assert 1 <= size <= max(1, spectra.CPU_BYTES // (spectra.COPIES * 4 * n * n))
        turns = -(-chains // size)
        assert turns >= min(cores(), chains // 2)
        assert size * turns - chains < size
