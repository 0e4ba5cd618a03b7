"""Every wrong argument gets one line that names it, before anything is compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from wrong import nothing_measured

import gradsim as gs
from gradsim.sweeps import chunks


@pytest.fixture(autouse=True)
def own_checks_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nothing_measured(monkeypatch):
        yield


def refused(name: str, call: Callable[[], Any], error: type[Exception] | tuple[type[Exception], ...]) -> str:
    """The message, which must be one line that begins with the argument's name."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{name}: "), f"the message does not begin with {name!r}: {message}"
    assert "\n" not in message
    assert len(message) > len(name) + 20, "too short to say what came and what may come"
    return message


def softmax(z: Array) -> Array:
    return jax.nn.softmax(z)


def shrink(z: Array) -> Array:
    return z[:1]


def half(z: Array) -> Array:
    return z.astype(jnp.float16)


NAN, INF = float("nan"), float("inf")
NETWORKS: list[tuple[str, dict[str, Any], str, Any]] = [
    ("width zero", {"width": 0}, "width", ValueError),
    ("width negative", {"width": -4}, "width", ValueError),
    ("width fractional", {"width": 2.5}, "width", ValueError),
    ("width NaN", {"width": NAN}, "width", ValueError),
    ("width infinite", {"width": INF}, "width", ValueError),
    ("width bool", {"width": True}, "width", TypeError),
    ("width string", {"width": "64"}, "width", TypeError),
    ("width None", {"width": None}, "width", TypeError),
    ("width list", {"width": [64]}, "width", TypeError),
    ("width complex", {"width": 4 + 0j}, "width", TypeError),
    ("activation unknown", {"activation": "tanhh"}, "activation", ValueError),
    ("activation in capitals", {"activation": "ReLU"}, "activation", ValueError),
    ("activation number", {"activation": 3}, "activation", TypeError),
    ("activation None", {"activation": None}, "activation", TypeError),
    ("activation not elementwise", {"activation": softmax}, "activation", ValueError),
    ("activation sums", {"activation": lambda z: z - jnp.sum(z)}, "activation", ValueError),
    ("activation to a scalar", {"activation": jnp.sum}, "activation", ValueError),
    ("activation changes shape", {"activation": shrink}, "activation", ValueError),
    ("activation adds an axis", {"activation": lambda z: z[:, None]}, "activation", ValueError),
    ("activation changes dtype", {"activation": half}, "activation", ValueError),
    ("activation gives integers", {"activation": lambda z: jnp.round(z).astype(jnp.int32)}, "activation", ValueError),
    ("activation of numpy", {"activation": np.tanh}, "activation", ValueError),
    ("activation branches", {"activation": lambda z: z if z > 0 else 0 * z}, "activation", ValueError),
    ("activation with NaN", {"activation": jnp.sqrt}, "activation", ValueError),
    ("activation gives a tuple", {"activation": lambda z: (z, z)}, "activation", ValueError),
    ("activation gives nothing", {"activation": lambda z: None}, "activation", ValueError),
    ("activation gives a constant", {"activation": lambda z: 1.0}, "activation", ValueError),
    ("activation takes two arguments", {"activation": jnp.arctan2}, "activation", ValueError),
    ("initializer unknown", {"initializer": "he"}, "initializer", ValueError),
    ("initializer number", {"initializer": 1.0}, "initializer", TypeError),
    ("initializer None", {"initializer": None}, "initializer", TypeError),
    (
        "initializer is a factory",
        {"initializer": jax.nn.initializers.he_normal},
        "initializer",
        (ValueError, TypeError),
    ),
    ("initializer of wrong shape", {"initializer": lambda k, s, d: jnp.ones(3, d)}, "initializer", ValueError),
    ("initializer takes one argument", {"initializer": lambda key: key}, "initializer", ValueError),
    ("tied is a word", {"tied": "yes"}, "tied", TypeError),
    ("tied is a number", {"tied": 1}, "tied", TypeError),
]
SWEEPS: list[tuple[str, dict[str, Any], str, Any]] = [
    *[
        (f"{name} {value!r}", {name: value}, name, error)
        for name in ("depth", "seeds")
        for value, error in [
            (0, ValueError),
            (-1, ValueError),
            (1.5, ValueError),
            (NAN, ValueError),
            (INF, ValueError),
            (True, TypeError),
            ("8", TypeError),
            (None, TypeError),
            ([4], TypeError),
            (4 + 0j, TypeError),
        ]
    ],
    *[
        (f"sigma_w {value!r}", {"sigma_w": value}, "sigma_w", error)
        for value, error in [
            (-1.0, ValueError),
            ([1.0, -0.5], ValueError),
            (NAN, ValueError),
            ([1.0, NAN], ValueError),
            (INF, ValueError),
            ("1.0", TypeError),
            (["a", "b"], TypeError),
            ([[1.0, 2.0]], ValueError),
            ([[1.0], [2.0, 3.0]], TypeError),
            ([], ValueError),
            (None, TypeError),
            (True, TypeError),
            ([True, False], TypeError),
            (1 + 2j, TypeError),
            ({"a": 1}, TypeError),
            ([1.0, 1.0], ValueError),
            (1e300, ValueError),  # beyond float32, the dtype of the run: it would become infinite
            (1e-60, ValueError),  # and this one zero, a dead network that is not dead
        ]
    ],
    ("sigma_b negative", {"sigma_b": -0.1}, "sigma_b", ValueError),
    ("gain unknown", {"sigma_q": 1.0}, "sigma_q", ValueError),
    ("gain of another family", {"forget_bias": 1.0}, "forget_bias", ValueError),
    ("gain misspelt", {"sigmaw": 1.0}, "sigmaw", ValueError),
    ("statistics unknown", {"statistics": "log_gian"}, "statistics", ValueError),
    ("statistics one unknown", {"statistics": ["log_gain", "norm"]}, "statistics", ValueError),
    ("statistics empty", {"statistics": ()}, "statistics", ValueError),
    ("statistics empty name", {"statistics": ""}, "statistics", ValueError),
    ("statistics number", {"statistics": [1]}, "statistics", TypeError),
    ("statistics one number", {"statistics": 1}, "statistics", TypeError),
    ("statistics None", {"statistics": None}, "statistics", TypeError),
    ("statistics nested", {"statistics": [["log_gain"]]}, "statistics", TypeError),
    ("statistics of the other direction", {"statistics": "log_gradient"}, "statistics", ValueError),
    ("dtype unknown", {"dtype": "int8"}, "dtype", ValueError),
    ("dtype None", {"dtype": None}, "dtype", TypeError),
    ("direction unknown", {"direction": "sideways"}, "direction", ValueError),
    ("at beyond the depth", {"at": 5}, "at", ValueError),
    ("at partly beyond the depth", {"at": [1, 5]}, "at", ValueError),
    ("at zero", {"at": 0}, "at", ValueError),
    ("at negative", {"at": -1}, "at", ValueError),
    ("at fractional", {"at": [1.5]}, "at", ValueError),
    ("at empty", {"at": []}, "at", ValueError),
    ("at a word", {"at": "last"}, "at", TypeError),
    ("at a flag", {"at": True}, "at", TypeError),
    ("at nested", {"at": [[1, 2]]}, "at", TypeError),
    ("at ragged", {"at": [[1], [1, 2]]}, "at", (TypeError, ValueError)),
    ("burn_in negative", {"burn_in": -1}, "burn_in", ValueError),
    ("burn_in fractional", {"burn_in": 0.5}, "burn_in", ValueError),
    ("burn_in flag", {"burn_in": False}, "burn_in", TypeError),
    ("key negative", {"key": -1}, "key", ValueError),
    ("key fractional", {"key": 0.5}, "key", ValueError),
    ("key an array", {"key": jax.random.key(0)}, "key", TypeError),
    ("key too large", {"key": 2**70}, "key", ValueError),
    ("inputs too narrow", {"inputs": np.ones((3, 5))}, "inputs", ValueError),
    ("inputs without samples", {"inputs": np.ones(6)}, "inputs", ValueError),
    ("inputs of rank 3", {"inputs": np.ones((3, 6, 1))}, "inputs", ValueError),
    ("inputs empty", {"inputs": np.ones((0, 6))}, "inputs", ValueError),
    ("inputs with NaN", {"inputs": np.full((2, 6), NAN)}, "inputs", ValueError),
    ("inputs infinite", {"inputs": np.full((2, 6), INF)}, "inputs", ValueError),
    ("inputs beyond float32", {"inputs": np.full((2, 6), 1e300)}, "inputs", ValueError),
    ("inputs a word", {"inputs": "digits"}, "inputs", (TypeError, ValueError)),
    ("inputs ragged", {"inputs": [[1.0] * 6, [1.0]]}, "inputs", TypeError),
    ("inputs complex", {"inputs": np.ones((2, 6), complex)}, "inputs", TypeError),
    ("inputs of flags", {"inputs": np.ones((2, 6), bool)}, "inputs", TypeError),
]
NOT_NETWORKS: list[tuple[str, Any, Any]] = [
    ("empty mapping", {}, ValueError),
    ("a name", "feedforward", TypeError),
    ("None", None, TypeError),
    ("the factory", gs.feedforward, TypeError),
    ("a list", [gs.feedforward(6)], TypeError),
    ("a mapping to a width", {"a": 6}, TypeError),
]


