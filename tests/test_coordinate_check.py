"""Fitted powers, the derived ones against gradient steps written out in numpy, and the rates of the script's groups."""

from typing import Any

import numpy as np
import optax
import pytest
import xarray
from script_modules import load

import gradsim as gs
from gradsim import cli
from gradsim.analysis.powers import fitted_power
from gradsim.theory.parametrization import PARAMETRIZATIONS, residual_sizes, width_powers

check = load("coordinate_check")


def test_powers_and_errors_of_known_laws() -> None:
    x = np.array([8, 32, 128, 512])
    slopes = np.array([0.4, 0.5, 0.9])
    logs = xarray.DataArray(slopes[:, None] * np.log(x) + 3, dims=("seed", "width"), coords={"width": x})
    found = fitted_power(logs, "width")
    assert float(found["power"]) == pytest.approx(0.6)
    assert float(found["error"]) == pytest.approx(np.std(slopes, ddof=1) / np.sqrt(3))
    gap = logs.copy()
    gap[2, 1] = np.nan  # of a network that was not trained to the end
    assert float(fitted_power(gap, "width")["power"]) == pytest.approx(0.45)


@pytest.mark.parametrize(("values", "message"), [(np.zeros((2, 1)), "width: got 1"), (np.zeros((1, 3)), "seed: got 1")])
def test_what_has_no_power_is_refused(values: np.ndarray, message: str) -> None:
    logs = xarray.DataArray(values, dims=("seed", "width"), coords={"width": np.arange(1, 1 + values.shape[1])})
    with pytest.raises(ValueError, match=message):
        fitted_power(logs, "width")


def step(parametrization: str, n: int, layers: int, seed: int) -> list[float]:
    """ln of the sizes of `width_powers`, by one step of gradient descent on two samples of a ReLU network in numpy."""
    generator = np.random.default_rng(seed)
    mean_field, small = parametrization == "mean-field", parametrization != "standard"
    v = generator.standard_normal((5, n))
    ws = [generator.standard_normal((n, n)) * np.sqrt(2 / n) / (n**0.5 if mean_field else 1) for _ in range(layers)]
    u = generator.standard_normal((n, 3)) / (n if small else n**0.5)
    x, chi = np.array([[0.5, 0.5, 0.5, 0.5, 0], [0.6, 0, 0, 0, 0.8]]), np.array([[0.6, -0.4, -0.2], [-0.3, 0.7, -0.4]])

    def forward(v: Any, ws: Any, u: Any) -> tuple[list[np.ndarray], np.ndarray]:
        states = [x @ v]
        for w in ws:
            states.append(np.maximum(states[-1] @ w, 0))
        return states, states[-1] @ u

    states, output = forward(v, ws, u)
    rates = np.array([n, 1, 1 / n] if small else [1, 1, 1]) * 1e-6
    delta: np.ndarray = chi @ u.T
    updates: list[np.ndarray] = []
    for w, before, after in zip(ws[::-1], states[-2::-1], states[:0:-1], strict=True):
        delta = delta * (after > 0)
        updates.insert(0, -rates[1] * before.T @ delta)
        delta = delta @ w.T
    later, moved = forward(
        v - rates[0] * x.T @ delta,
        [w + update for w, update in zip(ws, updates, strict=True)],
        u - rates[2] * states[-1].T @ chi,
    )
    sizes = (states[-1], later[-1] - states[-1], output, moved - output)
    relative = np.linalg.norm(updates[-1]) / np.linalg.norm(ws[-1])
    return [*(0.5 * float(np.log(np.mean(one**2))) for one in sizes), float(np.log(relative))]


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("layers", [1, 3])
def test_derived_powers_of_width_are_those_of_a_step(parametrization: str, layers: int) -> None:
    widths = np.array([64, 128, 256, 512])
    logs = [[step(parametrization, n, layers, seed) for n in widths.tolist()] for seed in range(6)]
    array = xarray.DataArray(logs, dims=("seed", "width", "quantity"), coords={"width": widths})
    found, derived = fitted_power(array, "width"), list(width_powers(parametrization, layers).values())
    assert np.all(np.abs(found["power"] - derived) < 3.5 * found["error"])
    assert np.all(found["error"] < 0.15)


def test_the_derived_change_of_a_residual_network_is_that_of_random_matrices() -> None:
    """K of the docstring with ReLU's masks, against the recursion of its traces."""
    n, generator = 600, np.random.default_rng(0)
    for blocks, s in ((6, 1.0), (6, 6**-0.5), (12, 1 / 12)):
        total, q = np.zeros((n, n)), 1.0
        for _ in range(blocks):
            mask = generator.permutation(n) < n // 2
            jacobian = np.eye(n) + s / np.sqrt(q) * np.sqrt(2 / n) * mask[:, None] * generator.standard_normal((n, n))
            total, q = jacobian @ total @ jacobian.T + s**2 * np.eye(n), q + s**2
        found = residual_sizes([blocks], [s])
        assert float(found["activation_change"][0]) == pytest.approx(
            np.sqrt(np.mean(np.sum(total**2, axis=1))), rel=0.03
        )
        assert float(found["output_change"][0]) == pytest.approx(q)


def test_a_group_is_trained_with_its_own_rate() -> None:
    """The second row of a table of rates against an optimizer that is told them."""
    rates = {
        "read_in": optax.sgd(0.6),
        "layers": optax.sgd(0.1),
        "read_out": optax.sgd(0.02),
        "zero": optax.set_to_zero(),
    }
    labels = {group: {"w": group, "b": "zero"} for group in ("read_in", "layers", "read_out")}
    inputs, targets = check.data()
    options: Any = {
        "data": (inputs[:40], targets[:40]), "depth": 2, "seeds": 2, "steps": 3, "batch": 4, "record": [3],
        "by_layer": False, "dtype": "float64", "sigma_b": 0.0,
    }  # fmt: skip
    network = gs.feedforward(6, "relu")
    told = gs.train(network, optimizer=optax.multi_transform(rates, labels), **options)
    table = check.GroupRates(((1, 1, 1), (6, 1, 0.2)), 0.1)
    numbered = gs.train(network, optimizer=table, learning_rate=[1, 2], **options)
    np.testing.assert_allclose(numbered["held_out_loss"].isel(learning_rate=1), told["held_out_loss"], rtol=1e-12)
    assert not np.allclose(numbered["held_out_loss"].isel(learning_rate=0), told["held_out_loss"], rtol=1e-6)


def test_every_width_has_a_read_in() -> None:
    inputs, targets = check.data()
    assert inputs.shape == (1797, 61)
    assert targets.shape == (1797,)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1)


@pytest.mark.further
def test_sizes_over_depth_lie_beside_what_is_derived() -> None:
    """Two small depths, from the run to the table: a branch of scale 1 grows, one of 1/L does not."""
    few = ["--widths", "--depths", "2", "8", "--depth-width", "6", "--batch", "2", "--seeds", "3"]
    datasets = check.measure(cli.parse(check.PRESETS, few))
    sizes = check.joined(datasets)
    fits = check.powers(sizes)["depth"].sel(quantity="activation")
    assert fits["scaling"].values.tolist() == ["1", "1/√L", "1/L"]
    np.testing.assert_allclose(fits["derived"], np.log([3, 1, 0.75]) / np.log(16), atol=1e-9)
    assert float(fits["power"].sel(scaling="1")) > float(fits["power"].sel(scaling="1/L")) + 0.1
    assert "powers of depth" in check.report(datasets)
