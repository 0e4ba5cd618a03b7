"""All singular values of the products of chains of any origin; of those at hand each core of a CPU takes some."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradsim import arguments
from gradsim.cores import cores
from gradsim.engine.factors import LogSingularValues, at_lengths, checked, nats, read
from gradsim.engine.jacobi import SingularValues
from gradsim.engine.plan import lengths
from gradsim.lapack import in_one_thread
from gradsim.scaled import Scaled
from gradsim.sweeps import chunks
from gradsim.sweeps.compiling import Compiling
from gradsim.sweeps.progress import Part

CPU_BYTES = 2 * 2**20  # a core's own cache
COPIES = 8  # matrices of a chain that a step reads and writes


def log_singular_values(
    factors: ArrayLike | Scaled,
    *,
    at: int | Sequence[int] | None = None,
    exponents: bool = False,
    tolerance: float | None = None,
) -> LogSingularValues:
    """All singular values of the products J = A_l … A_1 of a chain of matrices, however far apart they lie.

    Each to about rounding times the condition of a factor times √l of its own size, at any length: a QR a step, or a
    group of steps, whose triangles make rows that each have a power of two of their own, and Jacobi rotations at the
    end, written in the ratio of two rows. Memory is O(n²) a chain, beside the factors. A factor costs 2 n³ operations,
    a group of them some 6 n³ and a QR (LAPACK's on a CPU, one chain after the other), the singular values at one length
    10 to 40 n³. On a CPU each core takes chains of its own, unless this is called inside `jit`. In float32 what a
    factor makes some 10⁶ times smaller than a direction that it depends on is rounding, and lost: take float64.
    Not resolved is a pair whose order later factors reverse by more than the mantissa without mixing them (16 nats in
    float32, 36 in float64), as a symmetry may; on a diagonal chain it is.

    Args:
        factors: [..., length, n, n], the matrices A_1 … A_L that act one after the other on column vectors (the
            transposes, in the order J = A_1ᵀ … A_Lᵀ, of what acts on rows); float32, or float64 where
            `jax.enable_x64` is on. `gradsim.Scaled(factors, powers)` gives each a power of two, int32 [..., length].
        at: lengths l from 1 to L, or one; all of it unless given. A list adds an axis in front of the values.
        exponents: give σ_i = mantissa · 2^exponent as a `gradsim.Scaled` in place of logarithms: a float32 logarithm
            of −3,000 has lost the digits behind the third.
        tolerance: the largest relative error that rounding may make in a group of factors which are multiplied before
            one QR, as estimated from the sizes that the QR leaves, which is no bound; the errors of the groups add up.
            8 ε unless given: orthogonal factors and those near the identity are then grouped, and Gaussian ones hardly
            ever. In float64 1e-7 takes about half the time for Gaussian chains. A group that loses more, in any chain,
            or a direction altogether, is taken again with fewer; a single factor loses what it must.

    Returns: a `LogSingularValues(values, rank, converged)`. Pure: `jit`, `vmap` and shard it.
    Raises: ValueError or TypeError naming the argument, when it is traced at the latest.
    Source: Benettin et al. 1980 for the QR of a chain; Demmel & Veselić 1992 for the rotations.
    """
    matrices, powers = checked(factors)
    arguments.flag("exponents", exponents)
    wanted = lengths(at, matrices.shape[-3])
    allowed = nats(tolerance, matrices.dtype)
    apart = powers.size > powers.shape[-1] and _on_one_cpu(matrices, powers)
    with jax.default_matmul_precision("highest"):  # GPUs round to TF32 by default
        found = (_in_blocks if apart else at_lengths)(wanted, matrices, powers, allowed)
    if at is None or isinstance(at, int):
        found = jax.tree.map(lambda leaf: leaf[..., 0, :] if leaf.ndim > powers.ndim else leaf[..., 0], found)
    return read(found, exponents=exponents)


def _on_one_cpu(*arrays: Any) -> bool:
    """Whether these arrays, none of which is traced, are all on one device, which is a CPU."""
    if any(isinstance(one, jax.core.Tracer) for one in arrays):
        return False
    devices = set[Any]().union(*(one.devices() for one in arrays))
    return len(devices) == 1 and all(one.platform == "cpu" for one in devices)


def _in_blocks(wanted: tuple[int, ...], matrices: Array, powers: Array, allowed: Array) -> SingularValues:
    """`at_lengths`, some chains at a time on each core."""
    *batch, length, n, _ = matrices.shape
    total, double = math.prod(batch), matrices.dtype == jnp.float64
    flat = np.asarray(matrices).reshape(total, length, n, n), np.asarray(powers).reshape(total, length)
    size = _block(total, n, matrices.dtype.itemsize)
    call = Compiling(Part(), "measuring", "chains")

    def block(rows: np.ndarray) -> SingularValues:
        with jax.enable_x64(double), jax.default_matmul_precision("highest"):
            found = call(at_lengths, wanted, *(jnp.asarray(one[rows]) for one in flat), allowed)
            return jax.tree.map(np.asarray, found)

    pool = ThreadPoolExecutor(min(cores(), math.ceil(total / size)))
    try:
        with in_one_thread():
            parts = list(pool.map(block, chunks.slices(total, size)))
    finally:
        pool.shutdown(cancel_futures=True)

    def joined(*some: np.ndarray) -> Array:
        whole = np.concatenate(some)[:total]
        return jnp.asarray(whole.reshape(*batch, *whole.shape[1:]))

    return jax.tree.map(joined, *parts)


def _block(chains: int, n: int, itemsize: int) -> int:
    """How many chains a call takes: the same number on each core, within its cache."""
    most = max(1, CPU_BYTES // (COPIES * n * n * itemsize))
    turns = math.ceil(chains / (cores() * most))
    return math.ceil(chains / (cores() * turns))
