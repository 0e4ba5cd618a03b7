"""Models as one would write them in flax, with the initial weights that flax gives them, to classify digits."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import Array

CLASSES, PIXELS, HEADS = 10, 64, 4
TITLES = {
    "mlp": "sigmoid MLP",
    "lstm": "LSTM",
    "transformer_pre": "transformer, pre-norm",
    "transformer_post": "transformer, post-norm",
    "resnet": "ResNet",
}


class Sizes(NamedTuple):
    """Units of a layer, layers of the MLP, blocks of the transformers, and steps of the LSTM."""

    width: int
    layers: int
    blocks: int
    length: int


class Sigmoids(nnx.Module):
    """A multilayer perceptron of sigmoids."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        widths = [PIXELS, *[sizes.width] * sizes.layers]
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairwise(widths)])
        self.head = nnx.Linear(sizes.width, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.sigmoid(layer(x))
        return self.head(x)


class Reader(nnx.Module):
    """An LSTM that reads pixels, one a step, and says what it has read after a wait."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        self.wait = sizes.length - PIXELS
        self.rnn = nnx.RNN(nnx.LSTMCell(1, sizes.width, rngs=rngs))
        self.head = nnx.Linear(sizes.width, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.head(self.rnn(jnp.pad(x, ((0, 0), (0, self.wait)))[..., None])[:, -1])


class Block(nnx.Module):
    """Attention and a layer of GELUs, with the norm before each branch or after each sum."""

    def __init__(self, sizes: Sizes, pre: bool, rngs: nnx.Rngs) -> None:
        width = sizes.width
        self.pre = pre
        self.attention = nnx.MultiHeadAttention(HEADS, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])

    def __call__(self, x: Array) -> Array:
        if self.pre:
            x = x + self.attention(self.norms[0](x))
            return x + self.feed(self.norms[1](x))
        x = self.norms[0](x + self.attention(x))
        return self.norms[1](x + self.feed(x))

    def feed(self, x: Array) -> Array:
        return self.down(nnx.gelu(self.up(x)))


class Transformer(nnx.Module):
    """Rows of the image are its tokens."""

    def __init__(self, sizes: Sizes, pre: bool, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(8, sizes.width, rngs=rngs)
        self.places = nnx.Param(0.5 * jax.random.normal(rngs.params(), (8, sizes.width)))
        self.blocks = nnx.List([Block(sizes, pre, rngs) for _ in range(sizes.blocks)])
        self.head = nnx.Linear(sizes.width, CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        return self.answer(x)

    def read(self, x: Array) -> Array:
        return self.embed(x.reshape(-1, 8, 8)) + self.places[...]

    def answer(self, x: Array) -> Array:
        return self.head(x.mean(1))


class ResidualBlock(linen.Module):
    """Two convolutions with batch norm, and a way around."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        h = x
        for place in range(2):
            h = linen.Conv(x.shape[-1], (3, 3), use_bias=False)(h)
            h = linen.BatchNorm(use_running_average=False)(h)
            h = linen.relu(h) if place == 0 else h
        return linen.relu(x + h)


class ResNet(linen.Module):
    """Four blocks."""

    channels: int

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = linen.relu(linen.Conv(self.channels, (3, 3))(x.reshape(-1, 8, 8, 1)))
        for _ in range(4):
            x = ResidualBlock()(x)
        return linen.Dense(CLASSES)(x.mean((1, 2)))


class Made(NamedTuple):
    """A model, and its variables where it holds none itself."""

    model: Any
    variables: Any


def make(name: str, sizes: Sizes, seed: int, x: Array) -> Made:
    """The model of this name in TITLES, for digits as in x."""
    rngs = nnx.Rngs(seed)
    if name == "resnet":
        model = ResNet(max(sizes.width // 4, 1))
        return Made(model, model.init(jax.random.key(seed), x))
    made: dict[str, Callable[[], nnx.Module]] = {
        "mlp": lambda: Sigmoids(sizes, rngs),
        "lstm": lambda: Reader(sizes, rngs),
        "transformer_pre": lambda: Transformer(sizes, True, rngs),
        "transformer_post": lambda: Transformer(sizes, False, rngs),
    }
    return Made(made[name](), None)


class Split(NamedTuple):
    """A model as arrays, and as a function (parameters, state, x) -> (logits, state)."""

    parameters: Any
    state: Any
    call: Callable[[Any, Any, Array], tuple[Array, Any]]


def split(made: Made) -> Split:
    """The model in training mode: batch norm has the statistics of its batch."""
    if made.variables is not None:
        rest = {name: one for name, one in made.variables.items() if name != "params"}

        def apply(parameters: Any, state: Any, x: Array) -> tuple[Array, Any]:
            return made.model.apply({"params": parameters, **state}, x, mutable=list(state))

        return Split(made.variables["params"], rest, apply)
    if isinstance(made.model, Transformer):
        return _by_block(made.model)
    graph, parameters, state = nnx.split(made.model, nnx.Param, ...)  # type: ignore[misc]

    def call(parameters: Any, state: Any, x: Array) -> tuple[Array, Any]:
        model = nnx.merge(graph, parameters, state, copy=True)
        return model(x), nnx.state(model, nnx.Not(nnx.Param))

    return Split(parameters, state, call)


def _by_block(model: Transformer) -> Split:
    """Its blocks as one array a parameter and a loop over them, which is compiled in the time of one block."""
    parts: list[Any] = [nnx.split(block, nnx.Param, ...) for block in model.blocks]
    block, _, rest = parts[0]
    stacked = jax.tree.map(lambda *several: np.stack(several), *(one[1] for one in parts))
    outside = nnx.clone(model)
    outside.blocks = nnx.List([])
    graph, parameters, state = nnx.split(outside, nnx.Param, ...)  # type: ignore[misc]

    def call(parameters: Any, state: Any, x: Array) -> tuple[Array, Any]:
        ends, blocks = parameters
        model = nnx.merge(graph, ends, state, copy=True)
        through = jax.lax.scan(lambda x, one: (nnx.merge(block, one, rest, copy=True)(x), None), model.read(x), blocks)
        return model.answer(through[0]), state

    return Split((parameters, stacked), state, call)
