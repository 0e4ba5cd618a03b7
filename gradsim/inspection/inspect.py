"""Where the gradient of a model goes: layer by layer, exactly, and beyond the range of floats."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from gradsim import arguments
from gradsim.inspection import dataset
from gradsim.inspection.differentiate import Plan, parts, trace
from gradsim.inspection.layers import Subject, is_pure, subject
from gradsim.inspection.measure import measure, norms_of

if TYPE_CHECKING:
    import xarray

plans: OrderedDict[Any, Plan] = OrderedDict()  # of the last models
KEPT = 8


def inspect(
    model: Any,
    *inputs: Any,
    loss: Callable[[Any], Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    rngs: Any = None,
    keywords: Mapping[str, Any] | None = None,
    gains: bool = False,
) -> xarray.Dataset:
    """Measures activations and gradients at every layer of a model, as its loss L is differentiated once.

    log_gradient[layer] = ln ‖∂L/∂(output of the layer)‖, log_parameter_gradient[parameter] = ln ‖∂L/∂parameter‖,
    in nats; both are exact at any size, for the backward pass runs in block floating point. They are derivatives of
    the program in its own floats: where tanh has rounded to 1, its slope is zero. `log_float_gradient` is what
    jax.grad sees, −inf where that underflows. Layers are the calls of modules in order of execution, the first row
    is the input; layers within a scan have their steps in `log_gradient_by_step`.

    model: a module of flax.nnx or flax.linen, in training or evaluation mode as it is; or a function, whose layers
        are marked with `gradsim.inspection.tap`, and the first of whose several inputs holds its parameters.
    loss: of the model's output, one number. Without it, the output where that is one number, else Σ u·output, with u
        a fixed standard normal draw.
    variables, rngs: of a flax.linen module that is not bound, what `apply` takes.
    keywords: what the model is called with besides the inputs.
    gains: also log_gain[layer] = ½ ln(‖J‖_F² / n_in) of each layer's Jacobian J, of all its outputs with respect to
        the n_in numbers of the arrays it takes by place: exact where it has at most 512 outputs, else from Gaussian
        probes (Hutchinson 1989), with `log_gain_error`; `gain_method` says which. Empty and NaN for layers in a scan,
        for what a function marks, and for modules of many layers.

    As under jax.jit, a model and a loss that have not changed but for the model's parameters are not traced anew: what
    a function reads from global variables is read once. The model stays as it is.

    Raises: TypeError or ValueError for arguments that are not of these kinds, a model that does not take the inputs,
        a loss that is not one number, a model without layers.
    """
    gains = arguments.flag("gains", gains)
    given = _checked(inputs, loss, keywords)
    parted = subject(model, given, variables=variables, rngs=rngs, keywords=keywords or {})
    _differentiable(parted)
    floats, others, _ = parts(parted.inputs)
    plan = _plan(parted, loss, (parted.parameters, floats, others, parted.state))
    operands = jax.tree.leaves((parted.parameters, floats, others, parted.state))
    measured = measure(plan, operands, len(parted.parameters), with_gains=gains)
    if measured.nonlinear:
        arguments.warn(
            f"model: its backward pass is not linear in the gradient ({', '.join(measured.nonlinear)}); what it "
            "gives holds for this loss alone, not for multiples of it"
        )
    if measured.lost:
        arguments.warn(
            "model: some entries of a gradient were too small beside others of the same array and count as zero; norms "
            "of arrays that depend on those entries alone, and shares of zeros, may be wrong"
        )
    sizes = norms_of(parted.parameters)
    attrs = {"model": type(model).__name__, "dtype": str(plan.dtype)}
    return dataset.build(measured, parted.names, sizes, attrs)


def _checked(inputs: Any, loss: Any, keywords: Any) -> tuple[Any, ...]:
    if not inputs:
        raise ValueError("inputs: got none; pass what the model is called with")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: {arguments.got(loss)}; pass a function of the model's output, or None")
    if keywords is not None and not isinstance(keywords, Mapping):
        raise TypeError(f"keywords: {arguments.got(keywords)}; pass a dict of arguments by name")
    return tuple(jax.tree.map(_array, one) for one in inputs)


def _array(leaf: Any) -> Any:
    try:
        return jnp.asarray(leaf)
    except Exception as error:
        raise TypeError(f"inputs: {arguments.got(leaf)}; pass arrays, or trees of arrays") from error


def _differentiable(parted: Subject) -> None:
    floats, others, _ = parts(parted.inputs)
    if not parted.parameters and not floats:
        kinds = sorted({str(leaf.dtype) for leaf in others}) or ["nothing"]
        raise TypeError(f"inputs: got {', '.join(kinds)}, and no parameters; pass arrays of floats")


def _plan(parted: Subject, loss: Any, operands: Any) -> Plan:
    """The program of this model, kept for the next call with one like it."""
    try:
        leaves, structure = jax.tree.flatten(operands)
        kinds = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        pure = parted.key is not None and (loss is None or is_pure(loss) or loss in (jnp.sum, jnp.mean))
        key = (parted.key, loss, structure, kinds, bool(jax.config.jax_enable_x64))  # type: ignore[attr-defined]
        kept = plans.get(key) if pure else None
    except (TypeError, AttributeError):  # something that has no hash
        return trace(parted, loss)
    if kept is None:
        kept = trace(parted, loss)
        if not pure:
            return kept
    plans[key] = kept
    plans.move_to_end(key)
    while len(plans) > KEPT:
        plans.popitem(last=False)
    return kept
