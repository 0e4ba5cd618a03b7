"""Wrong calls that are wrong in their combination, their size or in what a function of the user's own does."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import Own
from jax import Array
from wrong import NAN, Opaque, nothing_measured, refused, refused_each

import gradsim as gs
from gradsim import Statistic

NETWORK = gs.feedforward(8)
BACKWARD: dict[str, Any] = {"direction": "backward", "statistics": "log_gradient"}


@pytest.fixture(autouse=True)
def own_checks_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nothing_measured(monkeypatch):
        yield


def sweep(**options: Any) -> Any:
    return gs.sweep(**{"network": NETWORK, "depth": 4, "seeds": 2, **options})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("depth", {"depth": 10**9}),
        ("depth", {"depth": 10**9, "network": gs.feedforward(512)}),
        ("burn_in", {"burn_in": 10**9}),
        ("seeds", {"seeds": 10**12}),
        (
            ("sigma_w", "depth", "seeds", "gains"),
            {"sigma_w": np.arange(10**5) + 1.0, "sigma_b": np.arange(10**5) + 1.0},
        ),
        (("seeds", "depth"), {"seeds": 10**6, "depth": 10**6}),
        ("width", {"network": gs.feedforward(10**7)}),
        ("width", {"network": {"a": gs.feedforward(4), "b": gs.feedforward(10**7)}}),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(name: Any, options: dict[str, Any]) -> None:
    refused(name, lambda: sweep(**options))


@pytest.mark.parametrize("options", [{"seeds": 10**12}, {"depth": 10**9}, {"depth": 10**5}])
def test_partial_products_that_would_take_for_ever(options: dict[str, Any]) -> None:
    refused((next(iter(options)), "width"), lambda: gs.partial_products(NETWORK, **{"depth": 4, "seeds": 2, **options}))


def test_a_width_beyond_all_memory_is_refused_when_made_or_swept() -> None:
    refused("width", lambda: sweep(network=gs.feedforward(10**9)))
    refused("width", lambda: sweep(network=gs.lstm(2**70)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("at", {"at": 2}),
        ("at", {"at": 2, "statistics": "length"}),
        ("loss", {"loss": jnp.sum, "direction": "backward", "statistics": "log_gain"}),
        ("loss", {"loss": jnp.sum}),
        ("cotangent", {"cotangent": np.ones(8), "direction": "backward", "statistics": "log_gain"}),
        (("cotangent", "loss"), {"cotangent": np.ones(8)}),
        ("statistics", {"statistics": "slope", "network": gs.linear_recurrence(8)}),
        ("statistics", {"statistics": "saturated", "network": gs.linear_recurrence(8)}),
        ("statistics", {"statistics": "token_spread"}),
        (("layers", "depth"), {"network": gs.residual(8, scaling="inverse_depth", layers=100), "depth": 3}),
    ],
)
def test_an_argument_that_nothing_reads_is_refused(name: Any, options: dict[str, Any]) -> None:
    refused(name, lambda: sweep(**options))


def not_twice(state: Array) -> Array:
    raise RuntimeError("two\nlines")


@pytest.mark.parametrize(
    "loss",
    [
        lambda state: jnp.sum(state) * 1j, lambda state: jnp.sum(state) > 0, lambda state: jnp.argmax(state),
        lambda state: state, lambda state: None, lambda state: (jnp.sum(state), jnp.sum(state)), lambda: 1.0,
        lambda state: float(jnp.sum(state)), not_twice, lambda state: state["h"], "mean", 3, np.ones(8), {}, Opaque(),
    ],
)  # fmt: skip
def test_a_loss_is_a_function_to_one_real_number(loss: Any) -> None:
    refused("loss", lambda: sweep(**BACKWARD, loss=loss))


@pytest.mark.parametrize(
    "cotangent",
    [
        np.ones(8) * 1j, np.full(8, 1e300), np.full(8, NAN), np.ones(7), np.ones((1, 8)), 1.0, "ones",
        {"h": np.ones(8)}, [1.0] * 8, np.ones(8, bool), np.array(["a"] * 8), [[1.0], [1.0, 2.0]], np.full(8, 1e-300),
        Opaque(), (),
    ],
)  # fmt: skip
def test_a_cotangent_is_like_the_state(cotangent: Any) -> None:
    refused("cotangent", lambda: sweep(**BACKWARD, cotangent=cotangent))


def test_critical_wants_one_network_and_two_seeds() -> None:
    base: dict[str, Any] = {"between": (1, 2), "depth": 4, "seeds": 2}
    refused("network", lambda: gs.critical({"a": NETWORK}, **base))  # type: ignore[arg-type]
    refused("seeds", lambda: gs.critical(NETWORK, **{**base, "seeds": 1}))
    refused("seeds", lambda: gs.critical(NETWORK, **{**base, "seeds": 10**12}))
    refused("depth", lambda: gs.critical(NETWORK, **{**base, "depth": 10**9}))
    refused("sigma_w", lambda: gs.critical(NETWORK, **base, sigma_w=1.0))
    refused("statistic", lambda: gs.critical(NETWORK, **base, statistic="length"))


def scalar(change: Any) -> Any:
    return lambda view: change(view.state.mantissa)


@pytest.mark.parametrize(
    "options",
    [
        {"measure": scalar(lambda state: state)}, {"measure": scalar(lambda state: None)},
        {"measure": scalar(lambda state: jnp.sum(state) * 1j)}, {"measure": scalar(lambda state: "a")},
        {"measure": lambda: 1.0}, {"measure": not_twice}, {"measure": None}, {"measure": "sum"}, {"name": ""},
        {"name": 3}, {"needs": ("everything",)}, {"needs": "all"}, {"directions": ("sideways",)}, {"logarithm": None},
        {"units": None},
    ],
)  # fmt: skip
def test_a_statistic_of_ones_own_measures_one_number(options: dict[str, Any]) -> None:
    base = {"name": "own", "long_name": "of my own", "units": "1", "measure": scalar(jnp.sum)}

    def call() -> Any:
        own: Any = Statistic(**{**base, **options})
        return sweep(statistics=[own])

    refused(("statistics", "statistic", "Statistic", "own", *options), call)


def overflows(x: Array) -> Array:
    return x * jnp.tanh(jnp.log1p(jnp.exp(x)))


def not_a_number(key: Any, shape: Any, dtype: Any) -> Array:
    return jnp.full(shape, jnp.nan, dtype)


def drawn_by_numpy(key: Any, shape: Any, dtype: Any) -> Any:
    return np.random.default_rng(int(jax.random.key_data(key)[0])).standard_normal(shape).astype(dtype)


def test_functions_of_ones_own_that_break_are_named() -> None:
    refused(("initializer", "draw"), lambda: gs.feedforward(8, "tanh", drawn_by_numpy))
    refused(("activation", "network"), lambda: sweep(network=gs.feedforward(8, overflows)))
    refused(("initializer", "network"), lambda: sweep(network=gs.feedforward(8, "tanh", not_a_number)))
    refused(("activation", "function"), lambda: gs.Activation("x", None))  # type: ignore[arg-type]
    refused(("initializer", "draw"), lambda: gs.Initializer("x", None))  # type: ignore[arg-type]
    refused("epsilon", lambda: sweep(network=gs.layernorm(8, epsilon=1e300)))


def returning(value: Any) -> Any:
    return property(lambda self: value)


def stepping(change: Any) -> Any:
    return lambda self, weights, gains, state, inputs: change(gains, state)


BROKEN: dict[str, Any] = {
    "family": None, "axis": "layer", "activations": returning(()), "input_shape": returning(4),
    "gains": [returning({}), returning((1.0,)), returning({"sigma_w": "a"}), returning({"depth": 1.0})],
    "parameters": [{"v": "sigma_w"}, {"w": "sigma_q"}, ("w",)],
    "initial_state": [lambda self, gains, inputs: inputs[:2], lambda self, gains, inputs: None],
    "draw": [lambda self, key, dtype: {}, lambda self, key, dtype: jnp.ones((4, 4), jnp.float16)],
    "step": [
        stepping(lambda gains, state: state), stepping(lambda gains, state: (state, None)),
        stepping(lambda gains, state: (state[:2], (state,))),
        stepping(lambda gains, state: (state.astype("int32"), (state,))),
        stepping(lambda gains, state: (gains["sigma_q"] * state, (state,))), not_twice,
    ],
}  # fmt: skip


@pytest.mark.parametrize("part", BROKEN)
def test_a_family_of_ones_own_is_checked_before_it_is_measured(part: str) -> None:
    values = BROKEN[part] if isinstance(BROKEN[part], list) else [BROKEN[part]]
    refused_each("network", values, lambda value: sweep(network=type("Own", (Own,), {part: value})()))


@dataclass(frozen=True)
class Listed(Own):
    """A field without a hash."""

    sizes: list[int] = field(default_factory=lambda: [1])


def test_a_family_with_a_field_that_has_no_hash_is_refused() -> None:
    refused("network", partial(sweep, network=Listed()))
