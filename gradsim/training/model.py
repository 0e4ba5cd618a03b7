"""A chain with a read-in and a read-out as one trains it: its parameters, its loss.

What is trained are the products gain · draw, as one holds them in any library: the gain is where training starts. A
gain that multiplies no weights (a forget bias, a branch gain) and what `Network.parameters` does not name stay fixed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from gradsim.draws import normal
from gradsim.engine.backward import trained, unit_gains
from gradsim.engine.chain import Chain, Source
from gradsim.engine.plan import Plan
from gradsim.engine.streams import Ahead
from gradsim.networks.network import Gains, Network, State, Weights, path_name
from gradsim.training import tasks
from gradsim.training.tasks import Sample, Task

# So many steps are written out where a program runs often: a loop copies each step's weights and gradients. That shows
# where each weight meets one vector of a sample; where it meets many positions (tokens, pixels) it is little beside the
# products, and a loop compiles in half the time.
UNROLLED = 16
READ = ("sigma_in", "sigma_out")  # gains of the read-in and of the read-out, which every network has
# {"read_in": {"w", "b"} where there is one, "layers": {path: array}, "read_out": {"w", "b"}}; the arrays of layers
# are [depth, …], or those of the one draw that all steps share where the network is tied.
Parameters = dict[str, dict[str, Array]]


@dataclass(frozen=True)
class Model:
    """All that is static in a trained network; gains and seeds are not."""

    plan: Plan
    task: Task

    @property
    def network(self) -> Network:
        return self.plan.network


class Fixed(NamedTuple):
    """What of one network training leaves as it is."""

    gains: Gains
    weights: Mapping[str, Array]  # the leaves that are not trained, by path, as those of `Parameters`
    first: Array | None  # what the state before step 0 is made of where the network is driven


def begin(model: Model, drawn: Ahead, stream: Array, gains: Mapping[str, Array]) -> tuple[Parameters, Fixed]:
    """One network before training: seed i of a sweep with the same key, and the linear maps around it.

    Read-in and read-out have entries of variance σ²/fan-in, with gains sigma_in and sigma_out, and biases of zero.
    """
    plan, network, task = model.plan, model.network, model.task
    source = Source(network, drawn, None, plan.dtype)
    chain = Chain(network, gains, None, source.first_input())

    def draw(t: Array | int) -> tuple[dict[str, Array], dict[str, Array]]:
        weights = source.weights(t)
        layers = {path: leaf for field in trained(chain, weights).values() for path, leaf in field.items()}
        return layers, {path: leaf for path, leaf in _leaves(weights).items() if path not in layers}

    layers, rest = draw(0) if network.tied else lax.map(draw, jnp.arange(plan.depth))
    parameters = {"layers": layers}
    sizes = tasks.read_in(task, network)
    if sizes is not None:
        parameters["read_in"] = _linear(random.fold_in(stream, 0), *sizes, gains["sigma_in"])
    parameters["read_out"] = _linear(random.fold_in(stream, 1), features(plan), task.read_out, gains["sigma_out"])
    return parameters, Fixed(gains, rest, chain.first_input if network.driven else None)


def _leaves(weights: Weights) -> dict[str, Array]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(weights)[0]}


def _linear(key: Array, rows: int, columns: int, gain: Array) -> dict[str, Array]:
    dtype = gain.dtype
    return {
        "w": (gain / jnp.sqrt(jnp.asarray(rows, dtype))) * normal(key, (rows, columns), dtype),
        "b": jnp.zeros((columns,), dtype),
    }


def features(plan: Plan) -> int:
    """The numbers that a read-out reads of one sample."""
    outputs = jax.tree.leaves(jax.eval_shape(plan.network.output, plan.state_shape()))
    return sum(leaf.size for leaf in outputs) // (plan.network.input_shape[0] if tasks.coupled(plan.network) else 1)


def weights_of(model: Model, layers: Mapping[str, Array], rest: Mapping[str, Array]) -> Weights:
    """The weights of a step, or of all, from the trained leaves and the others."""
    shape = jax.eval_shape(lambda: model.network.draw(random.key(0), model.plan.dtype))
    every = {**layers, **rest}
    return jax.tree_util.tree_map_with_path(lambda path, _: every[path_name(path)], shape)


def stacked(model: Model, leaves: Mapping[str, Array]) -> dict[str, Array]:
    """The leaves of every step, [depth, …]; those that all steps share are repeated."""
    if not model.network.tied:
        return dict(leaves)
    return {path: jnp.broadcast_to(leaf, (model.plan.depth, *leaf.shape)) for path, leaf in leaves.items()}


def read(model: Model, parameters: Parameters, inputs: Array) -> Array:
    """What the network gets of inputs [batch, …]: a first state each, or [batch, time, …]."""
    before = inputs.shape[: 2 if model.network.driven else 1]
    shape = tasks.sample_shape(model.network)
    if "read_in" in parameters:
        w, b = parameters["read_in"]["w"], parameters["read_in"]["b"]
        inputs = inputs.reshape(*before, -1, w.shape[0]) @ w + b
    return inputs.reshape(*before, *shape)


def first_states(model: Model, fixed: Fixed, entries: Array) -> State:
    """The states before step 0 of a batch, or the one that is a batch."""
    network = model.network
    if tasks.coupled(network):
        return network.initial_state(fixed.gains, entries)
    if not network.driven:
        return jax.vmap(lambda one: network.initial_state(fixed.gains, one))(entries)
    assert fixed.first is not None
    first = network.initial_state(fixed.gains, fixed.first)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (entries.shape[0], *leaf.shape)), first)


def logits(
    model: Model,
    parameters: Parameters,
    fixed: Fixed,
    inputs: Array,
    each: Mapping[str, Array] | None = None,
    *,
    unrolled: bool = False,
) -> tuple[Array, State]:
    """The read-out of a batch, [batch, outputs, classes or 1], and the state after every step.

    `each` are leaves [depth, …] in place of those of `parameters`: a derivative with respect to them is by step.
    """
    network, gains = model.network, unit_gains(model.network, fixed.gains)
    entries = read(model, parameters, inputs)
    shared = network.tied and each is None
    layers = parameters["layers"] if each is None else each
    rest = fixed.weights if shared else stacked(model, fixed.weights)
    step = network.step
    if not tasks.coupled(network):
        step = jax.vmap(step, in_axes=(None, None, 0, 0 if network.driven else None))

    def body(state: State, x: Any) -> tuple[State, State]:
        own, one = x
        weights = weights_of(model, *((layers, rest) if shared else own))
        new = step(weights, gains, state, one)[0]
        return new, new

    depth = model.plan.depth
    xs = (None if shared else (layers, rest), step_inputs(model, entries))
    unroll = depth if unrolled and not shared and depth <= UNROLLED and not _positions(model) else 1
    last, states = lax.scan(body, first_states(model, fixed, entries), xs, length=depth, unroll=unroll)
    return read_out(model, parameters, network.output(last), inputs.shape[0]), states


def _positions(model: Model) -> bool:
    """Whether the state of a sample has several, which share the weights."""
    shape: tuple[int, ...] = jax.tree.leaves(model.plan.state_shape())[0].shape
    return len(shape) > (2 if tasks.coupled(model.network) else 1)


def step_inputs(model: Model, entries: Array) -> Array | None:
    """What every step reads beside its weights, [depth, …]: the inputs of a batch, or its own number."""
    if model.network.numbered:
        return jnp.arange(model.plan.depth, dtype=jnp.int32)
    return jnp.swapaxes(entries, 0, 1) if model.network.driven else None


def read_out(model: Model, parameters: Parameters, output: State, batch: int) -> Array:
    """The linear map of what a read-out reads, [batch, outputs, classes or 1]."""
    rows = jnp.concatenate([leaf.reshape(batch, -1) for leaf in jax.tree.leaves(output)], axis=1)
    w, b = parameters["read_out"]["w"], parameters["read_out"]["b"]
    return (rows @ w + b).reshape(batch, model.task.outputs, -1)


def mean_loss(model: Model, found: Array, targets: Array) -> Array:
    """The cross-entropy in nats of labels, or the squared error of numbers: the mean over samples and outputs."""
    if model.task.classes:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(found), targets[..., None], axis=-1)
        return -jnp.mean(chosen)
    return jnp.mean((found[..., 0] - targets) ** 2)


def right(model: Model, found: Array, targets: Array) -> Array:
    """Which outputs are right, [batch, outputs]: the label has the largest logit, or the number is close.

    Nothing is right of what is not finite.
    """
    if model.task.classes:
        return (lax.argmax(found, found.ndim - 1, targets.dtype) == targets) & jnp.all(jnp.isfinite(found), axis=-1)
    return jnp.abs(found[..., 0] - targets) < tasks.CLOSE


def loss_of(model: Model, fixed: Fixed, batch: Sample, *, unrolled: bool = False) -> Callable[..., Array]:
    """The loss of a batch as a function of the parameters, and of leaves in their place as in `logits`."""

    def loss(parameters: Parameters, each: Mapping[str, Array] | None = None) -> Array:
        return mean_loss(
            model, logits(model, parameters, fixed, batch.inputs, each, unrolled=unrolled)[0], batch.targets
        )

    return loss
