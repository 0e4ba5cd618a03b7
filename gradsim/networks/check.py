"""What a family of one's own breaks of the contract in network.py, found on shapes alone: nothing is compiled."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from gradsim import arguments
from gradsim.activations import Activation
from gradsim.initializers import Initializer
from gradsim.networks.network import Network, leaves_of

# Arguments of what takes gains by name, and other names of its Datasets: such a gain cannot be given, or shown.
TAKEN = (
    "at", "batch", "burn_in", "by_layer", "classes", "component", "cotangent", "count", "data", "dead", "depth",
    "devices", "direction", "dtype", "exponent", "held_out", "input", "inputs", "key", "learning_rate", "loss",
    "max_lost", "max_memory", "network", "optimizer", "parameter", "precision", "process", "processes", "progress",
    "rank", "record", "seed", "seeds", "sigma_in", "sigma_out", "singular_value", "start", "statistics", "step",
    "steps", "store", "time", "tolerance", "vectors", "width", "widths",
)  # fmt: skip
AXES = ("depth", "time")
KINDS = {"Activation": Activation, "Initializer": Initializer}


def contract(network: Network) -> None:
    """Nothing, if the network is what network.py says; looked up once for each.

    Raises: ValueError, one line that names the family's part, what it is, and what it may be.
    """
    for problem in problems(network):
        raise ValueError(problem)


def problems(network: Network) -> tuple[str, ...]:
    """A line for each part that is not what network.py says; what builds on a wrong part is not looked at."""
    return tuple(_fields(network)) or _beyond_fields(network)  # first: without a hash none can be looked up


@lru_cache(maxsize=256)
def _beyond_fields(network: Network) -> tuple[str, ...]:
    return tuple(_declared(network)) or tuple(dict.fromkeys(_traced(network)))


def _line(network: Network, part: str, got: str, wanted: str) -> str:
    return f"network: {type(network).__name__}.{part}: {got}; {wanted}"


def _fields(network: Network) -> Iterator[str]:
    names = {field.name for field in fields(network)}
    for name in vars(network).keys() - names:
        if not hasattr(type(network), name):  # as a cached_property has
            wanted = "make the class a dataclass (frozen=True) with that field: networks are compared by their fields"
            yield _line(network, name, "is set but no field", wanted)
    for field in fields(network):
        value = getattr(network, field.name)
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        if kind in KINDS and not isinstance(value, KINDS[kind]):
            wanted = f"pass {kind}, such as gradsim.{kind.lower()}s.get(…) gives"
            yield _line(network, field.name, arguments.got(value), wanted)
        try:
            hash(value)
        except TypeError:
            wanted = "pass what has a hash, such as a tuple: networks are compared by value"
            yield _line(network, field.name, arguments.got(value), wanted)


def _declared(network: Network) -> Iterator[str]:
    family = getattr(network, "family", None)
    if not isinstance(family, str) or not family:
        yield _line(network, "family", f"got {family!r}", "declare its name, family: ClassVar[str] = …")
    if network.axis not in AXES:
        yield _line(network, "axis", f"got {network.axis!r}", f"declare one of: {', '.join(AXES)}")
    for part in ("driven", "tied", "numbered"):
        if not isinstance(getattr(network, part), bool):
            yield _line(network, part, arguments.got(getattr(network, part)), "True or False is needed")
    if network.numbered and network.driven:
        yield _line(network, "numbered", "got True beside driven", "a step reads its number or an input")
    for part, check in (
        ("gains", _gains), ("input_shape", _shape), ("initial_shape", _shape), ("activations", _activations),
        ("parameters", _parameters),
    ):  # fmt: skip
        try:
            value = getattr(network, part)
        except Exception as error:
            yield _line(network, part, f"raised {arguments.reason(error)}", "it must return without an error")
            return  # those that follow build on it
        for got, wanted in check(network, value):
            yield _line(network, part, got, wanted)


Found = Iterator[tuple[str, str]]


def _gains(network: Network, gains: Any) -> Found:
    wanted = "return a dict of one or more names with a default number each"
    if not isinstance(gains, Mapping) or not gains:
        yield arguments.got(gains), wanted
        return
    for name, value in gains.items():
        if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
            yield (
                f"got the name {name!r}",
                "name it as a keyword of sweep can be, and not as one of sweep's own arguments",
            )
            continue
        try:
            if arguments.gain(name, value).ndim:
                yield f"got {name}={value!r}", wanted
        except (TypeError, ValueError) as error:
            yield str(error), wanted


def _shape(network: Network, shape: Any) -> Found:
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
        yield arguments.got(shape), "return a tuple of whole numbers of at least 1, such as (64,)"


def _activations(network: Network, activations: Any) -> Found:
    if not isinstance(activations, tuple) or not all(isinstance(one, Activation) for one in activations):
        yield (
            arguments.got(activations),
            "return a tuple of Activation, as gradsim.ACTIVATIONS holds them, or an empty one",
        )


def _parameters(network: Network, parameters: Any) -> Found:
    if not isinstance(parameters, Mapping):
        yield arguments.got(parameters), "declare a dict of fields of the weights to the gains that multiply them"
        return
    known = ", ".join(map(str, network.gains))  # which may be wrong themselves, and are then told first
    for field, gain in parameters.items():
        if gain not in network.gains:
            yield f"got {field!r}: {gain!r}", f"name one of the gains: {known}"
        if any(other != field and f"{other}.".startswith(f"{field}.") for other in parameters):
            yield f"got {field!r} and a field within it", "name each weight once"


def _traced(network: Network) -> Iterator[str]:
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            yield from _one_step(network, dtype)


class _Broken(Exception):
    """What stops a trial: its message is the line."""


def _one_step(network: Network, dtype: str) -> Iterator[str]:
    """A draw, a first state and a step, as shapes."""

    def run(part: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return jax.eval_shape(function, *args)
        except Exception as error:
            hint = f"it must run under jax.jit with arrays of {dtype}"
            if isinstance(error, KeyError):
                hint = f"its gains are: {', '.join(network.gains)}"
            raise _Broken(_line(network, part, f"raised {arguments.reason(error)}", hint)) from error

    gains = {name: jax.ShapeDtypeStruct((), dtype) for name in network.gains}
    first = jax.ShapeDtypeStruct(network.initial_shape if network.driven else network.input_shape, dtype)
    inputs = jax.ShapeDtypeStruct(network.input_shape, dtype) if network.driven else None
    inputs = jax.ShapeDtypeStruct((), "int32") if network.numbered else inputs
    try:
        weights = run("draw", lambda: network.draw(random.key(0), dtype))
        yield from _of_dtype(network, "draw", weights, dtype)
        for field in network.parameters:
            leaves = leaves_of(weights, field).values()
            if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
                yield _line(
                    network, "parameters", f"got {field!r}", f"name float arrays that draw returns: {_tree(weights)}"
                )
        state = run("initial_state", network.initial_state, gains, first)
        yield from _of_dtype(network, "initial_state", state, dtype, every=True)
        seen: list[Any] = []
        run("step", lambda *args: seen.append(network.step(*args)), weights, gains, state, inputs)
        yield from _stepped(network, seen[0], state, dtype)
        if not jax.tree.leaves(run("observed", network.observed, state)):
            yield _line(network, "observed", "returned no array", "return a part of the state")

        def differentiated(weights: Any, gains: Any, state: Any, inputs: Any) -> Any:
            return jax.jvp(lambda state: network.step(weights, gains, state, inputs)[0], (state,), (state,))

        run("step", differentiated, weights, gains, state, inputs)
        run("observed", lambda vector: jax.linear_transpose(network.observed, vector)(network.observed(vector)), state)
    except _Broken as broken:
        yield str(broken)


def _stepped(network: Network, returned: Any, state: Any, dtype: str) -> Iterator[str]:
    wanted = "return two things, the new state and a tuple of preactivations"
    if not isinstance(returned, tuple) or len(returned) != 2:
        yield _line(network, "step", f"returned {_tree(returned)}", wanted)
        return
    new, preactivations = returned
    if _tree(new) != _tree(state):
        wanted = f"return a state like the one it gets, {_tree(state)}"
        yield _line(network, "step", f"returned a state {_tree(new)} in {dtype}", wanted)
    count = len(network.activations)
    if not isinstance(preactivations, tuple) or len(preactivations) != count:
        got = f"{len(preactivations)} preactivations" if isinstance(preactivations, tuple) else _tree(preactivations)
        wanted = f"return a tuple of {count}, the argument of each of `activations`"
        yield _line(network, "step", f"returned {got}", wanted)
    else:
        yield from _of_dtype(network, "step", preactivations, dtype)


def _of_dtype(network: Network, part: str, tree: Any, dtype: str, every: bool = False) -> Iterator[str]:
    """The floats of a draw must have the run's dtype, and every leaf of a state, of which there must be one."""
    kinds = {jnp.asarray(leaf).dtype if isinstance(leaf, int | float) else leaf.dtype for leaf in jax.tree.leaves(tree)}
    wrong = {kind for kind in kinds if kind != dtype and (every or jnp.issubdtype(kind, jnp.inexact))}
    if wrong or (every and not kinds):
        got = f"returned {_tree(tree)} in {dtype}"
        yield _line(network, part, got, "return arrays of the dtype that it is called with")


def _tree(tree: Any) -> str:
    """A tree as its structure with dtypes and shapes, in one line."""

    def leaf(one: Any) -> str:
        return f"{one.dtype.name}{list(one.shape)}" if hasattr(one, "shape") else type(one).__name__

    return " ".join(str(jax.tree.map(leaf, tree)).split()).replace("'", "")
