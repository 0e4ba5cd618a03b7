"""What a user's own activation, initializer or size breaks is said when it is made, not by a NaN in a sweep."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array, random
from unrolled import own_checks

import gradsim as gs
from gradsim import Activation, Initializer, activations, initializers
from gradsim.networks.time.gated import GRU, LSTM


def own_mish(x: Array) -> Array:
    """Its derivative is inf / inf beyond x = 89."""
    return x * jnp.tanh(jnp.log1p(jnp.exp(x)))


def own_silu(x: Array) -> Array:
    """Its value is inf · 0 far below zero."""
    return x * (1 / jnp.exp(x)) * jnp.exp(2 * x) / (1 + jnp.exp(x))


def of_nan(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.log(random.normal(key, shape, dtype))


def of_inf(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return 1 / jnp.zeros(shape, dtype)


def of_double(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return random.normal(key, shape, jnp.float16)


OVERFLOW = r"^activation: {} has the (value|derivative) NaN at z = .*; write it so that nothing in it overflows"
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: gs.feedforward(4, own_mish), OVERFLOW.format("own_mish").replace("z = .*", r"z = 128")),
    (lambda: Activation("mine", own_mish), OVERFLOW.format("mine")),
    (lambda: activations.get(own_silu), OVERFLOW.format("own_silu")),
    (lambda: Activation("x", None), "^activation: got None of type NoneType; pass a function"),  # type: ignore[arg-type]
    (lambda: Activation("", jnp.sin), "^activation: got an empty string; pass a name"),
    (lambda: Activation("x", jnp.sin, [0.0]), r"^kinks: got \[0.0\] of type list; pass a tuple"),  # type: ignore[arg-type]
    (lambda: Activation("x", jax.nn.softmax), "^activation: x is not elementwise"),
    (lambda: Initializer("x", None), r"^initializer: x\.draw: got None of type NoneType; pass draw\(key"),  # type: ignore[arg-type]
    (lambda: Initializer("x", of_nan), "^initializer: x draws NaN or inf for shape .4, 4.; pass"),
    (
        lambda: Initializer("x", initializers.normal, draw_bias=of_nan),
        "^initializer: x draws NaN or inf for shape",
    ),
    (lambda: initializers.get(of_inf), "^initializer: of_inf draws NaN or inf"),
    (lambda: initializers.get(of_nan), "^initializer: of_nan draws NaN or inf"),
    (lambda: Initializer("x", of_double), "^initializer: x draws float16 of shape .4, 4. where float32"),
    (lambda: gs.layernorm(8, epsilon=1e300), r"^epsilon: got 1e\+300; pass one number from 0 to 1e\+30"),
    (lambda: gs.batchnorm(8, 4, epsilon=1e31), r"^epsilon: got 1e\+31; pass one number from 0 to 1e\+30"),
    (lambda: gs.attention(2**31 - 1, 2), "^heads: got 2, which does not divide width=2147483647; pass one of: "),
    *[
        (make, rf"^{name}: got {2**70}; pass a whole number of at least \d and at most 2147483647$")
        for name, make in (
            ("width", lambda: gs.lstm(2**70)),
            ("width", lambda: gs.feedforward(2**70)),
            ("width", lambda: gs.linear_recurrence(2**70)),
            ("features", lambda: gs.gru(4, features=2**70)),
            ("tokens", lambda: gs.attention(4, tokens=2**70)),
            ("channels", lambda: gs.convolutional(2**70, 4)),
            ("layers", lambda: gs.residual(4, scaling="inverse_depth", layers=2**70)),
            ("batch", lambda: gs.batchnorm(4, 2**70)),
        )
    ],
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_refused_when_made(make: Callable[[], Any], message: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("activation", gs.ACTIVATIONS.values(), ids=gs.ACTIVATIONS)
def test_built_in_activations_pass_the_test_of_users_own(activation: Activation) -> None:
    Activation("copy", activation.function, activation.kinks)


@pytest.mark.parametrize("initializer", gs.INITIALIZERS.values(), ids=gs.INITIALIZERS)
def test_built_in_laws_pass_the_test_of_users_own(initializer: Initializer) -> None:
    Initializer("copy", initializer.draw, draw_bias=initializer.draw_bias)


def test_infinite_far_out_is_allowed() -> None:
    assert activations.get(jnp.exp).name == "exp"


def test_networks_may_be_made_within_a_jitted_function() -> None:
    def width(x: Array) -> Array:
        return x + gs.feedforward(4, jnp.arctan, lambda key, shape, dtype: random.normal(key, shape, dtype)).width

    assert float(jax.jit(width)(1.0)) == 5


def test_families_are_values() -> None:
    lstm, gru = gs.lstm, gs.gru
    assert lstm(8, chrono=5) == lstm(8, chrono=5)
    assert len({gru(8), gru(8), gru(8, tied=False), lstm(8), lstm(8, of="cell")}) == 4
    assert isinstance(lstm(8), LSTM)
    assert isinstance(gru(8), GRU)


def test_the_import_computes_nothing() -> None:
    """No array is made: JAX has not even looked for a device."""
    code = "import jax, gradsim; jax.config.update('jax_platforms', 'none of these'); gradsim.feedforward(4)"
    subprocess.run([sys.executable, "-c", code], check=True)
