"""Gaussian expectations of an activation in one and two dimensions, exact to near rounding.

Composite Gauss-Legendre on panels that break at the kinks, at the activation's own scale and at the
Gaussian's. Gauss-Hermite would be 5e-2 off for a hard-tanh at 128 nodes: a polynomial cannot follow a kink,
and at large variance its nodes step over the region in which the activation bends.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss

from gradsim.activations import Activation

# Panel edges in units of √q. Gaussian mass beyond 10 is 1e-23; within a panel 16 nodes leave about 1e-16.
# Odd numbers on purpose: where such an edge meets a kink exactly, the derivative in q picks a side at random.
_POSITIVE_EDGES = np.array([0.983, 1.967, 2.951, 3.937, 5.431, 7.417, 10.019])
_GAUSSIAN_EDGES = np.concatenate([-_POSITIVE_EDGES[::-1], _POSITIVE_EDGES])
_NODES, _WEIGHTS = leggauss(16)
# The pair rule pays for every node twice over: wider panels with fewer nodes, still 1e-12.
_PAIR_GAUSSIAN_EDGES = np.array([-8.513, -6.017, -4.019, -2.011, 0.0, 2.011, 4.019, 6.017, 8.513])
_PAIR_NODES, _PAIR_WEIGHTS = leggauss(10)
_PAIR_REACH = 256.0  # further out a pair rule relies on the Gaussian's own panels
_SERIES_REACH = 512.0  # 13 standard deviations at q = 1500, past which 1024 terms do not suffice for a sine
_CHECKED_REACH = 2.0**14  # ten standard deviations at q = 1e6
_PIECE, _NODES_AND_ENDS = 512, 12  # of panels that are checked at once: one shape, so one compilation
_OSCILLATING = 400  # more panels than this means structure all the way out, as in a sine


@lru_cache(maxsize=256)
def panels(activation: Activation) -> np.ndarray:
    """Sorted edges of panels on each of which a polynomial follows φ' to about 1e-13.

    They start at the declared kinks and at 0, ±1, ±2, ±4, …; a panel is halved while the integral of φ'
    over it differs from the difference of φ, an identity that any unresolved scale, oscillation or
    undeclared kink breaks. Checked for |x| ≤ 2^14, that is for variances up to 1e6.
    """
    powers = 2.0 ** np.arange(31)
    edges = np.unique(np.concatenate([-powers, [0.0], powers, np.asarray(activation.kinks, np.float64)]))
    ones = np.ones((_PIECE, _NODES_AND_ENDS))
    with jax.enable_x64(True):
        # Compiled before it is called, which works within someone's jitted function too.
        program = jax.jit(lambda x, dx: jax.jvp(activation.function, (x,), (dx,))).lower(ones, ones).compile()
        return _refined(edges, lambda x: tuple(np.asarray(part) for part in program(x, ones)))


def _refined(edges: np.ndarray, values_and_slopes: Callable[[np.ndarray], tuple[np.ndarray, ...]]) -> np.ndarray:
    nodes, weights = leggauss(_NODES_AND_ENDS - 2)
    lower, upper = edges[:-1], edges[1:]
    near = np.linspace(-4.0, 4.0, _PIECE * _NODES_AND_ENDS).reshape(_PIECE, -1)
    slope_scale = max(float(np.max(np.abs(values_and_slopes(near)[1]))), 1e-3)
    kept = [edges]
    for _ in range(64):
        pending = (np.maximum(np.abs(lower), np.abs(upper)) <= _CHECKED_REACH) & (
            upper - lower > 1e-13 * np.maximum(1.0, np.abs(lower))
        )
        lower, upper = lower[pending], upper[pending]
        if lower.size == 0 or sum(map(len, kept)) > 40_000:
            break
        error, rounding = [], []
        for start in range(0, lower.size, _PIECE):
            rows = np.arange(start, start + _PIECE).clip(max=lower.size - 1)
            middle, half = (lower[rows] + upper[rows]) / 2, (upper[rows] - lower[rows]) / 2
            # Just inside the edges, where a jump at the edge itself belongs to neither side.
            inside = half[:, None] * (1 - 1e-15) * np.concatenate([nodes, [-1.0, 1.0]])
            value, slope = values_and_slopes(middle[:, None] + inside)
            integral = half * (slope[:, :-2] @ weights)
            error.append(np.abs(integral - (value[:, -1] - value[:, -2])))
            rounding.append(np.max(np.abs(value), axis=1) + (np.abs(middle) + half) * slope_scale)
        size = lower.size
        failed = np.concatenate(error)[:size] > 1e-13 * slope_scale + 2e-15 * np.concatenate(rounding)[:size]
        middle = (lower[failed] + upper[failed]) / 2
        kept.append(middle)
        lower, upper = np.concatenate([lower[failed], middle]), np.concatenate([middle, upper[failed]])
    return np.unique(np.concatenate(kept))


def oscillates(activation: Activation) -> bool:
    """Whether φ keeps its structure far from the origin, as a sine does."""
    return len(panels(activation)) > _OSCILLATING


def expectation(
    function: Callable[[Array], Array], q: Float[Array, ""] | float, edges: np.ndarray
) -> Float[Array, "..."]:
    """E f(√q ζ) for ζ ~ N(0, 1), with `edges` from `panels`.

    f is elementwise and smooth between the edges. q = 0 gives the limit q → 0. Differentiable in q, and
    jit and vmap apply; the precision is that of q's dtype, so use it inside `jax.enable_x64` for 1e-10.
    """
    q = _floating(q)
    scale = jnp.sqrt(q)
    cast = edges.astype(q.dtype)
    reach = float(_GAUSSIAN_EDGES[-1])
    t, weight = _composite(
        jnp.concatenate([jnp.asarray(_GAUSSIAN_EDGES, q.dtype), jnp.clip(cast / scale, -reach, reach)]),
        _NODES,
        _WEIGHTS,
    )
    return function(scale * t) @ weight


def mean_square(activation: Activation, q: Float[Array, ""] | float) -> Float[Array, ""]:
    """V(q) = E φ(√q ζ)²."""
    return expectation(lambda x: activation(x) ** 2, q, panels(activation))


def slope_moment(activation: Activation, q: Float[Array, ""] | float, order: int = 1) -> Float[Array, ""]:
    """μ_k(q) = E φ'(√q ζ)^{2k}; μ₁ is D(q)."""
    return expectation(lambda x: activation.derivative(x) ** (2 * order), q, panels(activation))


