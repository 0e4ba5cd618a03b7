"""The mean field of recurrent cells against closed forms, sampled networks of fresh weights, and sweeps."""

import math
from typing import Any

import numpy as np
import pytest
from unrolled import own_checks

import gradsim as gs
from gradsim import theory
from gradsim.networks.network import Network
from gradsim.theory import cells
from gradsim.theory.cells import CELLS, memory


def test_law_E1_autonomous_tanh_network() -> None:
    point = theory.vanilla_rnn("tanh", [1.5, 2.0], 0.0)
    np.testing.assert_allclose(point.lyapunov, [0.0652172119, 0.1547242298], rtol=0, atol=5.1e-11)
    np.testing.assert_allclose(point.q, np.array([2.25, 4.0]) * point.length, rtol=1e-12)


def test_a_driven_vanilla_network_is_a_feedforward_one_of_larger_bias() -> None:
    driven = theory.vanilla_rnn("tanh", [0.5, 2.0], 0.3, 0.4, input_variance=2.0)
    deep = theory.feedforward("tanh", [0.5, 2.0], math.sqrt(0.3**2 * 2 + 0.4**2))
    np.testing.assert_allclose([driven.q, driven.chi], [deep.q, deep.chi], rtol=1e-14)
    diverging = theory.vanilla_rnn("relu", 1.5, 1.0)
    assert all(np.isnan(field) for field in diverging)


# The minimalRNN of the source: σ_v = 1.39 and, in its figure, inputs of R = 0.46.


def test_law_E5_published_edge_lies_within_the_digits_of_the_input_variance() -> None:
    low, here, high = theory.recurrent_edge("minimal_rnn", 1.39, input_variance=[0.465, 0.46, 0.455])
    assert low < 6.875 < 6.885 < high
    assert here == pytest.approx(6.88, rel=2e-3)  # 6.8913: R would have to be 0.4616 for 6.88
    point = theory.minimal_rnn(here, 1.39, input_variance=0.46)
    # The fixed point again, by trapezoids.
    x, dx = np.linspace(-12, 12, 6001, retstep=True)
    density = np.exp(-(x**2) / 2) * dx / math.sqrt(2 * math.pi)
    u = 1 / (1 + np.exp(-math.sqrt(here**2 * point.length + 1.39**2 * 0.46) * x))
    kept, slope = density @ u**2, density @ (u * (1 - u)) ** 2
    np.testing.assert_allclose(point.length, kept * point.length + density @ (1 - u) ** 2 * 0.46, rtol=1e-12)
    np.testing.assert_allclose([kept + here**2 * slope * (point.length + 0.46), point.chi], 1, rtol=1e-10)


