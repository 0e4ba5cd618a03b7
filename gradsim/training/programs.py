"""What is compiled of a training run: networks before the first step, some steps of them, and what is recorded.

On a CPU one network goes after the other, and stays in the cache of a core through its steps; elsewhere all go at once.
Several devices have as many networks each, and run one program side by side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.sharding import Mesh, PartitionSpec

from gradsim import arguments, scaled
from gradsim.engine.streams import Ahead, ahead, extent, network_keys
from gradsim.sweeps.effort import LEVEL_1
from gradsim.training import model as models
from gradsim.training import records
from gradsim.training.model import Fixed, Model, Parameters
from gradsim.training.over_networks import over_networks, over_networks_in_place
from gradsim.training.records import Probe
from gradsim.training.tasks import Sample

NEVER = np.iinfo(np.int32).max
# Exact gradients take outer products of single samples, for which jaxlib 0.10's library of products is thirty times
# slower than the compiler's own at width 1,024.
ON_CPU = {**LEVEL_1, **({"xla_cpu_experimental_ynn_fusion_type": ""} if jax.__version_info__ < (0, 11) else {})}


@dataclass(frozen=True)
class Run:
    """All that is static in the training of one network; new gains, learning rates and seeds do not compile anew."""

    model: Model
    optimizer: Callable[[Array], Any]
    batch: int

    @property
    def depth(self) -> int:
        return self.model.plan.depth


class Trained(NamedTuple):
    """One network in training."""

    parameters: Parameters
    optimizer: Any
    step: Array  # updates taken
    losses: Array  # summed since the last record
    diverged: Array  # the first step whose loss was not finite, or NEVER


class Setting(NamedTuple):
    """What one network is trained with; leaves of many have an axis in front."""

    fixed: Fixed
    rate: Array


def _samples(run: Run, source: Any, numbers: Array) -> Sample:
    return jax.vmap(run.model.task.take, in_axes=(None, 0))(source, numbers)


def _blocks(run: Run, source: Any, numbers: Array) -> Sample:
    return jax.vmap(partial(_samples, run, source))(numbers)


def _begin(
    run: Run,
    probed: bool,
    drawn: Ahead,
    key: Array,
    seeds: Array,
    gains: dict[str, Array],
    rates: Array,
    source: Any,
    held_out: Array,
) -> tuple[Trained, Setting, Probe | None]:
    """Networks before their first step, and (`probed`) what they make of held-out data."""

    def one(drawn: Ahead, seed: Array, gains: dict[str, Array], rate: Array) -> tuple[Trained, Setting, Probe | None]:
        drawn = drawn._replace(weights=random.wrap_key_data(drawn.weights))
        parameters, fixed = models.begin(run.model, drawn, network_keys(key, seed).once, gains)
        start = records.probe(run.model, parameters, fixed, first) if probed else None
        return _start(run, rate, parameters), Setting(fixed, rate), start

    with jax.default_matmul_precision("highest"):
        first = _samples(run, source, held_out[0, : run.batch])
        return over_networks(one, drawn, seeds, gains, rates)


def _updates(
    run: Run, trained: Trained, setting: Setting, batch: Sample, *, by_step: bool = False, often: bool = False
) -> tuple[Array, Parameters, dict[str, Array], Parameters, Any]:
    """Loss, gradient, that of the layers (`by_step` what each step gives to it), update, the optimizer's new state."""
    import optax

    loss = models.loss_of(run.model, setting.fixed, batch, unrolled=often)
    if by_step:
        each = models.stacked(run.model, trained.parameters["layers"])
        value, (gradient, layers) = jax.value_and_grad(loss, argnums=(0, 1))(trained.parameters, each)
        gradient = {**gradient, "layers": jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), layers)}
    else:
        value, gradient = jax.value_and_grad(loss)(trained.parameters)
        layers = gradient["layers"]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        optimizer = optax.with_extra_args_support(run.optimizer(setting.rate))
        update, state = optimizer.update(
            gradient, trained.optimizer, trained.parameters, value=value, grad=gradient, value_fn=loss
        )
    return value, gradient, layers, update, state


