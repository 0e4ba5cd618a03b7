"""When the backward pass in plain floats is run, and when the one in blocks stands for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradsim as gs
from gradsim.inspection import measure, tap


def small(x: Any) -> Any:
    """Its second gradient leaves the range of float32, and comes back; the first, far larger, ends."""
    a = tap(x * jnp.asarray([0.0, 2.0**100]), "a")
    b = tap(a * jnp.asarray([1.0, 2.0**-50]), "b")
    return jnp.sum(b * jnp.asarray([2.0**-50, 2.0**-100]))


def large(x: Any) -> Any:
    return jnp.sum(tap(x * 2.0**-100, "a") * 2.0**120 * jnp.float32(2.0**20))


def fine(x: Any) -> Any:
    return jnp.sum(tap(jnp.tanh(x @ jnp.full((2, 3), 0.3)), "a") ** 2)


@pytest.mark.parametrize(("model", "exact"), [(small, -50.0), (large, 40.5)])
def test_what_leaves_the_range_on_the_way_is_lost_in_floats_alone(model: Any, exact: float) -> None:
    x = jnp.ones(2)
    found = gs.inspect(model, x)
    np.testing.assert_allclose(found.log_gradient.values[0], exact * np.log(2), rtol=1e-6)
    with np.errstate(divide="ignore"):
        plain = np.log(np.linalg.norm(np.asarray(jax.grad(model)(x), np.float64)))
    np.testing.assert_allclose(found.log_float_gradient.values[0], plain, rtol=1e-6)


def test_no_pass_in_floats_where_nothing_leaves_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_in_floats", None)
    found = gs.inspect(fine, jnp.ones((4, 2)))
    plain = np.linalg.norm(jax.grad(fine)(jnp.ones((4, 2))))
    np.testing.assert_allclose(np.exp(found.log_float_gradient.values[0]), plain, rtol=1e-6)


@jax.custom_vjp
def called(x: Any) -> Any:
    return x


def _backward(_: None, cotangent: Any) -> Any:
    return (jax.pure_callback(lambda g: np.asarray(2 * g), jax.ShapeDtypeStruct((3,), jnp.float32), cotangent),)


called.defvjp(lambda x: (x, None), _backward)


def test_a_backward_pass_that_vmap_does_not_know_runs_for_one_after_the_other() -> None:
    found = gs.inspect(lambda x: jnp.sum(called(tap(3 * x, "a"))), jnp.ones(3))
    np.testing.assert_allclose(found.log_gradient.values, np.log([6 * 3**0.5, 2 * 3**0.5]), rtol=1e-6)
