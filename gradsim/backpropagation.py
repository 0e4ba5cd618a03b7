"""The other direction: the gradient that reaches every step from the end, and every step's weights.

A forward pass keeps the states (not the weights, which are drawn anew from their keys), then a reverse
scan pulls cotangents back, rescaled by exact powers of two like the tangents of `propagation`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import products, scaled
from gradsim.chain import Chain, carry_over, in_range, take_step, times
from gradsim.networks.network import State, Weights
from gradsim.products import Bundle
from gradsim.scaled import Scaled
from gradsim.statistics import Statistic, View, measure


def backward(
    chain: Chain,
    statistics: tuple[Statistic, ...],
    *,
    depth: int,
    at: tuple[int, ...] = (),
    burn_in: int = 0,
    loss: Callable[[State], Array] | None = None,
    cotangent: State | None = None,
) -> dict[str, Scaled]:
    """The statistics of the suffixes J_L … J_l = ∂h_L/∂h_{l−1} for every l = 1 … L = depth, leaves [depth].

    The gradient starts from `cotangent` (of the observed state), or from the gradient of `loss` there, or
    from one random unit vector. Memory holds the states: O(depth · n).
    """
    draw, network = chain.drawer(), chain.network

    def ahead(state: Scaled, t: Array) -> tuple[Scaled, Scaled]:
        return take_step(chain.step(t, draw(t)), state)[1], state

    state = chain.initial_state()
    if burn_in:
        state = lax.fori_loop(0, burn_in, lambda t, state: ahead(state, t)[0], state)
    steps = jnp.arange(burn_in, burn_in + depth, dtype=jnp.int32)
    last, befores = lax.scan(ahead, state, steps)

    needs = {need for statistic in statistics for need in statistic.needs}
    end = in_range(last)[0]
    bundles = {}
    if "all" in needs:
        bundles["all"] = products.start(products.basis(network, end))
    if "one" in needs:
        bundles["one"] = products.start(_cotangent(chain, end, loss, cotangent))

    def body(
        carry: tuple[Scaled, dict[str, Bundle], dict[str, Scaled]], x: tuple[Array, Scaled]
    ) -> tuple[Any, dict[str, Scaled]]:
        (after, bundles, sums), (t, before) = carry, x
        weights = draw(t)
        here, missing = in_range(before)
        _, pullback, preactivations = jax.vjp(chain.step(t, weights), here, has_aux=True)
        gradients = {}
        if "weights" in needs:
            gradients = _weight_gradients(chain, t, weights, here, missing, bundles["one"])
        if "weight_sums" in needs:
            sums = {name: scaled.add(sums[name], gradient) for name, gradient in gradients.items()}
        bundles = {
            name: products.push(bundle, lambda c: pullback(c)[0], transposed=True) for name, bundle in bundles.items()
        }
        seen = {name: products.observed(bundle, network) for name, bundle in bundles.items()}
        view = View(network, seen.get("all"), seen.get("one"), after, preactivations, gradients, sums)
        return (before, bundles, sums), {s.name: measure(s, view, t - burn_in + 1, at) for s in statistics}

    sums = {}
    if "weight_sums" in needs:
        shapes = jax.eval_shape(lambda: _fields(chain, draw(steps[0])))
        sums = {name: _zero(shape) for name, shape in shapes.items()}
    return lax.scan(body, (last, bundles, sums), (steps, befores), reverse=True)[1]


def _cotangent(chain: Chain, end: State, loss: Callable[[State], Array] | None, cotangent: State | None) -> State:
    network = chain.network
    if loss is not None:
        cotangent = jax.grad(loss)(network.observed(end))
    if cotangent is None:
        return products.unit_vector(network, end, chain.keys.vector)
    return products.embed(network, end, jax.tree.map(lambda leaf: leaf[None], cotangent))


def _fields(chain: Chain, weights: Weights) -> dict[str, Any]:
    """The weights as one trains them: the unit draws times their gains, by field."""
    gains = {name: chain.gains[gain] for name, gain in chain.network.parameters.items()}
    return {name: jax.tree.map(gain.__mul__, getattr(weights, name)) for name, gain in gains.items()}


def _weight_gradients(
    chain: Chain, t: Array, weights: Weights, here: State, missing: Array, bundle: Bundle
) -> dict[str, Scaled]:
    """∂loss/∂(gain · weights) of step t, by field.

    Beyond the limit of `in_range` the gradient of weights that meet the state scales with it, and that of a bias
    does not depend on it; as in `take_step` half the state shows which, and what does neither is NaN.
    """
    unit = {**chain.gains, **{gain: jnp.ones_like(chain.gains[gain]) for gain in chain.network.parameters.values()}}
    fields = _fields(chain, weights)
    vector = jax.tree.map(lambda leaf: leaf[0], bundle.mantissa)

    def gradients(state: State) -> dict[str, Any]:
        def step(fields: Mapping[str, Any]) -> State:
            return chain.step(t, weights._replace(**fields), unit)(state)[0]

        found: dict[str, Any] = jax.vjp(step, fields)[1](vector)[0]
        return found

    carried = carry_over(gradients(here), missing, lambda part: gradients(times(part, here)))
    return {
        name: scaled.normalize(Scaled(gradient.mantissa, bundle.exponent + gradient.exponent))
        for name, gradient in carried.items()
    }


def _zero(shape: Any) -> Scaled:
    return Scaled(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape), jnp.int32(-(2**30)))
