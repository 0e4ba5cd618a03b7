"""One step of orthonormalization: the vectors of a product become orthonormal, and what that took is kept.

Both the exact spectrum of a long product and its Lyapunov exponents walk by this step.
"""

import jax.numpy as jnp
from jax import Array


def orthonormalized(rows: Array) -> tuple[Array, Array]:
    """(q, r) of rows [n, d], n ≤ d: rows = rᵀ q with orthonormal rows q [n, d] and upper triangular r [n, n].

    Column j of r holds row j in the basis q. Householder's QR: q is orthonormal to rounding whatever the rows, also
    where they are zero or dependent. (Cholesky's QR takes two thirds of the time on a CPU, but in float32 loses rows
    of condition 3,000, as one step in ten of a Gaussian network of width 128.)
    """
    q, r = jnp.linalg.qr(rows.T)
    return q.T, r
