"""Activations: a name, the function, and the places where its derivative jumps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, nn

from gradsim import arguments

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Activation:
    """An elementwise function φ together with the kinks at which φ' jumps.

    `kinks` lets a quadrature split its range there; they are compared by value, so two
    activations of the same function and kinks share one compilation.

    Raises: ValueError for a function that is not elementwise, has no finite derivative, or is NaN where a
    state may be large; TypeError for fields of another kind.
    """

    name: str
    function: Function = field(repr=False)
    kinks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        arguments.text("activation", self.name)
        arguments.function("activation", self.function)
        if not isinstance(self.kinks, tuple) or not all(isinstance(kink, int | float) for kink in self.kinks):
            raise TypeError(f"kinks: {arguments.got(self.kinks)}; pass a tuple of numbers")
        if "ACTIVATIONS" in globals():  # those below are tested elsewhere: an import computes nothing
            with jax.ensure_compile_time_eval():  # also where a network is made within a jitted function
                _test(self.name, self.function)

    def __call__(self, z: Array) -> Array:
        """φ(z), elementwise."""
        return self.function(z)

    def derivative(self, z: Array) -> Array:
        """φ'(z), elementwise."""
        return jax.jvp(self.function, (z,), (jnp.ones_like(z),))[1]

    def largest_slope(self) -> float:
        """The largest |φ'(z)| over −20 ≤ z ≤ 20: ¼ for the sigmoid, 1 for tanh."""
        return _largest_slope(self)


@lru_cache(maxsize=256)
def _largest_slope(activation: Activation) -> float:
    grid = np.linspace(-20.0, 20.0, 8001, dtype=np.float32)
    with jax.ensure_compile_time_eval():
        return float(jax.jit(lambda z: jnp.max(jnp.abs(activation.derivative(z))))(grid))


# JAX differentiates these in a form that cancels where they saturate (1 − tanh² is exactly 0
# beyond z = 9 in float32); a slope is only ever multiplied, so its relative precision is what counts.
@jax.custom_jvp
def _logistic_density(z: Array) -> Array:
    """σ'(z) = σ(z) σ(−z)."""
    e = jnp.exp(-jnp.abs(z))
    return e / (1 + e) ** 2


@_logistic_density.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    density = _logistic_density(z)
    return density, -density * _tanh(z / 2) * dz


@jax.custom_jvp
def _sigmoid(z: Array) -> Array:
    return nn.sigmoid(z)


@_sigmoid.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _sigmoid(z), _logistic_density(z) * dz


@jax.custom_jvp
def _tanh(z: Array) -> Array:
    return jnp.tanh(z)


@_tanh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _tanh(z), 4 * _logistic_density(2 * z) * dz


@jax.custom_jvp
def _softsign(z: Array) -> Array:
    return nn.soft_sign(z)


@_softsign.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _softsign(z), dz / (1 + jnp.abs(z)) ** 2


@jax.custom_jvp
def _expm1(z: Array) -> Array:
    return jnp.expm1(z)


@_expm1.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _expm1(z), jnp.exp(z) * dz


def _elu(z: Array) -> Array:
    return jnp.where(z > 0, z, _expm1(jnp.where(z > 0, 0, z)))


def _selu(z: Array) -> Array:
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return scale * jnp.where(z > 0, z, alpha * _expm1(jnp.where(z > 0, 0, z)))


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("identity", nn.identity),
        Activation("sigmoid", _sigmoid),
        Activation("tanh", _tanh),
        Activation("hard_tanh", nn.hard_tanh, (-1.0, 1.0)),
        Activation("relu", nn.relu, (0.0,)),
        Activation("leaky_relu", nn.leaky_relu, (0.0,)),
        Activation("elu", _elu, (0.0,)),
        Activation("selu", _selu, (0.0,)),
        Activation("celu", _elu, (0.0,)),  # at its usual α = 1 the same function
        Activation("gelu", partial(nn.gelu, approximate=False)),
        Activation("silu", nn.silu),
        Activation("mish", nn.mish),
        Activation("softplus", nn.softplus),
        Activation("softsign", _softsign, (0.0,)),
        Activation("erf", jax.lax.erf),
        Activation("sin", jnp.sin),
        Activation("hard_sigmoid", nn.hard_sigmoid, (-3.0, 3.0)),
        Activation("hard_swish", nn.hard_swish, (-3.0, 3.0)),
        Activation("relu6", nn.relu6, (0.0, 6.0)),
    )
}


def get(activation: str | Function | Activation) -> Activation:
    """The activation of that name, or the checked callable.

    Raises: ValueError for an unknown name (the known ones are listed), or for a callable that is
    not elementwise or has no finite derivative; TypeError for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation: unknown name {activation!r}; known names: {', '.join(ACTIVATIONS)}; or pass a callable"
            )
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise TypeError(f"activation: {arguments.got(activation)}; pass a name or an elementwise callable")
    return Activation(getattr(activation, "__name__", type(activation).__name__), activation)


@lru_cache(maxsize=256)
def _test(name: str, function: Function) -> None:
    """Whether a function of the user's own is an activation."""
    point = jnp.asarray([-0.7, 0.3, 1.1], jnp.float32)
    try:
        value, slope = jax.jvp(function, (point,), (jnp.ones_like(point),))
    except Exception as error:
        reason = arguments.reason(error)
        raise ValueError(f"activation: JAX cannot differentiate {name} ({reason}); write it with jax.numpy") from error
    if not isinstance(value, Array):
        raise ValueError(
            f"activation: {name} returns {type(value).__name__}; it must return an array like its argument"
        )
    if value.shape != point.shape or value.dtype != point.dtype:
        raise ValueError(
            f"activation: {name} maps {point.dtype}{point.shape} to {value.dtype}{value.shape}; "
            "it must be elementwise and keep shape and dtype"
        )
    # Each entry alone must give what it gives among others; a derivative could hide the dependence.
    if not bool(jnp.allclose(value, jnp.concatenate([function(point[i : i + 1]) for i in range(point.size)]))):
        raise ValueError(f"activation: {name} is not elementwise: an output depends on more than its own input")
    if not bool(jnp.all(jnp.isfinite(value) & jnp.isfinite(slope))):
        raise ValueError(f"activation: {name} has values or derivatives that are not finite at {point.tolist()}")
    _refuse_nan(name, function)


def _refuse_nan(name: str, function: Function) -> None:
    """A step may see |z| up to 2**48: infinite there is what it may be, NaN is a formula that overflows inside."""
    powers = np.ldexp(np.float32(1), np.arange(49))
    z = jnp.asarray(np.concatenate([powers, -powers]))
    for what, values in zip(("value", "derivative"), jax.jvp(function, (z,), (jnp.ones_like(z),)), strict=True):
        lost = np.isnan(np.asarray(values))
        if lost.any():
            raise ValueError(
                f"activation: {name} has the {what} NaN at z = {np.asarray(z)[lost][0]:g}; write it so that "
                "nothing in it overflows, such as jax.nn.softplus(z) in place of log1p(exp(z))"
            )
