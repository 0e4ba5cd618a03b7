"""Covariant Lyapunov vectors: what every step's Jacobian maps on one another, each growing at its own exponent.

Forwards the orthonormal tangents Q_t span what grows fastest, A = Q_t J_t = R_tᵀ Q_{t+1}. Vectors in their basis,
V_t = C_t Q_t with C_t lower triangular, are mapped on each other where C_t ∝ C_{t+1} R_t^{−T}. Backwards the slower
growth of a vector's own direction wins over what is mixed into it, and any C settles.

Source: Ginelli et al. 2007.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from gradsim.engine.lyapunov import Frame, Point, Run, Seed, advance, group
from gradsim.networks.network import Gains


def covariant(
    frame: Frame, seeds: Seed, gains: Gains, run: Run, limit: Array, *, burn_in: int, depth: int, at: tuple[int, ...]
) -> Array:
    """The vectors after the steps `at`, in rising order, [seeds, cells, at, k, n], as rows of unit norm.

    Their largest entry is positive. NaN for a direction that was lost on the way. It keeps k² numbers for every step
    from the first of `at` on.
    """
    first = burn_in + at[0]
    run, _ = advance(frame, seeds, gains, run, jnp.int32(0), jnp.int32(first), limit)
    wanted = burn_in + jnp.asarray(at, jnp.int32)

    def put(kept: Array, t: Array, value: Array) -> Array:
        here = (wanted == t).reshape(-1, *(1,) * value.ndim)
        return jnp.where(here, value, kept)

    def forwards(carry: tuple[Point, Array], t: Array) -> tuple[tuple[Point, Array], Array]:
        point, kept = carry
        kept = put(kept, t, point.rows)
        point, _, _, r = group(frame, seeds, gains, point, t, jnp.int32(1))
        return (point, kept), r

    def backwards(carry: tuple[Array, Array], x: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (c, kept), (t, r) = carry, x
        c = jnp.swapaxes(solve_triangular(r, jnp.swapaxes(c, -1, -2), lower=False), -1, -2)
        c = c / jnp.sqrt(jnp.sum(c * c, axis=-1, keepdims=True))
        return (c, put(kept, t, c)), None

    rows = run.point.rows
    k = rows.shape[-2]
    steps = jnp.arange(first, burn_in + depth, dtype=jnp.int32)
    (point, q), r = lax.scan(forwards, (run.point, jnp.zeros((len(at), *rows.shape), rows.dtype)), steps)
    end = jnp.broadcast_to(jnp.tril(jnp.ones((k, k), rows.dtype)), (*rows.shape[:2], k, k))
    last = jnp.int32(burn_in + depth)
    q, c = put(q, last, point.rows), put(jnp.zeros((len(at), *end.shape), end.dtype), last, end)
    # A direction that was lost has a basis vector of zeros, and a column of zeros in r.
    alive = jnp.any(point.rows != 0, axis=-1)
    r = jnp.where(_diagonal(~alive), 1, r)
    (_, c), _ = lax.scan(backwards, (end, c), (steps, r), reverse=True)
    vectors = jnp.where(alive[..., None], c @ q, jnp.nan)
    largest = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), axis=-1, keepdims=True), axis=-1)
    vectors = vectors / (jnp.sqrt(jnp.sum(vectors**2, axis=-1, keepdims=True)) * jnp.sign(largest))
    return jnp.moveaxis(vectors, 0, 2)


def _diagonal(mask: Array) -> Array:
    return mask[..., None] & jnp.eye(mask.shape[-1], dtype=bool)