def check_optimizer(run: Run) -> None:
    """Raises: ValueError where the optimizer does not take the parameters of this network."""
    plan = run.model.plan

    def take(rate: Array, drawn: Ahead, key: Array, gains: dict[str, Array]) -> Any:
        parameters, fixed = models.begin(run.model, drawn, key, gains)
        state = _start(run, rate, parameters)
        shape = (run.batch, *run.model.task.shape)
        answers = jnp.zeros((run.batch, run.model.task.outputs), "int32" if run.model.task.classes else plan.dtype)
        return _updates(run, state, Setting(fixed, rate), Sample(jnp.zeros(shape, plan.dtype), answers))

    with jax.enable_x64(plan.dtype == "float64"):
        number, start = _abstract(run)
        try:
            jax.eval_shape(take, number, *start)
        except Exception as error:
            raise ValueError(
                f"optimizer: it does not take the parameters of {plan.network.family}, a dict of "
                f"'read_in', 'layers' and 'read_out' ({arguments.reason(error)})"
            ) from error


def _abstract(run: Run) -> tuple[Any, tuple[Any, ...]]:
    """The shapes of a learning rate, and of what `gradsim.training.model.begin` takes."""
    plan = run.model.plan
    number = jax.ShapeDtypeStruct((), plan.dtype)
    size = extent(plan.network, plan.steps, given=True)
    drawn = jax.eval_shape(lambda: ahead(network_keys(random.key(0), 0), size))
    gains = dict.fromkeys((*plan.network.gains, *models.READ), number)
    return number, (drawn, jax.eval_shape(lambda: random.key(0)), gains)


