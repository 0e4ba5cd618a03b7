"""The recurrences of today against the law book, I2 to I9: what is left of a gradient after so many steps."""

import math
from typing import Any

import numpy as np
import pytest
import xarray
from scipy.integrate import quad
from scipy.special import digamma, exp1, polygamma

import gradsim as gs

INITIAL: dict[str, Any] = {"initial": "gaussian"}


def near(sample: Any, expected: float) -> None:
    """The mean of independent numbers within 4.5 of its standard errors."""
    values = np.asarray(sample, np.float64)
    error = values.std(ddof=1) / math.sqrt(values.size)
    assert abs(values.mean() - expected) < 4.5 * error, (values.mean(), expected, error)
    assert error < 0.2 * abs(expected)


def square(dataset: xarray.Dataset, steps: int) -> np.ndarray:
    """‖J u‖² after so many steps, of each network."""
    return np.exp(2 * dataset.log_jvp.sel(time=steps).values)


def test_law_I2_diagonal_state_spaces_forget_as_exponential_integrals() -> None:
    low, high = 0.001, 0.1
    ratio = math.log(high / low)

    def kept(rates: Any, steps: int) -> float:
        rates = np.asarray(rates, np.float64)
        return float(np.mean(exp1(2 * steps * rates * low) - exp1(2 * steps * rates * high)) / ratio)

    every = {
        "s4d": (gs.s4d(4, 2, **INITIAL), {10: 0.82918665063912, 100: 0.39584200536105}),
        "mamba": (gs.mamba(4, 16, **INITIAL), {10: 0.34214542062784, 100: 0.047656472864845}),
        "mamba2": (gs.mamba2(16, 8, **INITIAL), {10: 0.333861999959, 100: 0.040958603295}),
    }
    for name, (network, targets) in every.items():
        free: dict[str, Any] = {} if name == "s4d" else {"sigma_delta": 0.0}
        measured = gs.sweep(network, depth=100, seeds=3000, statistics="log_jvp", **free)
        for steps, target in targets.items():
            rates = {"s4d": 0.5, "mamba": np.arange(1, 17), "mamba2": 1 + 15 * (np.arange(10**5) + 0.5) / 10**5}[name]
            assert kept(rates, steps) == pytest.approx(target, rel=1e-8)
            near(square(measured, steps), target)


