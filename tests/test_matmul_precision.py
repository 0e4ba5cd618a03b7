"""The precision of a step's products: what it keeps, in parts by hand; what an accelerator is told; refusals."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from wrong import refused

import gradsim as gs
from gradsim.cli.compiling import BACKWARD, program
from gradsim.engine import precision
from gradsim.engine.chain import Source
from gradsim.engine.streams import network_keys
from gradsim.sweeps import loop

DEPTH, SEEDS = 100, 3
NETWORK = gs.feedforward(64)
GAINS: dict[str, Any] = {"sigma_w": 0.875, "sigma_b": 0.0}  # exact in both dtypes: they measure one network
Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def to_digits(x: np.ndarray, digits: int) -> np.ndarray:
    """Float32 rounded to nearest, ties to even, with so many binary digits: 11 of TF32, 8 of bfloat16."""
    bits, drop = np.ascontiguousarray(x).view(np.uint32), np.uint32(24 - digits)
    one = np.uint32(1)
    half = (one << (drop - one)) - one + ((bits >> drop) & one)
    return ((bits + half) >> drop << drop).view(np.float32)


def in_parts(a: np.ndarray, b: np.ndarray, digits: int, parts: int, least: int) -> np.ndarray:
    """a b of float32 in parts, the smallest products first: those of parts i and j with i + j of at most `least`."""

    def split(x: np.ndarray) -> list[np.ndarray]:
        found = []
        for _ in range(parts):
            found.append(to_digits(x, digits))
            x = x - found[-1]
        return found

    left, right = split(a), split(b)
    order = sorted(((i, j) for i in range(parts) for j in range(parts) if i + j <= least), key=sum, reverse=True)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for i, j in order:
        total += left[i] @ right[j]
    return total


PRODUCTS: dict[str, Product] = {
    "float32": np.matmul,
    "TF32": partial(in_parts, digits=11, parts=1, least=0),  # "high" and "default" of a GPU
    "TF32_TF32_F32_X3": partial(in_parts, digits=11, parts=2, least=1),
    "BF16_BF16_F32_X9": partial(in_parts, digits=8, parts=3, least=4),
    "BF16_BF16_F32_X6": partial(in_parts, digits=8, parts=3, least=2),
    "BF16_BF16_F32_X3": partial(in_parts, digits=8, parts=2, least=1),
}


@jax.jit
def drawn(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weights of all steps, [steps, n, n], and the first state."""
    source = Source.of(NETWORK, network_keys(jax.random.key(0), seed), None, "float32", DEPTH)
    return jax.vmap(source.weights)(jnp.arange(DEPTH)).w, source.first_input()


def log_gain(weights: np.ndarray, first: np.ndarray, product: Product) -> float:
    """ln(‖J‖/√n) of the whole chain in float32, step by step, its products by `product`."""
    state, tangents, log = first[None], np.eye(first.size, dtype=np.float32), -np.log(first.size) / 2
    for w in weights:
        sigma = np.float32(GAINS["sigma_w"])
        state = np.tanh(sigma * product(state, w))
        tangents = sigma * product(tangents, w) * (1 - state * state)
        power = int(np.frexp(np.linalg.norm(tangents))[1])
        tangents, log = np.ldexp(tangents, -power), log + power * np.log(2)
    return float(log + np.log(np.linalg.norm(tangents.astype(np.float64))))


def test_parts_keep_the_digits_that_the_docstring_says() -> None:
    """Root mean squares over networks of 100 layers in the ordered phase; as the engine finds them in float64."""
    run = gs.sweep(NETWORK, depth=DEPTH, seeds=SEEDS, dtype="float64", **GAINS)
    exact = run.log_gain.sel(depth=DEPTH).values
    networks = [jax.tree.map(np.asarray, drawn(np.uint32(seed))) for seed in range(SEEDS)]
    error = {
        name: float(np.sqrt(np.mean(np.square([log_gain(weights, first, one) for weights, first in networks] - exact))))
        for name, one in PRODUCTS.items()
    }
    assert error["float32"] < 5e-7
    for name in ("TF32_TF32_F32_X3", "BF16_BF16_F32_X9", "BF16_BF16_F32_X6"):
        assert error[name] < 1e-6, name
    assert 2e-6 < error["BF16_BF16_F32_X3"] < 5e-5
    assert 2e-4 < error["TF32"] < 5e-3