# Cells of fresh weights, sampled.


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class Sampled:
    """An untied network without its matrices: given h and u, (h W, u W) are n independent pairs of Gaussians.

    So a width of 30,000 costs 30,000 numbers a gate, and 1/N effects are far below the sampling error.
    """

    def __init__(self, sigma_w: float, drive: float, bias: float, width: int = 30_000) -> None:
        self.rng = np.random.default_rng(5)
        self.sigma_w, self.drive, self.bias = sigma_w, drive, bias
        self.h, self.u, self.c, self.dc = self.normal(4, width) / 2

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape, np.float32)

    def maps(self, gates: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """σ_w h W, σ_w u W, and what inputs and biases add, for each gate."""
        n = self.h.size
        hh, uu, hu = self.h @ self.h / n, self.u @ self.u / n, self.h @ self.u / n
        along, across, drive = self.normal(3, gates, n)
        of_u = hu / math.sqrt(hh) * along + math.sqrt(uu - hu**2 / hh) * across
        return self.sigma_w * math.sqrt(hh) * along, self.sigma_w * of_u, math.sqrt(self.drive) * drive

    def minimal_rnn(self) -> None:
        (z,), (dz,), (v,) = self.maps(1)
        u, x = sigmoid(z + v + self.bias), self.normal(self.h.size)
        self.u = u * self.u + u * (1 - u) * (self.h - x) * dz
        self.h = u * self.h + (1 - u) * x

    def gru(self) -> None:
        (h_r, h_z, h_n), (d_r, d_z, d_n), (x_r, x_z, x_n) = self.maps(3)
        r, z = sigmoid(h_r + x_r), sigmoid(h_z + x_z + self.bias)
        n = np.tanh(x_n + r * h_n)
        d_new = (1 - n**2) * (r * d_n + r * (1 - r) * d_r * h_n)
        self.u = z * self.u + z * (1 - z) * (self.h - n) * d_z + (1 - z) * d_new
        self.h = (1 - z) * n + z * self.h

    def lstm(self) -> None:
        of_h, (d_i, d_f, d_g, d_o), drive = self.maps(4)
        z_i, z_f, z_g, z_o = of_h + drive
        i, f, g, o = sigmoid(z_i), sigmoid(z_f + self.bias), np.tanh(z_g), sigmoid(z_o)
        self.dc = f * self.dc + f * (1 - f) * self.c * d_f + i * (1 - i) * g * d_i + i * (1 - g**2) * d_g
        self.c = f * self.c + i * g
        squashed = np.tanh(self.c)
        self.u = o * (1 - o) * squashed * d_o + o * (1 - squashed**2) * self.dc
        self.h = o * squashed

    def growth(self, family: str, burn_in: int = 20, steps: int = 40) -> np.ndarray:
        """The log growth of the tangent in each step, and the mean squares of h and c."""
        rows = []
        for _ in range(burn_in + steps):
            getattr(self, family)()
            cell = self.dc if family == "lstm" else np.zeros(1)
            norm = math.sqrt((self.u @ self.u + cell @ cell) / self.h.size)
            self.u, self.dc = self.u / norm, self.dc / norm
            rows.append([math.log(norm), self.h @ self.h / self.h.size, self.c @ self.c / self.h.size])
        return np.array(rows[burn_in:]).T


@pytest.mark.sampled(4)
@pytest.mark.parametrize("family", sorted(CELLS))
@pytest.mark.parametrize(("sigma_w", "bias"), [(5.0, 0.0), (3.0, 2.0), (12.0, -1.0)])
def test_fixed_point_and_growth_of_sampled_cells(family: str, sigma_w: float, bias: float) -> None:
    # Without the correlation of dc and c the LSTM would be off by −0.007, 0.005 and −0.026 nats.
    log, length, cell = Sampled(sigma_w, 1.0 + 0.2**2, bias).growth(family)
    point = getattr(theory, family)(sigma_w, 1.0, 0.2, bias)
    error = np.std(log) / math.sqrt(log.size)
    assert error < 0.004
    assert abs(np.mean(log) - point.lyapunov) < 4.5 * error
    # Means of 30,000 squares a step, of which slow cells repeat most: five independent ones at least.
    assert abs(np.mean(length) / point.length - 1) < 4.5 * math.sqrt(2 / 30_000 / 5)
    if family == "lstm":
        assert abs(np.mean(cell) / point.cell - 1) < 4.5 * math.sqrt(2 / 30_000 / 5)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("family", "bias"), [("lstm", "forget_bias"), ("gru", "update_bias")])
def test_sweeps_of_untied_cells_tend_to_the_mean_field(family: str, bias: str) -> None:
    # The log gain is O(1/N) too low, by 1 to 1.5 nats over N a step: of widths N and 2N, 2 b − a is free of it.
    # The first eight steps, in which lengths settle, do not count.
    sigma_w, start, end, seeds = np.array([2.0, 5.0]), 8, 20, {48: 32, 96: 20}
    gate: dict[str, Any] = {bias: 1.0}
    rates = []
    for n in seeds:
        network: Network = getattr(gs, family)(n, tied=False)
        maps = gs.sweep(network, depth=end, seeds=seeds[n], sigma_w=sigma_w, sigma_v=1.0, sigma_b=0.2, **gate)
        rates.append((maps.log_gain.sel(time=end) - maps.log_gain.sel(time=start)).values / (end - start))
    (a, error_a), (b, error_b) = ((rate.mean(1), rate.std(1, ddof=1) / math.sqrt(rate.shape[1])) for rate in rates)
    error = np.hypot(error_a, 2 * error_b)
    expected = getattr(theory, family)(sigma_w, 1.0, 0.2, 1.0).lyapunov
    assert np.all(error < 0.02)
    assert abs(expected[1] - expected[0]) > 10 * max(error)  # the test can tell the gains apart
    assert np.all(np.abs(2 * b - a - expected) < 4.5 * error)


# Closed forms, edges and the shape of the answer.