def optimizer_program(run: Run, optimizer: Any) -> tuple[str, list[Any]]:
    """What an optimizer does to the parameters of this network, as a jaxpr; and the arrays that it holds.

    One that asks for the value of its learning rate is taken at 1.
    """
    import optax

    with jax.enable_x64(run.model.plan.dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        number, start = _abstract(run)
        parameters = jax.eval_shape(lambda *given: models.begin(run.model, *given)[0], *start)

        def update(rate: Any, gradient: Parameters, parameters: Parameters) -> Any:
            made = optimizer if isinstance(optimizer, optax.GradientTransformation) else optimizer(rate)
            full, value = optax.with_extra_args_support(made), jnp.zeros((), number.dtype)
            state = full.init(parameters)
            return full.update(gradient, state, parameters, value=value, grad=gradient, value_fn=lambda *_, **__: value)

        try:
            found = jax.make_jaxpr(update)(number, parameters, parameters)
        except jax.errors.ConcretizationTypeError:
            found = jax.make_jaxpr(partial(update, 1.0))(parameters, parameters)
        return str(found), list(_arrays(found))


def _arrays(program: Any) -> Iterator[Any]:
    """The constants of a jaxpr, and of those within: the text may leave out their numbers."""
    yield from getattr(program, "consts", ())
    for equation in getattr(program, "jaxpr", program).eqns:
        yield from (one.val for one in equation.invars if hasattr(one, "val"))
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda one: hasattr(one, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from _arrays(inner)


def _start(run: Run, rate: Array, parameters: Parameters) -> Trained:
    with jax.numpy_dtype_promotion("standard"):
        state = run.optimizer(rate).init(parameters)
    zero = jnp.zeros((), run.model.plan.dtype)
    return Trained(parameters, state, jnp.int32(0), zero, jnp.int32(NEVER))


def _advance(run: Run, trained: Trained, settings: Setting, source: Any, numbers: Array, count: Array) -> Trained:
    """Networks after `count` more steps; `numbers` are those of the samples, [networks, steps, batch]."""
    import optax

    def one(trained: Trained, setting: Setting, numbers: Array) -> Trained:
        def step(i: Array, trained: Trained) -> Trained:
            batch = _samples(run, source, numbers[i])
            value, _, _, update, state = _updates(run, trained, setting, batch, often=True)
            first = jnp.where(jnp.isfinite(value), NEVER, trained.step)
            return Trained(
                optax.apply_updates(trained.parameters, update),
                state,
                trained.step + 1,
                trained.losses + value,
                jnp.minimum(trained.diverged, first),
            )

        return lax.fori_loop(0, count, step, trained)

    with jax.default_matmul_precision("highest"):
        return over_networks_in_place(one, trained, settings, numbers)


def _measure(
    run: Run,
    by_layer: tuple[str, ...],
    trained: Trained,
    settings: Setting,
    start: Probe | None,
    source: Any,
    numbers: Array,
    held_out: Array,
) -> tuple[Trained, dict[str, Any]]:
    """What is recorded of each network before a step on the samples of these numbers, [networks, batch]."""
    model = run.model
    layers = None if model.network.tied else run.depth

    def one(trained: Trained, setting: Setting, start: Probe | None, numbers: Array) -> tuple[Trained, dict[str, Any]]:
        batch, fixed, parameters = _samples(run, source, numbers), setting.fixed, trained.parameters
        found: dict[str, Any] = records.held_out(model, parameters, fixed, blocks)
        by_step = model.network.tied and "log_gradient" in by_layer
        value, gradient, each, update, _ = _updates(run, trained, setting, batch, by_step=by_step)
        found |= {"loss": value, "losses": trained.losses}
        found["diverged_at"] = jnp.minimum(trained.diverged, jnp.where(jnp.isfinite(value), NEVER, trained.step))
        found["log_gradient_norm"] = records.norm_by_layer(gradient, None)
        if "log_gradient" in by_layer:
            found["log_gradient"] = records.norm_by_layer(each, run.depth)
        if "log_exact_gradient" in by_layer:
            found["log_exact_gradient"] = {
                name: jax.vmap(scaled.norm)(value)
                for name, value in records.exact_gradient(model, parameters, fixed, batch).items()
            }
        if "log_update" in by_layer or "log_weight" in by_layer:
            found["log_weight"] = records.norm_by_layer(parameters["layers"], layers)
            found["update"] = records.norm_by_layer(update["layers"], layers)
        if start is not None:
            found |= records.activations(records.probe(model, parameters, fixed, first), start)
        return trained._replace(losses=jnp.zeros_like(trained.losses)), found

    with jax.default_matmul_precision("highest"):
        blocks = _blocks(run, source, held_out)
        first = jax.tree.map(lambda leaf: leaf[0, : run.batch], blocks)
        return over_networks(one, trained, settings, start, numbers)


class Programs(NamedTuple):
    """`_begin`, `_advance` and `_measure`, jitted: what is static comes first, as there."""

    begin: Callable[..., Any]
    advance: Callable[..., Any]
    measure: Callable[..., Any]


@cache
def programs(devices: tuple[Any, ...] | None = None) -> Programs:
    """Those of JAX's own device, or of networks that are split evenly over these."""
    on_cpu = jax.default_backend() == "cpu"
    once = {"compiler_options": ON_CPU} if on_cpu else {}  # in less time: they run once where steps are many

    def jitted(function: Callable[..., Any], static: int, each: tuple[int, ...], **options: Any) -> Callable[..., Any]:
        over = function if devices is None else _spread(function, static, each, devices)
        return jax.jit(over, static_argnums=tuple(range(static)), **options)

    return Programs(
        jitted(_begin, 2, (2, 4, 5, 6), **once),
        jitted(_advance, 1, (1, 2, 4), donate_argnums=1),
        jitted(_measure, 2, (2, 3, 4, 6), donate_argnums=2, **once),
    )


def _spread(
    function: Callable[..., Any], static: int, each: tuple[int, ...], devices: tuple[Any, ...]
) -> Callable[..., Any]:
    """`function` of each device's networks; the arguments of these numbers have an axis of networks in front."""
    mesh, split = Mesh(np.array(devices), ("network",)), PartitionSpec("network")

    def call(*args: Any) -> Any:
        specs = tuple(split if place in each else PartitionSpec() for place in range(static, len(args)))
        one = partial(function, *args[:static])
        over = jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        return over(*args[static:])

    return call
