"""What is read off a Jacobian product, or off the states, after each step."""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from gradsim import arguments, scaled
from gradsim.engine import isometry, rounding
from gradsim.engine.correlations import of_pairs
from gradsim.engine.products import matrix
from gradsim.engine.statistic import Statistic, View
from gradsim.lapack import one_by_one
from gradsim.networks.network import Network
from gradsim.scaled import Scaled


def _gain(view: View) -> Scaled:
    assert view.product is not None
    n_in = jax.tree.leaves(view.product.mantissa)[0].shape[0]
    return Scaled(jnp.sqrt(view.product.squares / n_in), view.product.exponent)


def _vector(view: View) -> Scaled:
    assert view.vector is not None
    return Scaled(jnp.sqrt(view.vector.squares), view.vector.exponent)


def _product(view: View) -> tuple[Array, Array]:
    assert view.product is not None
    return matrix(view.product.mantissa), view.product.exponent


def _spectral(view: View) -> Scaled:
    rows, exponent = _product(view)
    return Scaled(one_by_one(jnp.linalg.svdvals)(rows)[0], exponent)


def _singular_values(view: View) -> Scaled:
    assert view.singular_values is not None
    return view.singular_values


def _length(view: View) -> Scaled:
    mean_square = scaled.square_sum(view.state.mantissa) / scaled.size(view.state.mantissa)
    return Scaled(mean_square, 2 * view.state.exponent)


def _units_mean(view: View, of: Callable[[Array, float], Array]) -> Array:
    slopes = [
        (activation.derivative(z), activation.largest_slope())
        for activation, z in zip(view.network.activations, view.preactivations, strict=True)
    ]
    total = sum(jnp.sum(of(slope, largest)) for slope, largest in slopes)
    return jnp.asarray(total / sum(slope.size for slope, _ in slopes))


def _slope(view: View) -> Array:
    return _units_mean(view, lambda slope, largest: slope * slope)


def _saturated(view: View) -> Array:
    def small(slope: Array, largest: float) -> Array:
        return jnp.where(jnp.isnan(slope), slope, (jnp.abs(slope) < 0.01 * largest).astype(slope.dtype))

    return _units_mean(view, small)


def _without_activation(network: Network) -> str | None:
    return None if network.activations else "it has no activation"


def token_spread(state: Float[Array, "tokens d"]) -> Float[Array, ""]:
    """How far the tokens are from one another, ‖X − 1 x̄ᵀ‖_F / ‖X‖_F: 1 with a mean of zero, 0 where they are all alike.

    It falls to 0 where attention collapses the state to rank one (Dong, Cordonnier & Loukas 2021).
    """
    mean = jnp.mean(state, axis=0, keepdims=True)
    return jnp.sqrt(scaled.square_sum(state - mean) / scaled.square_sum(state))


def _without_tokens(network: Network) -> str | None:
    return None if network.state_axes == ("tokens", "width") else "its state is not [tokens, width]"


def _by_parameter(network: Network, gradients: Mapping[str, Scaled]) -> Scaled:
    norms = [scaled.norm(gradients[name]) for name in network.parameters]
    mantissas, exponents = (jnp.stack(part) for part in zip(*norms, strict=True))
    largest = jnp.max(exponents)
    everything = jnp.sqrt(jnp.sum((mantissas * scaled.power_of_two(exponents - largest, mantissas.dtype)) ** 2))
    return Scaled(jnp.concatenate([everything[None], mantissas]), jnp.concatenate([largest[None], exponents]))


