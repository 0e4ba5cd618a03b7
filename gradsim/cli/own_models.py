"""Time of `gs.inspect` against a gradient, and of `gs.track_gradients` in a training step; for scripts/benchmark.py."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import gradsim as gs
from gradsim.cli.flax_models import Block, Sizes
from gradsim.cli.timing import medians, timed

EVERY = 10
OPTIMIZERS = {"sgd": optax.sgd(1e-3), "momentum": optax.sgd(1e-3, momentum=0.9), "adam": optax.adam(1e-3)}


class Stack(nnx.Module):
    """Layers of sigmoids, all of one width."""

    def __init__(self, width: int, layers: int) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairwise([width] * (layers + 1))])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.sigmoid(layer(x))
        return x


class Blocks(nnx.Module):
    """Blocks of a pre-norm transformer, one after another."""

    def __init__(self, width: int, blocks: int) -> None:
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([Block(Sizes(width, 0, blocks, 0), True, rngs) for _ in range(blocks)])

    def __call__(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return x


MODELS: dict[str, tuple[Callable[[], nnx.Module], tuple[int, ...]]] = {
    "200 layers of 64": (lambda: Stack(64, 200), (64, 64)),
    "20 layers of 256": (lambda: Stack(256, 20), (128, 256)),
    "24 blocks of a transformer of 64": (lambda: Blocks(64, 24), (8, 32, 64)),
}


def rows(repeats: int) -> dict[str, Any]:
    """Both, as tables."""
    return {"inspect": [inspected(name, *MODELS[name], repeats) for name in MODELS], "track": tracked(repeats)}


def inspected(name: str, make: Callable[[], nnx.Module], shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Seconds of an inspection that is not the first, and of the gradient of the same loss, jitted and not."""
    model, x = make(), jax.random.normal(jax.random.key(1), shape)

    def loss(y: Array) -> Array:
        return jnp.mean(y**2)

    gradient = nnx.grad(lambda model, x: loss(model(x)))
    jitted = nnx.jit(gradient)
    contenders: dict[str, Callable[[], Any]] = {
        "gradient": lambda: jax.tree.leaves(gradient(model, x)),
        "jitted gradient": lambda: jax.tree.leaves(jitted(model, x)),
        "gs.inspect": lambda: gs.inspect(model, x, loss=loss),
    }
    seconds, shares = medians(timed(contenders, repeats), "gs.inspect")
    times = {of: 1 / shares[of] for of in ("gradient", "jitted gradient")}
    print(
        f"gs.inspect, {name}: {1e3 * seconds['gs.inspect']:.0f} ms, {times['gradient']:.2f} times jax.grad's, "
        f"{times['jitted gradient']:.1f} times that of jax.grad under jax.jit"
    )
    return {"name": name, "seconds": seconds, "times": times}


def tracked(repeats: int, width: int = 512, layers: int = 20, batch: int = 128) -> list[dict[str, Any]]:
    """Seconds of EVERY training steps: plain, with records that the program counts, and where the caller says when."""
    table = []
    for name, plain in OPTIMIZERS.items():
        wrapped = gs.track_gradients(plain, every=EVERY)
        ways = {"plain": (plain, False), "counted": (wrapped, False), "said": (wrapped, True)}
        contenders = {way: training(*one, width, layers, batch) for way, one in ways.items()}
        seconds, ratios = medians(timed(contenders, repeats), "plain")
        cost = {way: ratios[way] - 1 for way in ("counted", "said")}
        table.append({"name": name, "layers": layers, "width": width, "seconds": seconds, "cost": cost})
        print(
            f"{name}, {layers} layers of {width}: {1e3 * seconds['plain'] / EVERY:.0f} ms a step; a record of one in "
            f"{EVERY} costs {cost['counted']:.1%}, and {cost['said']:.1%} where the caller says when"
        )
    return table


def training(
    optimizer: optax.GradientTransformation, says: bool, width: int, layers: int, batch: int
) -> Callable[[], Any]:
    """EVERY steps of a multilayer perceptron in one call, whose arrays are given up to the next step, as is usual."""

    def loss(weights: list[Array], x: Array) -> Array:
        for w in weights:
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2)

    @partial(jax.jit, static_argnames="said", donate_argnums=(0, 1))
    def step(weights: list[Array], state: Any, x: Array, said: tuple[tuple[str, bool], ...]) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(weights, x), state, weights, **dict(said))
        return optax.apply_updates(weights, updates), state

    keys = jax.random.split(jax.random.key(0), layers)
    x = jax.random.normal(jax.random.key(1), (batch, width))
    weights = [jax.random.normal(key, (width, width)) / width**0.5 for key in keys]
    held: list[Any] = [weights, optimizer.init(weights)]

    def call() -> Any:
        for number in range(EVERY):
            held[:] = step(*held, x, (("record", number == 0),) if says else ())
        return held

    return call
