"""Lyapunov exponents and covariant vectors against slow loops, eigenvalues, and what is known of them."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree

import gradsim as gs
from gradsim.engine.chain import Source
from gradsim.engine.lyapunov import along, factored
from gradsim.engine.streams import network_keys
from gradsim.laws import LAWS
from gradsim.sweeps import lyapunov
from gradsim.sweeps.exponents import dimension, entropy_rate

TIED = gs.vanilla_rnn(4, features=2)
LINEAR = gs.feedforward(4, "identity", tied=True)
STEPS = 650


@partial(jax.jit, static_argnames=("network", "steps"))
def walked(network: gs.Network, gains: dict[str, Array], seed: Array, steps: int) -> Array:
    """∂state'/∂state of every step, [steps, n, n]."""
    source = Source.of(network, network_keys(jax.random.key(0), seed), None, "float64", steps)
    chain = source.bind()(gains)
    first = chain.initial_state()
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.ldexp(leaf, first.exponent), first.mantissa))

    def step(flat: Array, t: Array) -> tuple[Array, Array]:
        taken = chain.step(source.drawn(t))
        one = lambda flat: ravel_pytree(taken(unravel(flat))[0])[0]  # noqa: E731
        return one(flat), jax.jacfwd(one)(flat)

    return jax.lax.scan(step, flat, jnp.arange(steps))[1]


def jacobians(network: gs.Network, gains: dict[str, float], steps: int, seed: int = 0) -> np.ndarray:
    """∂state'/∂state of every step in float64, [steps, n, n], one after the other."""
    with jax.enable_x64(True):
        given = {name: np.float64(gains.get(name, gain)) for name, gain in network.gains.items()}
        return np.asarray(walked(network, given, np.uint32(seed), steps))


def by_loop(chain: np.ndarray, burn_in: int) -> np.ndarray:
    """The mean of ln |R_ii| over the steps after `burn_in`, a QR a step, from the frame that gradsim takes."""
    n = chain.shape[-1]
    with jax.enable_x64(True):
        frame = np.asarray(jax.random.normal(jax.random.key(0), (n, n), jnp.float32), np.float64)
    q, logs = np.linalg.qr(frame.T)[0], []
    for jacobian in chain:
        q, r = np.linalg.qr(jacobian @ q)
        logs.append(np.log(np.abs(np.diag(r))))
    return np.mean(logs[burn_in:], axis=0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("network", "gains"), [
    (TIED, {"sigma_w": 1.4, "sigma_b": 0.1}), (gs.gru(3), {"sigma_w": 2.0}), (gs.lstm(2), {"sigma_w": 2.0}),
    (gs.residual(3, "tanh"), {"sigma_w": 1.0}),
])  # fmt: skip
def test_exponents_are_those_of_a_factor_a_step(network: gs.Network, gains: dict[str, Any]) -> None:
    """In groups of steps and one by one, against numpy over jax.jacfwd of single steps; their sum is ln |det|."""
    options: dict[str, Any] = {"depth": 50, "burn_in": 10, "seeds": range(1, 4), "dtype": "float64", **gains}
    options["sigma_w"] = [gains["sigma_w"], 0.7]  # as many networks as in `chaos`: the same program
    measured, by_default, one_by_one = (
        gs.lyapunov_exponents(network, tolerance=bar, **options).lyapunov.isel(sigma_w=0) for bar in (1e-9, None, 1e-16)
    )
    for seed in (1, 2):
        chain = jacobians(network, gains, STEPS, seed)[:60]
        found, wanted = measured.sel(seed=seed), by_loop(chain, 10)
        np.testing.assert_allclose(found, wanted, atol=2e-10)
        np.testing.assert_allclose(found.sum(), np.linalg.slogdet(chain[10:])[1].mean(), atol=2e-10)
    np.testing.assert_allclose(by_default.sel(seed=2), wanted, atol=1e-8)  # 1e-7 a factor, at the most
    np.testing.assert_allclose(one_by_one.sel(seed=2), wanted, atol=1e-13)


AT = [*range(150, 250), 260]


@pytest.fixture(scope="module")
def chaos() -> Any:
    return gs.lyapunov_exponents(
        TIED, depth=400, burn_in=400, seeds=3, dtype="float64", vectors="covariant", at=AT, sigma_w=[0.7, 1.7],
        sigma_v=0.3, tolerance=1e-9,
    )  # fmt: skip


