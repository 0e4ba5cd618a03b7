"""What is measured of a network in training: the gradient as the optimizer saw it, and as it is.

A gradient that underflows halts training, and a float cannot tell how small it was. So the exact one is taken as a
sweep takes it, sample by sample with a power of two for each, and summed over the batch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from gradsim import scaled
from gradsim.engine import products
from gradsim.engine.backward import unit_gains, weight_gradients
from gradsim.engine.chain import Chain, Drawn, in_range, take_step
from gradsim.engine.products import Bundle
from gradsim.networks.network import State
from gradsim.scaled import Scaled
from gradsim.training import tasks
from gradsim.training.model import (
    Fixed,
    Model,
    Parameters,
    first_states,
    logits,
    mean_loss,
    read,
    read_out,
    right,
    stacked,
    step_inputs,
    weights_of,
)  # fmt: skip
from gradsim.training.tasks import Sample

# What one may ask for by layer; the last four are of a held-out batch, and the last two of its read-out.
BY_LAYER = ("log_gradient", "log_exact_gradient", "log_update", "log_weight", "log_length", "log_change")
OF_OUTPUT = ("log_output", "log_output_change")
PROBED = frozenset({"log_length", "log_change", *OF_OUTPUT})


def held_out(model: Model, parameters: Parameters, fixed: Fixed, blocks: Sample) -> dict[str, Array]:
    """Loss and accuracy on samples [blocks, batch, …], the mean over all."""

    def block(some: Sample) -> tuple[Array, Array]:
        found = logits(model, parameters, fixed, some.inputs)[0]
        return mean_loss(model, found, some.targets), jnp.mean(right(model, found, some.targets).astype(found.dtype))

    losses, shares = lax.map(block, blocks)
    return {"held_out_loss": jnp.mean(losses), "accuracy": jnp.mean(shares)}


class Probe(NamedTuple):
    """The states after every step, leaves [depth, …], and the read-out of one held-out batch."""

    states: State
    output: Array


def probe(model: Model, parameters: Parameters, fixed: Fixed, batch: Sample) -> Probe:
    """That of these parameters."""
    output, states = logits(model, parameters, fixed, batch.inputs)
    return Probe(states, output)


def activations(now: Probe, start: Probe) -> dict[str, Scaled]:
    """Root mean squares of states, by layer, and of the read-out; and of how far they are from the start."""
    apart = jax.tree.map(jnp.subtract, now, start)
    return {
        "log_length": jax.vmap(_root_mean_square)(now.states),
        "log_change": jax.vmap(_root_mean_square)(apart.states),
        "log_output": _root_mean_square(now.output),
        "log_output_change": _root_mean_square(apart.output),
    }


def _root_mean_square(tree: Any) -> Scaled:
    norm = _norm(tree)
    return Scaled(norm.mantissa / scaled.size(tree) ** 0.5, norm.exponent)


def norm_by_layer(tree: Any, layers: int | None) -> Scaled:
    """The norm of a tree of leaves [layers, …], layer by layer; of the whole tree where all layers share it (None)."""
    one = _norm if layers is None else jax.vmap(_norm)
    return one(tree)


def _norm(tree: Any) -> Scaled:
    return scaled.norm(scaled.normalize(Scaled(tree, jnp.zeros((), jnp.int32))))


def exact_gradient(model: Model, parameters: Parameters, fixed: Fixed, batch: Sample) -> dict[str, Scaled]:
    """The gradient of the batch's mean loss by step: for each trained field {path: [depth, …]}, exponents [depth]."""
    network, gains = model.network, unit_gains(model.network, fixed.gains)
    entries, targets = read(model, parameters, batch.inputs), batch.targets
    state = first_states(model, fixed, entries)
    over_time = step_inputs(model, entries)
    if tasks.coupled(network):  # one network for the whole batch
        state, targets = jax.tree.map(lambda leaf: leaf[None], (state, targets))
    else:
        targets = targets[:, None]
    layers = (stacked(model, parameters["layers"]), stacked(model, fixed.weights))

    def chain(own: Any) -> Chain:
        return Chain(network, gains, weights_of(model, *own), jnp.zeros(()))

    def ahead(state: Scaled, x: Any) -> tuple[Scaled, Scaled]:
        own, one = x
        return _each(lambda s, i: take_step(_step(chain(own), i), s), state, one), state

    def back(bundle: Bundle, x: Any) -> tuple[Bundle, dict[str, Scaled]]:
        (own, one), before = x

        def pull(bundle: Bundle, before: Scaled, i: Array | None) -> tuple[Bundle, dict[str, Scaled]]:
            here, missing = in_range(before)
            bound, drawn = chain(own), Drawn(weights_of(model, *own), i)
            found = weight_gradients(bound, drawn, here, missing, bundle)
            _, pullback, _ = jax.vjp(_step(bound, i), here, has_aux=True)
            return products.push(bundle, lambda c: pullback(c)[0], transposed=True), found

        bundle, found = _each(pull, bundle, before, one)
        return bundle, {name: scaled.total(gradient) for name, gradient in found.items()}

    start = jax.vmap(lambda s: scaled.normalize(Scaled(s, jnp.zeros((), jnp.int32))))(state)
    last, befores = lax.scan(ahead, start, (layers, over_time), length=model.plan.depth)
    turned = jax.vmap(lambda s, t: _turn(model, parameters, s, t))(last, targets)
    gradient = lax.scan(back, turned, ((layers, over_time), befores), reverse=True)[1]
    return {name: _over(value, targets.shape[0]) for name, value in gradient.items()}


def _step(chain: Chain, one: Array | None) -> Any:
    return lambda state: chain.network.step(chain.shared, chain.gains, state, one)


def _each(function: Any, *args: Any) -> Any:
    """`function` of every sample; an input may be None, or a number that all share."""
    shared = tuple(arg is None or (isinstance(arg, Array) and not arg.ndim) for arg in args)
    return jax.vmap(function, in_axes=tuple(None if one else 0 for one in shared))(*args)


def _turn(model: Model, parameters: Parameters, last: Scaled, targets: Array) -> Bundle:
    """The gradient with respect to the last state of one sample, or of a batch that is one state."""

    def loss(state: State) -> Array:
        found = read_out(model, parameters, model.network.output(state), targets.shape[0])
        return mean_loss(model, found, targets)

    cotangent = jax.tree.map(lambda leaf: leaf[None], jax.grad(loss)(in_range(last)[0]))
    return products.start(*scaled.normalize(Scaled(cotangent, jnp.zeros((), jnp.int32))))


def _over(value: Scaled, count: int) -> Scaled:
    return Scaled(jax.tree.map(lambda leaf: leaf / count, value.mantissa), value.exponent)
