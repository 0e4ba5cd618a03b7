"""All singular values of long products: against many-digit arithmetic, and in sweeps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax import Array, export
from many_digits import exact
from unrolled import own_checks

import gradsim as gs
from gradsim import scaled
from gradsim.cli import spectra
from gradsim.engine.products import matrix
from gradsim.engine.statistic import View


def measured(factors: np.ndarray, dtype: str, powers: Any = None, **options: Any) -> Any:
    """(ln σ in float64, rank, converged)."""
    with jax.enable_x64(dtype == "float64"):
        given = factors.astype(dtype)
        found = gs.log_singular_values(given if powers is None else gs.Scaled(given, powers), exponents=True, **options)
        return scaled.log(found.values), np.asarray(found.rank), np.asarray(found.converged)


def orthogonal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(rng.normal(size=(*shape, shape[-1])))[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("n", "length", "seed", "digits", "bars"),
    [(8, 2000, 3, 1500, (1e-11, 2e-3)), (16, 200, 0, 300, (5e-12, 1e-3)), (16, 200, 3, 300, (5e-12, 1e-3))],
)
def test_products_over_thousands_of_nats(n: int, length: int, seed: int, digits: int, bars: tuple[float, ...]) -> None:
    """Errors are near rounding times the largest condition of a factor: 1e4 in the first of these, 8e4 and 2e3.

    Of (8, 2000) the seeds 0 to 2, of condition up to 4e5, come to 1.02e-11 in float64, to 3.6e-3 in float32, and one
    loses a value there.
    """
    factors = (np.random.default_rng(seed).normal(size=(length, n, n)) / n**0.5).astype(np.float32).astype(float)
    wanted = exact(factors, digits)
    assert wanted[0] - wanted[-1] > 380
    for dtype, bar in zip(("float64", "float32"), bars, strict=True):
        logs, rank, converged = measured(factors, dtype)
        assert converged
        assert rank == n
        np.testing.assert_allclose(logs, wanted, rtol=0, atol=bar)
        # Law A12: the sum is that of the logarithms of the determinants.
        np.testing.assert_allclose(logs.sum(), np.linalg.slogdet(factors)[1].sum(), rtol=0, atol=n * bar)


N, LENGTH = 6, 5
KINDS = ("random", "orthogonal", "near_identity", "graded", "near_singular", "singular", "nilpotent")
ALL = range(1, LENGTH + 1)


def chains() -> np.ndarray:
    """A chain of each kind, [kinds, length, n, n]: factors of moderate condition, but for those that say otherwise."""
    rng = np.random.default_rng(1)
    left, right = orthogonal(rng, 2, LENGTH, N)

    def of(values: Any) -> np.ndarray:
        return (left * np.asarray(values)) @ right

    return np.stack([
        of(rng.uniform(0.5, 2, N)),
        left,
        np.eye(N) + 1e-3 * rng.normal(size=(LENGTH, N, N)),
        left * 10.0 ** -np.arange(N),
        of([1, 1, 1, 1, 1, 1e-5]),
        of([1, 1, 1, 1, 1, 0]),
        np.broadcast_to(np.eye(N, k=1), (LENGTH, N, N)),
    ])  # fmt: skip


def test_every_prefix_of_every_kind_of_chain() -> None:
    factors = chains()
    logs, rank, converged = measured(factors, "float64", at=ALL)
    assert logs.shape == (len(KINDS), LENGTH, N)
    assert converged.all()
    np.testing.assert_array_equal(rank, np.isfinite(logs).sum(axis=-1))
    for kind, chain, found in zip(KINDS, factors, logs, strict=True):
        lost = {"singular": 1, "nilpotent": np.arange(1, LENGTH + 1)}.get(kind, 0)
        np.testing.assert_array_equal(np.isneginf(found).sum(axis=-1), lost, err_msg=kind)
        atol = {"graded": 1e-10, "near_singular": 1e-10}.get(kind, 1e-13)  # rounding times the condition of a factor
        for length in ALL:
            wanted = exact(chain[:length], 60)
            there = np.isfinite(found[length - 1])
            np.testing.assert_allclose(found[length - 1][there], wanted[there], rtol=0, atol=atol, err_msg=kind)


def test_groups_of_factors_lose_no_more_than_the_tolerance() -> None:
    """What is singular or has a condition of 1e5 is not grouped; the rest loses less than the 1e-6 that it may."""
    rng = np.random.default_rng(4)
    gaussian = rng.normal(size=(24, N, N)) / N**0.5
    left, right = orthogonal(rng, 2, 24, N)
    long = {
        "gaussian": gaussian,
        "orthogonal": left,
        "near_identity": np.eye(N) + 1e-3 * gaussian,
        "graded": left * 10.0 ** -np.arange(N),
        "near_singular": (left * [1, 1, 1, 1, 1, 1e-5]) @ right,
        "singular": (left * [1, 1, 1, 1, 1, 0]) @ right,
        "tied": np.broadcast_to(gaussian[:1], gaussian.shape),
    }
    tolerances = (1e-16, None, 1e-6)
    for kind, chain in long.items():
        wanted = exact(chain, 250)
        one_by_one, by_default, grouped = (measured(chain, "float64", tolerance=some) for some in tolerances)
        for found, atol in ((one_by_one, 1e-12), (by_default, 1e-12), (grouped, 1e-6)):
            atol = max(atol, 1e-10 if kind in ("graded", "near_singular") else 0.0)
            assert found[1] == N - (kind == "singular")
            there = slice(found[1])
            np.testing.assert_allclose(found[0][there], wanted[there], rtol=0, atol=atol, err_msg=kind)
        # A QR less changes the last digits; not even one is taken off a Gaussian chain unless a tolerance says so.
        if kind == "gaussian":
            np.testing.assert_array_equal(one_by_one[0], by_default[0])
            assert (one_by_one[0] != grouped[0]).any()
        if kind == "orthogonal":
            assert (one_by_one[0] != by_default[0]).any()


def test_factors_far_outside_the_floats() -> None:
    """The same program; powers of two change nothing but the exponents."""
    powers = np.broadcast_to(np.array([5000, -300000, 7, 0, 12345], np.int32), (len(KINDS), LENGTH))
    one, other = (measured(chains(), "float64", powers=some, at=ALL) for some in (0 * powers, powers))
    np.testing.assert_allclose(other[0], one[0] + np.log(2) * np.cumsum(powers, axis=1)[..., None], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(other[1], one[1])


def test_a_diagonal_chain_is_exact_whatever_the_order_of_its_values() -> None:
    """Values that overtake one another by hundreds of nats: a step of a recurrence whose units do not mix."""
    diagonals = np.exp(np.random.default_rng(2).normal(size=(len(KINDS), LENGTH, N)) * 15).astype(np.float32)
    wanted = -np.sort(-np.log(diagonals.astype(float)).cumsum(axis=1))
    logs = measured(np.eye(N) * diagonals[..., None], "float32", at=ALL)[0]
    np.testing.assert_allclose(logs, wanted, rtol=1e-6, atol=1e-5)


def test_a_factor_of_condition_1e5_keeps_all_in_float32() -> None:
    chain = chains()
    logs, rank, converged = measured(chain, "float32", at=ALL)
    assert converged.all()
    for kind, lost in (("random", 0), ("near_singular", 0), ("singular", 1)):
        np.testing.assert_array_equal(rank[KINDS.index(kind)], N - lost, err_msg=kind)
    np.testing.assert_allclose(logs[1], 0, atol=3e-6)
    np.testing.assert_allclose(logs[0], measured(chain, "float64", at=ALL)[0][0], atol=3e-5)


def test_one_length_of_one_chain_and_its_logarithms() -> None:
    """Of the shape of those above, which have compiled the first program."""
    factors = (np.random.default_rng(3).normal(size=(2000, 8, 8)) / 8**0.5).astype(np.float32)
    whole, some = gs.log_singular_values(factors), gs.log_singular_values(factors, at=[1, 2000])
    assert whole.values.shape == (8,)
    assert whole.rank.shape == whole.converged.shape == ()
    np.testing.assert_array_equal(some.values[1], whole.values)
    np.testing.assert_allclose(some.values[0], np.log(np.linalg.svd(factors[0], compute_uv=False)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_lowers_for_accelerators(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        program = jax.jit(lambda factors: gs.log_singular_values(factors, at=[2, 4]))
        export.export(program, platforms=("cuda", "tpu"))(jax.ShapeDtypeStruct((2, 4, 5, 5), dtype))
        sweep = jax.jit(
            lambda key: gs.jacobian_norms(gs.feedforward(5), key, depth=3, statistics="log_condition", dtype=dtype)
        )
        export.export(sweep, platforms=("cuda", "tpu"))(jax.eval_shape(lambda: jax.random.key(0)))


WRONG_POWERS: Any = np.zeros(2, np.int32)


@pytest.mark.parametrize(
    ("factors", "options", "error", "message"),
    [
        (np.ones((2, 2), "f"), {}, ValueError, r"factors: got shape \[2, 2\]; pass an array \[..., length, n, n\]"),
        (np.ones((3, 2, 4), "f"), {}, ValueError, r"factors: got shape \[3, 2, 4\]"),
        (np.ones((0, 2, 2), "f"), {}, ValueError, r"factors: got shape \[0, 2, 2\]"),
        (np.ones((3, 2, 2), int), {}, TypeError, "factors: got int32; pass float32, or float64 under"),
        ("x", {}, TypeError, "factors: got 'x' of type str; pass an array"),
        (
            gs.Scaled(np.ones((3, 2, 2), "f"), WRONG_POWERS),
            {},
            ValueError,
            "factors: got powers of two int32",
        ),
        (np.ones((3, 2, 2), "f"), {"at": 4}, ValueError, "at: got 4; pass depths from 1 to depth=3"),
        (np.ones((3, 2, 2), "f"), {"at": "x"}, TypeError, "at: got 'x'"),
        (np.ones((3, 2, 2), "f"), {"exponents": 1}, TypeError, "exponents: got 1 of type int; pass True or False"),
        (
            np.ones((3, 2, 2), "f"),
            {"tolerance": 0.0},
            ValueError,
            "tolerance: got 0.0; pass a number above 0",
        ),
        (np.ones((3, 2, 2), "f"), {"tolerance": "x"}, TypeError, "tolerance: got 'x'"),
    ],
)
def test_what_is_refused(factors: Any, options: Any, error: Any, message: str) -> None:
    with own_checks(), pytest.raises(error, match=f"^{message}"):
        gs.log_singular_values(factors, **options)


OF_THE_SPECTRUM = ("log_singular_values", "log_condition", "isometric_share", "log_second_moment", "spectral_variance")


def test_statistics_of_a_sweep_agree_with_the_singular_values() -> None:
    """Of ReLU networks, whose rank is at first the number of active units; log_spectral and log_gain beside them."""
    statistics = (*OF_THE_SPECTRUM, "log_spectral", "log_gain", "saturated")
    found = gs.sweep(gs.feedforward(9, "relu"), depth=3, seeds=12, statistics=statistics, at=[1, 3], dtype="float64")
    logs, rank = found.log_singular_values, found["rank"]
    assert logs.dims == ("seed", "depth", "singular_value")
    assert logs.sel(depth=2).isnull().all()
    assert rank.sel(depth=2).isnull().all()
    np.testing.assert_allclose(rank.sel(depth=1), 9 * (1 - found.saturated.sel(depth=1)), atol=1e-9)
    assert logs.attrs["lost"] == 0
    for depth in (1, 3):
        one = found.sel(depth=depth)
        values = np.exp(one.log_singular_values.to_numpy())
        squares = np.where(one.dead.to_numpy()[:, None], np.nan, values**2)
        lost = one["rank"].to_numpy() < 9
        np.testing.assert_array_equal(np.isposinf(one.log_condition), lost)
        np.testing.assert_allclose(one.log_spectral, 0.5 * np.log(squares[:, 0]), atol=1e-12)
        np.testing.assert_allclose(one.log_gain, 0.5 * np.log(squares.mean(axis=1)), atol=1e-12)
        np.testing.assert_allclose(one.log_second_moment, np.log((squares**2).mean(axis=1)), atol=1e-12)
        variance = squares.var(axis=1) / squares.mean(axis=1) ** 2
        living = ~one.dead.to_numpy()
        np.testing.assert_allclose(one.spectral_variance[living], variance[living], rtol=1e-11)
        np.testing.assert_allclose(one.isometric_share, ((values >= 0.5) & (values <= 2)).mean(axis=1), atol=1e-12)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("direction", "dtype"), [("forward", "float32"), ("backward", "float64")])
def test_a_layer_norm_takes_two_directions_away(direction: Any, dtype: Any) -> None:
    network = gs.layernorm(8, epsilon=0.0)
    found = gs.sweep(
        network, depth=30, seeds=6, direction=direction, dtype=dtype, statistics="log_singular_values", at=[1, 15, 30]
    )
    np.testing.assert_array_equal(found["rank"].sel(depth=[1, 15, 30]), 6)
    np.testing.assert_array_equal(np.isneginf(found.log_singular_values).sum(), 6 * 3 * 2)
    assert np.nanmin(found.log_singular_values[..., :6]) > -200


@pytest.mark.further
def test_a_batch_norm_takes_two_directions_of_each_unit_away() -> None:
    """With ReLU behind it, dead units too: in no order, layer upon layer; as many as an SVD of the product finds."""

    def resolved(view: View) -> Array:
        assert view.product is not None
        values = jnp.linalg.svd(matrix(view.product.mantissa), compute_uv=False)
        return jnp.sum((values > 1e-11 * values[0]).astype(values.dtype))

    rank = gs.Statistic("svd_rank", "rank by SVD", "1", resolved, ("all",), costly=True)
    for activation, most in (("identity", 4 * (6 - 2)), ("relu", 14)):
        network = gs.batchnorm(4, 6, activation, epsilon=0.0)
        found = gs.sweep(
            network, depth=5, seeds=8, statistics=("log_singular_values", rank), at=range(1, 6), dtype="float64"
        )
        np.testing.assert_array_equal(found["rank"], found.svd_rank)
        assert found["rank"].max() == most


@pytest.mark.further
def test_networks_of_several_sizes_are_joined_and_kept(tmp_path: Any) -> None:
    options: dict[str, Any] = {"depth": 2, "statistics": "log_singular_values", "widths": [2, 4], "dtype": "float64"}
    parts = [gs.sweep(gs.feedforward(2), seeds=seeds, **options) for seeds in (range(2), range(2, 4))]
    whole = gs.concat(parts)
    assert dict(whole.log_singular_values.sizes) == {"width": 2, "seed": 4, "depth": 2, "singular_value": 4}
    last = whole.log_singular_values.sel(depth=2)
    assert last.sel(width=2, singular_value=[3, 4]).isnull().all()
    assert np.isfinite(last.sel(width=2, singular_value=[1, 2])).all()
    assert np.isfinite(last.sel(width=4)).all()
    assert whole.log_singular_values.attrs["lost"] == 0
    np.testing.assert_array_equal(whole["rank"].sel(depth=2).isel(seed=0), [2, 4])
    whole.to_zarr(tmp_path / "spectra.zarr", consolidated=False)
    xarray.testing.assert_identical(xarray.open_zarr(tmp_path / "spectra.zarr", consolidated=False).load(), whole)


@pytest.mark.further
def test_the_benchmark_compares_with_an_svd_of_the_rescaled_products(capsys: pytest.CaptureFixture[str]) -> None:
    factors, products = spectra.gaussian_chains(N, LENGTH, len(KINDS))
    wanted = np.linalg.svd(np.asarray(products, float), compute_uv=False)
    logs = measured(np.asarray(factors), "float32", at=ALL)[0][:, -1]
    np.testing.assert_allclose(logs - logs[:, :1], np.log(wanted / wanted[:, :1]), atol=1e-2)
    (row,) = spectra.rows(1, ((2, 3, 1),))
    assert row["times"]["gradsim"] == 1
    assert "1 products of 3 matrices 2 x 2" in capsys.readouterr().out