STATISTICS: dict[str, Statistic] = {
    statistic.name: statistic
    for statistic in (
        Statistic("log_gain", "log gain ½ ln(‖J‖²/n)", "nat", _gain, ("all",), logarithm=True, by_column=True),
        Statistic(
            "log_spectral", "log spectral norm ln σ_max(J)", "nat", _spectral, ("all",), logarithm=True, costly=True
        ),
        Statistic(
            "log_singular_values",
            "log singular value ln σ_i(J)",
            "nat",
            _singular_values,
            ("spectrum",),
            logarithm=True,
            costly=True,
            by_singular_value=True,
            infinite=True,
        ),
        Statistic(
            "log_condition",
            "log condition number ln(σ_max/σ_min)",
            "nat",
            lambda view: isometry.condition(_singular_values(view)),
            ("spectrum",),
            logarithm=True,
            costly=True,
            infinite=True,
        ),
        Statistic(
            "isometric_share",
            "share of singular values between ½ and 2",
            "1",
            lambda view: isometry.isometric_share(_singular_values(view)),
            ("spectrum",),
            costly=True,
        ),
        Statistic(
            "log_second_moment",
            "log second moment of squared singular values, ln(Σσ⁴/n)",
            "nat",
            lambda view: isometry.second_moment(*_product(view)),
            ("all",),
            logarithm=True,
            costly=True,
        ),
        Statistic(
            "spectral_variance",
            "variance of squared singular values over their squared mean",
            "1",
            lambda view: isometry.spectral_variance(_product(view)[0]),
            ("all",),
            costly=True,
            infinite=True,
        ),
        Statistic(
            "log_jvp", "log norm ln ‖J u‖, ‖u‖ = 1", "nat", _vector, ("one",), logarithm=True, directions=("forward",)
        ),
        Statistic(
            "log_gradient",
            "log norm of ∂loss/∂state",
            "nat",
            _vector,
            ("one",),
            logarithm=True,
            directions=("backward",),
        ),
        Statistic(
            "log_weight_gradient",
            "log norm of this step's ∂loss/∂W",
            "nat",
            lambda view: _by_parameter(view.network, view.weight_gradients),
            ("one", "weights"),
            logarithm=True,
            directions=("backward",),
            by_parameter=True,
        ),
        Statistic(
            "log_weight_gradient_sum",
            "log norm of ∂loss/∂W summed over this step and all later ones",
            "nat",
            lambda view: _by_parameter(view.network, view.weight_gradient_sums),
            ("one", "weights", "weight_sums"),
            logarithm=True,
            directions=("backward",),
            by_parameter=True,
        ),
        Statistic("length", "mean square of the state", "1", _length),
        Statistic("log_length", "log mean square of the state", "nat", _length, logarithm=True),
        Statistic(
            "token_spread",
            "distance of the tokens from their mean, ‖X − 1 x̄ᵀ‖/‖X‖; 0 at rank collapse",
            "1",
            lambda view: token_spread(view.state.mantissa),
            missing=_without_tokens,
        ),
        *of_pairs(),
        Statistic("slope", "mean square of φ'", "1", _slope, missing=_without_activation),
        Statistic(
            "saturated",
            "share of units with |φ'| below 1 % of its largest",
            "1",
            _saturated,
            missing=_without_activation,
        ),
        Statistic(
            "log_median",
            "log median size of the entries of J u, or of the gradient, that are not 0",
            "nat",
            rounding.log_median,
            ("one",),
            logarithm=True,
        ),
        *rounding.of_chain(),
    )
}


def get(wanted: str | Statistic | Iterable[str | Statistic], direction: str = "forward") -> tuple[Statistic, ...]:
    """The statistics of these names, or these statistics themselves, each once, in the order given.

    Raises: ValueError for an unknown name, or one of the other direction (the known ones are listed), for
    two of one name that differ, or for none at all; TypeError for anything but names and statistics.
    """
    able = [name for name, statistic in STATISTICS.items() if direction in statistic.directions]
    known = ", ".join(able)
    if isinstance(wanted, str | Statistic):
        wanted = (wanted,)
    if not isinstance(wanted, Iterable):
        raise TypeError(f"statistics: {arguments.got(wanted)}; pass one or more of: {known}")
    found: dict[str, Statistic] = {}
    for one in wanted:
        known_name = isinstance(one, str) and one in STATISTICS
        name = one if known_name or isinstance(one, Statistic) else arguments.choice("statistics", one, able)
        statistic = name if isinstance(name, Statistic) else STATISTICS[name]
        if direction not in statistic.directions:
            only = f"direction={statistic.directions[0]!r}"
            raise ValueError(f"statistics: {statistic.name!r} needs {only}; with {direction!r} pass: {known}")
        if found.setdefault(statistic.name, statistic) != statistic:
            raise ValueError(f"statistics: got two different ones named {statistic.name!r}; pass one of them")
    if not found:
        raise ValueError(f"statistics: got none; pass one or more of: {known}")
    return tuple(found.values())


def measure(statistic: Statistic, view: View, depth: Array, at: tuple[int, ...]) -> Scaled:
    """The statistic at this depth; a costly one is computed at the depths `at` alone, and is NaN elsewhere."""
    if not statistic.costly:
        return _measured(statistic, view)
    shape = jax.eval_shape(lambda: _measured(statistic, view))
    missing = Scaled(
        jnp.full(shape.mantissa.shape, jnp.nan, shape.mantissa.dtype), jnp.zeros(shape.exponent.shape, jnp.int32)
    )
    wanted = jnp.any(depth == jnp.asarray(at, jnp.int32))
    return jax.lax.cond(wanted, lambda: _measured(statistic, view), lambda: missing)


def _measured(statistic: Statistic, view: View) -> Scaled:
    value = statistic.measure(view)
    if isinstance(value, Scaled):
        return value
    plain = jnp.asarray(value, jax.tree.leaves(view.state.mantissa)[0].dtype)
    return Scaled(plain, jnp.zeros(plain.shape, jnp.int32))
