"""Which known cures would act on what an inspection shows, each with its reason from the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradsim.inspection.findings import STEADY, dead, kind
from gradsim.inspection.formats import LOSS_SCALE
from gradsim.inspection.rates import Chain, chains
from gradsim.inspection.words import LARGE, counted, lost, size, some

if TYPE_CHECKING:
    import xarray

GATED = ("LSTM", "GRU", "MGU")
CELLS = ("Cell", "RNN", *GATED)


def cures(inspection: xarray.Dataset) -> list[str]:
    """In order: what is not finite, dead units, each chain that vanishes or explodes, formats."""
    found = []
    if inspection.attrs.get("first_not_finite") or inspection.attrs.get("first_not_finite_gradient"):
        found.append("What is not finite comes first: other numbers count only when it is mended.")
    names = dead(inspection)
    if names:
        found.append(
            f"Units that are zero for every example get no gradient ({some(names)}): larger initial biases, a smaller "
            "learning rate, or an activation with a slope on both sides (leaky ReLU, GELU)."
        )
    for chain in chains(inspection):
        if kind(chain) in ("vanishes", "explodes"):
            found += _of_steps(inspection, chain) if chain.by_step else _of_layers(inspection, chain)
    return found + _of_formats(inspection)


def _of_layers(inspection: xarray.Dataset, chain: Chain) -> list[str]:
    if chain.is_one_place:
        name, change = chain.drop
        return [
            f"{name} first: the gradient changes × {size(change)} there, × {size(chain.gradient.change)} over all "
            f"{chain.length}; what sets it apart (its initial scale, an activation, a factor) is the cause."
        ]
    vanishes = kind(chain) == "vanishes"
    forward, says = _forward(chain)
    norms = _norms(inspection)
    found = [_of_weights(inspection, chain)]
    if vanishes and not norms:
        if_none = ", if the blocks have none" if chain.is_composite else ""
        found.append(
            f"Skip connections{if_none}: past {chain.length} layers of factor {size(chain.gradient.slope)}, x + f(x) "
            "hands the gradient on whole."
        )
    if not vanishes:
        if chain.is_composite and forward == "grows":
            found.append(
                f"If these blocks add their input, branches times 1/√{chain.length} = {chain.length**-0.5:.2g}: "
                "outputs and gradients grow with the number of branches."
            )
        if forward == "grows" and not norms:
            found.append(f"Normalization (layer norm, RMS norm): none is among the layers, and {says}.")
        found.append("Clipping of the gradient's norm bounds the step; it does not even out the layers.")
    return found


def _of_weights(inspection: xarray.Dataset, chain: Chain) -> str:
    """What the scale of the weights can do, by what outputs, norms and flat units show beside the gradient."""
    # A block that adds its input does not scale with its weights.
    factor = "" if chain.is_composite else f", about × {size(-chain.gradient.slope)} a layer"
    vanishes = kind(chain) == "vanishes"
    forward, says = _forward(chain)
    norms, gain, flat = _norms(inspection), _gain(inspection, chain), _flat(inspection, chain)
    few = "" if flat is None else f" ({flat:.0%} of the tanhs and sigmoids are flat)"
    if vanishes and forward == "shrinks":
        return (
            f"Larger initial weights{factor}: {says}, as the gradient does, so the weights are too "
            "small for both. gs.tune finds the scale of each layer."
        )
    if vanishes and flat is not None and flat >= LARGE:
        return (
            f"Smaller initial weights and biases (gs.tune): {flat:.0%} of the tanhs and sigmoids of these layers are "
            "flat, their slope below 1 % of its largest."
        )
    if vanishes and forward == "grows":
        return (
            f"Smaller initial weights: {says} while the gradient shrinks, as where units are driven into "
            f"saturation{few}. gs.tune finds the scale of each layer."
        )
    if vanishes and norms:
        return (
            f"Norms ({norms}) within the branches of skip connections, not behind their sum: {says} while the gradient "
            "shrinks, and behind a norm no scale of the weights changes that."
        )
    if vanishes:
        return (
            f"Larger initial weights (gs.tune, gs.critical_initializer): {says} while the gradient shrinks, so the "
            f"slopes lose it, not the signal{few}{gain}. Where that saturates the units, an activation with slope 1 "
            "(the ReLU family with He's weights)."
        )
    if forward == "grows":
        return (
            f"Smaller initial weights{factor}: {says}, as the gradient does, so the weights are too "
            f"large for both{gain}. gs.tune finds the scale of each layer."
        )
    if norms:
        return (
            f"Skip connections around the layers, or fewer norms ({norms}): {says} while the gradient grows, and "
            "behind a norm no scale of the weights changes that."
        )
    return (
        f"Smaller initial weights (gs.tune): {says} while the gradient grows by slopes and weights together{gain}, as "
        "in a network beyond the edge of chaos."
    )


def _of_steps(inspection: xarray.Dataset, chain: Chain) -> list[str]:
    slope, count = chain.gradient.slope, chain.length
    types = {str(one) for one in inspection["type"].values}
    cell = next((one for one in sorted(types) if "Cell" in one), "")
    of = f" ({cell})" if cell else ""
    gated = any(name in one for one in types for name in GATED)
    if not any(name in one for one in types for name in CELLS):
        return [
            f"Over the scan's steps the gradient {'shrinks' if slope < 0 else 'grows'} × {size(slope)} a step: if they "
            "are layers, initial weights by gs.tune, skip connections; if they are time, gates or orthogonal weights."
        ]
    if kind(chain) == "explodes":
        return [
            f"Clipping of the gradient's norm, and smaller or orthogonal recurrent weights: each step multiplies the "
            f"gradient by {size(slope)}."
        ]
    kept = (
        f"each step keeps {size(slope)} of the gradient, so it is down to 1/e after {-1 / slope:.3g} steps of {count}"
    )
    if gated:
        return [
            f"Gates that start open: {kept}; a bias of ln({count} − 1) = {np.log(count - 1):.2g} on the gate that "
            f"keeps the state{of} makes it last as long as the sequence (Tallec & Ollivier 2018)."
        ]
    return [f"Gates (LSTM, GRU), or orthogonal recurrent weights of gain 1: {kept}."]


def _forward(chain: Chain) -> tuple[str, str]:
    """What the activations do over the chain, and that in words."""
    line = chain.activation
    if line is None or not line.is_clear or abs(line.change) < STEADY:
        change = "" if line is None else f" (× {size(line.change)} in all)"
        return "steady", f"the outputs keep their size{change}"
    word = "shrinks" if line.slope < 0 else "grows"
    return word, f"the outputs {word.removesuffix('s')} × {size(line.slope)} a layer"


def _flat(inspection: xarray.Dataset, chain: Chain) -> float | None:
    """The mean share of the chain's tanhs and sigmoids that are flat, where there are some."""
    if "saturated" not in inspection:
        return None
    shares = inspection["saturated"].values[list(chain.rows)]
    return None if np.isnan(shares).all() else float(np.nanmean(shares))


