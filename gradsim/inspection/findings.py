"""What an inspection shows, in words: each is said only where the Dataset's numbers say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradsim.inspection.formats import FORMATS
from gradsim.inspection.rates import Chain, chains
from gradsim.inspection.words import LARGE, counted, layers, lost, parameters, size, some

if TYPE_CHECKING:
    import xarray

STEADY = np.log(10.0)  # nats between the ends of a chain that are no trouble
FAR = np.log(100.0)  # and those that are
SMALL = np.log(1e6)  # nats below the largest gradient


def kind(chain: Chain) -> str:
    """Of a chain: steady, unclear, shrinks or grows a little, vanishes, explodes."""
    change = chain.gradient.change
    if abs(change) < STEADY:
        return "steady"
    if not chain.gradient.is_clear:
        return "unclear"
    if abs(change) < FAR:
        return "shrinks" if change < 0 else "grows"
    return "vanishes" if change < 0 else "explodes"


def unit(chain: Chain) -> str:
    return "step" if chain.by_step else "layer"


def place(chain: Chain) -> str:
    if chain.by_step:
        return f"the {chain.length} steps of {chain.last.partition(' of ')[2]}"
    return f"{chain.length} layers, {chain.first} to {chain.last}"


def findings(inspection: xarray.Dataset) -> tuple[list[str], list[str], bool]:
    """What is wrong, what else is to be seen, and whether the model is sound."""
    measured = chains(inspection)
    wrong = [*_not_finite(inspection), *_dead(inspection), *_nothing(inspection)]
    notes: list[str] = []
    for chain in measured:
        said = _rate(chain)
        (wrong if kind(chain) in ("vanishes", "explodes") else notes).append(said)
        notes += _drop(chain)
        if chain.by_step and kind(chain) not in ("vanishes", "explodes"):
            notes.append(
                "A loss that reads the output of every step hides what passes through time: try the last alone."
            )
        notes += _closed(inspection, chain)
    notes += _flat(inspection)
    if not any(kind(chain) in ("vanishes", "explodes") for chain in measured):
        notes += _range(inspection) if not measured else _small(inspection)
    wrong += _lost_by_own(inspection)
    notes += _rounding(inspection)
    if inspection.attrs.get("entries_lost"):
        notes.append("Some entries are zero only because they are too small beside others: shares of zeros are rough.")
    if inspection.attrs.get("not_linear"):
        names = inspection.attrs["not_linear"]
        notes.append(f"The backward pass is not linear ({names}): these sizes hold for this loss, not for multiples.")
    return wrong, notes, not wrong


def _rate(chain: Chain) -> str:
    """The change a layer in nats, as a factor and in decades, and between the ends."""
    slope, error, change = chain.gradient
    each = (
        f"{abs(slope):.3g} ± {error:.1g} nats a {unit(chain)} (× {size(slope)}, {abs(slope) / np.log(10):.2g} decades)"
    )
    word = kind(chain)
    if word in ("steady", "unclear"):
        holds = "keeps its size" if word == "steady" else "has no clear rate"
        return (
            f"On its way back through {place(chain)}, the gradient {holds}: {slope:+.2g} ± {error:.1g} nats "
            f"a {unit(chain)}, × {size(change)} in all."
        )
    name = {"vanishes": "Vanishes: ", "explodes": "Explodes: "}.get(word, "")
    verb = "shrinks" if change < 0 else "grows"
    return f"{name}on its way back through {place(chain)}, the gradient {verb} by {each}, × {size(change)} in all."


def _drop(chain: Chain) -> list[str]:
    """A change at one place that is most of the whole."""
    name, change = chain.drop
    return [f"Most of that is at one place: × {size(change)} back through {name}."] if chain.is_one_place else []


def _closed(inspection: xarray.Dataset, chain: Chain) -> list[str]:
    """Entries of the gradient that are zero, where more are than at the chain's end."""
    if chain.by_step:
        return []
    zeros = inspection["zero_gradient"].values[list(chain.rows)]
    closed = [row for row, share in zip(chain.rows, zeros, strict=True) if 0.9 <= share < 1]
    if not closed or zeros[-1] >= 0.9:
        return []
    names = [str(one) for one in inspection["layer"].values[closed]]
    return [
        f"Over 90 % of the gradient's entries are exactly zero at {some(names)}: units off, or saturated to the bit."
    ]


