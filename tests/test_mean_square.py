"""What is left on the mean: exact where nothing is random, an error that is the spread of the answer, dead networks."""

import numpy as np
import pytest
import xarray

import gradsim as gs
from gradsim.analysis.memory import FEW, mean_square


def swept(logs: np.ndarray, dead: np.ndarray | None = None, **more: np.ndarray) -> xarray.Dataset:
    axes = ("seed", "time")
    variables = {"log_gain": (axes, logs), "dead": (axes, np.zeros(logs.shape, bool) if dead is None else dead)}
    variables |= {name: (("time",), values) for name, values in more.items()}  # type: ignore[misc]
    return xarray.Dataset(variables, {"time": np.arange(1, 1 + logs.shape[1])}, attrs={"dtype": "float64"})


def test_it_is_the_mean_of_the_squares_far_outside_the_floats() -> None:
    logs = np.random.default_rng(0).normal(size=(50, 3)) * 0.1
    plain, far = mean_square(swept(logs)), mean_square(swept(logs - 1e5))
    np.testing.assert_allclose(plain.log_root, 0.5 * np.log(np.mean(np.exp(2 * logs), axis=0)), rtol=1e-12)
    np.testing.assert_allclose(far.log_root, plain.log_root - 1e5, rtol=1e-12)
    np.testing.assert_allclose(far.error, plain.error, rtol=1e-9)
    assert not plain.carried_by_few.any()


def test_its_error_is_the_spread_of_the_answer() -> None:
    """Of 400 repetitions, whose spread is known within 3.5 %."""
    logs = np.random.default_rng(1).normal(size=(40, 400)) * 0.3
    found = mean_square(swept(logs))
    assert float(found.error.mean()) == pytest.approx(float(found.log_root.std()), rel=0.12)


def test_dead_networks_count_as_zero_and_few_carry_no_mean() -> None:
    logs = np.array([[0.0, 0.0, np.nan], [np.nan, 0.0, np.nan]])
    found = mean_square(swept(logs, np.isnan(logs), theory=np.zeros(3)))
    assert found.log_root[0] == pytest.approx(-0.5 * np.log(2))
    assert found.error[0] > FEW
    assert found.log_root[2] == -np.inf
    assert found.carried_by_few.values.tolist() == [True, False, True]
    assert np.isnan(found.residual.values).tolist() == [True, False, True]
    assert found.residual[1] == 0


def test_theory_beside_a_sweep() -> None:
    network = gs.retnet(4, 2)
    one = gs.sweep(network, depth=5, seeds=2)
    one = one.assign(theory=("time", gs.theory.log_memory(network, one.time.values)))
    assert float(abs(mean_square(one).residual).max()) < 3
