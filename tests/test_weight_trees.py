"""Weights may be any pytree: a family's named tuple, dicts, nested ones, a registered dataclass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, random
from jax.typing import DTypeLike

import gradsim as gs
from gradsim import Network, initializers
from gradsim.engine.streams import network_keys
from gradsim.networks.network import Gains, leaves_of

WIDTH, DEPTH, KEY = 4, 3, 5


@dataclass(frozen=True)
class _Plain(Network):
    """h' = tanh(h W A) + b: what the families below share."""

    family: ClassVar[str] = "plain"

    @property
    def gains(self) -> dict[str, float]:
        return {"sigma_w": 0.5, "sigma_b": 0.4}

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (WIDTH,)

    @property
    def activations(self) -> tuple[gs.Activation, ...]:
        return (gs.ACTIVATIONS["tanh"],)

    def initial_state(self, gains: Gains, inputs: Array) -> Array:
        return inputs

    def step(self, weights: Any, gains: Gains, state: Array, inputs: Array | None) -> tuple[Array, tuple[Array, ...]]:
        (w, a), b = self.parts(weights)
        z = (gains["sigma_w"] * (state @ w)) @ (gains["sigma_w"] * a)
        return self.activations[0](z) + gains["sigma_b"] * b, (z,)

    def draw(self, key: Array, dtype: DTypeLike) -> Any:
        return self.joined(*[initializers.normal(k, (WIDTH, WIDTH)[:n], dtype)
                             for k, n in zip(random.split(key, 3), (2, 2, 1), strict=True)])  # fmt: skip

    def parts(self, weights: Any) -> Any:
        raise NotImplementedError

    def joined(self, w: Array, a: Array, b: Array) -> Any:
        raise NotImplementedError


class OfDicts(_Plain):
    """Two keys, one of which begins as the other."""

    parameters: ClassVar[Mapping[str, str]] = {"w": "sigma_w", "w2": "sigma_w", "b": "sigma_b"}

    def parts(self, weights: Any) -> Any:
        return (weights["w"], weights["w2"]), weights["b"]

    def joined(self, w: Array, a: Array, b: Array) -> Any:
        return {"w": w, "w2": a, "b": b}


class Block(NamedTuple):
    w: Array
    a: Array


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    block: dict[str, Block]
    bias: list[Array]


class Nested(_Plain):
    """A field that is a subtree, and one that is a leaf of a list."""

    parameters: ClassVar[Mapping[str, str]] = {"block": "sigma_w", "bias.0": "sigma_b"}

    def parts(self, weights: Any) -> Any:
        return weights.block["inner"], weights.bias[0]

    def joined(self, w: Array, a: Array, b: Array) -> Any:
        return Layer({"inner": Block(w, a)}, [b])


class OfLeaves(Nested):
    """Every leaf by its own path."""

    parameters: ClassVar[Mapping[str, str]] = {
        "block.inner.w": "sigma_w",
        "block.inner.a": "sigma_w",
        "bias.0": "sigma_b",
    }


def loss(state: Array) -> Array:
    return jnp.sum(state**2)


CASES: dict[str, tuple[type[_Plain], bool]] = {
    "dicts": (OfDicts, False),
    "dicts, tied": (OfDicts, True),
    "nested, tied": (Nested, True),
    "leaves": (OfLeaves, False),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("family", "tied"), CASES.values(), ids=CASES)
def test_weight_gradients_equal_grad_of_the_whole_network(family: type[_Plain], tied: bool) -> None:
    network = family(tied=tied)
    name = "log_weight_gradient" + "_sum" * tied
    measured = gs.sweep(network, depth=DEPTH, seeds=1, key=KEY, direction="backward", statistics=name, loss=loss,
                        dtype="float64")[name].isel(seed=0)  # fmt: skip
    assert list(measured.parameter.to_numpy()) == ["all", *network.parameters]
    with jax.enable_x64(True):
        unit = {gain: jnp.ones(()) for gain in network.gains}
        keys = network_keys(random.key(KEY), 0)

        @jax.jit
        def drawn(t: Array) -> Any:
            draw = network.draw(random.fold_in(keys.weights, t), "float64")
            return jax.tree.map(lambda leaf: network.gains["sigma_b" if leaf.ndim == 1 else "sigma_w"] * leaf, draw)

        first = jax.jit(lambda: initializers.normal(keys.once, (WIDTH,), "float64"))()
        trained = [drawn(0 if tied else t) for t in range(DEPTH)]

        def whole(weights: list[Any]) -> Array:
            state = first
            for one in weights:
                state = network.step(one, unit, state, None)[0]
            return loss(state)

        if tied:
            gradients = jax.jit(jax.grad(lambda one: whole([one] * DEPTH)))(trained[0])
        else:
            gradients = jax.jit(jax.grad(whole))(trained)
    for t, gradient in enumerate([gradients] if tied else gradients):
        for field in network.parameters:
            leaves = [np.ravel(leaf) for leaf in leaves_of(gradient, field).values()]
            expected = np.log(np.linalg.norm(np.concatenate(leaves)))
            assert float(measured.sel(parameter=field)[t]) == pytest.approx(float(expected), abs=1e-12), field


def test_a_field_is_a_leaf_or_all_leaves_below_it() -> None:
    weights = {"w": 1, "w2": 2, "block": Block(3, [4, 5])}  # type: ignore[arg-type]
    assert leaves_of(weights, "w") == {"w": 1}
    assert leaves_of(weights, "block") == {"block.w": 3, "block.a.0": 4, "block.a.1": 5}
    assert leaves_of(weights, "block.a.1") == {"block.a.1": 5}
    assert leaves_of(weights, "bl") == {}
