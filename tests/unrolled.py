"""The slow, obvious way: a network's steps one after the other, and `jax.jacfwd` of the whole."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from gradsim import Network, initializers, scaled
from gradsim.engine.chain import Chain, Source
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.statistic import Statistic, View
from gradsim.engine.streams import Ahead, ahead, extent, network_keys, observed_size
from gradsim.engine.tiling import Tiling
from gradsim.scaled import Scaled


def _product(view: View) -> Scaled:
    assert view.product is not None
    return Scaled(view.product.mantissa, view.product.exponent)


MATRIX = Statistic("matrix", "the whole product, as it is", "1", _product, ("all",))


STEPS = 64  # more than any test takes

_hashed = jax.jit(ahead, static_argnums=1)  # by one program for most networks: their own compile sooner


class Bound(NamedTuple):
    """One random network at one value of its gains, outside a sweep."""

    source: Source
    gains: dict[str, Array]

    @property
    def chain(self) -> Chain:
        return self.source.bind()(self.gains)

    def weights(self, t: Array | int) -> Any:
        """The weights of step t."""
        return self.chain.weights(self.source.drawn(t))

    def step(self, t: Array | int) -> Callable[[Any], tuple[Any, Any]]:
        return self.chain.step(self.source.drawn(t))

    def forward(self, statistics: tuple[Statistic, ...], depth: int) -> dict[str, Scaled]:
        """The engine's statistics, leaves [depth]."""
        cells = Cells(jax.tree.map(lambda gain: jnp.asarray(gain)[None], self.gains))
        measured = forward(self.source, cells, Task(statistics, depth, Tiling(cells=1, steps=3)))
        return jax.tree.map(lambda leaf: leaf[0], measured)


def bind(
    network: Network,
    gains: Mapping[str, Any],
    dtype: str = "float64",
    *,
    key: int = 0,
    seed: int = 0,
    inputs: Any = None,
) -> Bound:
    """Network number `seed` with these gains, the others at their defaults."""
    values = {name: jnp.asarray(np.asarray(value, dtype)) for name, value in {**network.gains, **gains}.items()}
    hashed = _hashed(network_keys(jax.random.key(key), seed), extent(network, STEPS, given=inputs is not None))
    return Bound(Source(network, hashed, inputs, dtype), values)


class Unrolled(NamedTuple):
    """One draw of a network in float64."""

    network: Network
    gains: dict[str, Array]
    weights: Any  # of all steps: leaves [depth, ...]
    state: Array

    def chain(self, step: Callable[[Array, Any], Array]) -> Callable[[Array], Array]:
        """The function that takes state and weights from step to step, as one function of the first state."""

        def whole(state: Array) -> Array:
            return jax.lax.scan(lambda x, weights: (step(x, weights), None), state, self.weights)[0]

        return whole

    def whole(self, state: Array) -> Array:
        """All of the network's own steps."""
        network, depth = self.network, jax.tree.leaves(self.weights)[0].shape[0]
        numbers = jnp.arange(depth, dtype=jnp.int32) if network.numbered else None

        def step(x: Array, drawn: tuple[Any, Array | None]) -> tuple[Array, None]:
            return network.step(drawn[0], self.gains, x, drawn[1])[0], None

        return jax.lax.scan(step, state, (self.weights, numbers))[0]


@partial(jax.jit, static_argnames=("network", "depth"))
def _measured(network: Network, depth: int, gains: dict[str, Array], hashed: Ahead) -> tuple[Any, Scaled, Scaled]:
    bound = Bound(Source(network, hashed, None, "float64"), gains)
    return (
        jax.vmap(bound.weights)(jnp.arange(depth)),
        bound.chain.initial_state(),
        bound.forward((MATRIX,), depth)["matrix"],
    )


def unroll(
    network: Network, gains: Mapping[str, float] = MappingProxyType({}), depth: int = 4
) -> tuple[Unrolled, np.ndarray]:
    """A draw, and gradsim's product of it, [outputs, inputs] of the observed part. Call it under jax.enable_x64."""
    bound = bind(network, gains)
    weights, state, product = _measured(network, depth, bound.gains, bound.source.ahead)
    mantissa = np.asarray(product.mantissa)[-1]
    matrix = np.ldexp(mantissa.reshape(len(mantissa), -1).T, int(np.asarray(product.exponent)[-1]))
    return Unrolled(network, bound.gains, weights, jnp.asarray(scaled.join(state))), matrix