def test_dataset(chaos: Any) -> None:
    assert dict(chaos.lyapunov.sizes) == {"sigma_w": 2, "seed": 3, "exponent": 4}
    assert chaos.covariant_vector.dims == ("sigma_w", "seed", "at", "exponent", "component")
    assert chaos.lyapunov.attrs["units"] == "nat/step"
    assert chaos.exponent.values.tolist() == [1, 2, 3, 4]
    assert chaos.attrs["burn_in"] == chaos.attrs["depth"] == 400
    assert np.isfinite(chaos.standard_error).all()
    assert np.isfinite(chaos.drift).all()
    assert not chaos.lost.any()
    assert float(chaos.rounding.max()) < 1e-8


def test_covariant_vectors_are_mapped_on_one_another_and_grow_at_their_exponents(chaos: Any) -> None:
    for cell, sigma_w in enumerate((0.7, 1.7)):
        chain = jacobians(TIED, {"sigma_w": sigma_w, "sigma_v": 0.3}, STEPS, 1)
        vectors = chaos.covariant_vector.isel(sigma_w=cell).sel(seed=1).values
        np.testing.assert_allclose((vectors**2).sum(-1), 1, rtol=1e-12)
        moved = np.einsum("tki,tji->tkj", vectors[:-1], chain[np.asarray(AT[:-1]) + 400])
        size = np.linalg.norm(moved, axis=-1)
        angle = np.abs((moved / size[..., None] * vectors[1:]).sum(-1))
        np.testing.assert_allclose(angle[:-1], 1, atol=1e-9)  # the last is ten steps off
        # Over 100 steps, the exponents are over 400: two or three errors of the shorter mean.
        exponents = chaos.lyapunov.isel(sigma_w=cell).sel(seed=1)
        error = 2 * chaos.standard_error.isel(sigma_w=cell).sel(seed=1)
        assert (np.abs(np.log(size).mean(0) - exponents) < 4 * error).all()


@pytest.mark.further
def test_tied_linear_map_has_the_eigenvalues_and_eigenvectors_of_its_matrix() -> None:
    """On its fixed point, λ_i = ln |eigenvalue|: equal ones of a complex pair, whose plane the vectors span."""
    data = gs.lyapunov_exponents(
        LINEAR, depth=800, burn_in=800, seeds=1, dtype="float64", vectors="covariant", sigma_w=0.5
    )
    jacobian = jacobians(LINEAR, {"sigma_w": 0.5}, 1)[0]
    eigenvalues, eigenvectors = np.linalg.eig(jacobian)
    order = np.argsort(-np.abs(eigenvalues))
    sizes = np.log(np.abs(eigenvalues[order]))
    np.testing.assert_allclose(data.lyapunov.squeeze(), sizes, atol=2e-3)  # a pair turns on within the last turn
    vectors = data.covariant_vector.squeeze().values
    for i in np.flatnonzero(np.abs(eigenvalues[order].imag) < 1e-9):
        assert np.abs(vectors[i] @ eigenvectors[:, order[i]].real) == pytest.approx(1, abs=1e-9)
        assert data.lyapunov.values[0, i] == pytest.approx(sizes[i], abs=1e-9)


def test_the_largest_are_the_first_of_all_and_a_depth_compiles_nothing(chaos: Any) -> None:
    options: dict[str, Any] = {"seeds": 3, "dtype": "float64", "sigma_w": [0.7, 1.7], "sigma_v": 0.3, "tolerance": 1e-9}
    two = gs.lyapunov_exponents(TIED, depth=400, burn_in=400, count=2, **options)
    np.testing.assert_allclose(two.lyapunov, chaos.lyapunov.isel(exponent=slice(2)), atol=1e-8)
    programs: Any = lyapunov.program(along, "frame")
    compiled = programs._cache_size()
    shallow = gs.lyapunov_exponents(TIED, depth=5, burn_in=0, count=2, **options)
    assert programs._cache_size() == compiled
    assert np.isfinite(shallow.lyapunov).all()
    assert np.isnan(shallow.standard_error).all()  # of too few parts
    assert (
        np.isnan(two.kaplan_yorke.sel(sigma_w=1.7)).sum() == (two.lyapunov.sel(sigma_w=1.7).sum("exponent") >= 0).sum()
    )


