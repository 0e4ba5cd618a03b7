"""LAPACK's calls: one matrix each on a CPU, where calls of many wait for each other for ever; all at once elsewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, random
from threadpoolctl import threadpool_info, threadpool_limits

import gradsim as gs
from gradsim.draws import Part, together
from gradsim.engine.orthogonal import orthonormalized
from gradsim.lapack import in_one_thread, needed, one_by_one, waits
from gradsim.networks.depth.convolutional import DELTA
from gradsim.networks.time.unitary import UNITARY

KEYS = random.split(random.key(3), 4)


def drawn(law: Any, shape: tuple[int, ...], copies: int | None = None) -> Callable[[Array], Array]:
    return lambda key: together(key, jnp.float32, Part(law, shape, copies))[0]


CALLS: dict[str, Callable[[Array], Any]] = {
    "orthogonal": drawn(gs.INITIALIZERS["orthogonal"].draw, (6, 6)),
    "copies": drawn(gs.INITIALIZERS["orthogonal"].draw, (6, 4), 3),
    "delta_orthogonal": drawn(DELTA, (9, 3)),
    "unitary": drawn(UNITARY, (2, 6, 6)),
    "own": drawn(jax.nn.initializers.orthogonal(), (6, 6)),
    "own copies": drawn(jax.nn.initializers.orthogonal(), (6, 6), 3),
    "orthonormalized": lambda key: orthonormalized(random.normal(key, (4, 6))),
    "spectral": lambda key: one_by_one(jnp.linalg.svdvals)(random.normal(key, (6, 6))),
}


def operands(call: Callable[[Array], Any], platform: str) -> list[str]:
    """The shapes of the matrices that calls of LAPACK, or of the like of it elsewhere, take."""
    text = jax.jit(jax.vmap(call)).trace(KEYS).lower(lowering_platforms=(platform,)).as_text()
    return re.findall(r"custom_call @(?:lapack|cusolver)_\w+\(.*?: \(tensor<([\dx]+)x", text)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_takes_one_matrix_on_a_cpu_and_all_on_a_gpu(name: str) -> None:
    assert {shape.count("x") for shape in operands(CALLS[name], "cpu")} == {1}
    assert operands(lambda key: jnp.linalg.qr(random.normal(key, (6, 6))), "cpu")[0] == "4x6x6"  # what jax does
    if name != "own copies":  # which are drawn one after the other everywhere
        assert all(shape.startswith(("4x", "3x4x", "4x3x")) for shape in operands(CALLS[name], "cuda"))


@pytest.mark.parametrize("name", CALLS)
def test_mapped_over_several_it_gives_what_each_gives_alone(name: str) -> None:
    alone, mapped = jax.jit(CALLS[name]), jax.jit(jax.vmap(CALLS[name]))(KEYS)
    for i, key in enumerate(KEYS):
        for one, many in zip(jax.tree.leaves(alone(key)), jax.tree.leaves(mapped), strict=True):
            np.testing.assert_allclose(many[i], one, rtol=0, atol=2e-6)


def test_laws_that_need_it_are_known() -> None:
    laws: list[Any] = [jax.nn.initializers.orthogonal(), jax.nn.initializers.he_normal()]
    assert [needed(law, (4, 4), "float32") for law in laws] == [True, False]


def test_programs_that_wait_are_known() -> None:
    svd = jax.vmap(jnp.linalg.svdvals)
    assert waits(jax.jit(lambda x: svd(2 * x)), jnp.ones((4, 3, 3)))
    assert not waits(jax.jit(jnp.linalg.svdvals), jnp.ones((3, 3)))
    assert not any(waits(jax.jit(jax.vmap(CALLS[name])), KEYS) for name in ("copies", "own", "spectral"))


def test_the_limit_of_threads_ends_with_the_last_and_leaves_what_was() -> None:
    def limits() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with threadpool_limits(3, "blas"):
        before, first, second = limits(), ExitStack(), ExitStack()
        first.enter_context(in_one_thread())
        second.enter_context(in_one_thread())
        first.close()
        assert limits() == {1}
        second.close()
        assert limits() == before != {1}


# jaxlib loads LAPACK at its first call.
FIRST = """
import jax.numpy as jnp
from threadpoolctl import threadpool_info
from gradsim.lapack import in_one_thread

with in_one_thread():
    jnp.linalg.qr(jnp.eye(3))
    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
assert any("scipy" in one["filepath"] for one in found), found
assert all(one["num_threads"] == 1 for one in found), found
"""


def test_the_limit_holds_at_the_first_call_of_a_process() -> None:
    """A Haar matrix of the first sweep had other last digits than those of later ones."""
    free = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FIRST]
    done = subprocess.run(command, env=free, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# On two devices and in two threads; each of these waited for ever on two cores.
WAITING = """
from concurrent.futures import ThreadPoolExecutor
import gradsim as gs
orthogonal = {"initializer": "orthogonal", "input_initializer": "orthogonal"}
gs.sweep(gs.lstm(64, **orthogonal), depth=2, seeds=128, devices=1)
gs.sweep(gs.feedforward(64, initializer="orthogonal"), depth=10, seeds=256)
exponents = lambda key: gs.lyapunov_exponents(gs.vanilla_rnn(64), depth=32, seeds=64, burn_in=8, key=key)
with ThreadPoolExecutor(2) as pool:
    list(pool.map(exponents, (1, 2)))
"""

# A network and a statistic of one's own, which give LAPACK many matrices, measured on each core: both waited for ever.
OWN = """
import jax.numpy as jnp
import numpy as np
import gradsim as gs
from gradsim.engine.products import matrix
from gradsim.networks.depth.feedforward import Feedforward

class Normalized(Feedforward):
    def step(self, weights, gains, state, inputs):
        return super().step(weights._replace(w=weights.w / jnp.linalg.norm(weights.w, 2)), gains, state, inputs)

def largest(view):
    values = jnp.linalg.svd(matrix(view.product.mantissa), compute_uv=False)
    return jnp.log(values[0]) + view.product.exponent * jnp.log(2.0)

own = gs.Statistic("own", "ln of the largest singular value", "nat", largest, ("all",), costly=True)
plain = gs.feedforward(32)

def measured(**options):
    return gs.sweep(plain, depth=20, seeds=64, statistics=(own, "log_spectral"), at=range(1, 21), **options)
"""
ALONE = """
found = measured()
np.testing.assert_allclose(found.own, found.log_spectral, atol=1e-5)
network = Normalized(32, plain.activation, plain.initializer)
assert np.all(gs.lyapunov_exponents(network, depth=64, seeds=64, burn_in=8).lyapunov < 0)
"""
ON_TWO_DEVICES = """
try:
    measured()
except ValueError as error:
    assert str(error).startswith("devices: got 2 of a CPU, which wait for each other for ever"), error
else:
    raise AssertionError("it was measured")
"""


@pytest.mark.parametrize(("code", "devices"), [(WAITING + OWN + ON_TWO_DEVICES, 2), (OWN + ALONE, 1)])
def test_programs_with_several_calls_at_once_end(code: str, devices: int) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, env={**os.environ, "XLA_FLAGS": flags}, timeout=120, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