@pytest.mark.parametrize(("options", "name", "error"), [case[1:] for case in NETWORKS], ids=[c[0] for c in NETWORKS])
def test_network_refuses(options: dict[str, Any], name: str, error: Any) -> None:
    """Some initializers show only in a sweep what is wrong with them."""
    call: dict[str, Any] = {"width": 6, **options}
    refused(name, lambda: gs.sweep(gs.feedforward(**call), depth=4, seeds=2), error)


@pytest.mark.parametrize(("options", "name", "error"), [case[1:] for case in SWEEPS], ids=[c[0] for c in SWEEPS])
def test_sweep_refuses(options: dict[str, Any], name: str, error: Any) -> None:
    call: dict[str, Any] = {"depth": 4, "seeds": 2, **options}
    refused(name, lambda: gs.sweep(gs.feedforward(6), **call), error)


@pytest.mark.parametrize(("network", "error"), [case[1:] for case in NOT_NETWORKS], ids=[c[0] for c in NOT_NETWORKS])
def test_sweep_refuses_what_is_not_a_network(network: Any, error: Any) -> None:
    refused("network", lambda: gs.sweep(network, depth=4, seeds=2), error)


def test_unknown_names_list_the_known_ones() -> None:
    sweep = {"depth": 2, "seeds": 1}
    activation = refused("activation", lambda: gs.feedforward(6, "nonsense"), ValueError)
    assert all(name in activation for name in gs.ACTIVATIONS)
    initializer = refused("initializer", lambda: gs.feedforward(6, "tanh", "nonsense"), ValueError)
    assert all(name in initializer for name in gs.INITIALIZERS)
    statistic = refused("statistics", lambda: gs.sweep(gs.feedforward(6), statistics="x", **sweep), ValueError)  # type: ignore[arg-type]
    assert all(name in statistic for name in ("log_gain", "log_jvp", "log_spectral", "length", "slope", "saturated"))
    gain = refused("sigma", lambda: gs.sweep(gs.feedforward(6), sigma=1.0, **sweep), ValueError)  # type: ignore[arg-type]
    assert "sigma_w" in gain
    assert "sigma_b" in gain