def mean_square_derivative(activation: Activation, q: Float[Array, ""] | float) -> Float[Array, ""]:
    """V'(q) = E φ'² + E φ''φ, as E[x φ φ'] / q by Stein's lemma.

    The second derivative never appears, so that the delta functions it has at kinks are counted.
    """
    scale = jnp.sqrt(_floating(q))
    return expectation(
        lambda x: (x / scale) * (activation(x) / scale) * activation.derivative(x), q, panels(activation)
    )


def pair_expectation(
    kernel: Callable[[Array, Array], Array],
    q: Float[Array, ""] | float,
    epsilon: Float[Array, ""] | float,
    activation: Activation,
    positive: bool = False,
    reach: float = _PAIR_REACH,
) -> Float[Array, ""]:
    """E k(u₁, u₂) of a symmetric kernel, for Gaussians of variance q and correlation c = 1 − ε, 0 ≤ ε ≤ 2.

    The integral runs over half-sum a and half-difference b, u = a ± b, whose variances are q(1 ± c)/2: the
    narrower of them outside, the other inside with panels broken at every feature of φ(u₁) and φ(u₂). Nothing
    cancels as c → 1. `positive=True` promises ε ≤ 1 and halves the work by the symmetry in b; features beyond
    `reach` are left to the Gaussian's own panels.
    Same dtype rules as `expectation`.
    """
    q = _floating(q)
    epsilon = jnp.asarray(epsilon, q.dtype)
    sign = jnp.where(epsilon > 1, -1, 1).astype(q.dtype)
    outer_scale = jnp.sqrt(q * jnp.minimum(epsilon, 2 - epsilon) / 2)
    inner_scale = jnp.sqrt(q * jnp.maximum(epsilon, 2 - epsilon) / 2)
    static = panels(activation)
    static = static[np.abs(static) <= reach]
    edges = jnp.asarray(static, q.dtype)
    kinks = jnp.asarray(np.asarray(activation.kinks, np.float64), q.dtype)
    # The inner integral bends where a kink of φ(u₁) meets one of φ(u₂).
    meetings = jnp.abs(jnp.ravel(kinks[:, None] - sign * kinks[None, :])) / 2
    bends = jnp.concatenate([jnp.asarray(np.unique(np.abs(static)), q.dtype), meetings])
    t, weight = _composite(
        _scaled(bends if positive else jnp.concatenate([-bends, bends]), outer_scale, positive), *_PAIR_RULE
    )

    def inner(b: Array) -> Array:
        features = jnp.concatenate([edges - b, sign * edges + b])
        s, w = _composite(_scaled(features, inner_scale), *_PAIR_RULE)
        a = inner_scale * s
        return jnp.sum(w * kernel(a + b, sign * (a - b)))

    total = jnp.sum(weight * jax.vmap(inner)(outer_scale * t))
    return 2 * total if positive else total


