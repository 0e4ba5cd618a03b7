"""The mean field of residual networks against closed forms, asymptotics and sweeps."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate
from unrolled import own_checks

import gradsim as gs
from gradsim import theory


def test_law_A8_relu_of_two_layers() -> None:
    path = theory.residual("relu", [0.5, 1.0], 0.0, 6)
    s = np.array([[0.125], [0.5]])
    np.testing.assert_allclose(np.exp(2 * path.log_gain), (1 + s) ** np.arange(1, 7), rtol=1e-13)
    np.testing.assert_allclose(path.length, (1 + s) ** np.arange(1, 7), rtol=1e-13)
    np.testing.assert_allclose(np.exp(2 * path.log_gain[1, -1]), 11.390625, rtol=1e-13)


def test_law_A8_at_a_small_width() -> None:
    # No 1/N at all: E‖J‖_F²/n is the mean field's at every width.
    seeds = 4000
    gains: dict[str, Any] = {"sigma_w": 1.2, "sigma_v": 0.9, "branch_gain": 0.8}
    data = gs.sweep(gs.residual(6, "relu"), depth=5, seeds=seeds, dtype="float64", **gains)
    squares = np.exp(2 * data.log_gain)
    expected = np.exp(2 * theory.residual("relu", gains["sigma_w"], 0.0, 5, branch_gain=0.8, sigma_v=0.9).log_gain)
    error = squares.std("seed", ddof=1) / math.sqrt(seeds)
    assert float(error[-1]) < 0.03 * expected[-1]
    assert np.all(abs(squares.mean("seed") - expected) < 4.5 * error)


def test_law_D2_by_trapezoids() -> None:
    # x + a σ_w tanh(x) W, the integrals written out.
    sigma_w, depth, q = 1.3, 40, 0.7
    z = np.linspace(-12, 12, 4001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    lengths, chis = [], []
    for _ in range(depth):
        h = math.sqrt(q) * z
        chis.append(1 + (0.5 * sigma_w) ** 2 * integrate.trapezoid(density / np.cosh(h) ** 4, z))
        q += 0.25 * (sigma_w**2 * integrate.trapezoid(density * np.tanh(h) ** 2, z) + 0.2**2)
        lengths.append(q)
    path = theory.residual("tanh", sigma_w, 0.2, depth, q0=0.7, form="pre_activation", branch_gain=0.5)
    np.testing.assert_allclose(path.length, lengths, rtol=1e-10)
    np.testing.assert_allclose(path.chi, chis, rtol=1e-10)
    np.testing.assert_allclose(path.log_gain, np.cumsum(np.log(chis)) / 2, rtol=1e-10)


def test_law_D2_is_the_limit_of_the_recursion() -> None:
    depths, sigma_w = 50 * 4 ** np.arange(4), np.array([[0.5], [1.0], [1.5]])
    exact = 2 * theory.residual("tanh", sigma_w[:, 0], 0.0, 3200, form="pre_activation").log_gain[:, depths - 1]
    law = theory.tanh_residual_growth(sigma_w, depths)
    # What is left settles on a constant as ln L / √L, by ever less over a factor 4 of L; at σ_w = ½ later than here.
    change = np.diff(exact - law)
    assert np.all(abs(change[:, -1]) < 0.04)
    assert np.all(change[1:, -1] > 0)
    assert np.all(change[1:, -1] < 0.75 * change[1:, -2])
    assert np.all(law[:, -1] - law[:, -2] > 10)  # the law itself grows by as many nats there
    turn = 2 * math.pi
    np.testing.assert_allclose(theory.tanh_residual_growth(1.0, turn), 8 / 3 + 8 / 9 / math.pi * math.log(turn))


def test_law_D2_in_a_sweep() -> None:
    seeds, depth, sigma_w = 64, 40, np.array([0.5, 1.0])
    network = gs.residual(128, "tanh", form="pre_activation")
    data = gs.sweep(network, depth=depth, seeds=seeds, sigma_w=sigma_w, statistics=("log_jvp", "length"))
    path = theory.residual("tanh", sigma_w, 0.0, depth, form="pre_activation")
    for measured, expected in ((2 * data.log_jvp, 2 * path.log_gain), (np.log(data.length), np.log(path.length))):
        # a mean of squares, as the law has it, not of logarithms
        ratio = np.exp(measured.transpose("sigma_w", "seed", "depth").values[..., 9::10] - expected[:, None, 9::10])
        error = ratio.std(axis=1, ddof=1) / math.sqrt(seeds)
        assert np.all(error < 0.1)
        assert np.all(np.abs(ratio.mean(axis=1) - 1) < 4.5 * error)
    assert float(2 * path.log_gain[1, -1]) > 6  # growth by e^6 and more


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("form", "activation"),
    [
        ("two_layer", "gelu"),
        ("pre_activation", "relu"),
        ("post_activation", "relu"),
        ("post_activation", "gelu"),
        ("post_activation", "tanh"),
    ],
)
def test_lengths_and_growth_of_every_form_in_a_sweep(form: str, activation: str) -> None:
    # After a branch φ(z) of positive mean the state has a mean too, and its length grows faster for it.
    seeds, depth = 100, 5
    gains: dict[str, Any] = {"sigma_w": 1.3, "sigma_b": 0.4, "branch_gain": 0.6}
    network = gs.residual(64, activation, form=form)
    data = gs.sweep(network, depth=depth, seeds=seeds, statistics=("log_jvp", "length"), **gains)
    path = theory.residual(activation, gains["sigma_w"], gains["sigma_b"], depth, form=form, branch_gain=0.6)
    for measured, expected in ((data.length, path.length), (np.exp(2 * data.log_jvp), np.exp(2 * path.log_gain))):
        error = measured.std("seed", ddof=1) / math.sqrt(seeds)
        assert float((error / expected).max()) < 0.05
        assert np.all(abs(measured.mean("seed") - expected) < 4.5 * error)


def test_length_beyond_the_floats() -> None:
    path = theory.residual("relu", 3.0, 0.3, 2000, form="post_activation")
    assert np.isinf(path.length[-1])
    assert np.all(np.isfinite(path.log_gain))
    np.testing.assert_allclose(path.chi, 5.5, rtol=1e-12)


def test_branches_that_vanish() -> None:
    for form in ("two_layer", "pre_activation", "post_activation"):
        path = theory.residual("gelu", 1.0, 0.5, 3, q0=[0.0, 2.0], form=form, branch_gain=0.0)
        np.testing.assert_array_equal(path.log_gain, 0)
        np.testing.assert_allclose(path.length, [[0] * 3, [2] * 3], rtol=1e-15)
    silent = theory.residual("tanh", 1.5, 0.0, 4, q0=0.0, form="pre_activation")
    np.testing.assert_array_equal(silent.length, 0)
    np.testing.assert_allclose(silent.chi, 1 + 1.5**2, rtol=1e-12)
    # the first block from x = 0 sees its bias alone: q = a² V(σ_b²)
    first = theory.residual("relu", 2.0, 0.5, 1, q0=0.0, form="post_activation", branch_gain=3.0)
    np.testing.assert_allclose(first.length, [9 * 0.25 / 2], rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "words"),
    [
        ("residual", {"activation": "relo"}, ValueError, "relo"),
        ("residual", {"form": "bottleneck"}, ValueError, "form: got 'bottleneck'; pass one of: two_layer, pre_act"),
        ("residual", {"depth": 0}, ValueError, "depth: got 0"),
        ("residual", {"sigma_w": -1.0}, ValueError, "sigma_w"),
        ("residual", {"branch_gain": None}, TypeError, "branch_gain"),
        ("residual", {"q0": np.inf}, ValueError, "q0: got inf"),
        ("residual", {"sigma_v": 2.0, "form": "pre_activation"}, ValueError, r"sigma_v: got 2\.0 with form='pre_act"),
        ("residual", {"sigma_v": [1.0, 2.0], "q0": [1.0, 2.0, 3.0]}, ValueError, "broadcast"),
        ("tanh_residual_growth", {"depth": 0}, ValueError, "depth: got 0; pass depths of at least 1"),
        ("tanh_residual_growth", {"sigma_w": "one"}, TypeError, "sigma_w"),
    ],
)
def test_bad_input_is_named(function: str, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    call = {"sigma_w": 1.0, "depth": 3} | ({"activation": "relu", "sigma_b": 0.0} if function == "residual" else {})
    with own_checks(), pytest.raises(error, match=words):
        getattr(theory, function)(**call | arguments)