def _norms(inspection: xarray.Dataset) -> str:
    types = sorted({str(one) for one in inspection["type"].values if "Norm" in str(one)})
    return ", ".join(types)


def _gain(inspection: xarray.Dataset, chain: Chain) -> str:
    """The layers' own gain beside what the gradient loses, where it was measured."""
    if "log_gain" not in inspection:
        return ""
    gains = inspection["log_gain"].values[list(chain.rows)]
    gains = gains[np.isfinite(gains)]
    if not gains.size:
        return ""
    mean = float(gains.mean())
    said = f": the layers' own gain is {size(mean)}, the gradient changes × {size(chain.gradient.slope)} a layer"
    if abs(mean) < 0.2 < abs(chain.gradient.slope):
        said += ", which therefore comes from between them"
    return said


def _of_formats(inspection: xarray.Dataset) -> list[str]:
    """For the formats that models are trained in."""
    scale = f"{inspection.attrs.get('loss_scale', LOSS_SCALE):g}"
    plain = {name: lost(inspection, name, scaled=False)[0] for name in ("float32", "bfloat16", "float16")}
    scaled = {name: lost(inspection, name, scaled=True)[0] for name in plain}
    found = []
    if scaled["float32"]:
        found.append(
            f"No float of 32 bits or fewer holds the gradient from {plain['float32'][-1]} back, nor does a loss times "
            f"{scale} ({counted(len(scaled['float32']), 'layer')} lost then): the rate must be mended, not the format."
        )
    elif plain["float32"]:
        count = counted(len(plain["float32"]), "layer")
        found.append(f"In float32 a loss times {scale} brings back the {count} lost without.")
    beyond = [str(one) for one in inspection["layer"].values[inspection["overflow_scaled"].sel(format="float16") > 0]]
    half, half_scaled = plain["float16"], scaled["float16"]
    if half and not half_scaled:
        more = f", but {beyond[-1]} overflows there: a smaller scale" if beyond else ""
        found.append(
            f"In float16, loss scaling: without it {counted(len(half), 'layer')} from {half[-1]} back lost, with "
            f"{scale} none{more}."
        )
    elif half_scaled and not plain["bfloat16"]:
        found.append(
            f"bfloat16 rather than float16: float16 loses {counted(len(half_scaled), 'layer')} even with a loss times "
            f"{scale}, bfloat16 none without."
        )
    return found
