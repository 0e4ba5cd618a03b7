"""What is read off a Jacobian product, or off the states, after each step.

A statistic is data: which tangents it needs, and how it is measured. It leaves the device as a
mantissa and a power of two, and is joined in float64 on the host.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradsim import arguments, scaled
from gradsim.engine.products import Bundle
from gradsim.networks.attention import token_spread
from gradsim.networks.network import Network
from gradsim.scaled import Scaled


class View(NamedTuple):
    """All that a statistic may read after one step; every mantissa is near 1, or 0."""

    network: Network
    product: Bundle | None  # row i of [n, ...] is J e_i forward, e_i J backward
    vector: Bundle | None  # [1, ...]: J u forward, the gradient backward
    state: Scaled
    preactivations: tuple[Array, ...]
    weight_gradients: Mapping[str, Scaled] = {}  # of this step, by field of the weights: leaves by path (`leaves_of`)
    weight_gradient_sums: Mapping[str, Scaled] = {}  # of this step and all later ones


@dataclass(frozen=True)
class Statistic:
    """A named quantity: `measure(view)` on the device, `finish` (Scaled -> float64) on the host.

    `needs` says what must be propagated for it: "all" tangents of a basis, "one" vector, the gradients of
    the "weights" and their "weight_sums".
    """

    name: str
    long_name: str
    units: str
    measure: Callable[[View], Scaled] = field(repr=False)
    needs: tuple[str, ...] = ()
    finish: Callable[[Scaled], np.ndarray] = field(default=scaled.join, repr=False)
    costly: bool = False  # taken at the depths named by `at=` only
    directions: tuple[str, ...] = ("forward", "backward")
    families: tuple[str, ...] = ()  # the families that have it; all if empty
    by_parameter: bool = False  # one value for each field of the weights, after one for all of them

    @property
    def logarithm(self) -> bool:
        return self.finish is scaled.log


def _matrix(tree: Any) -> Array:
    rows = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(rows, axis=1)


def _gain(view: View) -> Scaled:
    assert view.product is not None
    n_in = jax.tree.leaves(view.product.mantissa)[0].shape[0]
    return Scaled(jnp.sqrt(view.product.squares / n_in), view.product.exponent)


def _vector(view: View) -> Scaled:
    assert view.vector is not None
    return Scaled(jnp.sqrt(view.vector.squares), view.vector.exponent)


def _spectral(view: View) -> Scaled:
    assert view.product is not None
    singular_values = jnp.linalg.svd(_matrix(view.product.mantissa), compute_uv=False)
    return Scaled(singular_values[0], view.product.exponent)


def _length(view: View) -> Scaled:
    mean_square = scaled.square_sum(view.state.mantissa) / scaled.size(view.state.mantissa)
    return Scaled(mean_square, 2 * view.state.exponent)


def _units_mean(view: View, of: Callable[[Array, float], Array]) -> Scaled:
    slopes = [
        (activation.derivative(z), activation.largest_slope())
        for activation, z in zip(view.network.activations, view.preactivations, strict=True)
    ]
    total = sum(jnp.sum(of(slope, largest)) for slope, largest in slopes)
    mean = jnp.asarray(total / max(1, sum(slope.size for slope, _ in slopes)))
    return Scaled(mean, jnp.zeros((), jnp.int32))


def _slope(view: View) -> Scaled:
    return _units_mean(view, lambda slope, largest: slope * slope)


def _saturated(view: View) -> Scaled:
    return _units_mean(view, lambda slope, largest: (jnp.abs(slope) < 0.01 * largest).astype(slope.dtype))


def _by_parameter(network: Network, gradients: Mapping[str, Scaled]) -> Scaled:
    norms = [scaled.norm(gradients[name]) for name in network.parameters]
    mantissas, exponents = (jnp.stack(part) for part in zip(*norms, strict=True))
    largest = jnp.max(exponents)
    everything = jnp.sqrt(jnp.sum((mantissas * scaled.power_of_two(exponents - largest, mantissas.dtype)) ** 2))
    return Scaled(jnp.concatenate([everything[None], mantissas]), jnp.concatenate([largest[None], exponents]))


STATISTICS: dict[str, Statistic] = {
    statistic.name: statistic
    for statistic in (
        Statistic("log_gain", "log gain ½ ln(‖J‖²/n)", "nat", _gain, ("all",), scaled.log),
        Statistic("log_spectral", "log spectral norm ln σ_max(J)", "nat", _spectral, ("all",), scaled.log, costly=True),
        Statistic(
            "log_jvp", "log norm ln ‖J u‖, ‖u‖ = 1", "nat", _vector, ("one",), scaled.log, directions=("forward",)
        ),
        Statistic(
            "log_gradient", "log norm of ∂loss/∂state", "nat", _vector, ("one",), scaled.log, directions=("backward",)
        ),
        Statistic(
            "log_weight_gradient",
            "log norm of this step's ∂loss/∂W",
            "nat",
            lambda view: _by_parameter(view.network, view.weight_gradients),
            ("one", "weights"),
            scaled.log,
            directions=("backward",),
            by_parameter=True,
        ),
        Statistic(
            "log_weight_gradient_sum",
            "log norm of ∂loss/∂W summed over this step and all later ones",
            "nat",
            lambda view: _by_parameter(view.network, view.weight_gradient_sums),
            ("one", "weights", "weight_sums"),
            scaled.log,
            directions=("backward",),
            by_parameter=True,
        ),
        Statistic("length", "mean square of the state", "1", _length),
        Statistic("log_length", "log mean square of the state", "nat", _length, finish=scaled.log),
        Statistic(
            "token_spread",
            "distance of the tokens from their mean, ‖X − 1 x̄ᵀ‖/‖X‖; 0 at rank collapse",
            "1",
            lambda view: Scaled(token_spread(view.state.mantissa), jnp.zeros((), jnp.int32)),
            families=("attention",),
        ),
        Statistic("slope", "mean square of φ'", "1", _slope),
        Statistic("saturated", "share of units with |φ'| below 1 % of its largest", "1", _saturated),
    )
}


def get(names: str | Sequence[str], direction: str = "forward") -> tuple[Statistic, ...]:
    """The statistics of these names, each once, in the order given.

    Raises: ValueError for an unknown name, or one of the other direction (the known ones are listed), or
    for none at all; TypeError for anything but names.
    """
    known = [name for name, statistic in STATISTICS.items() if direction in statistic.directions]
    if not isinstance(names, Iterable):
        raise TypeError(
            f"statistics: got {names!r} of type {type(names).__name__}; pass one or more of: {', '.join(known)}"
        )
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise ValueError(f"statistics: got none; pass one or more of: {', '.join(known)}")
    for name in names:
        if arguments.choice("statistics", name, STATISTICS) not in known:
            only = f"direction={STATISTICS[name].directions[0]!r}"
            raise ValueError(f"statistics: {name!r} needs {only}; with {direction!r} pass: {', '.join(known)}")
    return tuple(STATISTICS[name] for name in dict.fromkeys(names))


def measure(statistic: Statistic, view: View, depth: Array, at: tuple[int, ...]) -> Scaled:
    """The statistic at this depth; a costly one is computed at the depths `at` alone, and is NaN elsewhere."""
    if not statistic.costly:
        return statistic.measure(view)
    shape = jax.eval_shape(lambda: statistic.measure(view))
    missing = Scaled(
        jnp.full(shape.mantissa.shape, jnp.nan, shape.mantissa.dtype), jnp.zeros(shape.exponent.shape, jnp.int32)
    )
    wanted = jnp.any(depth == jnp.asarray(at, jnp.int32))
    return jax.lax.cond(wanted, lambda: statistic.measure(view), lambda: missing)
