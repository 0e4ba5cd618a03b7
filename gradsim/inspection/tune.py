"""A model made critical: its initial kernels scaled until the gain of each layer is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradsim import arguments
from gradsim.inspection.differentiate import parts, trace
from gradsim.inspection.layers import Subject, subject
from gradsim.inspection.stacks import unrolled
from gradsim.inspection.structure import sites
from gradsim.inspection.taps import mark
from gradsim.inspection.tuning import Aims, Row, Tuning
from gradsim.sweeps.dataset import provenance

if TYPE_CHECKING:
    import xarray

ABOUT = {
    "gain_before": ("gain of the layer as it was given", "1"),
    "gain_after": ("gain of the layer with its kernels scaled", "1"),
    "gain_error": ("standard error of the gain with its kernels scaled", "1"),
    "target": ("gain that was wanted", "1"),
    "scale": ("factor of the kernel", "1"),
    "slope": ("d ln gain / d ln scale of the kernel, before it was scaled", "1"),
    "block_gain_before": ("gain of the block around a branch as it was given", "1"),
    "block_gain_after": ("gain of the block around a branch with its kernels scaled", "1"),
    "of": ("what the gain is of: layer, branch, or nothing where there is none", "1"),
    "status": ("tuned, inexact or refused", "1"),
    "reason": ("why the kernel is not tuned to the target", "1"),
}


class Tuned(NamedTuple):
    """A model with its kernels scaled, in the form in which it was given; and what was measured before and after."""

    model: Any
    table: xarray.Dataset


def tune(
    model: Any,
    *inputs: Any,
    target: float = 1.0,
    branch_target: float | None = None,
    per: str = "output",
    variables: Mapping[str, Any] | None = None,
    rngs: Any = None,
    keywords: Mapping[str, Any] | None = None,
    tolerance: float = 0.01,
) -> Tuned:
    """Scales the initial kernels of a model, layer by layer, until each layer's gain is `target`.

    gain = (‖J‖_F² / n_out)^½, of the Jacobian J of the layer, from its input to that of the next, so that the bias, the
    activation and the norm behind a kernel count with it (a pool does not, nor what follows the last). With n_out, as
    in AutoInit, the entries of a wider or narrower layer keep their size; where widths are equal it is the gain of
    `gradsim.inspect`, which has n_in. Numbers are counted over the whole batch, so that squares are averaged over
    examples. In order of execution, each layer is solved for its scale at what the layers before, already tuned, hand
    it: one pass is enough but where layers act on each other both ways (He, Doshi & Gromov 2022, arXiv:2206.13568;
    layer by layer by variances Mishkin & Matas 2015, arXiv:1511.06422). J is exact where the output has at most 512
    numbers, else sampled with Gaussian probes (Hutchinson 1989), at most 512, to a standard error of a third of
    the tolerance.

    A kernel is a parameter of two or more axes in a product of matrices or a convolution, whatever its name. Where
    there is a sum x + branch(x), the last kernels of the branch are solved for the gain of the whole branch, the
    others in it as layers of their own; the gain of the block, with x, is reported. Kernels with one input and one
    layer after them (query, key and value; gates) are one layer: those without which it has no gain share one scale;
    the others, as query and key, whose scale sharpens attention, are refused.

    What is refused keeps its scale, with `status` and `reason` in the table; the rest is tuned. Refused are kernels
    with which the layer's gain does not grow: before a norm, dead (kernels of zeros too), saturated beyond rescue, not
    finite; and those with no gain of their own: shared by several calls or by all turns of a loop, within a condition,
    or without a gradient to their input. A scan over parameters stacked layer by layer, as `nnx.scan` and
    `flax.linen.scan` make it, is layers of their own, `path[turn]` in the table, as if unrolled. "inexact" is what was
    scaled and is off the target by more than the tolerance after four passes. Biases and all other parameters stay as
    they are; biases are best zero, for a large one sets the activation's slope at any scale.

    model, inputs, variables, rngs, keywords: as `gradsim.inspect` takes them; the inputs are a typical batch.
    target: of layers.
    branch_target: of branches, by default the same; through L blocks gradients grow by (1 + branch_target²)^(L/2),
        and behind a norm, which hands each branch less of a stream that grows, so do its kernels: 1/√L keeps both.
    per: "output", or "input" for gains with n_in.
    tolerance: relative, of each gain.

    Returns: (model, table). The model is a copy of a flax.nnx module, of a flax.linen module its variables, of a
    function its first input; dtypes stay, and nothing that was given changes. The table has a row for each kernel, in
    order of execution, `layer` being its path.

    Raises: TypeError or ValueError for arguments that are not of these kinds, a model that does not take the inputs,
        a model without kernels, and one of which every kernel is refused.
    """
    aims = _aims(target, branch_target, tolerance)
    per = arguments.choice("per", per, ("output", "input"))
    parted = subject(model, inputs, variables=variables, rngs=rngs, keywords=keywords)
    ranks = [leaf.ndim for leaf in parted.parameters]
    if max(ranks, default=0) < 2:
        raise ValueError("model: no kernels; pass one with parameters of two or more axes")
    floats, others, _ = parts(parted.inputs)
    plan, slices = trace(_with_output(parted), None), None
    if any(one.source.primitive.name == "scan" for group in plan.forward for one in group.equations):
        slices = unrolled(parted)
    if slices is not None:
        parted, ranks = slices.parted, slices.ranks
        plan = trace(_with_output(parted), None)
    tuning = Tuning(plan, ranks, per == "output")
    rest = jax.tree.leaves((floats, others, parted.state))
    parameters, rows = tuning.run(parted.parameters, rest, aims)
    if not rows:
        raise ValueError("model: no kernels; pass one whose parameters are in products of matrices or convolutions")
    if all(_status(row) == "refused" for row in rows):
        first = parted.names[rows[0].parameter] or "its only parameter"
        raise ValueError(f"model: no kernel can be tuned; {first}: {rows[0].reason}")
    types = {site.layer: site.type_name for one in plan.program.equations for site in sites(one.source, "value")}
    attrs = {"model": type(model).__name__, "tolerance": aims.tolerance, "per": per}
    parameters = parameters if slices is None else slices.whole(parameters)
    return Tuned(_formed(model, inputs, variables, parameters), _table(rows, parted.names, types, attrs))


def _aims(target: Any, branch_target: Any, tolerance: Any) -> Aims:
    layer = arguments.number("target", target, "a number above 0", 0.0, float("inf"))
    branch = layer
    if branch_target is not None:
        branch = arguments.number("branch_target", branch_target, "a number above 0, or None", 0.0, float("inf"))
    return Aims(layer, branch, arguments.number("tolerance", tolerance, "a number between 0 and 1", 0.0, 1.0))


def _with_output(parted: Subject) -> Subject:
    """A function needs no taps to be tuned; a program must have one."""

    def call(parameters: Any, state: Any, inputs: Sequence[Any]) -> Any:
        return mark(parted.call(parameters, state, inputs), layer="", type_name="output", role="output")

    return parted._replace(call=call)


def _formed(model: Any, inputs: Sequence[Any], variables: Any, parameters: Sequence[Any]) -> Any:
    """The parameters in the form of the model."""
    from flax import linen, nnx

    if isinstance(model, nnx.Module):
        graph, old, state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
        return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(old), parameters), state, copy=True)
    if isinstance(model, linen.Module):
        given: Any = model.variables if variables is None else variables
        params = jax.tree.unflatten(jax.tree.structure(given["params"]), parameters)
        return type(given)({**given, "params": params})
    leaves, structure = jax.tree.flatten(inputs[0])
    tuned = iter(parameters)
    return jax.tree.unflatten(
        structure, [next(tuned) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) else leaf for leaf in leaves]
    )


def _table(rows: Sequence[Row], names: Sequence[str], types: Mapping[str, str], attrs: Mapping[str, Any]) -> Any:
    import xarray

    with np.errstate(over="ignore"):
        columns: dict[str, Any] = {
            "gain_before": [float(np.exp(row.before.log_gain)) for row in rows],
            "gain_after": [float(np.exp(row.after.log_gain)) for row in rows],
            "gain_error": [float(np.exp(row.after.log_gain) * row.after.error) for row in rows],
            "target": [row.target for row in rows],
            "scale": [row.scale for row in rows],
            "slope": [row.slope for row in rows],
            "block_gain_before": [float(np.exp(row.before.log_block)) for row in rows],
            "block_gain_after": [float(np.exp(row.after.log_block)) for row in rows],
        }
    columns["of"] = [row.of for row in rows]
    columns["status"] = [_status(row) for row in rows]
    columns["reason"] = [row.reason for row in rows]
    variables = {
        name: ("layer", column, {"long_name": ABOUT[name][0], "units": ABOUT[name][1]})
        for name, column in columns.items()
    }
    kernels = [names[row.parameter] for row in rows]
    layers = [_layer(name) for name in kernels]
    coordinates = {
        "layer": ("layer", layers, {"long_name": "layer, in order of execution"}),
        "type": ("layer", [types.get(one.split("[")[0], "") for one in layers], {"long_name": "type of the layer"}),
        "parameter": ("layer", kernels, {"long_name": "parameter that is the kernel"}),
    }
    return xarray.Dataset(variables, coordinates, attrs={**provenance(), **attrs})


def _status(row: Row) -> str:
    if not row.reason:
        return "tuned"
    return "refused" if row.scale == 1 else "inexact"


def _layer(name: str) -> str:
    """The path of the module that a kernel is of, with its turn in a scan."""
    path, bracket, turn = name.partition("[")
    return ("model" if path in ("kernel", "") else path.removesuffix(".kernel")) + bracket + turn
