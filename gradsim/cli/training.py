"""How fast networks train: thousands at once against one after another, and against batched matrix products."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradsim as gs
from gradsim.cli.timing import medians, timed

NETWORKS, DEPTH, WIDTH, BATCH, STEPS, CLASSES = 1024, 10, 64, 32, 100, 10
ALONE = 32  # networks that are trained one after another: their time is in proportion to their number
OPTIMIZERS = {"sgd": optax.sgd, "adam": optax.adam}


def together(optimizer: Any, steps: int = STEPS) -> Callable[[], Any]:
    """A whole call of `gs.train`, labels and host work included: gains and seeds of ReLU networks on digits."""
    gains = np.linspace(1, 2, 16)
    return lambda: gs.train(
        gs.feedforward(WIDTH, "relu"), data="digits", optimizer=optimizer, learning_rate=0.01, depth=DEPTH, batch=BATCH,
        seeds=NETWORKS // gains.size, sigma_w=gains, steps=steps, record=[steps], by_layer=False, progress=False,
    )  # fmt: skip


def one_after_another(optimizer: Any) -> Callable[[], Any]:
    """A jitted step of one network, called for each network and step, as one writes it with optax."""
    transformation = optimizer(0.01)
    keys = jax.random.split(jax.random.key(0), 3)
    layers = jax.random.normal(keys[0], (DEPTH, WIDTH, WIDTH)) / np.float32(WIDTH**0.5)
    out = jax.random.normal(keys[1], (WIDTH, CLASSES)) / np.float32(WIDTH**0.5)
    x, labels = jax.random.normal(keys[2], (BATCH, WIDTH)), jnp.arange(BATCH) % CLASSES
    first = {"layers": layers, "biases": jnp.zeros((DEPTH, WIDTH)), "out": out}

    def loss(parameters: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        def layer(h: jax.Array, w: Any) -> tuple[jax.Array, None]:
            return jax.nn.relu(jnp.matmul(h, w[0], precision="highest") + w[1]), None

        h, _ = jax.lax.scan(layer, x, (parameters["layers"], parameters["biases"]), unroll=DEPTH)
        return optax.softmax_cross_entropy_with_integer_labels(h @ parameters["out"], labels).mean()

    @jax.jit
    def step(parameters: Any, state: Any, x: jax.Array, labels: jax.Array) -> Any:
        update, state = transformation.update(jax.grad(loss)(parameters, x, labels), state, parameters)
        return optax.apply_updates(parameters, update), state

    def call() -> Any:
        for _ in range(ALONE):
            parameters, state = first, transformation.init(first)
            for _ in range(STEPS):
                parameters, state = step(parameters, state, x, labels)
        return parameters

    return call


def products() -> Callable[[], Any]:
    """Batched products [networks, batch, n] @ [networks, n, n] in one call, as many as one step takes."""
    left, right = jnp.ones((NETWORKS, BATCH, WIDTH)), jnp.ones((NETWORKS, WIDTH, WIDTH))

    def again(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, product = carry
        return a.at[0, 0, 0].set(product[0, 0, 0]), jnp.matmul(a, right, precision="highest")

    loop = jax.jit(lambda a: jax.lax.fori_loop(0, 3 * DEPTH, again, (a, jnp.zeros_like(left))))
    return lambda: loop(left)


def flops() -> float:
    """The arithmetic of a step of one network that must be done: three products a layer, but two in the first."""
    return 2.0 * BATCH * WIDTH * ((3 * DEPTH - 1) * WIDTH + 3 * CLASSES)


def rows(repeats: int) -> list[dict[str, Any]]:
    """A row for each optimizer: networks · steps a second, the share of the batched products' rate, times faster."""
    table = []
    for name, optimizer in OPTIMIZERS.items():
        turns = timed(
            {"gradsim": together(optimizer), "alone": one_after_another(optimizer), "products": products()}, repeats
        )
        rate = NETWORKS * STEPS * flops() / turns["gradsim"]
        share = rate / (NETWORKS * 2.0 * BATCH * WIDTH**2 * 3 * DEPTH / turns["products"])
        faster = turns["alone"] / ALONE / (turns["gradsim"] / NETWORKS)
        row = {"name": name, "networks": NETWORKS, "depth": DEPTH, "width": WIDTH, "batch": BATCH, "steps": STEPS}
        row |= {"seconds": medians(turns, "gradsim")[0], "gflops": float(np.median(rate)) / 1e9}
        table.append({**row, "share": float(np.median(share)), "faster": float(np.median(faster))})
        print(
            f"{name:5s} {NETWORKS} networks of {DEPTH} x {WIDTH}, batch {BATCH}: {table[-1]['gflops']:5.0f} GFLOP/s, "
            f"{table[-1]['share']:.2f} of batched products, {table[-1]['faster']:.1f} times faster than one by one"
        )
    return table
