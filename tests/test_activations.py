"""Activations: values, slopes to the last digits where they saturate, and the places of their kinks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from jax import Array, nn

import gradsim as gs
from gradsim import activations

mp = mpmath.mp.clone()
mp.dps = 60

# Written from the definitions, in arithmetic of 60 digits.
PRECISE: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "tanh": lambda z: mp.tanh(z),
    "hard_tanh": lambda z: min(max(z, mp.mpf(-1)), mp.mpf(1)),
    "relu": lambda z: max(z, mp.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else z / 100,
    "elu": lambda z: z if z > 0 else mp.expm1(z),
    "selu": lambda z: (
        mp.mpf("1.0507009873554804934193349852946")
        * (z if z > 0 else mp.mpf("1.6732632423543772848170429916717") * mp.expm1(z))
    ),
    "celu": lambda z: z if z > 0 else mp.expm1(z),
    "gelu": lambda z: z * mp.ncdf(z),
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "mish": lambda z: z * mp.tanh(mp.log1p(mp.exp(z))),
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "erf": lambda z: mp.erf(z),
    "sin": lambda z: mp.sin(z),
    "hard_sigmoid": lambda z: min(max(z + 3, mp.mpf(0)), mp.mpf(6)) / 6,
    "hard_swish": lambda z: z * min(max(z + 3, mp.mpf(0)), mp.mpf(6)) / 6,
    "relu6": lambda z: min(max(z, mp.mpf(0)), mp.mpf(6)),
}
# Offset from the kinks, which lie at whole numbers.
POINTS = np.linspace(-29.9, 29.9, 300, dtype=np.float32)


@partial(jax.jit, static_argnums=0)
def value_and_slope(name: str, z: Array) -> tuple[Array, Array]:
    return gs.ACTIVATIONS[name](z), gs.ACTIVATIONS[name].derivative(z)


def precise_slope(name: str, z: float) -> float:
    return float(mp.diff(PRECISE[name], mp.mpf(z), h=mp.mpf("1e-20")))


def test_every_activation_of_the_mission_is_there() -> None:
    assert set(PRECISE) == set(gs.ACTIVATIONS)
    assert all(name == activation.name for name, activation in gs.ACTIVATIONS.items())


@pytest.mark.parametrize("name", PRECISE)
def test_value_and_slope_match_the_definition(name: str) -> None:
    """In float64 between −6 and 6, relative to the largest value there."""
    with jax.enable_x64(True):
        z = np.linspace(-6.01, 6.03, 99)
        values, slopes = value_and_slope(name, z)
    np.testing.assert_allclose(values, [float(PRECISE[name](mp.mpf(float(x)))) for x in z], rtol=0, atol=1e-14)
    np.testing.assert_allclose(slopes, [precise_slope(name, float(x)) for x in z], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign", "softplus", "elu", "celu", "selu"])
def test_slope_is_accurate_in_relative_terms_where_it_saturates(name: str) -> None:
    """In float32 out to |z| = 30; 1 − tanh² would be exactly 0 from |z| = 9 on, and the gradient with it."""
    slopes = value_and_slope(name, POINTS)[1]
    precise = np.array([precise_slope(name, float(z)) for z in POINTS])
    np.testing.assert_allclose(slopes, precise, rtol=2e-6)


@pytest.mark.parametrize("name", PRECISE)
def test_kinks_are_where_the_slope_or_its_slope_jumps(name: str) -> None:
    """A quadrature splits at the kinks: each must be one, and none may be missing.

    Second differences of φ' over a spacing h, divided by h, are h φ''' where φ is smooth, and the
    jump of φ'' (or that of φ', divided by h) at a kink.
    """
    activation, h = gs.ACTIVATIONS[name], 1e-3
    with jax.enable_x64(True):
        grid = np.arange(-8.0004, 8.0, h)  # no kink lies on a point of the grid
        slopes = np.asarray(value_and_slope(name, grid)[1])
    rough = grid[1:-1][np.abs(np.diff(slopes, 2)) / h > 0.05]
    distance = np.abs(rough[:, None] - np.array(activation.kinks)[None, :])
    assert np.all(distance.min(axis=1, initial=np.inf) < 1.01 * h), f"kinks missing near {rough}"
    assert np.all(distance.min(axis=0, initial=np.inf) < 1.01 * h), "a declared kink is smooth"


@pytest.mark.parametrize(
    ("name", "largest"), [("sigmoid", 0.25), ("tanh", 1.0), ("relu", 1.0), ("erf", 2 / np.sqrt(np.pi))]
)
def test_largest_slope(name: str, largest: float) -> None:
    assert gs.ACTIVATIONS[name].largest_slope() == pytest.approx(largest, rel=1e-6)


def test_slopes_of_sigmoid_and_tanh_stay_within_their_bounds() -> None:
    z = np.linspace(-40, 40, 4001, dtype=np.float32)
    sigmoid, tanh = (np.asarray(value_and_slope(name, z)[1]) for name in ("sigmoid", "tanh"))
    assert sigmoid.max() <= 0.25
    assert tanh.max() <= 1.0
    assert tanh.min() > 0


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign"])
def test_own_derivative_rules_can_be_differentiated_again_and_transposed(name: str) -> None:
    """Weight gradients and the mean field's φ'' go through them."""
    activation = gs.ACTIVATIONS[name]
    with jax.enable_x64(True):
        second = jax.jit(jax.grad(jax.grad(lambda z: activation(z))))(0.7)
        reverse = jax.jit(jax.grad(lambda z: activation(z)))(0.7)
    assert float(second) == pytest.approx(float(mp.diff(PRECISE[name], mp.mpf(0.7), 2)), rel=1e-12)
    assert float(reverse) == pytest.approx(precise_slope(name, 0.7), rel=1e-14)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_derivatives_of_a_slope_in_terms_of_the_size_are_right_at_zero_too(name: str) -> None:
    """Second and third ones, where |z| has a kink and where the function saturates."""
    with jax.enable_x64(True):
        second = jax.grad(jax.grad(gs.ACTIVATIONS[name].function))
        for z in (-20.0, -1.5, 0.0, 1.5, 20.0):
            for order, function in ((2, second), (3, jax.grad(second))):
                expected = float(mp.diff(PRECISE[name], mp.mpf(z), order, h=mp.mpf("1e-12")))
                assert float(function(jnp.asarray(z))) == pytest.approx(expected, rel=1e-9, abs=1e-22)


def test_get_takes_names_callables_and_activations() -> None:
    assert activations.get("tanh") is gs.ACTIVATIONS["tanh"]
    assert activations.get(gs.ACTIVATIONS["relu"]) is gs.ACTIVATIONS["relu"]
    custom = activations.get(nn.silu)
    assert custom.kinks == ()
    z = jnp.linspace(-3, 3, 7)
    np.testing.assert_array_equal(custom(z), nn.silu(z))


def test_the_same_callable_gives_equal_networks() -> None:
    """Equal networks share one compilation."""
    assert gs.feedforward(4, jnp.arctan) == gs.feedforward(4, jnp.arctan)
    assert hash(gs.feedforward(4, jnp.arctan)) == hash(gs.feedforward(4, jnp.arctan))
    assert gs.feedforward(4, jnp.arctan) != gs.feedforward(4, jnp.sin)


@dataclass
class Swish:
    """A callable object that cannot be hashed, as dataclasses are unless frozen."""

    beta: float

    def __call__(self, z: Array) -> Array:
        return z * nn.sigmoid(self.beta * z)


def test_a_callable_object_without_a_hash_is_refused_by_name() -> None:
    """Static choices are compared by value; what cannot be hashed cannot be one."""
    with pytest.raises((TypeError, ValueError), match=r"^activation: "):
        activations.get(Swish(2.0))
