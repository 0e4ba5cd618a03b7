"""Time of all singular values of a long product, against an SVD of the product itself; for scripts/benchmark.py."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import gradsim as gs
from gradsim.cli.timing import medians, timed

SIZES = ((64, 50, 256), (16, 100, 1024))  # width, length, chains


def gaussian_chains(n: int, length: int, chains: int) -> tuple[Array, Array]:
    """Gaussian factors [chains, length, n, n], and their products, rescaled as they grow, [chains, n, n]."""

    def multiply(product: Array, factor: Array) -> tuple[Array, None]:
        product = factor @ product
        return product / jnp.max(jnp.abs(product), axis=(-2, -1), keepdims=True), None

    factors = jax.random.normal(jax.random.key(0), (chains, length, n, n)) / n**0.5
    start = jnp.broadcast_to(jnp.eye(n), (chains, n, n))
    return factors, jax.jit(lambda f: jax.lax.scan(multiply, start, jnp.moveaxis(f, 1, 0))[0])(factors)


def rows(repeats: int, sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[dict[str, Any]]:
    """Seconds of `gs.log_singular_values`, and of jnp.linalg.svd, which is wrong beyond 16 nats, of the product."""
    table = []
    for n, length, chains in sizes:
        factors, products = gaussian_chains(n, length, chains)
        contenders: dict[str, Callable[[], Any]] = {
            "gradsim": partial(gs.log_singular_values, factors),
            "svd": partial(jax.jit(jnp.linalg.svd), products),
            "svd, values alone": partial(jax.jit(partial(jnp.linalg.svd, compute_uv=False)), products),
        }
        seconds, ratios = medians(timed(contenders, repeats), "gradsim")
        over = {name: 1 / ratio for name, ratio in ratios.items()}
        table.append({"width": n, "length": length, "chains": chains, "seconds": seconds, "times": over})
        print(
            f"all singular values, {chains} products of {length} matrices {n} x {n}: {seconds['gradsim']:.3g} s, "
            f"{over['svd']:.1f} times an SVD of the products, {over['svd, values alone']:.1f} times its values alone"
        )
    return table
