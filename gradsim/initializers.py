"""Initializers: laws of unit gain, and the named schemes as a law with its gain.

A law draws a matrix W of shape [n_in, n_out] for row vectors, `h @ W`, whose entries have variance
1/n_in, so that E‖h W‖²/n_out = ‖h‖²/n_in. Gains multiply after the product, never the weights:
a whole grid of gains then shares one draw, and one tall matrix product.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.typing import DTypeLike

from gradsim import arguments, lapack
from gradsim.draws import GAUSSIAN, Draw, Shape, Transform, Widened, interval, normal, standard_normal, uniform

__all__ = ["INITIALIZERS", "Draw", "Initializer", "Widened", "get", "normal", "uniform"]

WANTED = "draw(key, shape, dtype), such as jax.nn.initializers.he_normal()"


@dataclass(frozen=True)
class Initializer:
    """A law of unit gain and the scheme's own gains, which a network takes as its defaults.

    `draw(key, shape, dtype)` gives W; `weight_gain(n_in, n_out)` is the default sigma_w and
    `bias_gain(n_in)` the default sigma_b; `draw_bias(key, shape, dtype)` has unit variance.
    Both get the dtype of the run: where they draw with `normal` and `uniform` of this module, or are
    `Widened`, runs in float32 and float64 measure the same networks.

    Raises: ValueError for a draw of another shape or dtype, or one with NaN or inf; TypeError for fields of
    another kind.
    """

    name: str
    draw: Draw = field(repr=False)
    weight_gain: Callable[[int, int], float] = field(default=lambda n_in, n_out: 1.0, repr=False)
    bias_gain: Callable[[int], float] = field(default=lambda n_in: 0.0, repr=False)
    draw_bias: Callable[[Array, Shape, Any], Array] = field(default=GAUSSIAN, repr=False)

    def __post_init__(self) -> None:
        arguments.text("initializer", self.name)
        for part in ("draw", "weight_gain", "bias_gain", "draw_bias"):
            value = getattr(self, part)
            if not callable(value):
                raise TypeError(f"initializer: {self.name}.{part}: {arguments.got(value)}; pass {WANTED}")
            arguments.function("initializer", value.draw if isinstance(value, Widened) else value)
        if "INITIALIZERS" in globals():  # those below are tested elsewhere: an import computes nothing
            _test(self.name, self.draw, (4, 4))
            if self.draw_bias is not GAUSSIAN:
                _test(self.name, self.draw_bias, (4,))


def _gaussian(z: Array, shape: Shape, dtype: DTypeLike) -> Array:
    return (z.reshape(shape) / math.sqrt(shape[0])).astype(dtype)


def _truncated_gaussian(u: Array, shape: Shape, dtype: DTypeLike) -> Array:
    # 0.8796… is the standard deviation of a unit normal cut at ±2, as in jax.nn.initializers.
    cut = standard_normal(math.erf(math.sqrt(2)) * u).reshape(shape)
    return (cut / (0.87962566103423978 * math.sqrt(shape[0]))).astype(dtype)


def _uniform(u: Array, shape: Shape, dtype: DTypeLike) -> Array:
    return (math.sqrt(3 / shape[0]) * u).reshape(shape).astype(dtype)


def orthogonal(z: Array, shape: Shape, dtype: DTypeLike) -> Array:
    """An orthogonal matrix out of as many normal numbers as it has entries."""
    n_in, n_out = shape
    q, r = lapack.one_by_one(jnp.linalg.qr)(z.reshape(max(shape), min(shape)).astype(dtype))
    q = q * jnp.sign(jnp.diagonal(r))  # positive signs of R make Q unique, and Haar
    return jnp.asarray(math.sqrt(max(n_out / n_in, 1.0)), dtype) * (q.T if n_in < n_out else q)


def _sparse(u: Array, shape: Shape, dtype: DTypeLike) -> Array:
    inputs = min(15, shape[0])
    places, values = u.reshape(2, *shape)
    rank = jnp.argsort(jnp.argsort(places, axis=0), axis=0)
    return jnp.where(rank < inputs, standard_normal(values) / math.sqrt(inputs), 0).astype(dtype)


def _identity(u: Array, shape: Shape, dtype: DTypeLike) -> Array:
    del u
    n_in, n_out = shape
    return jnp.eye(n_in, n_out, dtype=dtype)


TRUNCATED, UNIFORM = Transform(_truncated_gaussian, normal=False), Transform(_uniform, normal=False)


def _glorot(n_in: int, n_out: int) -> float:
    return math.sqrt(2 * n_in / (n_in + n_out))


def _he(n_in: int, n_out: int) -> float:
    return math.sqrt(2)


# "normal" is cut at two standard deviations in the schemes that JAX and Flax call lecun, glorot
# and he; for true Gaussians take "gaussian" and set sigma_w.
INITIALIZERS: dict[str, Initializer] = {
    initializer.name: initializer
    for initializer in (
        Initializer("gaussian", Transform(_gaussian)),
        Initializer("truncated_gaussian", TRUNCATED),
        Initializer("uniform", UNIFORM),
        Initializer("orthogonal", Transform(orthogonal)),
        Initializer(
            "sparse", Transform(_sparse, lambda shape: 2 * math.prod(shape), normal=False)
        ),  # 15 inputs a unit: Martens 2010
        Initializer("identity", Transform(_identity, lambda shape: 0)),
        Initializer("lecun_normal", TRUNCATED),
        Initializer("lecun_uniform", UNIFORM),
        Initializer("glorot_normal", TRUNCATED, _glorot),
        Initializer("glorot_uniform", UNIFORM, _glorot),
        Initializer("he_normal", TRUNCATED, _he),
        Initializer("he_uniform", UNIFORM, _he),
        # torch.nn.Linear draws weights and biases from U[±1/√n_in]: variance 1/(3 n_in).
        Initializer(
            "torch_linear",
            UNIFORM,
            lambda n_in, n_out: math.sqrt(1 / 3),
            lambda n_in: math.sqrt(1 / (3 * n_in)),
            interval(-math.sqrt(3), math.sqrt(3)),
        ),
    )
}


def get(initializer: str | Draw | Initializer) -> Initializer:
    """The initializer of that name, or a callable `draw(key, shape, dtype)` such as those of JAX.

    A callable keeps its own variance, and sigma_w (1 unless given) multiplies it. It is called with float32
    in every run, and its result is widened to the run's dtype.
    Raises: ValueError for an unknown name (the known ones are listed) or a callable that draws something
    else; TypeError for anything else.
    """
    if isinstance(initializer, Initializer):
        return initializer
    if isinstance(initializer, str):
        if initializer not in INITIALIZERS:
            known = ", ".join(INITIALIZERS)
            raise ValueError(f"initializer: unknown name {initializer!r}; known names: {known}; or pass a callable")
        return INITIALIZERS[initializer]
    if not callable(initializer):
        raise TypeError(f"initializer: {arguments.got(initializer)}; pass a name or a callable draw(key, shape, dtype)")
    return Initializer(getattr(initializer, "__name__", type(initializer).__name__), Widened(initializer))


@lru_cache(maxsize=256)
def _test(name: str, draw: Callable[..., Array], shape: tuple[int, ...]) -> None:
    """Whether a law of the user's own draws finite float32 numbers of the shape asked for."""
    got: tuple[Shape, str] = (), ""

    def finite() -> Array:
        nonlocal got
        w = draw(random.key(0), shape, jnp.dtype("float32"))
        got = w.shape, w.dtype.name
        return jnp.all(jnp.isfinite(w))

    try:  # one program, where each operation would be one; compiled before it is called, within a jitted function too
        found = bool(jax.jit(finite).lower().compile()())
    except Exception as error:
        reason = arguments.reason(error)
        raise ValueError(f"initializer: {name} does not draw an array ({reason}); pass {WANTED}") from error
    if got != (shape, "float32"):
        raise ValueError(
            f"initializer: {name} draws {got[1]} of shape {got[0]} where float32 of shape {shape} was asked for; "
            f"pass {WANTED}"
        )
    if not found:
        raise ValueError(f"initializer: {name} draws NaN or inf for shape {shape}; pass one that draws finite numbers")
