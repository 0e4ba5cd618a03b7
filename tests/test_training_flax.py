"""Training equals a plain loop of flax.nnx and optax: the same network, order of the data and key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import Array

import gradsim as gs
from gradsim.draws import normal
from gradsim.engine.chain import Source
from gradsim.engine.streams import network_keys
from gradsim.training import tasks
from gradsim.training.loop import order
from gradsim.training.tasks import Data

N, DEPTH, BATCH, STEPS = 64, 3, 16, 100


def data_of(network: gs.Network, data: Any = "digits", depth: int | None = DEPTH) -> Data:
    return tasks.get(data, network, depth=depth, classes=None, held_out=0.2, key=0, dtype="float32")[0]


def drawn(network: gs.Network, depth: int, seed: int = 0, dtype: str = "float32") -> list[Any]:
    """The unit draws of the sweep's network of this seed, step by step."""
    source = Source.of(network, network_keys(jax.random.key(0), seed), None, dtype, depth)
    weights = jax.jit(source.weights)
    return [weights(t) for t in range(depth)]


def read_out(rows: int, seed: int = 0, columns: int = 10) -> Array:
    """The read-out of the network of this seed, variance 1/rows."""
    key = jax.random.fold_in(network_keys(jax.random.key(0), seed).once, 1)
    return normal(key, (rows, columns), jnp.float32) / np.float32(np.sqrt(rows))


def linear(kernel: Any, bias: Any = None) -> nnx.Linear:
    layer = nnx.Linear(*kernel.shape, rngs=nnx.Rngs(0))
    layer.kernel = nnx.Param(kernel)
    layer.bias = nnx.Param(jnp.zeros(kernel.shape[1]) if bias is None else bias)
    return layer


class Deep(nnx.Module):
    """tanh layers."""

    def __init__(self, network: gs.Network) -> None:
        gain = network.gains["sigma_w"]
        self.layers = nnx.List([linear(gain * draw.w) for draw in drawn(network, DEPTH)])
        self.out = linear(read_out(N))

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.out(x)


class Skipping(nnx.Module):
    """Residual blocks of two layers."""

    def __init__(self, network: gs.Network) -> None:
        gains, draws = network.gains, drawn(network, DEPTH)
        self.first = nnx.List([linear(gains["sigma_w"] * draw.w) for draw in draws])
        self.second = nnx.List([nnx.Linear(N, N, use_bias=False, rngs=nnx.Rngs(0)) for _ in draws])
        for layer, draw in zip(self.second, draws, strict=True):
            layer.kernel = nnx.Param(gains["sigma_v"] * draw.v)
        self.out = linear(read_out(N))

    def __call__(self, x: Array) -> Array:
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(nnx.relu(first(x)))
        return self.out(x)


class Normalized(nnx.Module):
    """Batch norm before ReLU, without a scale of its own."""

    def __init__(self, network: gs.Network) -> None:
        gain = network.gains["sigma_w"]
        self.layers = nnx.List([nnx.Linear(N, N, use_bias=False, rngs=nnx.Rngs(0)) for _ in range(DEPTH)])
        for layer, draw in zip(self.layers, drawn(network, DEPTH), strict=True):
            layer.kernel = nnx.Param(gain * draw.w)
        norms = [nnx.BatchNorm(N, use_scale=False, use_running_average=False, rngs=nnx.Rngs(0)) for _ in range(DEPTH)]
        self.norms = nnx.List(norms)
        self.out = linear(read_out(N))

    def __call__(self, x: Array) -> Array:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = nnx.relu(norm(layer(x)))
        return self.out(x)


class Memory(nnx.Module):
    """An LSTM over rows, read out at the end."""

    def __init__(self, network: Any) -> None:
        (weights,) = drawn(network, 1)
        cell = nnx.LSTMCell(8, network.width, rngs=nnx.Rngs(0))
        for gate in "ifgo":
            of_input = cell.if_ if gate == "f" else getattr(cell, f"i{gate}")
            of_input.kernel = nnx.Param(network.gains["sigma_v"] * getattr(weights, f"v_{gate}"))
            getattr(cell, f"h{gate}").kernel = nnx.Param(network.gains["sigma_w"] * getattr(weights, f"w_{gate}"))
        self.cell, self.width = cell, network.width
        self.out = linear(read_out(network.width))

    def __call__(self, x: Array) -> Array:
        carry = (jnp.zeros((x.shape[0], self.width)),) * 2
        for t in range(x.shape[1]):
            carry, y = self.cell(carry, x[:, t])
        return self.out(y)


def plain_losses(model: Any, data: Data, transformation: Any) -> np.ndarray:
    """The loss before each update of a training loop as one writes it with flax and optax."""
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Array, y: Array) -> Array:
        def loss(model: Any) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    found, batches = [], order(data, BATCH, 0, 0)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(STEPS):
            i = next(batches)
            found.append(step(model, optimizer, data.source.inputs[i], data.source.targets[i][:, 0]))
    return np.asarray(found)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("network", "build", "optimizer"),
    [
        (gs.feedforward(N), Deep, lambda rate: optax.sgd(rate, momentum=0.9)),
        (gs.residual(N), Skipping, lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))),
        (gs.batchnorm(N, BATCH), Normalized, optax.sgd),
        (gs.lstm(16, features=8), Memory, optax.adam),
    ],
    ids=["feedforward", "residual", "batchnorm", "lstm"],
)
def test_equals_a_plain_loop_of_flax_and_optax(network: gs.Network, build: Any, optimizer: Any) -> None:
    driven = network.driven
    options: dict[str, Any] = {
        "data": "digits_rows" if driven else "digits",
        "depth": 4 if driven else DEPTH,
        "batch": BATCH,
    }
    trained = gs.train(
        network, optimizer=optimizer, learning_rate=0.01, seeds=1, steps=STEPS, record=1, by_layer=False, **options
    )
    expected = plain_losses(build(network), data_of(network, options["data"], options["depth"]), optimizer(0.01))
    assert expected[-10:].mean() < 0.9 * expected[:10].mean()  # it learns, or equality says little
    np.testing.assert_allclose(trained.loss.values[0, :STEPS], expected, rtol=0, atol=1e-4)