def test_networks_whose_weights_have_other_names_have_no_axis_of_them_in_common() -> None:
    networks = {"one": gs.feedforward(4), "other": gs.residual(4)}
    options: dict[str, Any] = {"depth": 4, "seeds": 2, "direction": "backward"}
    refused("network", lambda: gs.sweep(networks, statistics="log_weight_gradient", **options), ValueError)


def test_second_network_of_a_mapping_is_checked_before_the_first_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {"narrow": gs.feedforward(6), "wide": gs.feedforward(4000)}
    refused("inputs", lambda: gs.sweep(pair, depth=2, seeds=1, inputs=np.ones((1, 6))), ValueError)
    monkeypatch.setattr(chunks, "memory_at_hand", lambda: 2**25)
    refused("width", lambda: gs.sweep(pair, depth=2, seeds=1), ValueError)


@pytest.mark.parametrize("statistics", ["log_gain", "log_jvp"])
def test_a_network_too_wide_for_the_memory_is_refused_with_what_would_fit(
    statistics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "memory_at_hand", lambda: 2**22)
    message = refused(
        "width", lambda: gs.sweep(gs.feedforward(3000), depth=2, seeds=1, statistics=statistics), ValueError
    )  # fmt: skip
    assert "GiB" in message
    assert "fits" in message
    assert ("log_jvp" in message) == (statistics == "log_gain")  # advice that does not apply is not given


def test_a_width_beyond_all_memory_is_refused_without_being_tried() -> None:
    refused("width", lambda: gs.sweep(gs.feedforward(10**7), depth=2, seeds=1), ValueError)