def _range(inspection: xarray.Dataset) -> list[str]:
    """Between which sizes the gradients lie, where no layers are alike."""
    logs = inspection["log_gradient"].values
    finite = logs[np.isfinite(logs)]
    if finite.size < 2 or (inspection["not_finite"] > 0).any():
        return []
    return [f"The gradients' norms lie between {size(finite.min())} and {size(finite.max())}."]


def _small(inspection: xarray.Dataset) -> list[str]:
    """Layers whose gradient is very small beside the largest, in a model without a chain that explains it."""
    logs = inspection["log_gradient"].values
    finite = np.isfinite(logs)
    if not finite.any():
        return []
    names = layers(inspection, finite & (logs < logs[finite].max() - SMALL))
    if not names:
        return []
    return [
        f"Beside the largest gradient, that of {some(names)} is below a millionth: rounding, or a way nearly closed."
    ]


def _flat(inspection: xarray.Dataset) -> list[str]:
    """Layers at least half of whose tanhs and sigmoids have almost no slope, where that was measured."""
    if "saturated" not in inspection:
        return []
    names = layers(inspection, inspection["saturated"].values >= LARGE)
    if not names:
        return []
    share = float(inspection["saturated"].sel(layer=names[0]))
    return [
        f"Saturated: half and more of the tanhs and sigmoids are flat after {some(names)} ({names[0]}: {share:.0%})."
    ]


def _rounding(inspection: xarray.Dataset) -> list[str]:
    """Parameters whose gradient is nothing but what sums that cancel leave, where that was measured."""
    if "rounding" not in inspection or inspection["rounding"].dims != ("parameter",):
        return []
    names = parameters(inspection, inspection["rounding"].values > LARGE)
    return [f"Rounding alone: the gradient of {some(names)} is zero by mathematics."] if names else []


def _not_finite(inspection: xarray.Dataset) -> list[str]:
    said = []
    for suffix, way in (("", "forward"), ("_gradient", "backward")):
        first = inspection.attrs.get(f"first_not_finite{suffix}")
        if first:
            made = inspection.attrs.get(f"makes_not_finite{suffix}")
            by = f", made by {made}" if made else ""
            share = float(inspection[f"not_finite{suffix}"].sel(layer=first))
            said.append(f"Not finite in the {way} pass: first at {first}, {share:.0%} of its entries{by}.")
    if not said and not np.isfinite(inspection.attrs.get("loss", 0.0)):
        said.append(f"The loss is {inspection.attrs['loss']}, every layer's output finite: it is made in the loss.")
    return said


def dead(inspection: xarray.Dataset) -> list[str]:
    """Layers at least half of whose units are zero for every example."""
    return layers(inspection, inspection["dead"].values >= LARGE)


def _dead(inspection: xarray.Dataset) -> list[str]:
    names = dead(inspection)
    if not names:
        return []
    share = float(inspection["dead"].sel(layer=names[0]))
    return [f"Dead: at {some(names)} half of the units or more are zero for every example ({names[0]}: {share:.0%})."]


def _nothing(inspection: xarray.Dataset) -> list[str]:
    """Layers and parameters that no gradient reaches."""
    said = []
    for names, what in (
        (layers(inspection, inspection["log_gradient"].values == -np.inf), "layer"),
        (parameters(inspection, inspection["log_parameter_gradient"].values == -np.inf), "parameter"),
    ):
        if names:
            count = f"{counted(len(names), what)} {'has' if len(names) == 1 else 'have'}"
            why = ": not on the way to the loss, or every way is closed to the bit" if what == "layer" else ""
            said.append(f"No gradient: {count} none at all ({some(names)}){why}.")
    return said


def _lost_by_own(inspection: xarray.Dataset) -> list[str]:
    """What the model's own floats show as zero, though it is not."""
    dtype = inspection.attrs.get("dtype", "")
    names = layers(inspection, _hidden(inspection, "gradient"))
    hidden = parameters(inspection, _hidden(inspection, "parameter_gradient"))
    if names or hidden:
        of = f"from {names[-1]} back, {counted(len(names), 'layer')} and " if names else ""
        return [f"In plain {dtype} the gradient is zero though it is not: {of}{counted(len(hidden), 'parameter')}."]
    names = lost(inspection, dtype, scaled=False)[0] if dtype in FORMATS else []
    if names:
        count = counted(len(names), "layer")
        return [f"In {dtype} half of the gradient's entries and more round to zero at {count} ({some(names)})."]
    return []


def _hidden(inspection: xarray.Dataset, name: str) -> np.ndarray:
    exact, plain = inspection[f"log_{name}"].values, inspection[f"log_float_{name}"].values
    return np.asarray(np.isfinite(exact) & (plain == -np.inf))