def test_silent_cells() -> None:
    # h = 0 is fixed without input: χ = f² + σ_w² i² o² in an LSTM, z² + σ_w² (1 − z)² r² in a GRU.
    bias, sigma_w = np.array([-1.0, 0.0, 2.0]), 1.5
    kept = sigmoid(bias)
    lstm, gru = theory.lstm(sigma_w, 0.0, 0.0, bias), theory.gru(sigma_w, 0.0, 0.0, bias)
    np.testing.assert_array_equal([lstm.q, lstm.length, lstm.cell, gru.q, gru.length], 0)
    np.testing.assert_allclose(lstm.chi, kept**2 + sigma_w**2 / 16, rtol=1e-9)
    np.testing.assert_allclose(gru.chi, kept**2 + sigma_w**2 * (1 - kept) ** 2 / 4, rtol=1e-12)
    np.testing.assert_allclose(theory.recurrent_edge("lstm", 0.0, 0.0, bias) ** 2, 16 * (1 - kept**2), rtol=1e-7)


def test_without_recurrent_weights_the_gate_alone_counts() -> None:
    # law A10 where the gates are constant, and E u² where they are not: E sigmoid² of unit variance is 0.2933790
    for family in CELLS:
        point = getattr(theory, family)(0.0, [0.0, 1.0], 0.0, [1.0, 0.0])
        np.testing.assert_allclose(point.chi, [sigmoid(1.0) ** 2, 0.29337904], rtol=1e-7)


def test_memory_of_a_large_forget_bias_is_gaussian() -> None:
    # Many small terms: E tanh² of a Gaussian of variance E c², up to the kurtosis of c, which is O(1 − f).
    law = memory(1e-4, 7.0)
    x = np.linspace(-9, 9, 4001)
    density = np.exp(-(x**2) / 2)
    gaussian = density @ np.tanh(math.sqrt(law.square) * x) ** 2 / np.sum(density)
    assert law.square == pytest.approx(0.25 * 1e-4 / (1 - sigmoid(7.0) ** 2), rel=1e-3)
    assert 4 * law.length == pytest.approx(gaussian, rel=1e-3)


