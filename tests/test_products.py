"""Products of steps so strong that two in a row would leave float32."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from gradsim import scaled
from gradsim.engine import products
from gradsim.engine.products import Bundle

VECTORS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def pushed(factors: Array, transposed: bool) -> Bundle:
    """Steps that multiply by one number each."""
    bundle = products.start(jnp.asarray(VECTORS))
    for factor in factors:
        bundle = products.push(bundle, lambda tangent: factor * tangent, transposed=transposed)  # noqa: B023
    return bundle


@pytest.mark.parametrize("transposed", [False, True])
def test_two_strong_steps_in_a_row_keep_every_digit(transposed: bool) -> None:
    """Calm, vanishing, exploding and mixed networks in one call, as a sweep has them; powers of two keep each bit."""
    exponents = np.array([[0, 1, 0, -1], [-90, -90, -90, -90], [90, 90, 90, 90], [-80, 70, -3, -90]])
    each = jax.jit(jax.vmap(partial(pushed, transposed=transposed)))
    bundles = each(jnp.asarray(np.ldexp(np.float32(1), exponents)))
    norm = math.log(np.linalg.norm(VECTORS.astype(np.float64)))
    measured = scaled.log(scaled.Scaled(jnp.sqrt(bundles.squares), bundles.exponent))
    np.testing.assert_allclose(measured, norm + exponents.sum(axis=1) * math.log(2), rtol=0, atol=3e-7)
    for mantissa, exponent, total in zip(bundles.mantissa, bundles.exponent, exponents.sum(axis=1), strict=True):
        np.testing.assert_array_equal(np.ldexp(np.float64(mantissa), int(exponent - total)), VECTORS)


def test_a_dead_product_stays_zero() -> None:
    bundle = jax.jit(partial(pushed, transposed=False))(jnp.asarray([0.0, 1e30, 1e-30]))
    assert float(bundle.squares) == 0
    assert scaled.log(scaled.Scaled(jnp.sqrt(bundle.squares), bundle.exponent)) == -math.inf