def gaussian_mean(function: Any) -> float:
    return float(quad(lambda z: function(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -12, 12)[0])


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_law_I3_minimal_gates_forget_e_fold_in_little_more_than_a_step() -> None:
    """Inputs of norm √features and weights drawn anew make every gate's argument an independent normal number."""
    steps, seeds = 8, 2500
    cases = ((gs.min_gru(1, tied=False), -0.806059183347, 0.293379035858),
             (gs.min_lstm(1, tied=False), -0.756300131142, 0.276117693780))  # fmt: skip
    assert gaussian_mean(lambda z: math.log(sigmoid(-z))) == pytest.approx(cases[0][1], abs=1e-11)
    assert gaussian_mean(lambda z: sigmoid(-z) ** 2) == pytest.approx(cases[0][2], abs=1e-11)
    for network, mean_log, mean_square in cases:
        measured = gs.sweep(network, depth=steps, seeds=seeds, inputs=np.ones((1, steps, 1))).log_gain
        near(measured.sel(time=steps) / steps, mean_log)
        near(np.exp(2 * measured.sel(time=1)), mean_square)


def test_law_I4_and_I5_decays_of_a_head_are_exact() -> None:
    options: dict[str, Any] = {"seeds": 2, "dtype": "float64"}
    mlstm = gs.sweep(gs.mlstm(8, 4), depth=1000, **options).log_gain
    np.testing.assert_allclose(mlstm.sel(time=100), -0.747437088932, rtol=1e-11)
    np.testing.assert_allclose(mlstm.sel(time=1000), -3.168728469820, rtol=1e-11)
    retnet = gs.sweep(gs.retnet(8, 8), depth=100, **options).log_gain
    np.testing.assert_allclose(retnet.sel(time=100), -0.338116915039, rtol=1e-11)


def test_law_I5_the_delta_rule_projects_and_reflects() -> None:
    n, steps, seeds = 16, 40, 400
    measured = gs.sweep(
        gs.delta_net(n, tied=False), depth=steps, seeds=seeds, statistics="log_jvp", beta=[0.5, 1.0, 2.0],
        sigma_beta=0.0,
    )  # fmt: skip
    mean = 0.5 * (digamma((n - 1) / 2) - digamma(n / 2))
    variance = 0.25 * (polygamma(1, (n - 1) / 2) - polygamma(1, n / 2))
    assert mean == pytest.approx(-0.03444199685476, rel=1e-12)
    assert variance == pytest.approx(0.002369720501, rel=1e-9)
    logs = measured.log_jvp.sel(beta=1.0).values
    each = np.diff(logs, axis=1, prepend=0.0)  # independent from step to step
    near(each, mean)
    near((each - mean) ** 2, variance)
    near(square(measured.sel(beta=0.5), steps), (1 - 0.5 * 1.5 / n) ** steps)
    np.testing.assert_allclose(measured.log_jvp.sel(beta=2.0), 0, atol=2e-5)


def test_law_I6_a_unitary_network_keeps_every_norm() -> None:
    measured = gs.sweep(
        gs.unitary_rnn(4, features=2), depth=1000, seeds=2, statistics=("log_gain", "log_spectral", "log_jvp"),
        dtype="float64", sigma_v=[0.0, 1.0],
    )  # fmt: skip
    for name in ("log_gain", "log_spectral", "log_jvp"):
        assert float(np.abs(measured[name]).max()) < 1e-12, name
    biased = gs.sweep(gs.unitary_rnn(4, features=2), depth=100, seeds=2, dtype="float64", sigma_b=1.0).log_gain
    assert float(np.abs(biased).min(skipna=True)) > 1e-3  # modReLU bends where it has a bias


def test_law_I7_independent_units_forget_as_a_power_of_time() -> None:
    measured = gs.sweep(gs.indrnn(8, "identity"), depth=10, seeds=2000, statistics="log_jvp", radius=[1.0, 0.9])
    near(square(measured.sel(radius=1.0), 10), 1 / 21)
    near(square(measured.sel(radius=0.9), 10), 0.9**20 / 21)


def test_law_I8_an_antisymmetric_step_is_not_stable() -> None:
    n, size, damping, steps = 8, 0.1, 0.05, 40
    network = gs.antisymmetric_rnn(n, "identity", tied=False)
    measured = gs.sweep(network, depth=steps, seeds=3000, statistics="log_jvp", step_size=size, damping=damping)
    growth = (1 - size * damping) ** 2 + 2 * size**2 * (n - 1) / n
    assert growth == pytest.approx(1.007525)
    near(square(measured, steps), growth**steps)


def test_law_I8_tied_weights_of_an_antisymmetric_network() -> None:
    """In the limit of width: two of them are extrapolated."""
    size, steps, found = 0.2, 10, []
    limit = sum(
        math.comb(steps, k) * (2 * size**2) ** k * math.comb(2 * k, k) / (k + 1) for k in range(steps + 1)
    )  # fmt: skip
    for n in (32, 64):
        network = gs.antisymmetric_rnn(n, "identity")
        measured = gs.sweep(network, depth=steps, seeds=200, step_size=size, damping=0.0)
        found.append(np.exp(2 * measured.log_gain.sel(time=steps).values))
    mean = 2 * found[1].mean() - found[0].mean()
    error = math.sqrt((4 * found[1].var(ddof=1) + found[0].var(ddof=1)) / 200)
    assert abs(mean - limit) < 4.5 * error, (mean, limit, error)
    assert error < 0.02 * limit
