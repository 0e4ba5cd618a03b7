"""Small trees of parameters, and optimizers run on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

PARAMS = {"a": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}, "blocks": {"kernel": 2 * jnp.ones((5, 3, 3))}}
STEPS = 20  # more than any test takes
NAMES = ["a/bias", "a/kernel", *(f"blocks/kernel[{layer}]" for layer in range(5))]


def drawn() -> Any:
    """Gradients of all updates, one of whose layers shrinks by e^-20 a layer."""
    generator = np.random.default_rng(0)
    made: Any = jax.tree.map(lambda x: generator.standard_normal((STEPS, *x.shape)).astype(np.float32), PARAMS)
    made["blocks"]["kernel"] *= np.exp(-20 * np.arange(5.0)).astype(np.float32)[:, None, None]
    return made


DRAWN = drawn()


def gradient(t: Any) -> Any:
    """The gradient of update t."""
    return jax.tree.map(lambda x: jnp.asarray(x)[t], DRAWN)


def gradient_by_hand(t: int) -> Any:
    return jax.tree.map(lambda x: x[t], DRAWN)


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
