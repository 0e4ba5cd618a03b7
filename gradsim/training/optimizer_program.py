"""What an optimizer does to the parameters of a network, as a program: to tell two apart, and whether layers mix."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from gradsim.engine.streams import ahead, extent, network_keys
from gradsim.training import model as models
from gradsim.training.model import Model

# What takes entry to entry. Others are taken for a mixture, which is slower and never wrong.
ELEMENTWISE = (
    "abs", "add", "and", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "div", "eq", "erf", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "pow", "real", "rem", "round", "rsqrt", "select_n", "sign", "sin",
    "cos", "sqrt", "square", "stop_gradient", "sub", "tanh", "xor",
)  # fmt: skip
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "cond")


def start_shapes(model: Model) -> tuple[Any, tuple[Any, ...]]:
    """The shapes of a learning rate, and of what `gradsim.training.model.begin` takes."""
    plan = model.plan
    number = jax.ShapeDtypeStruct((), plan.dtype)
    size = extent(plan.network, plan.steps, given=True)
    drawn = jax.eval_shape(lambda: ahead(network_keys(random.key(0), 0), size))
    gains = dict.fromkeys((*plan.network.gains, *models.READ), number)
    return number, (drawn, jax.eval_shape(lambda: random.key(0)), gains)


def described(model: Model, optimizer: Any) -> tuple[str, list[Any]]:
    """What an optimizer does to the parameters of this network, as a jaxpr; and the arrays that it holds.

    One that asks for the value of its learning rate is taken at 1.
    """
    import optax

    make = (lambda rate: optimizer) if isinstance(optimizer, optax.GradientTransformation) else optimizer
    with jax.enable_x64(model.plan.dtype == "float64"):
        number, start = start_shapes(model)
        parameters = jax.eval_shape(lambda *given: models.begin(model, *given)[0], *start)
        try:
            found = _program(make, parameters, number)
        except jax.errors.ConcretizationTypeError:
            found = _program(lambda: make(1.0), parameters)
    return without_addresses(found), list(_arrays(found))


def by_entries(optimizer: Callable[[Any], Any], rate: Any, parameters: Any) -> bool:
    """Whether each entry is updated from its own past alone, and alike where every layer is a parameter of its own.

    An optimizer may look at a parameter's rank or name. One layer is therefore tried as a stack and in a list, with
    the axis of layers kept: the programs must be the same.
    """
    stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), parameters["layers"])
    try:
        stacked, listed = (
            _program(optimizer, {**parameters, "layers": layers}, rate)
            for layers in (stack, jax.tree.map(lambda leaf: [leaf], stack))
        )
    except Exception:  # a label for each parameter, say: it meets its own later
        return False
    alike = without_addresses(stacked) == without_addresses(listed)
    return alike and not any(np.size(one) > 1 for one in _arrays(stacked)) and not _mixes(stacked)


def without_addresses(thing: object) -> str:
    """The text of what may hold functions, whose places in memory differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(thing))


def _program(make: Callable[..., Any], parameters: Any, *rate: Any) -> Any:
    """The jaxpr of an optimizer's first update."""
    import optax

    def update(*args: Any) -> Any:
        *rate, gradient, parameters = args
        full, value = optax.with_extra_args_support(make(*rate)), jnp.zeros((), dtype)
        state = full.init(parameters)
        return full.update(gradient, state, parameters, value=value, grad=gradient, value_fn=lambda *_, **__: value)

    dtype = jax.tree.leaves(parameters)[0].dtype
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        return jax.make_jaxpr(update)(*rate, parameters, parameters)


def _inner(equation: Any) -> Iterator[Any]:
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda one: hasattr(one, "eqns")):
        if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
            yield inner


def _mixes(program: Any) -> bool:
    """Whether an equation of a jaxpr may make an entry of several."""
    return any(
        any(map(_mixes, _inner(equation)))
        if equation.primitive.name in CALLS
        else equation.primitive.name not in ELEMENTWISE and any(np.shape(one.aval) for one in equation.invars)
        for equation in getattr(program, "jaxpr", program).eqns
    )


def _arrays(program: Any) -> Iterator[Any]:
    """The constants of a jaxpr, and of those within: the text may leave out their numbers."""
    yield from getattr(program, "consts", ())
    for equation in getattr(program, "jaxpr", program).eqns:
        yield from (one.val for one in equation.invars if hasattr(one, "val"))
        for inner in _inner(equation):
            yield from _arrays(inner)