@pytest.mark.parametrize(("q", "bias"), [(1e-4, 6.0), (1.0, 10.0), (100.0, -3.0), (1e4, 0.0)])
def test_memory_is_converged(q: float, bias: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def gain(law: Any) -> float:  # σ_w² of χ = 1 at this q, inverted: all of the linear map
        return float(law.past + law.read @ np.linalg.solve(np.eye(law.read.size) - law.keep, law.source))

    used = memory(q, bias)
    monkeypatch.setattr(cells, "_ORDER", 112)
    monkeypatch.setattr(cells, "_FREQUENCY", 24.0)
    finer = memory.__wrapped__(q, bias)
    np.testing.assert_allclose(used.length, finer.length, rtol=1e-8)
    np.testing.assert_allclose(gain(used), gain(finer), rtol=1e-6 if q > 100 else 1e-7)


def test_weak_inputs_keep_a_short_state_alive() -> None:
    # So short a state is linear in its drives: E h² = q/12 in an LSTM, and (s + σ_w² E h²/4)/3 in a GRU, whose
    # reset gate is half open for the state alone.
    drive, sigma_w = 1e-24, 2.0
    lstm, gru = (getattr(theory, family)(sigma_w, math.sqrt(drive)) for family in ("lstm", "gru"))
    np.testing.assert_allclose(lstm.length, drive / (12 - sigma_w**2), rtol=1e-9)
    np.testing.assert_allclose(gru.length, drive / (3 - sigma_w**2 / 4), rtol=1e-9)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("family", sorted(CELLS))
def test_edge_is_where_chi_passes_one(family: str) -> None:
    sigma_v, bias = np.array([0.4, 1.0]), np.array([[-1.0], [3.0]])
    edge = theory.recurrent_edge(family, sigma_v, 0.1, bias, input_variance=0.8)
    assert edge.shape == (2, 2)
    near = np.array([0.999, 1, 1.001])[:, None, None] * edge
    below, at, above = getattr(theory, family)(near, sigma_v, 0.1, bias, input_variance=0.8).chi
    assert np.all(below < 1)
    assert np.all(above > 1)
    jumps = np.array([[False, False], [family == "gru", False]])  # from χ = 0.95 to 1.16: see the next test
    np.testing.assert_allclose(at[~jumps], 1, rtol=1e-7)
    assert np.all(above[jumps] - below[jumps] > 0.1)


def test_where_several_lengths_are_stable_the_largest_counts() -> None:
    # From any large length the map falls to it; from none it may stop at a short one.
    cell, sigma_w, (drive, variance, bias) = CELLS["minimal_rnn"], 6.0, (np.array([x]) for x in (1e-4, 1.0, 5.0))
    point = theory.minimal_rnn(sigma_w, 0.0, 1e-2, bias)
    large, small = np.array([sigma_w**2]), np.zeros(1)
    for _ in range(300):
        large, small = (sigma_w**2 * cell.length(q, drive, variance, bias) + drive for q in (large, small))
    np.testing.assert_allclose(point.q, large, rtol=1e-10)
    assert small < 0.05 * large


def test_edge_where_the_state_jumps() -> None:
    # Without input a GRU of σ_w² slightly below 12 keeps a state that it could not reach from 0, and χ > 1 there.
    edge = theory.recurrent_edge("gru", 0.0)
    assert 0.99 * math.sqrt(12) < edge < 0.999 * math.sqrt(12)
    short, long = (theory.gru(factor * edge, 0.0) for factor in (1 - 1e-6, 1 + 1e-6))
    assert (short.q, short.chi) == (0, pytest.approx(edge**2 / 16 + 0.25, rel=1e-5))
    assert long.q > 0.01
    assert long.chi > 1
    edge = theory.recurrent_edge("minimal_rnn", 0.0, 1e-2, 5.0)
    short, long = (theory.minimal_rnn(factor * edge, 0.0, 1e-2, 5.0) for factor in (1 - 1e-6, 1 + 1e-6))
    assert short.chi < 0.99
    assert long.chi > 1.05


def test_arrays_of_networks_equal_one_by_one() -> None:
    sigma_w, bias = np.array([0.5, 4.0])[:, None], np.array([0.0, 1.0, 2.0])
    for family in CELLS:
        grid = getattr(theory, family)(sigma_w, np.float32(0.7), 0.1, bias)
        single = getattr(theory, family)(4.0, float(np.float32(0.7)), 0.1, 2.0)
        assert {(field.dtype, field.shape) for field in grid} == {(np.dtype("float64"), (2, 3))}
        np.testing.assert_allclose([field[1, 2] for field in grid], [field[()] for field in single], rtol=1e-12)


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("vanilla_rnn", {"activation": "tahn"}, ValueError, "tahn"),
    ("minimal_rnn", {"sigma_w": -1.0}, ValueError, r"sigma_w: got -1\.0"),
    ("minimal_rnn", {"input_variance": -1.0}, ValueError, "input_variance"),
    ("minimal_rnn", {"update_bias": np.inf}, ValueError, "update_bias: got inf"),
    ("gru", {"update_bias": "open"}, TypeError, "update_bias: got 'open'"),
    ("gru", {"sigma_v": [1.0, 2.0], "sigma_b": [1.0, 2.0, 3.0]}, ValueError, "broadcast"),
    ("lstm", {"forget_bias": None}, TypeError, "forget_bias"),
    ("lstm", {"sigma_v": np.nan}, ValueError, "sigma_v: got nan"),
    ("recurrent_edge", {"family": "elman"}, ValueError, "family: got 'elman'; pass one of: gru, lstm, minimal_rnn"),
    ("recurrent_edge", {"family": "gru", "gate_bias": np.nan}, ValueError, "gate_bias: got nan"),
    ("recurrent_edge", {"family": "gru", "sigma_b": True}, TypeError, "sigma_b"),
]


@pytest.mark.parametrize(("function", "arguments", "error", "words"), WRONG)
def test_bad_input_is_named(function: str, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    call = {"sigma_w": 1.0, "sigma_v": 1.0} | ({"activation": "tanh"} if function == "vanilla_rnn" else {}) | arguments
    if function == "recurrent_edge":
        del call["sigma_w"]
    with own_checks(), pytest.raises(error, match=words):
        getattr(theory, function)(**call)


def test_an_edge_needs_something_to_start_from() -> None:
    assert np.isnan(theory.recurrent_edge("minimal_rnn", 1.0, input_variance=0.0))  # no input, no state
