"""Small trees of parameters, and optimizers run on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

PARAMS = {"a": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}, "blocks": {"kernel": 2 * jnp.ones((5, 3, 3))}}
NAMES = ["a/bias", "a/kernel", *(f"blocks/kernel[{layer}]" for layer in range(5))]


def gradient(t: Any, params: Any = PARAMS) -> Any:
    """A gradient of update t, one of whose layers shrinks by e^-20 a layer."""
    leaves, tree = jax.tree.flatten(params)
    keys = random.split(random.fold_in(random.key(0), t), len(leaves))
    drawn = [random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    made = jax.tree.unflatten(tree, drawn)
    scale = np.exp(-20 * np.arange(5.0)).astype(np.float32)[:, None, None]  # XLA has several exponential functions
    return {**made, "blocks": {"kernel": made["blocks"]["kernel"] * scale}} if "blocks" in made else made


gradient_by_hand = jax.jit(gradient)


def once(optimizer: Any, gradients: Any, params: Any = None) -> Any:
    """The state after one update, compiled whole: operation by operation it takes longer."""
    return jax.jit(lambda g, params: optimizer.update(g, optimizer.init(g), params)[1])(gradients, params)


def run(optimizer: Any, steps: int, gradients: Any = gradient, params: Any = PARAMS) -> tuple[Any, Any]:
    @jax.jit
    def step(params: Any, state: Any, t: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients(t), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):  # as the optimizers of optax want it
        for t in range(steps):
            params, state = step(params, state, jnp.asarray(t))
    return params, state


def logs(tree: Any) -> np.ndarray:
    """ln of the norms by hand, in float64 on the host."""
    a, blocks = tree["a"], np.asarray(tree["blocks"]["kernel"], np.float64)
    every = [np.asarray(a["bias"], np.float64), np.asarray(a["kernel"], np.float64), *blocks]
    with np.errstate(divide="ignore"):
        return np.log([np.sqrt((one**2).sum()) for one in every])