def unmeasured(network: Network, depth: int = 4) -> Unrolled:
    """A draw at the gains' defaults, and no product of it. Call it under jax.enable_x64."""
    bound = bind(network, {})
    weights, state = jax.jit(lambda: (jax.vmap(bound.weights)(jnp.arange(depth)), bound.chain.initial_state()))()
    return Unrolled(network, bound.gains, weights, jnp.asarray(scaled.join(state)))


class Both(NamedTuple):
    """What autodiff gives of the two inputs of one random network, leaves [2, …]."""

    states: Array  # [2, depth, size]
    prefixes: Array  # [2, depth, n, n]
    suffixes: Array  # the first is ∂h_L/∂h_0
    weights: Any  # ∂(u · h_L)/∂W, leaves [2, depth, …]
    vector: Array


@partial(jax.jit, static_argnames=("network", "key", "seed", "depth", "back"))
def whole_pair(
    network: Network, gains: dict[str, Array], c: Array, key: int, seed: int, depth: int, back: bool
) -> Both:
    """The whole network as one function of a change of every state and of every step's weights; both ways if `back`."""
    keys, shape = network_keys(jax.random.key(key), seed), network.initial_shape
    first, n, dtype = int(np.prod(shape)), observed_size(network), "float64"
    numbers = initializers.normal(keys.once, (2 * first + n,), dtype)
    x, vector, z = numbers[:first].reshape(shape), numbers[first : first + n], numbers[first + n :].reshape(shape)
    steps = jnp.arange(depth)
    drawn = jax.vmap(lambda t: network.draw(jax.random.fold_in(keys.weights, 0 if network.tied else t), dtype))(steps)
    entering = jax.vmap(
        lambda t: initializers.normal(jax.random.fold_in(keys.inputs, t), (2, *network.input_shape), dtype)
    )(steps)
    both = jnp.stack([x, c * x + jnp.sqrt(1 - c**2) * z])
    entering = jnp.stack([entering[:, 0], c * entering[:, 0] + jnp.sqrt(1 - c**2) * entering[:, 1]])
    unit = vector / jnp.linalg.norm(vector)

    def one(start: Array, entering: Array) -> tuple[Array, ...]:
        flat, unravel = ravel_pytree(network.initial_state(gains, start))
        embed = jax.jacfwd(lambda state: ravel_pytree(network.observed(unravel(state)))[0])(flat)

        def chain(changes: Array, drawn: Any) -> tuple[Array, Array]:
            def step(state: Array, x: Any) -> tuple[Array, Array]:
                change, weights, inputs = x
                new = network.step(weights, gains, unravel(state + change @ embed), inputs if network.driven else None)[
                    0
                ]
                return ravel_pytree(new)[0], ravel_pytree(new)[0]

            last, states = jax.lax.scan(step, flat, (changes, drawn, entering))
            return embed @ last, states

        zero = jnp.zeros((depth, n))
        prefixes = jax.jacfwd(lambda change: chain(zero.at[0].set(change), drawn)[1] @ embed.T)(zero[0])
        if not back:
            return chain(zero, drawn)[1], prefixes, zero, zero
        suffixes = jax.jacrev(lambda changes: chain(changes, drawn)[0])(zero)
        gradients = jax.grad(lambda drawn: chain(zero, drawn)[0] @ unit)(drawn)
        return chain(zero, drawn)[1], prefixes, jnp.moveaxis(suffixes, 1, 0), gradients

    states, prefixes, suffixes, gradients = jax.vmap(one)(both, entering)
    return Both(states, prefixes, suffixes, gradients, unit)


def jacobian(function: Callable[[Any], Any], state: Any) -> np.ndarray:
    """The Jacobian of a function of one array, as a matrix [outputs, inputs]."""
    return np.asarray(jax.jit(jax.jacfwd(function))(state)).reshape(-1, state.size)


def assert_equal(measured: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Equal within `tolerance` of the largest entry."""
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(measured, expected, rtol=0, atol=tolerance * np.max(np.abs(expected)))


@contextmanager
def own_checks() -> Iterator[None]:
    """The library's own checks of its arguments, with no type checker before them."""
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", disabled)
