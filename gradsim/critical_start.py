"""An initializer for any model's `kernel_init` that starts an activation at its edge of chaos."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.typing import DTypeLike

from gradsim import activations, arguments
from gradsim.activations import Activation
from gradsim.analysis.critical import critical
from gradsim.draws import GAUSSIAN
from gradsim.initializers import INITIALIZERS
from gradsim.networks.depth.feedforward import feedforward
from gradsim.theory.edge import edge_of_chaos, explain_edge
from gradsim.theory.given import ActivationLike

LAWS = ("gaussian", "truncated_gaussian", "uniform", "orthogonal", "delta_orthogonal")
Axes = int | Sequence[int]

_WIDTH, _SEEDS = 128, 16  # of the networks that are measured; the standard error is some 0.3 %
_SPAN = 0.5, 8.0  # where σ_w is sought, in units of 1 / max |φ'|, below which nothing is critical
_DEEPEST = 10_000


@dataclass(frozen=True)
class CriticalInitializer:
    """What `critical_initializer` returns: call it for kernels, and its `bias` for biases."""

    activation: str
    sigma_w: float
    sigma_b: float
    law: str = "gaussian"
    in_axis: tuple[int, ...] = (-2,)
    out_axis: tuple[int, ...] = (-1,)
    batch_axis: tuple[int, ...] = ()

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        """A kernel of that shape whose entries have variance σ_w²/fan-in.

        Raises: ValueError or TypeError naming the argument.
        """
        shape, dtype = _shape(shape), _dtype(dtype)
        batch, taps, inputs, outputs = self._axes(shape)
        sizes = [[shape[axis] for axis in axes] for axes in (batch, taps, inputs, outputs)]
        delta = self.law == "delta_orthogonal"
        fan_in, fan_out = prod(sizes[2]) * (1 if delta else prod(sizes[1])), prod(sizes[3])
        draw = INITIALIZERS["orthogonal" if delta else self.law].draw
        keys = random.split(key, prod(sizes[0])) if batch else key[None]
        wide = _wide(dtype)
        drawn = jax.vmap(lambda key: draw(key, (fan_in, fan_out), wide))(keys)
        if delta:  # all but the middle tap are zero
            every = jnp.zeros((len(keys), *sizes[1], fan_in, fan_out), wide)
            drawn = every.at[(slice(None), *(size // 2 for size in sizes[1]))].set(drawn)
        drawn = drawn.reshape([size for some in sizes for size in some])
        return (self.sigma_w * jnp.moveaxis(drawn, range(len(shape)), batch + taps + inputs + outputs)).astype(dtype)

    def bias(self, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        """A bias of that shape from N(0, σ_b²)."""
        shape, dtype = _shape(shape), _dtype(dtype)
        return (self.sigma_b * GAUSSIAN(key, shape, _wide(dtype))).astype(dtype)

    def _axes(self, shape: tuple[int, ...]) -> tuple[list[int], list[int], list[int], list[int]]:
        """Batch axes, taps (all that is left), inputs and outputs of this shape, none negative."""
        rank = len(shape)
        for name in ("in_axis", "out_axis", "batch_axis"):
            if any(not -rank <= axis < rank for axis in getattr(self, name)):
                raise ValueError(
                    f"shape: got {shape}, which has no axis {name}={getattr(self, name)}; pass a kernel's shape, such "
                    "as (inputs, outputs) or (height, width, inputs, outputs)"
                )
        batch, inputs, outputs = (
            [axis % rank for axis in axes] for axes in (self.batch_axis, self.in_axis, self.out_axis)
        )
        named = batch + inputs + outputs
        if len(set(named)) < len(named):
            raise ValueError(
                f"in_axis: got in_axis={self.in_axis}, out_axis={self.out_axis}, batch_axis={self.batch_axis}, which "
                f"meet in a kernel of shape {shape}; pass axes that differ"
            )
        return batch, [axis for axis in range(rank) if axis not in named], inputs, outputs


def critical_initializer(
    activation: ActivationLike,
    sigma_b: float | int = 0.0,
    *,
    law: str = "gaussian",
    depth: int | None = None,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> CriticalInitializer:
    """Start layers φ(h W + b) at the edge of chaos, where a squared gradient neither grows nor shrinks.

    Kernels have variance σ_w²/fan-in with σ_w² E φ'(√q z)² = 1 at the stable length q = σ_w² E φ(√q z)² + σ_b²: √2 for
    a ReLU, as He et al. found. The length is q from the first layer on if inputs have mean square E φ(√q z)²; others
    draw near to it in a few layers, or slowly where `theory.feedforward` has a large ξ_q, as for tanh without bias.

        start = gs.critical_initializer("tanh", sigma_b=0.3)
        nnx.Linear(256, 256, kernel_init=start, bias_init=start.bias, rngs=nnx.Rngs(0))

    Args:
        activation: a name in `gradsim.ACTIVATIONS`, or an elementwise function.
        sigma_b: standard deviation of the biases.
        law: "gaussian", "truncated_gaussian" at two standard deviations, "uniform" or "orthogonal", over all inputs
            of a unit; "delta_orthogonal" is orthogonal in the middle tap of a convolution and zero elsewhere.
        depth: None for the theory of infinite width; or the layers over which σ_w is measured, on networks of width
            128 and inputs of mean square one, so that the mean log gradient is the same at both ends. This serves
            activations without an edge, too, such as a GELU without bias.
        in_axis, out_axis, batch_axis: axes of a kernel, as in `jax.nn.initializers.variance_scaling`; all others are
            taps of a convolution, over which the fan-in goes.

    Returns: a CriticalInitializer, called as `(key, shape, dtype)`, with `bias`, `sigma_w` and `sigma_b`.
    Raises: ValueError where there is no edge of chaos, with the reason; ValueError or TypeError naming an argument.
    Sources: Schoenholz et al. 2017, arXiv:1611.01232; He et al. 2015, arXiv:1502.01852; for kernels of convolutions
        Xiao et al. 2018, arXiv:1806.05393.

    >>> print(f"{critical_initializer('relu').sigma_w:.6f}")
    1.414214
    """
    phi = activations.get(activation)
    wanted = "a finite number of at least 0"
    bias = arguments.number("sigma_b", sigma_b, wanted, -1e-300, 1e7)
    if bias < 0:
        raise ValueError(f"sigma_b: got {bias}; pass {wanted}")
    law = arguments.choice("law", law, LAWS)
    axes = [_checked("in_axis", in_axis), _checked("out_axis", out_axis), _checked("batch_axis", batch_axis, least=0)]
    sigma_w = _theory(phi, bias) if depth is None else _measured(phi, bias, law, depth)
    return CriticalInitializer(phi.name, sigma_w, bias, law, *axes)


def _theory(phi: Activation, sigma_b: float) -> float:
    sigma_w = float(edge_of_chaos(phi, sigma_b))
    if sigma_w != sigma_w:
        raise ValueError(
            f"activation: {phi.name} has no edge of chaos at sigma_b={sigma_b:g} ({explain_edge(phi, sigma_b)}); pass "
            "another sigma_b, or depth= for the sigma_w that keeps the gradient over so many layers"
        )
    return sigma_w


def _measured(phi: Activation, sigma_b: float, law: str, depth: int) -> float:
    depth = arguments.whole("depth", depth, maximum=_DEEPEST)
    network = feedforward(_WIDTH, phi, law.removeprefix("delta_"))
    slope = phi.largest_slope()
    if not slope > 0:
        raise ValueError(f"activation: {phi.name} has no slope, so that no gradient passes; pass another")
    between = [bound / slope for bound in _SPAN]
    found = critical(
        network, between=between, depth=depth, seeds=_SEEDS, burn_in=0, max_lost=1.0, progress=False, sigma_b=sigma_b
    )
    if found["status"].item() != "bracketed":
        raise ValueError(
            f"activation: the gradient of {phi.name} over {depth} layers is {found['status'].item()} for sigma_w from "
            f"{between[0]:.3g} to {between[1]:.3g} and sigma_b={sigma_b:g}; pass another sigma_b or depth"
        )
    return float(found["sigma_w"])


def _checked(name: str, value: Axes, least: int = 1) -> tuple[int, ...]:
    many = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    if len(many) < least:
        raise ValueError(f"{name}: got {arguments.shown(value)}; pass an axis, or a sequence of axes, such as -2")
    return tuple(arguments.whole(name, one, minimum=-32, maximum=31) for one in many)


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        raise TypeError(f"shape: {arguments.got(shape)}; pass a tuple of sizes")
    return tuple(arguments.size("shape", size) for size in shape)


def _dtype(dtype: DTypeLike) -> jnp.dtype:
    wanted = "pass a real floating dtype, such as jnp.float32"
    try:
        found = jnp.dtype(jax.dtypes.canonicalize_dtype(dtype))
    except (TypeError, ValueError) as error:
        raise TypeError(f"dtype: {arguments.got(dtype)}; {wanted}") from error
    if not jnp.issubdtype(found, jnp.floating):
        raise TypeError(f"dtype: got {found}; {wanted}")
    return found


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """What is drawn before it is rounded: half precisions have no QR, and sums lose their digits."""
    return jnp.dtype("float64" if jnp.finfo(dtype).bits == 64 else "float32")
