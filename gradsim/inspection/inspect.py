"""Where the gradient of a model goes: layer by layer, exactly, and beyond the range of floats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp

from gradsim import arguments
from gradsim.inspection import dataset, jacobians
from gradsim.inspection.differentiate import parts, trace
from gradsim.inspection.layers import Subject, is_pure, subject
from gradsim.inspection.measure import measure
from gradsim.inspection.products import EXACT, Direction, Product, from_input, product, to_output

if TYPE_CHECKING:
    import xarray

plans: dict[Any, Any] = {}  # of the last models, the last of them at the end
KEPT = 16


def inspect(
    model: Any,
    *inputs: Any,
    loss: Callable[[Any], Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    rngs: Any = None,
    keywords: Mapping[str, Any] | None = None,
    gains: bool = False,
    products: bool = False,
    keep: str | None = None,
    layers: Sequence[str] | None = None,
    average: bool = False,
) -> xarray.Dataset:
    """Measures activations and gradients at every layer of a model, as its loss L is differentiated once.

    log_gradient[layer] = ln ‖∂L/∂(output of the layer)‖, log_parameter_gradient[parameter] = ln ‖∂L/∂parameter‖,
    in nats; both are exact at any size, for the backward pass runs in block floating point. They are derivatives of
    the program in its own floats: where tanh has rounded to 1, its slope is zero. `log_float_gradient` is what
    jax.grad sees, −inf where that underflows. Layers are the calls of modules in order of execution, the first row
    is the input; layers within a scan have their steps in `log_gradient_by_step`.

    `rounding` is the relative error that the backward pass makes in a parameter's gradient, found by a second one whose
    numbers round otherwise: near 1 where mathematics has zero, as of a bias before a batch norm. `saturated` is the
    share of the tanhs and sigmoids behind a layer that are flat (gates of their own input, as in SiLU, apart), `dead`
    that of units which are zero for every example. Where anything is not finite, the attributes `makes_not_finite` and
    `makes_not_finite_gradient` name the first operation that makes it of what is finite, with the line in your file.

    What narrower floats would lose, over layer or parameter (`parameter_lost`) and format (float32, bfloat16, float16,
    float8_e4m3 without infinities, float8_e5m2): `lost`, the share of the exact gradient's finite nonzero entries that
    round to zero there, being at most half the smallest subnormal number; `overflow`, the share that rounds beyond the
    largest; and both `…_scaled`, for a loss multiplied by the attribute `loss_scale`, 2**15. Each entry is rounded by
    itself: a backward pass in that format also hands its losses on. NaN where the gradient is zero.

    model: a module of flax.nnx or flax.linen, in training or evaluation mode as it is; or a function, whose layers
        are marked with `gradsim.inspection.tap` or else are its scopes of `jax.named_scope`, and the first of whose
        several inputs holds its parameters.
    loss: of the model's output, one number. Without it, the output where that is one number, else Σ u·output, with u
        a fixed standard normal draw.
    variables, rngs: of a flax.linen module that is not bound, what `apply` takes.
    keywords: what the model is called with besides the inputs.
    gains: also log_gain[layer] = ½ ln(‖J‖_F² / n_in) of each layer's Jacobian J, of all its outputs with respect to
        the n_in numbers of the arrays, and trees of them, it takes by place: exact where it has at most 512 outputs,
        else from Gaussian probes (Hutchinson 1989), with `log_gain_error`; `gain_method` says which. Of layers in a
        scan, as recurrent cells are, each turn's in `log_gain_by_step`, and in `log_gain` the root of their mean
        square. Empty and NaN for layers in a scan within a scan or condition, for what a function marks, and for
        modules of many layers.

    products: also log_gain_to_output[layer] = ½ ln(‖∂y/∂h‖_F² / n_h), y all of the model's output, h the layer's, and
        log_gain_from_input[layer] = ½ ln(‖∂h/∂x‖_F² / n_x), x the inputs that are floats; exact where y or x has at
        most 512 entries, in all or for each example, if examples do not mix (which is tried), else from 64 Gaussian
        probes, with `_error`. A product of Jacobians is not the product of their gains.
    keep: "jacobians" to have ∂y/∂h itself as `jacobian.<layer>` [(example,) output, entry], each example's own where
        examples do not mix; of `layers`, by name, or of all outside of scans; its mean over examples with `average`.
        The numbers are to be multiplied by e^log_scale, an attribute, 0 where that is within the range of float64.

    As under jax.jit, a model and a loss that have not changed but for the model's parameters are not traced anew: what
    a function reads from global variables is read once. The model stays as it is.

    Raises: TypeError or ValueError for arguments that are not of these kinds, a model that does not take the inputs,
        a loss that is not one number, a model without layers.
    """
    gains, products = arguments.flag("gains", gains), arguments.flag("products", products)
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: {arguments.got(loss)}; pass a function of the model's output, or None")
    parted = subject(model, inputs, variables=variables, rngs=rngs, keywords=keywords)
    _differentiable(parted)
    names = _wanted(keep, layers, average)
    operands = _operands(parted)
    plan = _kept(parted, loss, operands, "loss", lambda: trace(parted, loss))
    flat = jax.tree.leaves(operands)
    measured = measure(plan, flat, len(parted.parameters), with_gains=gains)
    labels = dataset.labels(measured.calls)
    kept = _known(labels, names)
    found = _products(parted, operands, kept, products=products)
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
    attrs = {"model": type(model).__name__, "dtype": str(plan.dtype)}
    built = dataset.build(measured, parted.names, attrs)
    return built.assign(jacobians.variables(found, measured.calls, labels, average=average))


def _differentiable(parted: Subject) -> None:
    floats, others, _ = parts(parted.inputs)
    if not parted.parameters and not floats:
        kinds = sorted({str(leaf.dtype) for leaf in others}) or ["nothing"]
        raise TypeError(f"inputs: got {', '.join(kinds)}, and no parameters; pass arrays of floats")


def _wanted(keep: Any, layers: Any, average: Any) -> Collection[str] | None:
    """The layers whose Jacobians are kept; None for all of them."""
    arguments.flag("average", average)
    if keep is None:
        if layers is not None or average:
            raise ValueError(f'keep: got None with layers={layers!r}, average={average}; pass keep="jacobians"')
        return ()
    arguments.choice("keep", keep, ("jacobians",))
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not all(isinstance(one, str) for one in layers):
        raise TypeError(f"layers: {arguments.got(layers)}; pass a sequence of names")
    return tuple(layers)


def _known(labels: Sequence[str], names: Collection[str] | None) -> list[int]:
    """The places of the layers of these names."""
    unknown = sorted(set(names or ()) - set(labels))
    if unknown:
        raise ValueError(f"layers: got {', '.join(unknown)}; pass some of {', '.join(labels)}")
    return [place for place, label in enumerate(labels) if names is None or label in names]


def _products(parted: Subject, operands: Any, kept: Collection[int], *, products: bool) -> dict[str, Product]:
    """What is asked for of the products, to_output and from_input."""
    found = {}
    if products or kept:
        found["to_output"] = _product(parted, operands, to_output, kept)
    if products and operands[1]:
        found["from_input"] = _product(parted, operands, from_input, ())
    return found


def _product(parted: Subject, operands: Any, direction: Callable[..., Direction], kept: Collection[int]) -> Product:
    def make(probes: bool) -> Direction:
        name = f"{direction.__name__} by probes" if probes else direction.__name__
        return cast(Direction, _kept(parted, None, operands, name, lambda: direction(parted, probes)))

    found = product(make, jax.tree.leaves(operands), kept)
    if kept and found.method == "probes":
        raise ValueError(
            f"keep: the output has {sum(found.sizes)} entries, more than {EXACT}; pass fewer examples, or a model "
            "with a smaller output"
        )
    return found


def _operands(parted: Subject) -> Any:
    floats, others, _ = parts(parted.inputs)
    return parted.parameters, floats, others, parted.state


class _Key:
    """What a program is kept by: it is hashed once, for a model of many layers takes long."""

    def __init__(self, parts: Any) -> None:
        self.parts, self.hashed = parts, hash(parts)

    def __hash__(self) -> int:
        return self.hashed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.hashed == other.hashed and bool(self.parts == other.parts)


class _Code:
    """What a function that closes over nothing computes: one written in the call is made anew at each call."""

    def __init__(self, function: Any) -> None:
        self.code, self.globals = function.__code__, function.__globals__

    def __hash__(self) -> int:
        return hash(self.code)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Code) and self.globals is other.globals and bool(self.code == other.code)


def _kept(parted: Subject, loss: Any, operands: Any, what: str, make: Callable[[], Any]) -> Any:
    """The program of this model, kept for the next call with one like it."""
    try:
        leaves, structure = jax.tree.flatten(operands)
        kinds = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        pure = parted.key is not None and (loss is None or is_pure(loss) or loss in (jnp.sum, jnp.mean))
        if not pure:
            return make()
        x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        key = _Key((parted.key, _Code(loss) if is_pure(loss) else loss, structure, kinds, what, x64))
        kept = plans.pop(key, None)  # of an OrderedDict it would compare the key several times, which takes long
    except (TypeError, AttributeError):  # something that has no hash
        return make()
    plans[key] = plan = make() if kept is None else kept
    if len(plans) > KEPT:
        del plans[next(iter(plans))]
    return plan
