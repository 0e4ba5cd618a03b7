"""All singular values of the Jacobian of a deep feed-forward network at infinite width: their density and its edges."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss

from gradsim import activations, arguments
from gradsim.activations import Activation
from gradsim.theory import quadrature
from gradsim.theory.feedforward import feedforward
from gradsim.theory.free_product import Law, Product, atom, evaluate, spectrum, zeros
from gradsim.theory.given import LAYERS, ActivationLike, Number, broadcast

_REACH = 10.0  # standard deviations
_PANELS = np.linspace(-_REACH, _REACH, 41)
_FLAT = -690.0  # ln of a squared slope over the largest, so that it stays a float
_NEGLIGIBLE = 1e-24  # of a node's weight
_NODES, _WEIGHTS = leggauss(16)
_SHORTEST = 1e-300  # q, from which on down the slopes no longer change
_OSCILLATING = 1e6  # q up to which `quadrature.panels` follow an oscillation
_MOST = 10**6  # numbers that are returned: minutes
_PIECE = 4096  # slopes a call: one shape, so one compilation
_FARTHEST = 1e12  # nats
_UNBOUNDED, _VANISHES, _CROSSING = 100.0, 1e-4, 0.02  # slopes far out, somewhere, and at a change of sign


class SingularValues(NamedTuple):
    """The spectrum of J = ∂h_L/∂h_0 at infinite width, over ln σ.

    NaN where the length has no fixed point, and where an oscillating φ cannot be followed: a sine with q above 10^6.
    """

    log_sigma: Float[np.ndarray, "*shape points"]
    """ln σ, rising."""
    density: Float[np.ndarray, "*shape points"]
    """Of ln σ: its integral is 1 − zero − isometric."""
    above: Float[np.ndarray, "*shape points"]
    """The share of the singular values that are larger than σ."""
    zero: Float[np.ndarray, "*shape"]
    """The share that is 0: of units of slope 0."""
    isometric: Float[np.ndarray, "*shape"]
    """The share that has one and the same σ > 0, with orthogonal weights, as of a hard-tanh that seldom saturates."""
    log_isometric: Float[np.ndarray, "*shape"]
    """ln of that σ; NaN where there is none."""
    log_min: Float[np.ndarray, "*shape"]
    """ln of the smallest σ > 0; −inf where they come down to 0, as they do of Gaussian weights."""
    log_max: Float[np.ndarray, "*shape"]
    """ln of the largest σ; inf where slopes are unbounded."""
    log_mean_square: Float[np.ndarray, "*shape"]
    """ln E σ² = L ln χ, over the zeros as well."""
    variance: Float[np.ndarray, "*shape"]
    """Var σ² / (E σ²)² = L (μ₂/μ₁² − 1 − s₁)."""


def singular_values(
    activation: ActivationLike,
    sigma_w: Number,
    sigma_b: Number,
    depth: Number,
    q: Number | None = None,
    orthogonal: bool = False,
    log_sigma: Any = None,
    points: int = 200,
) -> SingularValues:
    """The density of the log singular values of L layers at the fixed point q*, or at the variance q.

    J Jᵀ is a product of free factors, so that S = S_{φ'²}^L (σ_w² (1 + w)^g)^{−L}, g = 1 for Gaussian and 0 for
    orthogonal weights, which `free_product` solves: exact to about 1e-10, whatever the depth and however far from
    criticality. Slopes are those met within ten standard deviations; what a density has of less than 1e-12 there is
    rounding, and a slope that underflows counts as 0.

    Args:
        depth: L, whole numbers up to 10^6, broadcast against sigma_w, sigma_b and q. With orthogonal weights at
            least 2: the singular values of one layer are σ_w |φ'| themselves.
        log_sigma: where, a 1-d array in nats; else `points` of them between the edges, or down to where 1e-4 is left.
        points: how many.

    Returns: SingularValues, float64, of the broadcast shape, log_sigma, density and above with an axis more.
    Raises: TypeError or ValueError naming the argument.
    Sources: Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735; 2018, arXiv:1802.09979.

    >>> linear = singular_values("identity", 1.0, 0.0, [1, 8])
    >>> print(np.round(np.exp(2 * linear.log_max), 5))
    [ 4.      23.09206]
    """
    phi = activations.get(activation)
    g = 0.0 if arguments.flag("orthogonal", orthogonal) else 1.0
    points = arguments.whole("points", points, minimum=2, maximum=_MOST)
    grid = None if log_sigma is None else _grid(log_sigma)
    given = {} if q is None else {"q": q}
    most = max(1, _MOST // (points if grid is None else grid.size))
    cells, shape = broadcast(
        {"depth": (1.0, float(LAYERS))}, most=most, sigma_w=sigma_w, sigma_b=sigma_b, depth=depth, **given
    )
    _refuse_depths(cells[2], g)
    weight, bias, layers = cells[:3]
    lengths = feedforward(phi, weight, bias).q if q is None else cells[3]
    found = [_one(phi, *cell, g, grid, points) for cell in zip(weight, lengths, layers, strict=True)]
    columns = (np.reshape(column, (*shape, *np.shape(column)[1:])) for column in zip(*found, strict=True))
    return SingularValues(*columns)


def _grid(log_sigma: Any) -> np.ndarray:
    wanted = "a 1-d array of finite numbers that rise"
    grid = arguments.numbers("log_sigma", log_sigma, wanted)
    if grid.ndim != 1 or grid.size == 0 or grid.size > _MOST:
        raise ValueError(f"log_sigma: got an array of shape {grid.shape}; pass {wanted}, at most {_MOST:,}")
    wrong = ~(np.abs(grid) <= _FARTHEST)
    if wrong.any():
        raise ValueError(f"log_sigma: got {grid[wrong][0]}; pass {wanted}, in size at most {_FARTHEST:g}")
    if np.any(np.diff(grid) <= 0):
        raise ValueError(f"log_sigma: got {arguments.shown(log_sigma)}; pass {wanted}")
    return grid


def _refuse_depths(layers: np.ndarray, g: float) -> None:
    wrong = layers != np.floor(layers)
    if wrong.any():
        raise ValueError(f"depth: got {layers[wrong][0]}; pass whole numbers from 1 to {LAYERS:,}")
    if g == 0 and layers.min() < 2:
        raise ValueError(
            "depth: got 1 with orthogonal weights, of which the singular values are sigma_w |φ'|, with no equation to "
            "solve; pass 2 or more"
        )


def _one(
    phi: Activation, sigma_w: float, q: float, layers: float, g: float, grid: np.ndarray | None, points: int
) -> SingularValues:
    size = points if grid is None else grid.size
    nothing = np.full(size, np.nan)
    if np.isnan(q) or (q > _OSCILLATING and quadrature.oscillates(phi)):
        return SingularValues(nothing if grid is None else grid, nothing, nothing, *np.full(7, np.nan))
    law, log_mean, bounded, finite = slopes(phi, max(float(q), _SHORTEST))
    if sigma_w == 0 or np.isneginf(log_mean):  # J = 0
        where = np.full(size, -np.inf) if grid is None else grid
        none = np.zeros(size)
        return SingularValues(where, none, none, 1.0, 0.0, np.nan, -np.inf, -np.inf, -np.inf, np.nan)  # type: ignore[arg-type]
    shift = layers * (2 * np.log(sigma_w) + log_mean)  # ln E λ
    product = Product(law, float(layers), g)
    if grid is None:
        curve, _, (low, high) = spectrum(product, bounded, points)
    else:
        curve, (low, high) = evaluate(product, bounded, 2 * grid - shift), product.edges(bounded)[1]
    share, place = atom(product)
    fields = (
        (curve.log + shift) / 2 if grid is None else grid, 2 * curve.density, curve.above, zeros(law), share,
        (place + shift) / 2, (low + shift) / 2, (high + shift) / 2 if finite else np.inf, shift,
        layers * (law.d**2 @ law.p - 1 + g),
    )  # fmt: skip
    return SingularValues(*map(np.asarray, fields))


@lru_cache(maxsize=256)
def slopes(activation: Activation, q: float) -> tuple[Law, float, bool, bool]:
    """The law of φ'(√q ζ)² over its mean, ln of the mean, whether slopes not 0 stay away from 0, and all from ∞."""
    scale = np.sqrt(q)
    features = quadrature.panels(activation)
    edges = np.unique(np.concatenate([_PANELS, features[np.abs(features) < _REACH * scale] / scale]))
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    t = middle + half * _NODES
    p = np.ravel(half * _WEIGHTS * np.exp(-(t**2) / 2))
    slope = np.abs(_derivatives(activation, scale * np.ravel(t)))
    bounded, finite = _ends(activation)
    kept = p > _NEGLIGIBLE * p.sum()
    largest = float(np.max(slope[kept]))
    if largest == 0:
        return Law(np.zeros(1), np.ones(1)), -np.inf, False, finite
    with np.errstate(divide="ignore"):
        logs = 2 * np.log(slope[kept] / largest)
    logs = np.where(np.isneginf(logs), -np.inf, np.maximum(logs, _FLAT))
    # Of an even or odd activation each slope comes twice, rounded in two ways.
    _, first, back = np.unique(np.round(logs, 13), return_index=True, return_inverse=True)
    d = np.exp(logs[first])
    p = np.bincount(back, p[kept]) / p[kept].sum()
    mean = float(d @ p)
    return Law(d / mean, p), 2 * float(np.log(largest)) + float(np.log(mean)), bounded, finite


@lru_cache(maxsize=256)
def _ends(activation: Activation) -> tuple[bool, bool]:
    """Whether |φ'| where it is not 0 stays away from 0, and everywhere from infinity."""
    near = _derivatives(activation, np.linspace(-16.0, 16.0, 8001))  # with 0 in the middle
    far = np.abs(_derivatives(activation, np.outer([-1.0, 1.0], 2.0 ** np.arange(5, 31)).ravel()))
    largest, size = np.max(np.abs(near)), np.concatenate([np.abs(near), far])
    crosses = (near[1:] * near[:-1] < 0) & (np.maximum(np.abs(near[1:]), np.abs(near[:-1])) < _CROSSING * largest)
    size = size[size > 0]
    plateau = np.count_nonzero(size == size.min()) > 2  # a small slope of a leaky ReLU, whatever its size
    apart = plateau or size.min() > _VANISHES * largest
    return bool(apart and not crosses.any()), bool(np.max(far) < _UNBOUNDED * largest)


def _derivatives(activation: Activation, z: np.ndarray) -> np.ndarray:
    padded = np.zeros(-(-z.size // _PIECE) * _PIECE)
    padded[: z.size] = z
    with jax.enable_x64(True):
        program = _program(activation)
        return np.concatenate([np.asarray(program(piece)) for piece in padded.reshape(-1, _PIECE)])[: z.size]


@lru_cache(maxsize=64)
def _program(activation: Activation) -> Callable[[np.ndarray], Array]:
    return jax.jit(activation.derivative)
