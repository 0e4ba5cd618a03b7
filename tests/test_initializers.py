"""Initializers: laws of unit gain, their shapes, and the gains of the named schemes."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.nn import initializers as jax_initializers

import gradsim as gs
from gradsim import initializers

KEY = random.key(20)
# E x⁴ / (E x²)² of an entry: what the standard error of a measured variance depends on.
KURTOSIS = {"gaussian": 3.0, "truncated_gaussian": 2.2, "uniform": 1.8, "sparse": 3.0 * 40 / 15}


@cache
def draws(name: str, shape: tuple[int, int], count: int) -> np.ndarray:
    draw = gs.INITIALIZERS[name].draw
    return np.asarray(jax.jit(jax.vmap(lambda key: draw(key, shape, jnp.float32)))(random.split(KEY, count)))


@pytest.mark.parametrize("shape", [(40, 25), (40, 60)])
@pytest.mark.parametrize("name", KURTOSIS)
def test_variance_of_an_entry_is_one_over_n_in(name: str, shape: tuple[int, int]) -> None:
    entries = shape[0] * draws(name, shape, 200) ** 2  # E = 1, whatever n_out
    standard_error = math.sqrt((KURTOSIS[name] - 1) / entries.size)
    assert abs(entries.mean() - 1) < 4.5 * standard_error
    assert abs(draws(name, shape, 200).mean()) < 4.5 / math.sqrt(shape[0] * entries.size)


@pytest.mark.parametrize("shape", [(12, 12), (12, 30), (30, 12)])
def test_orthogonal_has_orthonormal_rows_or_columns_of_unit_gain(shape: tuple[int, int]) -> None:
    w = np.asarray(draws("orthogonal", shape, 3), np.float64)
    n_in, n_out = shape
    gram = w @ w.swapaxes(1, 2) if n_in <= n_out else w.swapaxes(1, 2) @ w
    unit = max(n_out / n_in, 1.0)
    np.testing.assert_allclose(gram, np.broadcast_to(unit * np.eye(gram.shape[-1]), gram.shape), atol=3e-6 * unit)
    assert np.mean(w**2) * n_in == pytest.approx(1, rel=1e-5)


def test_orthogonal_is_drawn_from_the_haar_measure() -> None:
    """Moments of O(n): E w² = 1/n, E w⁴ = 3/(n(n+2)), E tr = 0, E tr² = 1, E tr⁴ = 3, det = ±1 evenly.

    A QR whose signs are not fixed fails it: its w₁₁ is never positive.
    """
    n, count = 5, 6000
    w = draws("orthogonal", (n, n), count)
    trace = np.trace(w, axis1=1, axis2=2)
    for what, values, wanted in (
        ("w11", w[:, 0, 0], 0.0),
        ("w11²", w[:, 0, 0] ** 2, 1 / n),
        ("w11⁴", w[:, 0, 0] ** 4, 3 / (n * (n + 2))),
        ("w22", w[:, 1, 1], 0.0),
        ("trace", trace, 0.0),
        ("trace²", trace**2, 1.0),
        ("trace⁴", trace**4, 3.0),
        ("determinant", np.linalg.det(w), 0.0),
    ):
        assert abs(values.mean() - wanted) < 4.5 * values.std() / math.sqrt(count), what


def test_truncated_gaussian_is_cut_at_two_standard_deviations_of_the_normal() -> None:
    n = 40
    w = np.abs(draws("truncated_gaussian", (n, n), 50)) * math.sqrt(n) * 0.87962566103423978
    assert w.max() <= 2 * (1 + 1e-6)
    # P(|z| > 1.9 | |z| < 2) = 0.01253: it does reach up to the cut.
    assert 0.010 < (w > 1.9).mean() < 0.015


def test_uniform_fills_its_interval() -> None:
    n = 40
    w = draws("uniform", (n, n), 50) * math.sqrt(n / 3)
    assert np.abs(w).max() <= 1
    assert w.min() < -0.999
    assert w.max() > 0.999


@pytest.mark.parametrize(("n_in", "inputs"), [(40, 15), (15, 15), (6, 6)])
def test_sparse_gives_every_unit_fifteen_inputs(n_in: int, inputs: int) -> None:
    w = draws("sparse", (n_in, 20), 30)
    np.testing.assert_array_equal((w != 0).sum(axis=1), inputs)  # a unit is a column: h @ W
    if n_in > inputs:
        # Every input is chosen as often as any other, 15/40 of the time.
        share, count = (w != 0).mean(axis=(0, 2)), w.shape[0] * w.shape[2]
        assert np.all(np.abs(share - inputs / n_in) < 4.5 * math.sqrt(0.375 * 0.625 / count))


def test_identity_is_the_identity() -> None:
    np.testing.assert_array_equal(draws("identity", (4, 4), 1)[0], np.eye(4))


@pytest.mark.parametrize("name", gs.INITIALIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_law_gives_the_shape_and_dtype_asked_for(name: str, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        initializer = gs.INITIALIZERS[name]
        w = jax.eval_shape(lambda: initializer.draw(KEY, (18, 7), jnp.dtype(dtype)))
        b = jax.eval_shape(lambda: initializer.draw_bias(KEY, (7,), jnp.dtype(dtype)))
    assert (w.shape, w.dtype, b.shape, b.dtype) == ((18, 7), dtype, (7,), dtype)


@pytest.mark.parametrize("name", gs.INITIALIZERS)
def test_bias_has_unit_variance(name: str) -> None:
    b = np.asarray(gs.INITIALIZERS[name].draw_bias(KEY, (20_000,), jnp.float32))
    assert abs(np.mean(b**2) - 1) < 4.5 * math.sqrt(2 / b.size)
    assert abs(b.mean()) < 4.5 / math.sqrt(b.size)


@pytest.mark.parametrize(
    ("name", "variance_times_n_in"),
    [
        ("gaussian", 1.0),
        ("orthogonal", 1.0),
        ("lecun_normal", 1.0),
        ("lecun_uniform", 1.0),
        ("glorot_normal", 2 * 30 / (30 + 50)),
        ("glorot_uniform", 2 * 30 / (30 + 50)),
        ("he_normal", 2.0),
        ("he_uniform", 2.0),
        ("torch_linear", 1 / 3),
    ],
)
def test_named_schemes_have_their_gain(name: str, variance_times_n_in: float) -> None:
    assert gs.INITIALIZERS[name].weight_gain(30, 50) == pytest.approx(math.sqrt(variance_times_n_in), rel=1e-15)
    assert gs.feedforward(16, "relu", name).gains["sigma_w"] == gs.INITIALIZERS[name].weight_gain(16, 16)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("lecun_normal", jax_initializers.lecun_normal()),
        ("lecun_uniform", jax_initializers.lecun_uniform()),
        ("glorot_normal", jax_initializers.glorot_normal()),
        ("glorot_uniform", jax_initializers.glorot_uniform()),
        ("he_normal", jax_initializers.he_normal()),
        ("he_uniform", jax_initializers.he_uniform()),
    ],
)
def test_named_schemes_are_the_laws_of_jax(name: str, reference: jax_initializers.Initializer) -> None:
    """Law and gain together have the support and the variance of the scheme that JAX and Flax call so."""
    shape, count = (30, 50), 100
    initializer = gs.INITIALIZERS[name]
    ours = initializer.weight_gain(*shape) * draws(name, shape, count)
    draw = jax.jit(jax.vmap(lambda key: reference(key, shape, jnp.float32)))
    theirs = np.asarray(draw(random.split(random.key(3), count)))
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=2e-3)
    assert (ours**2).mean() == pytest.approx((theirs**2).mean(), rel=4.5 * math.sqrt(2 * 1.3 / ours.size))


def test_torch_linear_draws_weights_and_biases_within_one_over_root_n_in() -> None:
    initializer, n = gs.INITIALIZERS["torch_linear"], 36
    w = initializer.weight_gain(n, n) * draws("torch_linear", (n, n), 20)
    b = initializer.bias_gain(n) * np.asarray(initializer.draw_bias(KEY, (20_000,), jnp.float32))
    for values in (w, b):
        assert np.abs(values).max() <= (1 + 1e-6) / math.sqrt(n)
        assert np.abs(values).max() > 0.999 / math.sqrt(n)
    assert gs.feedforward(n, "relu", "torch_linear").gains["sigma_b"] == pytest.approx(1 / math.sqrt(3 * n))


def test_an_initializer_of_jax_keeps_its_own_variance() -> None:
    he = initializers.get(jax_initializers.he_normal())
    w = np.asarray(he.draw(KEY, (200, 200), jnp.float32))
    assert he.weight_gain(200, 200) == 1
    assert (w**2).mean() * 200 == pytest.approx(2, rel=4.5 * math.sqrt(1.3 / w.size))
    # A sweep takes it, and measures what the built-in of the same law measures, from draws of its own.
    both = {
        "built in": gs.feedforward(20, "relu", "lecun_normal"),
        "of JAX": gs.feedforward(20, "relu", jax_initializers.lecun_normal()),
    }
    built_in, of_jax = gs.sweep(both, depth=3, seeds=400).log_gain[..., -1].to_numpy()
    assert np.all(built_in != of_jax)
    difference = built_in.mean() - of_jax.mean()
    assert abs(difference) < 4.5 * math.hypot(built_in.std(), of_jax.std()) / math.sqrt(400)


def test_get_takes_names_callables_and_initializers() -> None:
    assert initializers.get("he_normal") is gs.INITIALIZERS["he_normal"]
    assert initializers.get(gs.INITIALIZERS["sparse"]) is gs.INITIALIZERS["sparse"]
