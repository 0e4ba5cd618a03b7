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

from gradsim import Network, scaled
from gradsim.engine.chain import Chain, Source
from gradsim.engine.forward import Cells, Task, forward
from gradsim.engine.statistic import Statistic, View
from gradsim.engine.streams import Ahead, ahead, extent, network_keys
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
