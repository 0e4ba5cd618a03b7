"""Time of Lyapunov exponents, against lyapax; for scripts/benchmark.py."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradsim as gs
from gradsim.cli.timing import medians, timed


def rows(repeats: int, width: int = 64, networks: int = 64, depth: int = 1000) -> list[dict[str, Any]]:
    """Exponents of tanh RNNs without input in float64: gradsim, labels and errors included, against lyapax."""
    table = []
    for name, count in (("all exponents", width), ("the largest exponent", 1)):
        others = lyapax(width, networks, depth, 1.5, count)
        if not others:
            print("lyapax is not installed: no row for its exponents")
            return []
        call = partial(
            gs.lyapunov_exponents, gs.vanilla_rnn(width), depth=depth, seeds=networks, count=count, burn_in=0,
            dtype="float64", sigma_w=1.5, sigma_v=0.0, progress=False,
        )  # fmt: skip
        seconds, ratios = medians(timed({"gradsim": call, **others}, repeats), "gradsim")
        print(
            f"{name:20s} {networks} RNNs of {width}, {depth} steps: lyapax takes {ratios['lyapax']:.1f} times as long"
        )
        sizes = {"width": width, "networks": networks, "depth": depth}
        table.append({"name": name, **sizes, "seconds": seconds, "ratio": ratios})
    return table


def lyapax(width: int, networks: int, depth: int, sigma_w: float, count: int) -> dict[str, Callable[[], Any]]:
    """The exponents of as many tanh RNNs by lyapax, in float64; empty where lyapax is not installed."""
    try:
        library = import_module("lyapax")  # no dependency of ours
    except ImportError:
        return {}
    with jax.enable_x64(True):
        w = jax.random.normal(jax.random.key(0), (networks, width, width), "float64") / width**0.5
        x = jax.random.normal(jax.random.key(1), (networks, width), "float64")

        def one(w: jax.Array, x: jax.Array) -> jax.Array:
            found = library.lyapunov_spectrum(lambda h: jnp.tanh(sigma_w * (h @ w)), x, 1.0, depth, k=count)
            return jnp.asarray(found.exponents)

        run = jax.jit(jax.vmap(one))

    def call() -> Any:
        with jax.enable_x64(True):
            return np.asarray(run(w, x))

    return {"lyapax": call}