@pytest.mark.parametrize(
    ("way", "name", "kind", "passes"),
    [
        ({"statistics": ("log_gain", "log_singular_values")}, "TF32_TF32_F32_X3", "tf32", 3),
        (BACKWARD, "BF16_BF16_F32_X9", "bf16", 9),
    ],
    ids=["to", "fro"],
)
def test_an_accelerator_is_told_the_algorithm_of_the_steps_alone(way: Any, name: str, kind: str, passes: int) -> None:
    """All else stays at the highest precision: triangles and angles of the spectrum, statistics."""
    _, (plan, tiling, *given) = program(gs.feedforward(6), depth=3, seeds=2, **way)

    def products(precision: str) -> list[str]:
        plans = replace(plan, precision=precision)
        lowered = export.export(jax.jit(lambda *given: loop._measure(plans, tiling, *given)), platforms=("cuda",))
        return [line for line in lowered(*given).mlir_module().splitlines() if "stablehlo.dot_general" in line]

    plain, told = products("highest"), products(name)
    assert all("[HIGHEST, HIGHEST]" in line for line in plain)
    by = f"lhs_precision_type = {kind}, rhs_precision_type = {kind}, accumulation_type = f32"
    steps = [line for line in told if by in line and f"num_primitive_operations = {passes}," in line]
    others = [line for line in told if "[HIGHEST, HIGHEST]" in line]
    assert steps
    assert len(told) == len(steps) + len(others) == len(plain)
    assert bool(others) == ("log_singular_values" in way["statistics"])


def test_what_a_platform_does_not_have_is_refused() -> None:
    sweep = partial(gs.sweep, depth=3, seeds=2)
    for name in (*precision.IN_PARTS, jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3):
        refused("precision", lambda name=name: sweep(NETWORK, precision=name))  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"for cpu; pass one of: highest, high, default \(there all are float32\)$"):
        sweep(NETWORK, precision="BF16_BF16_F32_X6")
    refused("precision", lambda: sweep(NETWORK, precision="high", dtype="float64"))
    refused("precision", lambda: gs.partial_products(NETWORK, depth=3, seeds=2, precision="BF16_BF16_F32_X9"))
    refused("precision", lambda: gs.jacobian_norms(NETWORK, jax.random.key(0), depth=2, precision="BF16_BF16_F32_X9"))
    critical = partial(gs.critical, NETWORK, between=(1.0, 2.0), depth=3, seeds=2)
    refused("precision", lambda: critical(precision="TF32_TF32_F32_X3"))
    convolution = gs.convolutional(4, 8)
    with pytest.raises(ValueError, match="is a convolution, which XLA does not take in parts"):
        sweep(convolution, precision="TF32_TF32_F32_X3")


def test_a_pure_function_is_refused_by_the_platform_that_it_is_lowered_for() -> None:
    """Which may be another than the one here: then JAX knows it, and gradsim does not."""

    def norm(gain: jax.Array) -> jax.Array:
        measured = gs.jacobian_norms(
            gs.feedforward(4), jax.random.key(0), {"sigma_w": gain}, depth=2, precision="TF32_TF32_F32_X3"
        )
        return measured["log_gain"]

    refused("precision", lambda: norm(jnp.ones(())))
    assert export.export(jax.jit(norm), platforms=("cuda",))(jnp.ones(())).platforms == ("cuda",)


def test_a_platform_is_asked_by_compiling_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that pretends to be an accelerator, and compiles for the CPU that it is."""

    class Pretender:
        platform = "gpu"

    monkeypatch.setattr(jax, "device_put", lambda array, device: array)
    device = Pretender()
    able = [one for one in precision.CHOICES if precision.there(one, device)]
    assert able == ["highest", "high", "default", "BF16_BF16_F32_X6", "BF16_BF16_F32_X3"]


def test_a_dataset_says_how_its_products_were_taken() -> None:
    small = partial(gs.sweep, gs.feedforward(4), depth=3, statistics="length")
    runs = [small(seeds=range(2), precision=jax.lax.Precision.HIGH), small(seeds=range(2, 4))]
    assert [run.attrs["precision"] for run in runs] == ["high", "highest"]
    refused("datasets", lambda: gs.concat(runs))
    before = runs[1].copy()
    del before.attrs["precision"]  # made when there was no choice
    assert gs.concat([before, small(seeds=range(2))]).sizes["seed"] == 4
