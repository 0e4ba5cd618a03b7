"""How else one would measure the same networks: jax.vmap(jax.jacfwd), and torch.func where torch is installed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def states(key: jax.Array, sigma_w: jax.Array, x: jax.Array, depth: int) -> jax.Array:
    """A random tanh network as one would write it: the states after every layer, [depth, n]."""

    def layer(h: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        w = sigma_w * jax.random.normal(key, (h.size, h.size)) / h.size**0.5
        h = jnp.tanh(h @ w)
        return h, h

    return jax.lax.scan(layer, x, jax.random.split(key, depth))[1]


def jax_baseline(keys: jax.Array, sigma_w: jax.Array, x: jax.Array, depth: int) -> Callable[[], jax.Array]:
    """ln ‖J‖² of every network at every depth, through jax.vmap(jax.jacfwd)."""

    @jax.jit
    def jacfwd(keys: jax.Array, sigma_w: jax.Array, x: jax.Array) -> jax.Array:
        jacobians = jax.vmap(jax.jacfwd(lambda x, key, sigma_w: states(key, sigma_w, x, depth)))(x, keys, sigma_w)
        return jnp.log(jnp.sum(jacobians**2, axis=(2, 3)))

    return lambda: jacfwd(keys, sigma_w, x)


def torch_baseline(sigma_w: np.ndarray, x: np.ndarray, depth: int) -> dict[str, Callable[[], Any]]:
    """The last depth alone through torch.func, on the CPU; empty where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    gains, inputs, n = torch.from_numpy(sigma_w.copy()), torch.from_numpy(x.copy()), x.shape[1]

    def network(weights: Any, x: Any) -> Any:
        for weight in weights:
            x = torch.tanh(x @ weight)
        return x

    def run() -> Any:
        weights = gains[:, None, None, None] * torch.randn(len(x), depth, n, n) / n**0.5
        jacobians = torch.func.vmap(torch.func.jacrev(network, argnums=1))(weights, inputs)
        return jacobians.pow(2).sum((1, 2)).log().numpy()

    return {"torch.func.vmap(jacrev), last depth": run}


def lstm_baseline(width: int, networks: int, length: int) -> dict[str, Callable[[], Any]]:
    """The Jacobian of the whole state of torch.nn.LSTMCell after the last step; empty where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    cells = [torch.nn.LSTMCell(width, width) for _ in range(networks)]
    parameters, _ = torch.func.stack_module_state(cells)
    inputs = torch.randn(networks, length, width)

    def unrolled(state: Any, parameters: Any, inputs: Any) -> Any:
        h, c = state[:width], state[width:]
        for x in inputs:
            h, c = torch.func.functional_call(cells[0], parameters, (x[None], (h[None], c[None])))
            h, c = h[0], c[0]
        return torch.cat([h, c])

    jacobian = torch.func.vmap(torch.func.jacrev(unrolled))
    start = torch.zeros(networks, 2 * width)
    return {"torch.func.jacrev(LSTMCell)": lambda: jacobian(start, parameters, inputs).pow(2).sum((1, 2)).log()}
