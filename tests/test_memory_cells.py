"""The recurrences of today, one step of each, against the equations of its paper written out with loops."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unrolled import own_checks

import gradsim as gs
from gradsim import Network

N, HEADS, SIZE, VALUES, FEATURES = 6, 2, 3, 2, 4
HEADED: dict[str, Any] = {"heads": HEADS, "values": VALUES, "features": FEATURES}


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def min_gru(w: Any, g: Any, h: Any, x: Any) -> Any:
    z = sigmoid(g["sigma_v"] * x @ w.v_z + g["sigma_b"] * w.b_z - g["update_bias"])
    return (1 - z) * h + z * (g["sigma_v"] * x @ w.v_h + g["sigma_b"] * w.b_h)


def min_lstm(w: Any, g: Any, h: Any, x: Any) -> Any:
    f = sigmoid(g["sigma_v"] * x @ w.v_f + g["sigma_b"] * w.b_f + g["forget_bias"])
    i = sigmoid(g["sigma_v"] * x @ w.v_i + g["sigma_b"] * w.b_i)
    return (f * h + i * (g["sigma_v"] * x @ w.v_h + g["sigma_b"] * w.b_h)) / (f + i)


def indrnn(w: Any, g: Any, h: Any, x: Any) -> Any:
    return np.maximum(g["sigma_v"] * x @ w.v + g["radius"] * w.u * h + g["sigma_b"] * w.b, 0)


def antisymmetric_rnn(w: Any, g: Any, h: Any, x: Any) -> Any:
    m = g["sigma_w"] * (w.w - w.w.T) - g["damping"] * np.eye(N)
    return h + g["step_size"] * np.tanh(h @ m + g["sigma_v"] * x @ w.v + g["sigma_b"] * w.b)


def cornn(w: Any, g: Any, state: Any, x: Any) -> Any:
    y, z = state
    a = g["sigma_w"] * y @ w.w + g["sigma_z"] * z @ w.w_z + g["sigma_v"] * x @ w.v + g["sigma_b"] * w.b
    z = z + g["step_size"] * (np.tanh(a) - g["stiffness"] * y - g["damping"] * z)
    return y + g["step_size"] * z, z


def unitary_rnn(w: Any, g: Any, state: Any, x: Any) -> Any:
    u, v = (part.re + 1j * part.im for part in (w.u, w.v))
    np.testing.assert_allclose(u @ u.conj().T, np.eye(N), atol=1e-12)
    z = g["sigma_w"] * (state[0] + 1j * state[1]) @ u + g["sigma_v"] * x @ v
    new = np.maximum(np.abs(z) + g["sigma_b"] * w.b, 0) * z / np.abs(z)
    return new.real, new.imag


def s4d(w: Any, g: Any, state: Any, x: Any) -> Any:
    delta = g["time_scale"] * w.step[:, None]
    new = np.exp(delta * (-0.5 + 1j * np.pi * np.arange(SIZE))) * (state[0] + 1j * state[1])
    new = new + g["sigma_v"] * delta * x[:, None]
    return new.real, new.imag


def mamba(w: Any, g: Any, h: Any, x: Any) -> Any:
    bias = np.log(np.expm1(np.exp(w.log_step)))
    delta = np.log1p(np.exp(g["sigma_delta"] * x @ w.w_delta + bias + g["step_bias"]))
    new = np.empty_like(h)
    for channel in range(FEATURES):
        for n in range(SIZE):
            b = g["sigma_v"] * x @ w.w_b[:, n]
            new[channel, n] = np.exp(-delta[channel] * (n + 1)) * h[channel, n] + delta[channel] * b * x[channel]
    return new


def memory(transition: Callable[..., Any]) -> Callable[..., Any]:
    """S = T S + k vᵀ, head by head; `transition(w, g, head, k, x)` is (T, what v is written by)."""

    def step(w: Any, g: Any, state: Any, x: Any) -> Any:
        new = []
        for head in range(HEADS):
            k = g["sigma_k"] * x @ w.w_k[:, head * SIZE : (head + 1) * SIZE]
            v = g["sigma_v"] * x @ w.w_v[:, head * VALUES : (head + 1) * VALUES]
            t, written = transition(w, g, head, k, x)
            new.append(t @ state[head] + np.outer(written, v))
        return np.stack(new)

    return step


def channels(values: Any, head: int) -> Any:
    return values[head * SIZE : (head + 1) * SIZE]


def retnet(w: Any, g: Any, head: int, k: Any, x: Any) -> Any:
    return (1 - 2.0 ** (-5 - head)) ** g["time_scale"] * np.eye(SIZE), k


def mamba2(w: Any, g: Any, head: int, k: Any, x: Any) -> Any:
    bias = np.log(np.expm1(np.exp(w.log_step[head])))
    delta = np.log1p(np.exp(g["sigma_delta"] * x @ w.w_delta[:, head] + bias + g["step_bias"]))
    assert 1 <= w.rate[head] <= 16
    return np.exp(-delta * w.rate[head]) * np.eye(SIZE), delta * k


def rwkv6(w: Any, g: Any, head: int, k: Any, x: Any) -> Any:
    start = -6 + 5 * (np.arange(N) / (N - 1)) ** (0.7 + 1.3 * 0.5)
    decay = np.exp(-np.exp(start + g["decay_bias"] + g["sigma_decay"] * x @ w.w_decay))
    return np.diag(channels(decay, head)), k


def rwkv7(w: Any, g: Any, head: int, k: Any, x: Any) -> Any:
    start = -6.5 + 5 * (np.arange(N) / (N - 1)) ** (0.85 + math.sqrt(0.5))
    decay = np.exp(-0.6065306597 * sigmoid(start + g["decay_bias"] + g["sigma_decay"] * x @ w.w_decay))
    rate, unit = sigmoid(g["sigma_beta"] * x @ w.w_rate), k / np.linalg.norm(k)
    return np.diag(channels(decay, head)) - np.outer(channels(rate, head) * unit, unit), k


def delta_net(w: Any, g: Any, head: int, k: Any, x: Any) -> Any:
    unit, beta = k / np.linalg.norm(k), 2 * g["beta"] * sigmoid(g["sigma_beta"] * x @ w.w_beta[:, head])
    return np.eye(SIZE) - beta * np.outer(unit, unit), beta * unit


def mlstm(w: Any, g: Any, head: int, k: Any, x: Any) -> Any:
    f = sigmoid(g["sigma_gate"] * x @ w.w_f[:, head] + (3 + 3 * head / (HEADS - 1)) + g["forget_bias"])
    i = g["sigma_gate"] * x @ w.w_i[:, head] + g["sigma_b"] * w.b_i[head]
    return f * np.eye(SIZE), np.exp(15 * np.tanh(i / 15)) * k / math.sqrt(SIZE)


CELLS: dict[str, tuple[Network, Callable[..., Any]]] = {
    "min_gru": (gs.min_gru(N, features=FEATURES), min_gru),
    "min_lstm": (gs.min_lstm(N, features=FEATURES), min_lstm),
    "indrnn": (gs.indrnn(N, features=FEATURES), indrnn),
    "antisymmetric_rnn": (gs.antisymmetric_rnn(N, features=FEATURES), antisymmetric_rnn),
    "cornn": (gs.cornn(N, features=FEATURES), cornn),
    "unitary_rnn": (gs.unitary_rnn(N, features=FEATURES), unitary_rnn),
    "s4d": (gs.s4d(FEATURES, SIZE), s4d),
    "mamba": (gs.mamba(FEATURES, SIZE), mamba),
    "retnet": (gs.retnet(N, **HEADED), memory(retnet)),
    "mamba2": (gs.mamba2(N, **HEADED), memory(mamba2)),
    "rwkv6": (gs.rwkv6(N, layer=0.5, **HEADED), memory(rwkv6)),
    "rwkv7": (gs.rwkv7(N, layer=0.5, **HEADED), memory(rwkv7)),
    "delta_net": (gs.delta_net(N, **HEADED), memory(delta_net)),
    "mlstm": (gs.mlstm(N, **HEADED), memory(mlstm)),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_step_is_that_of_the_paper(name: str) -> None:
    network, equation = CELLS[name]
    generator = np.random.default_rng(1)
    with jax.enable_x64(True):
        weights = jax.jit(lambda key: network.draw(key, "float64"))(jax.random.key(2))
        gains = {gain: value + 0.3 for gain, value in network.gains.items()}
        arrays = {gain: jnp.asarray(value) for gain, value in gains.items()}
        first = jax.eval_shape(network.initial_state, arrays, jax.ShapeDtypeStruct(network.initial_shape, "float64"))
        state = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape), first)
        x = generator.standard_normal(network.input_shape)
        new = jax.jit(network.step)(weights, arrays, state, jnp.asarray(x))[0]
    expected = equation(jax.tree.map(np.asarray, weights), gains, state, x)
    for found, wanted in zip(jax.tree.leaves(new), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "error"), [(0.1, TypeError), ((0.1,), ValueError), ((0.0, 0.1), ValueError), ((0.2, 0.1), ValueError)]
)
@pytest.mark.parametrize("family", [gs.s4d, gs.mamba, gs.mamba2])
def test_steps_are_two_rising_numbers(family: Any, steps: Any, error: Any) -> None:
    with own_checks(), pytest.raises(error, match=r"^steps: got .*; pass two numbers"):
        family(4, steps=steps)


@pytest.mark.parametrize("network", [gs.retnet(8, 4), gs.attention(8, 4, 2)], ids=lambda one: one.family)
def test_heads_divide_every_width(network: Network) -> None:
    with pytest.raises(ValueError, match=r"^heads: got 4, which does not divide width=6; pass one of: \[1, 2, 3, 6\]"):
        gs.sweep(network, depth=2, seeds=1, widths=[8, 6])


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"^heads: got 3, which does not divide width=4; pass one of: \[1, 2, 4\]"):
        gs.retnet(4, 3)
