"""The public check of a family of one's own: its contract, and a short chain of it against JAX's own derivative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from gradsim import arguments
from gradsim.engine.backward import backward
from gradsim.engine.chain import Source
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.products import matrix
from gradsim.engine.statistic import Statistic, View
from gradsim.engine.streams import network_keys
from gradsim.engine.tiling import Tiling
from gradsim.networks.check import problems
from gradsim.networks.network import Network
from gradsim.scaled import Scaled, join

STEPS = 3
CLOSE = 1e-9  # of the largest entry: float64 leaves 1e-15, and a stiff step may lose a few digits


def _product(view: View) -> Scaled:
    assert view.product is not None
    rows = matrix(view.product.mantissa)
    return Scaled(rows, jnp.full(rows.shape, view.product.exponent))


PRODUCT = Statistic("product", "the whole product", "1", _product, ("all",))


def check(network: Network) -> list[str]:
    """What a network of one's own breaks, in one line each; an empty list where it keeps the contract.

    The contract of `gradsim.Network` is checked on shapes; then the Jacobian of three steps in float64, at the
    default gains, as the engine makes it forward and backward, is compared with `jax.jacfwd` of the whole.
    Pass a small network: a Jacobian is a full matrix.

    Raises: TypeError for what is no network.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network: {arguments.got(network)}; pass a network such as gradsim.feedforward(width=8)")
    broken = problems(network) or problems(network.alone)
    if broken:
        return list(broken)
    network = network.alone  # each chain of a pair is pushed as that of one input
    name = type(network).__name__
    try:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            whole, ahead, back = jax.tree.map(np.asarray, jax.jit(lambda: _three_ways(network))())
    except Exception as error:
        return [f"network: {name}: JAX cannot differentiate three steps ({arguments.reason(error)})"]
    if not np.all(np.isfinite(whole)):
        return [
            f"network: {name}: the Jacobian of three steps at the default gains is NaN or infinite; change the gains"
        ]
    apart = {
        "forward": np.max(np.abs(join(Scaled(*ahead)).T - whole)),
        "backward": np.max(np.abs(join(Scaled(*back)) - whole)),
    }
    largest = np.max(np.abs(whole))
    return [
        f"network: {name}: got a {direction} product that is {difference / largest:.1g} of its size away from "
        "jax.jacfwd of the whole; make step and observed pure, with one derivative both ways"
        for direction, difference in apart.items()
        if not difference <= CLOSE * largest
    ]


def _three_ways(network: Network) -> tuple[Array, tuple[Any, ...], tuple[Any, ...]]:
    """The Jacobian [out, in] of three steps by jacfwd, and the product of both directions as (mantissa, exponent)."""
    source = Source.of(network, network_keys(jax.random.key(0), 0), None, "float64", STEPS)
    gains = {name: jnp.asarray(value, "float64") for name, value in network.gains.items()}
    cells = Cells(jax.tree.map(lambda gain: gain[None], gains))
    chain = source.bind()(gains)
    first = jax.tree.map(lambda leaf: jnp.ldexp(leaf, chain.initial_state().exponent), chain.initial_state().mantissa)
    flat, unravel = ravel_pytree(network.observed(first))

    def whole(change: Array) -> Array:
        state = jax.tree.map(jnp.add, first, jax.linear_transpose(network.observed, first)(unravel(change))[0])
        for t in range(STEPS):
            state = chain.step(source.drawn(t))(state)[0]
        return ravel_pytree(network.observed(state))[0]

    task = Task((PRODUCT,), STEPS, Tiling(1, 1))
    ahead, back = (run(source, cells, task)["product"] for run in (forward, backward))
    last, all_the_way = jax.tree.map(lambda leaf: leaf[0, -1], ahead), jax.tree.map(lambda leaf: leaf[0, 0], back)
    return jax.jacfwd(whole)(jnp.zeros_like(flat)), tuple(last), tuple(all_the_way)
