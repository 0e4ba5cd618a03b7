"""A family of one's own: every mistake is one line that names it, before anything is compiled."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES, Own
from jax import Array
from unrolled import own_checks

import gradsim as gs
from gradsim import Network, initializers
from gradsim.engine.check import check
from gradsim.networks.check import TAKEN, contract


def own(part: str, value: Any) -> Network:
    """The family with one part of it replaced; a function is that property, or that method."""
    return type("Own", (Own,), {part: value})()


def returns(value: Any) -> Any:
    return property(lambda self: value)


def step(change: Callable[[Any, Any], Any]) -> Any:
    """A step that returns change(new state, preactivation)."""

    def changed(self: Any, *args: Any) -> Any:
        new, (z,) = Own.step(self, *args)
        return change(new, z)

    return changed


def reading(gain: str) -> Any:
    return lambda self, weights, gains, state, inputs: (gains[gain] * state, (state,))


@dataclass(frozen=True)
class OfNames(Own):
    """Strings where an Activation and an Initializer belong."""

    activation: gs.Activation = "tanh"  # type: ignore[assignment]


@dataclass(frozen=True)
class OfLaws(Own):
    law: gs.Initializer = "gaussian"  # type: ignore[assignment]


class NoField(Own):
    def __init__(self) -> None:
        object.__setattr__(self, "size", 3)


class NoFamily(Network):
    gains, input_shape, activations = Own.gains, Own.input_shape, Own.activations
    draw, initial_state, step = Own.draw, Own.initial_state, Own.step
    width = 4


def differently(self: Any, key: Array, dtype: Any) -> Any:
    return {"w": initializers.normal(key, (4, 4), jnp.float32)}


Case = tuple[Callable[[], Network], str]
MISTAKES: dict[str, Case] = {
    "no family": (NoFamily, "family: got None; declare its name"),
    "an empty family": (partial(own, "family", ""), "family: got ''"),
    "axis": (partial(own, "axis", "layer"), "axis: got 'layer'; declare one of: depth, time"),
    "driven": (partial(own, "driven", "yes"), "driven: got 'yes'"),
    "a list field": (lambda: Own(of=[1, 2]), r"of: got \[1, 2\] of type list; pass what has a hash, such as a tuple"),
    "an array field": (lambda: Own(of=np.ones(2)), "of: got array.* pass what has a hash"),
    "no field": (NoField, "size: is set but no field; make the class a dataclass"),
    "an activation's name": (OfNames, "activation: got 'tanh' of type str; pass Activation"),
    "an initializer's name": (OfLaws, "law: got 'gaussian' of type str; pass Initializer"),
    "no gains": (partial(own, "gains", returns({})), "gains: got {}.*; return a dict of one or more names"),
    "gains a tuple": (partial(own, "gains", returns(("sigma_w",))), r"gains: got \('sigma_w',\) of type tuple; return"),
    "gains that raise": (partial(own, "gains", property(lambda self: self.law)), "gains: raised AttributeError"),
    "a gain that is a word": (partial(own, "gains", returns({"sigma_w": "a"})), "gains: sigma_w: got 'a'"),
    "a gain of NaN": (partial(own, "gains", returns({"sigma_w": float("nan")})), "gains: sigma_w: got nan"),
    "a gain that is negative": (partial(own, "gains", returns({"sigma_w": -1.0})), "gains: sigma_w: got -1.0"),
    "a gain of two": (partial(own, "gains", returns({"sigma_w": [1.0, 2.0]})), r"gains: got sigma_w=\[1.0, 2.0\]"),
    "a gain with a space": (partial(own, "gains", returns({"sigma w": 1.0})), "gains: got the name 'sigma w'; name it"),
    **{
        f"a gain named {name}": (partial(own, "gains", returns({name: 1.0})), f"gains: got the name '{name}'; name it")
        for name in ("depth", "seeds", "key", "direction", "statistics", "at", "burn_in", "inputs", "loss", "cotangent",
                     "dtype", "progress", "store", "network", "seed")
    },
    "input_shape an int": (partial(own, "input_shape", returns(4)), "input_shape: got 4 of type int; return a tuple"),
    "input_shape a list": (partial(own, "input_shape", returns([4])), r"input_shape: got \[4\] of type list"),
    "input_shape empty": (partial(own, "input_shape", returns((0,))), r"input_shape: got \(0,\)"),
    "no activations": (partial(own, "activations", returns(())), "step: returned 1 preact.*; return a tuple of 0"),
    "activations by name": (partial(own, "activations", returns(("tanh",))), r"activations: got \('tanh',\) of type"),
    "activations alone": (partial(own, "activations", returns(gs.ACTIVATIONS["tanh"])), "activations: got Activation"),
    "two activations": (
        partial(own, "activations", returns((gs.ACTIVATIONS["tanh"],) * 2)),
        "step: returned 1 preactivations; return a tuple of 2",
    ),
    "no preactivations": (partial(own, "step", step(lambda h, z: (h, None))), "step: returned None; return a tuple"),
    "a bare preactivation": (partial(own, "step", step(lambda h, z: (h, z))), r"step: returned float32\[4\]; return"),
    "no tuple": (partial(own, "step", step(lambda h, z: h)), r"step: returned float32\[4\]; return two things"),
    "nothing": (partial(own, "step", step(lambda h, z: None)), "step: returned None; return two things"),
    "another shape": (
        partial(own, "step", step(lambda h, z: (h[:2], (z,)))),
        r"step: returned a state float32\[2\] in float32; return a state like the one it gets, float32\[4\]",
    ),
    "another dtype": (
        partial(own, "step", step(lambda h, z: (h.astype(jnp.float16), (z,)))),
        r"step: returned a state float16\[4\] in float32",
    ),
    "another structure": (
        partial(own, "step", step(lambda h, z: ((h,), (z,)))),
        r"step: returned a state \(float32\[4\],\)",
    ),
    "an unknown gain": (partial(own, "step", reading("sigma_q")), "step: raised KeyError: 'sigma_q'; its gains"),
    "a step that branches": (
        partial(own, "step", lambda self, w, g, h, x: (h if h[0] > 0 else -h, (h,))),
        "step: raised TracerBoolConversionError",
    ),
    "a draw without fields": (
        partial(own, "draw", lambda self, key, dtype: Own.draw(self, key, dtype)["w"]),
        "step: raised|parameters: got 'w'; name float arrays that draw returns: float32",
    ),
    "a draw of float32 alone": (partial(own, "draw", differently), r"draw: returned .*float32.* in float64; return"),
    "a draw that raises": (partial(own, "draw", lambda self, key, dtype: key.nothing), "draw: raised AttributeError"),
    "a parameter that is not there": (
        partial(own, "parameters", {"v": "sigma_w"}),
        r"parameters: got 'v'; name float arrays that draw returns: {w: float32\[4, 4\]}",
    ),
    "a gain that is not there": (partial(own, "parameters", {"w": "sigma_v"}), "parameters: got 'w': 'sigma_v'; name"),
    "parameters that overlap": (
        partial(own, "parameters", {"w": "sigma_w", "w.0": "sigma_w"}),
        "parameters: got 'w' and a field within it",
    ),
    "parameters a tuple": (partial(own, "parameters", ("w",)), r"parameters: got \('w',\)"),
    "a first state of another dtype": (
        partial(own, "initial_state", lambda self, gains, x: x.astype(jnp.float16)),
        r"initial_state: returned float16\[4\] in float32; return arrays of the dtype",
    ),
    "a first state of another size": (
        partial(own, "initial_state", lambda self, gains, x: x[:3]),
        "step: raised TypeError",
    ),
    "no first state": (partial(own, "initial_state", lambda self, gains, x: None), "initial_state: returned None"),
    "observed that is not linear": (partial(own, "observed", lambda self, h: h**2), "observed: raised"),
    "observed nothing": (partial(own, "observed", lambda self, h: ()), "observed: returned no array"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_line_that_names_it(make: Callable[[], Network], message: str) -> None:
    with own_checks(), pytest.raises(ValueError, match=rf"^network: \w+\.({message})") as caught:
        contract(make())
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


@pytest.mark.parametrize("network", [Own(), Own(tied=True), *FAMILIES.values()], ids=["own", "own tied", *FAMILIES])
def test_what_is_right_passes(network: Network) -> None:
    contract(network)


def test_a_chain_of_ones_own_equals_jacfwd() -> None:
    assert check(Own()) == []
    assert check(gs.lstm(3, of="cell")) == []


def test_check_says_all_that_is_wrong_in_one_line_each() -> None:
    with own_checks():
        several = type("Own", (Own,), {"axis": "layer", "parameters": {"w": "sigma_v"}})()
        assert check(several) == [
            "network: Own.axis: got 'layer'; declare one of: depth, time",
            "network: Own.parameters: got 'w': 'sigma_v'; name one of the gains: sigma_w",
        ]


@jax.custom_vjp
def unlike(z: Array) -> Array:
    return jnp.tanh(z)


unlike.defvjp(lambda z: (jnp.tanh(z), z), lambda z, g: (3 * g,))


def test_derivatives_that_jax_cannot_take_forward_are_named() -> None:
    (line,) = check(own("step", step(lambda h, z: (unlike(z), (z,)))))
    assert line.startswith("network: Own: JAX cannot differentiate three steps (TypeError")


def test_a_step_that_remembers_is_found() -> None:
    """Another Jacobian at each call: no two ways agree."""
    calls: list[int] = []

    def forgetful(self: Any, weights: Any, gains: Any, state: Array, inputs: Any) -> Any:
        calls.append(1)
        new, z = Own.step(self, weights, gains, state, inputs)
        return len(calls) * new, z

    lines = check(own("step", forgetful))
    assert [line.split(" product")[0] for line in lines] == [
        "network: Own: got a forward",
        "network: Own: got a backward",
    ]


def test_what_is_not_finite_is_said() -> None:
    (line,) = check(own("step", step(lambda h, z: (h / 0, (z,)))))
    assert "is NaN or infinite" in line


@pytest.mark.parametrize("value", [None, "feedforward", gs.feedforward])
def test_check_refuses_what_is_no_network(value: Any) -> None:
    with own_checks(), pytest.raises(TypeError, match=r"^network: got .*; pass a network"):
        check(value)


def test_another_default_of_tied_is_declared_by_name() -> None:
    """As the docstring of `Network` says."""

    @dataclass(frozen=True)
    class Tied(Own):
        size: int = 3
        tied: bool = field(default=True, kw_only=True)

    assert Tied().tied
    contract(Tied())


@pytest.mark.parametrize("function", [gs.sweep, gs.train, gs.lyapunov_exponents], ids=lambda one: one.__name__)
def test_no_gain_has_the_name_of_an_argument(function: Any) -> None:
    keywords = inspect.signature(function).parameters.values()
    assert {one.name for one in keywords if one.kind is not one.VAR_KEYWORD} <= set(TAKEN)
