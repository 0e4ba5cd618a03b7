"""Closed forms of what recurrences remember: the law book's targets, sums done by hand, sweeps, and refusals."""

import math
from typing import Any

import numpy as np
import pytest
from unrolled import own_checks

import gradsim as gs
from gradsim import Network, theory

CONSTANT = {"sigma_v": 0.0, "sigma_b": 0.0}
FREE = {"sigma_delta": 0.0}

TARGETS: list[tuple[Network, dict[str, float], int, float]] = [
    (gs.linear_recurrence(4, ring=(0.9, 0.999)), {}, 100, 0.0430275965931),
    (gs.s4d(4), {}, 10, 0.82918665063912),
    (gs.s4d(4), {}, 100, 0.39584200536105),
    (gs.mamba(4, 16), FREE, 10, 0.34214542062784),
    (gs.mamba(4, 16), FREE, 100, 0.047656472864845),
    (gs.mamba2(4), FREE, 10, 0.333861999959),
    (gs.mamba2(4), FREE, 100, 0.040958603295),
    (gs.min_gru(4), {}, 1, 0.293379035858),
    (gs.min_lstm(4), {}, 1, 0.276117693780),
    (gs.mlstm(4, 4), {}, 100, math.exp(2 * -0.747437088932)),
    (gs.mlstm(4, 4), {}, 1000, math.exp(2 * -3.168728469820)),
    (
        gs.slstm(1, of="cell"),
        {**CONSTANT, "forget_bias": math.log(9) - 5, "input_bias": math.log(0.5)},
        30,
        0.0087758462861763**2,
    ),
    (gs.retnet(8, 8), {}, 100, math.exp(2 * -0.338116915039)),
    (gs.unitary_rnn(4), {}, 1000, 1.0),
    (gs.indrnn(4, "identity"), {}, 10, 1 / 21),
    (gs.antisymmetric_rnn(8, "identity", tied=False), {"step_size": 0.1, "damping": 0.05}, 1, 1.007525),
    (gs.delta_net(16), {"beta": 1.0, "sigma_beta": 0.0}, 1, 15 / 16),
]


@pytest.mark.parametrize(
    ("network", "gains", "steps", "target"), TARGETS, ids=[f"{one[0].family}-{one[2]}" for one in TARGETS]
)
def test_targets_of_the_law_book(network: Network, gains: dict[str, float], steps: int, target: float) -> None:
    assert math.exp(2 * theory.log_memory(network, steps, **gains)) == pytest.approx(target, rel=2e-11)


@pytest.mark.parametrize("ring", [(0.0, 1.0), (0.5, 0.5), (0.0, 0.0), (0.3, 0.9)])
def test_a_ring_is_the_mean_over_its_area(ring: tuple[float, float]) -> None:
    inner, outer = ring
    squares = inner**2 + (outer**2 - inner**2) * (np.arange(10**6) + 0.5) / 10**6
    for steps in (1, 7):
        with np.errstate(divide="ignore"):
            mean = np.log(np.mean((1.1**2 * squares) ** steps))
        found = theory.log_memory(gs.linear_recurrence(3, ring=ring), steps, radius=1.1)
        np.testing.assert_allclose(2 * found, mean, rtol=1e-9)


def test_it_holds_where_floats_end() -> None:
    steps = np.array([1e2, 1e4, 1e6])
    fallen = theory.log_memory(gs.min_gru(4), steps)
    np.testing.assert_allclose(fallen / steps, 0.5 * math.log(0.293379035858), rtol=1e-11)
    power = theory.log_memory(gs.linear_recurrence(4), steps)
    np.testing.assert_allclose(power, -0.5 * np.log(steps + 1), rtol=1e-12)
    assert np.all(np.isfinite(theory.log_memory(gs.mamba2(4), steps, **FREE)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("network", "gains"),
    [
        (gs.rwkv6(6, 2, layer=0.5), {"decay_bias": 0.5}),
        (gs.retnet(6, 2), {"time_scale": 3.0}),
        (gs.mlstm(6, 2), {"forget_bias": -4.0}),
        (gs.unitary_rnn(3), {"sigma_w": 0.97}),
        (gs.slstm(4, of="cell"), {**CONSTANT, "input_bias": -2.0}),
        (gs.slstm(3, of="cell", forget="exp"), {**CONSTANT, "forget_bias": 1.0, "initial_normalizer": 5.0}),
    ],
    ids=lambda value: getattr(value, "family", ""),
)
def test_it_equals_a_sweep_where_nothing_is_random(network: Network, gains: dict[str, Any]) -> None:
    measured = gs.sweep(network, depth=20, seeds=1, dtype="float64", **gains).log_gain.isel(seed=0)
    np.testing.assert_allclose(theory.log_memory(network, measured.time.values, **gains), measured, atol=1e-12)


def test_a_bias_of_the_steps_is_that_of_the_sweep() -> None:
    """Means over networks within 4.5 of their standard errors."""
    network = gs.mamba(4, 2, initial="gaussian")
    gains: dict[str, Any] = {"sigma_delta": 0.0, "step_bias": 2.0}
    measured = np.exp(2 * gs.sweep(network, depth=20, seeds=2000, **gains).log_gain.isel(time=-1).values)
    error = measured.std(ddof=1) / math.sqrt(measured.size)
    assert abs(measured.mean() - math.exp(2 * theory.log_memory(network, 20, **gains))) < 4.5 * error


REFUSED: list[tuple[str, Any]] = [
    ("network: got gru, of which no closed form is known", lambda: theory.log_memory(gs.gru(4), 3)),
    ("network: got 'retnet' of type str", lambda: theory.log_memory("retnet", 3)),  # type: ignore[arg-type]
    ("network: got the activation 'relu'", lambda: theory.log_memory(gs.indrnn(4), 3)),
    ("network: got tied weights", lambda: theory.log_memory(gs.antisymmetric_rnn(4, "identity"), 3)),
    ("sigma_delta: got 1; pass 0: mamba has", lambda: theory.log_memory(gs.mamba(4), 3)),
    ("sigma_b: got 0.5; pass 0: min_gru", lambda: theory.log_memory(gs.min_gru(4), 3, sigma_b=0.5)),
    ("gains: unknown|gains: got", lambda: theory.log_memory(gs.retnet(8), 3, sigma_w=1.0)),
    ("time_scale: got nan", lambda: theory.log_memory(gs.retnet(8), 3, time_scale=math.nan)),
    ("steps: got 0", lambda: theory.log_memory(gs.retnet(8), 0)),
    ("steps: got ", lambda: theory.log_memory(gs.retnet(8), [])),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[message for message, _ in REFUSED])
def test_what_has_no_closed_form_is_refused(message: str, call: Any) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=f"^({message})"):
        call()
