"""Exact gradients of a model beyond the range of floats: against float64 rescaled by hand, and against jax.grad."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inspected import Sigmoids, drawn
from jax import Array, lax

import gradsim as gs
from gradsim.inspection import tap

LN2 = float(np.log(2.0))


def log_norm(x: Any) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(np.linalg.norm(np.ravel(np.asarray(x, np.float64)))))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_200_sigmoid_layers_in_float32_equal_float64_rescaled_by_hand() -> None:
    model = Sigmoids(200, 16)
    x = drawn(0, 4, 16)
    found = gs.inspect(model, x, loss=jnp.sum)
    weights = [np.asarray(layer.kernel[...], np.float64) for layer in model.layers]
    states = [np.asarray(x, np.float64)]
    for w in weights:
        states.append(sigmoid(states[-1] @ w))
    gradient, scale = np.ones((4, 16)), 0.0
    expected, of_weights = [], []
    for w, before, after in zip(weights[::-1], states[-2::-1], states[:0:-1], strict=True):
        gradient = gradient * after * (1 - after)
        scale += (size := log_norm(gradient))
        gradient = gradient / np.exp(size)
        expected.append(scale)
        of_weights.append(scale + log_norm(before.T @ gradient))
        gradient = gradient @ w.T
    layers = found.log_gradient.sel(layer=[f"layers.{i}" for i in range(200)]).values
    np.testing.assert_allclose(layers, expected[::-1], rtol=1e-6, atol=1e-6)
    kernels = found.log_parameter_gradient.sel(parameter=[f"layers.{i}.kernel" for i in range(200)]).values
    np.testing.assert_allclose(kernels, of_weights[::-1], rtol=1e-6, atol=1e-6)
    assert kernels[0] < -250
    assert found.log_float_gradient.values[0] == -np.inf
    assert found.attrs["entries_lost"] == 0


def lstm_gradients(cell: nnx.LSTMCell, x: np.ndarray) -> np.ndarray:
    """ln of the norm of the gradient of Σ h_T with respect to what the cell returns, (c_t, h_t), for each t."""
    w = {name: np.asarray(getattr(cell, name).kernel[...], np.float64) for name in ("ii", "if_", "ig", "io")}
    u = {name: np.asarray(getattr(cell, name).kernel[...], np.float64) for name in ("hi", "hf", "hg", "ho")}
    b = {name: np.asarray(getattr(cell, name).bias[...], np.float64) for name in u}
    h = c = np.zeros((x.shape[0], u["hi"].shape[0]))
    steps = []
    for t in range(x.shape[1]):
        i, f, o = (
            sigmoid(x[:, t] @ w[one] + h @ u[two] + b[two]) for one, two in (("ii", "hi"), ("if_", "hf"), ("io", "ho"))
        )
        g = np.tanh(x[:, t] @ w["ig"] + h @ u["hg"] + b["hg"])
        old, c = c, f * c + i * g
        h = o * np.tanh(c)
        steps.append((i, f, o, g, old, c))
    dc, dh, scale, found = np.zeros_like(h), np.ones_like(h), 0.0, []
    for i, f, o, g, old, c in reversed(steps):
        size = np.hypot(np.linalg.norm(dc), np.linalg.norm(dh))
        scale += np.log(size)
        dc, dh = dc / size, dh / size
        found.append(scale)
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        do = dh * np.tanh(c) * o * (1 - o)
        df, di, dg = dc * old * f * (1 - f), dc * g * i * (1 - i), dc * i * (1 - g**2)
        dc, dh = dc * f, di @ u["hi"].T + df @ u["hf"].T + dg @ u["hg"].T + do @ u["ho"].T
    return np.array(found[::-1])


@pytest.mark.further
def test_lstm_over_1000_steps_in_float32_equals_float64_rescaled_by_hand() -> None:
    cell = nnx.LSTMCell(3, 6, rngs=nnx.Rngs(0))
    x = drawn(0, 2, 1000, 3)
    found = gs.inspect(nnx.RNN(cell), x, loss=lambda y: y[:, -1].sum())
    steps = found.log_gradient_by_step.sel(layer="cell").values
    expected = lstm_gradients(cell, np.asarray(x, np.float64))
    assert expected[0] < -300
    np.testing.assert_allclose(steps, expected, rtol=1e-6, atol=2e-6)
    assert found.attrs["entries_lost"] == 0
    assert np.isfinite(found.log_gradient_by_step.sel(layer="cell.ii").values).all()


def chain(form: str) -> Callable[[Any, Array], Array]:
    """Layers of tanh, written in one of the ways there are."""

    def layer(h: Array, w: Array) -> Array:
        return jnp.float32(1e-12) * jnp.tanh(h @ w) + jnp.float32(0.5)

    def unrolled(w: Array, x: Array) -> Array:
        for one in w:
            x = layer(x, one)
        return tap(x, "out")

    def scanned(w: Array, x: Array) -> Array:
        return tap(lax.scan(lambda h, one: (layer(h, one), None), x, w)[0], "out")

    def remat(w: Array, x: Array) -> Array:
        for one in w:
            x = jax.checkpoint(layer)(x, one)
        return tap(x, "out")

    def looped(w: Array, x: Array) -> Array:
        return tap(lax.fori_loop(0, len(w), lambda i, h: layer(h, w[i]), x), "out")

    def jitted(w: Array, x: Array) -> Array:
        return tap(jax.jit(unrolled)(w, x), "again")

    return {"unrolled": unrolled, "scan": scanned, "remat": remat, "fori_loop": looped, "jit": jitted}[form]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["unrolled", "scan", "remat", "fori_loop", "jit"])
def test_forms_of_one_program_agree(form: str) -> None:
    w, x = np.float32(0.3) * drawn(0, 4, 4, 4), drawn(1, 2, 4)
    found = gs.inspect(chain(form), w, x, loss=jnp.sum)
    state, gradient, scale, sizes = [np.asarray(x, np.float64)], np.ones((2, 4)), 0.0, []
    weights = np.asarray(w, np.float64)
    for one in weights:
        state.append(1e-12 * np.tanh(state[-1] @ one) + 0.5)
    for one, before in zip(weights[::-1], state[-2::-1], strict=True):
        gradient = gradient * 1e-12 * (1 - np.tanh(before @ one) ** 2)
        sizes.append(scale + log_norm(before.T @ gradient))
        gradient = gradient @ one.T
        scale += (size := log_norm(gradient))
        gradient = gradient / np.exp(size)
    assert scale < -100
    top = max(sizes)
    expected = top + 0.5 * np.log(np.sum(np.exp(2 * (np.array(sizes) - top))))
    np.testing.assert_allclose(found.log_parameter_gradient.values, [expected], rtol=2e-6)
    np.testing.assert_allclose(found.log_gradient.sel(layer="input").values, scale, rtol=2e-6)


@pytest.mark.parametrize("power", [200, -200])
def test_a_loss_times_a_power_of_two_shifts_every_logarithm(power: int) -> None:
    w, x = list(np.float32(0.1) * drawn(0, 3, 4, 4)), drawn(1, 2, 4)  # apart, they have one program
    half = np.float32(2.0 ** (power // 2))
    once = gs.inspect(chain("unrolled"), w, x, loss=jnp.sum)
    shifted = gs.inspect(chain("unrolled"), w, x, loss=lambda y: jnp.sum(y) * half * half)
    for name in ("log_gradient", "log_parameter_gradient"):
        np.testing.assert_allclose(shifted[name] - once[name], power * LN2, rtol=0, atol=1e-11)


def test_unequal_branches_add() -> None:
    def model(p: Any, x: Array) -> Array:
        small, large = x, x
        for _ in range(3):
            small = small * p["little"]
        large = large * p["little"]
        return tap(jnp.sum(small) + jnp.sum(jnp.array([1.0, 3.0]) * large), "sum")

    found = gs.inspect(model, {"little": jnp.float32(1e-20)}, jnp.ones(2))
    expected = np.log(1e-20 * np.sqrt(10.0))
    np.testing.assert_allclose(found.log_gradient.sel(layer="input").values, expected, rtol=1e-7)


def test_what_is_lost_beside_a_larger_number_is_said() -> None:
    def model(p: Any, x: Array) -> Array:
        tiny = x
        for _ in range(4):
            tiny = tiny * p["little"]
        mask = jnp.array([1.0, 0.0])
        return tap(jnp.sum(tiny) + jnp.sum(mask * x), "sum")

    with pytest.warns(RuntimeWarning, match="too small beside others"):
        found = gs.inspect(model, {"little": jnp.float32(1e-20)}, jnp.ones(2))
    assert found.attrs["entries_lost"] == 1
    np.testing.assert_allclose(found.log_gradient.sel(layer="input").values, 0, atol=1e-7)


def test_a_custom_backward_that_clips_is_said_and_followed() -> None:
    @jax.custom_vjp
    def clipped(x: Array) -> Array:
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.5, 0.5),))

    def model(p: Any, x: Array) -> Array:
        return tap(jnp.sum(tap(clipped(x * p), "in") * jnp.float32(3.0)), "sum")

    with pytest.warns(RuntimeWarning, match="not linear"):
        found = gs.inspect(model, jnp.float32(1e-30), jnp.ones(2))
    expected = np.log(1e-30 * 0.5 * np.sqrt(2))
    np.testing.assert_allclose(found.log_gradient.sel(layer="input").values, expected, rtol=1e-6)


def test_values_that_are_not_finite_are_located() -> None:
    def model(p: Any, x: Array) -> Array:
        x = tap(x * p, "first")
        x = tap(jnp.log(x), "second")
        return tap(jnp.sum(x), "third")

    found = gs.inspect(model, jnp.float32(1.0), jnp.array([1.0, 0.0]))
    assert found.attrs["first_not_finite"] == "second"
    assert found.attrs["first_not_finite_gradient"] == "first"
    assert re.fullmatch(r"log \(test_inspection.py:\d+\)", found.attrs["makes_not_finite"])
    np.testing.assert_allclose(found.not_finite.sel(layer="second").values, 1 / 2)


def test_the_step_of_a_scan_that_makes_nan_is_located() -> None:
    def model(w: Array, x: Array) -> Array:
        def step(h: Array, w: Array) -> tuple[Array, None]:
            return tap(jnp.where(w > 0, jnp.sqrt(h * w), h), "h"), None  # 0 · ∞ backwards, where h is zero

        return tap(lax.scan(step, x, w)[0].sum(), "sum")

    found = gs.inspect(model, jnp.array([1.0, 0.0, 0.0]), jnp.array([4.0, 1.0]))
    assert found.attrs["first_not_finite"] == ""
    assert found.attrs["first_not_finite_gradient"] == "h"
    assert re.fullmatch(r"div, step 2 \(test_inspection.py:\d+\)", found.attrs["makes_not_finite"])
    assert re.fullmatch(r"mul in h, step 3 \(test_inspection.py:\d+\)", found.attrs["makes_not_finite_gradient"])


def test_the_share_that_saturates() -> None:
    def model(w: Array, x: Array) -> Array:
        h = tap(x @ w[0], "flat")
        h = tap(jax.nn.silu(10.0 * jnp.tanh(h)) @ w[1], "not flat")  # the gate of a SiLU saturates where it is steep
        h = jax.nn.gelu(h)
        step = lambda h, w: (jax.nn.sigmoid(tap(h @ w, "scanned")), None)  # noqa: E731
        return tap(lax.scan(step, h, w)[0], "end")

    w = 0.8 * np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)
    x = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    found = gs.inspect(model, jnp.asarray(w), x)["saturated"]
    flat = np.tanh(x @ w[0])
    h, shares = (10 * flat * sigmoid(10 * flat)) @ w[1], []
    h = h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))) / 2  # GELU
    for one in w:
        h = sigmoid(h @ one)
        shares.append(np.mean(4 * h * (1 - h) < 0.01))
    expected = [np.nan, np.mean(1 - flat**2 < 0.01), np.nan, np.mean(shares), np.nan]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert 0 < expected[1] < 1
    assert 0 < expected[3] < 1


def test_what_cancels_by_mathematics_is_said_to_be_rounding() -> None:
    def model(p: Any, x: Array) -> Array:
        h = tap(x @ p["w"] + p["shift"], "h")
        return tap((h - h.mean(0)) ** 3, "centred")

    p = {"w": drawn(0, 3, 3), "shift": jnp.zeros(3)}
    found = gs.inspect(model, p, drawn(1, 7, 3))
    shift, w = found["rounding"].sel(parameter=["shift", "w"]).values
    assert shift > 0.05
    assert 0 <= w < 1e-5


def test_branches_that_are_not_taken_are_nan_and_steps_that_are_count() -> None:
    def step(h: Array, w: Array) -> tuple[Array, None]:
        return lax.cond(w[0, 0] > 0, lambda: tap(h @ w, "taken"), lambda: tap(2 * h, "other")), None

    def model(w: Array, x: Array) -> Array:
        return tap(lax.scan(step, x, w)[0].sum(), "sum")

    w = jnp.stack([jnp.eye(2), -jnp.eye(2), jnp.eye(2)])
    found = gs.inspect(model, w, jnp.ones((1, 2)))
    steps = found.log_gradient_by_step
    np.testing.assert_array_equal(np.isnan(steps.sel(layer="taken")), [False, True, False])
    np.testing.assert_allclose(steps.sel(layer="taken").values[[0, 2]], np.log([2 * np.sqrt(2), np.sqrt(2)]), rtol=1e-6)
    np.testing.assert_allclose(found.log_gradient.sel(layer="taken").values, 0.5 * np.log(10), rtol=1e-6)
    np.testing.assert_allclose(found.log_gradient.sel(layer="other").values, 0.5 * np.log(2), rtol=1e-6)