def test_a_direction_that_is_mapped_to_zero_is_minus_infinity() -> None:
    """Layer norm removes the mean and the length of a state; a ReLU layer what its silent units hold."""
    normed = gs.lyapunov_exponents(gs.layernorm(5, epsilon=0.0), depth=40, burn_in=3, seeds=2)
    assert (normed.lost == 2).all()
    assert not normed.dead.any()
    assert (normed.lyapunov[:, 3:] == -np.inf).all()
    assert np.isfinite(normed.lyapunov[:, :3]).all()
    assert np.isnan(normed.standard_error[:, 3:]).all()
    assert np.isfinite(normed[["kaplan_yorke", "entropy_rate"]].to_dataarray()).all()
    rectified = gs.lyapunov_exponents(gs.feedforward(5, "relu"), depth=60, burn_in=0, seeds=2, sigma_w=1.4)
    assert (rectified.lost >= 2).all()
    chain = jacobians(gs.feedforward(5, "relu"), {"sigma_w": 1.4}, 60)
    rank = np.linalg.matrix_rank(np.linalg.multi_dot(chain[::-1]), rtol=1e-13)
    assert 5 - int(rectified.lost[0]) <= rank


def test_a_row_that_is_lost_in_the_middle_takes_nothing_from_those_after_it() -> None:
    rows = np.random.default_rng(0).standard_normal((1, 1, 3, 4)).astype(np.float32)
    rows[0, 0, 1] = 2 * rows[0, 0, 0]
    doubtful = np.ones((1, 1, 3), bool)
    q, r, lost, _ = map(np.asarray, jax.jit(factored)(rows, doubtful))
    assert lost.tolist() == [[[False, True, False]]]
    wanted = np.abs(np.diag(np.linalg.qr(rows[0, 0, [0, 2]].T)[1]))
    np.testing.assert_allclose(np.abs(np.diag(r[0, 0]))[[0, 2]], wanted, rtol=1e-5)
    assert not q[0, 0, 1].any()
    np.testing.assert_allclose(q[0, 0, [0, 2]] @ q[0, 0, [0, 2]].T, np.eye(2), atol=1e-6)


def test_what_leaves_the_floats_is_told() -> None:
    with pytest.warns(RuntimeWarning, match="lyapunov: 2 of 4 networks left the range of floats"):
        data = gs.lyapunov_exponents(
            gs.feedforward(4, jnp.square, tied=True),
            depth=20,
            burn_in=0,
            seeds=2,
            sigma_w=[1e-2, 30.0],
            sigma_b=0.5,
        )
    assert np.isnan(data.lyapunov.sel(sigma_w=30.0)).all()


def test_networks_of_several_sizes_stand_side_by_side() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = gs.lyapunov_exponents(
            {"4": TIED, "3": gs.gru(3, features=2)}, depth=20, seeds=3, sigma_w=[1.0, 2.0], dtype="float64"
        )
    assert both.lyapunov.dims == ("network", "sigma_w", "seed", "exponent")
    assert np.isnan(both.lyapunov.sel(network="3", exponent=4)).all()
    assert np.isfinite(both.lyapunov.sel(network="3", exponent=[1, 2, 3])).all()
    assert np.isfinite(both.kaplan_yorke).all()


def test_dimension_and_entropy() -> None:
    assert dimension(np.array([0.5, 0.0, -1.0])) == pytest.approx(2.5)  # Lorenz-like
    assert dimension(np.array([-0.1, -1.0])) == 0
    assert dimension(np.array([0.3, 0.1, -np.inf])) == 2
    assert dimension(np.array([0.3, -0.1])) == 2  # the whole space
    assert np.isnan(dimension(np.array([0.3, -0.1]), complete=False))
    assert dimension(np.array([0.3, -0.4]), complete=False) == pytest.approx(1.75)
    assert dimension(np.array([-1.0, 0.0, 0.5])) == pytest.approx(2.5)  # whatever their order
    assert np.isnan(dimension(np.array([np.nan, np.nan])))
    assert entropy_rate(np.array([0.5, 0.25, -1.0])) == 0.75
    assert np.isnan(entropy_rate(np.array([0.5, 0.25]), complete=False))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["A2", "A12", "G2"])
def test_law_of_exponents(name: str) -> None:
    for check in LAWS[name].measure(1, 0):
        assert check.holds, check