def decorrelation(
    activation: Activation, q: Float[Array, ""] | float, epsilon: Float[Array, ""] | float
) -> Float[Array, ""]:
    """V(q) − E φ(u₁)φ(u₂) = ½ E (φ(u₁) − φ(u₂))² at correlation 1 − ε, without cancellation as ε → 0.

    A smooth oscillating φ goes through Mehler's formula, whose coefficients end early (they are Poisson for a
    sine); a kink makes them decay as k^{-5/2}, so every other φ is integrated. NaN where neither suffices: a
    sine with q above 700.
    """
    if oscillates(activation):
        return decorrelation_series(hermite_coefficients(activation, q) ** 2, epsilon)
    return pair_expectation(lambda u, v: (activation(u) - activation(v)) ** 2 / 2, q, epsilon, activation)


def decorrelation_series(squares: Float[Array, " terms"], epsilon: Float[Array, ""] | float) -> Float[Array, ""]:
    """Σ a_k² (1 − c^k) with c = 1 − ε, from the squared `hermite_coefficients`; NaN where these do not end."""
    order = jnp.arange(squares.shape[0], dtype=squares.dtype)
    epsilon = jnp.asarray(epsilon, squares.dtype)
    small = jnp.minimum(epsilon, 0.5)
    complement = jnp.where(epsilon <= 0.5, -jnp.expm1(order * jnp.log1p(-small)), 1 - (1 - epsilon) ** order)
    weighted = order * squares
    ends = jnp.sum(weighted[-squares.shape[0] // 16 :]) <= 1e-14 * jnp.sum(weighted)
    return jnp.where(ends, squares @ complement, jnp.nan)


def hermite_coefficients(
    activation: Activation, q: Float[Array, ""] | float, terms: int = 1024
) -> Float[Array, " terms"]:
    """a_k = E φ(√q ζ) He_k(ζ) / √k!, so that E φ(u₁)φ(u₂) = Σ a_k² c^k (Mehler)."""
    q = _floating(q)
    scale = jnp.sqrt(q)
    # φ e^{−ζ²/4} is below rounding at 13; panels of ¼ follow He_k up to k of several thousand.
    reach = 13.0
    static = panels(activation)
    features = jnp.asarray(static[np.abs(static) <= _SERIES_REACH], q.dtype)
    fine = jnp.linspace(-reach, reach, 105, dtype=q.dtype)
    edges = jnp.concatenate([fine, jnp.clip(features / scale, -reach, reach)])
    # Half of the Gaussian weight goes into each factor: He_k alone grows like exp(ζ²/4).
    t, weight = _composite(edges, _NODES, _WEIGHTS, half_gaussian=True)
    weighted = weight * activation(scale * t)

    def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], Array]:
        before, now = carry
        following = (t * now - jnp.sqrt(k) * before) / jnp.sqrt(k + 1)
        return (now, following), jnp.sum(weighted * now)

    start = (jnp.zeros_like(t), jnp.exp(-(t**2) / 4))
    return jax.lax.scan(step, start, jnp.arange(terms, dtype=q.dtype))[1]


_PAIR_RULE = (_PAIR_NODES, _PAIR_WEIGHTS)


def _floating(q: Float[Array, ""] | float) -> Array:
    q = jnp.asarray(q)
    if not jnp.issubdtype(q.dtype, jnp.floating):
        q = q.astype(jnp.result_type(float))
    return jnp.maximum(q, 1e4 * float(jnp.finfo(q.dtype).tiny))


def _scaled(features: Array, scale: Array, positive: bool = False) -> Array:
    reach = float(_PAIR_GAUSSIAN_EDGES[-1])
    gaussian = _PAIR_GAUSSIAN_EDGES[_PAIR_GAUSSIAN_EDGES >= 0] if positive else _PAIR_GAUSSIAN_EDGES
    inside = jnp.clip(features / jnp.maximum(scale, 1e-150), -reach, reach)
    return jnp.concatenate([jnp.asarray(gaussian, features.dtype), inside])


def _composite(
    edges: Array, nodes: np.ndarray, weights: np.ndarray, half_gaussian: bool = False
) -> tuple[Array, Array]:
    """Nodes t and weights of ∫ f(t) e^{−t²/2} dt / √(2π) over the sorted edges (e^{−t²/4} if half_gaussian)."""
    edges = jnp.sort(edges)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    middle = (edges[1:] + edges[:-1])[:, None] / 2
    t = middle + half * jnp.asarray(nodes, edges.dtype)
    density = jnp.exp(-(t**2) / (4 if half_gaussian else 2)) / float(np.sqrt(2 * np.pi))
    return jnp.ravel(t), jnp.ravel(half * jnp.asarray(weights, edges.dtype) * density)
