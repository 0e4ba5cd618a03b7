"""`critical_initializer`: kernels of the right variance, and Flax networks whose gradient neither grows nor shrinks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import Array, lax, random
from unrolled import own_checks
from wrong import KINDS, refused, refused_each

import gradsim as gs
from gradsim import theory
from gradsim.critical_start import LAWS

WIDTH, DEPTH, SEEDS = 256, 30, 8
BIASED = {"gelu": 1.0, "silu": 1.0, "mish": 1.0, "hard_swish": 1.0}  # they have no edge at smaller ones
UNBIASED = ("identity", "relu", "leaky_relu")  # they have no edge at any other
WITH_EDGE = [name for name in gs.ACTIVATIONS if name != "softplus"]


def bias_of(name: str) -> float:
    return 0.0 if name in UNBIASED else BIASED.get(name, 0.3)


def stable_input(name: str, start: gs.CriticalInitializer, shape: tuple[int, ...]) -> Array:
    """An input with which the first layer has the stable length already."""
    q = 1.0 if name in UNBIASED else 100.0
    for _ in range(200):
        q = float(theory.length_map(name, q, start.sigma_w, start.sigma_b))
    square = (q - start.sigma_b**2) / start.sigma_w**2
    x = random.normal(random.key(5), shape)
    return x * np.float32(np.sqrt(square)) / jnp.sqrt(jnp.mean(x**2))


def growth(activation: Callable[[Array], Array], kernel: Any, bias: Any, x: Array) -> Array:
    """ln of the growth of a random tangent a layer, of independent networks of layers of flax.nnx [SEEDS]."""

    def one(key: Array) -> Array:
        def layer(x: Array, key: Array) -> tuple[Array, None]:
            made = nnx.Linear(WIDTH, WIDTH, kernel_init=kernel, bias_init=bias, rngs=nnx.Rngs(params=key))
            return activation(made(x)), None

        u = random.normal(random.key(6), x.shape)
        keys = random.split(key, DEPTH)
        jvp = jax.jvp(lambda x: lax.scan(layer, x, keys)[0], (x,), (u / jnp.linalg.norm(u),))[1]
        return jnp.log(jnp.linalg.norm(jvp)) / DEPTH

    return jax.vmap(one)(random.split(random.key(1), SEEDS))


@pytest.fixture(scope="module")
def starts(request: pytest.FixtureRequest) -> dict[str, gs.CriticalInitializer]:
    """Of the activations that are tested in this run, and of tanh."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    tested = {
        item.callspec.params["name"]
        for item in items
        if item.originalname == "test_flax_networks_of_every_activation_start_there"
    }
    return {name: gs.critical_initializer(name, bias_of(name)) for name in WITH_EDGE if name in {*tested, "tanh"}}


@pytest.fixture(scope="module")
def growths(starts: dict[str, gs.CriticalInitializer]) -> dict[str, np.ndarray]:
    """Of every activation, measured by one program: all their kernels are multiples of the same draws."""
    names = list(starts)

    def one(place: Array, sigma_w: Any, sigma_b: Any, x: Array) -> Array:
        start = replace(starts["tanh"], sigma_w=sigma_w, sigma_b=sigma_b)
        branches = [gs.ACTIVATIONS[name] for name in names]
        return growth(lambda z: lax.switch(place, branches, z), start, start.bias, x)

    x = jnp.stack([stable_input(name, start, (WIDTH,)) for name, start in starts.items()])
    sigmas = [
        np.array([getattr(start, sigma) for start in starts.values()], "float32") for sigma in ("sigma_w", "sigma_b")
    ]
    with own_checks():  # gains under a transformation are no floats
        found = jax.jit(jax.vmap(one))(np.arange(len(names)), *sigmas, x)
    return dict(zip(names, np.asarray(found), strict=True))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", WITH_EDGE)
def test_flax_networks_of_every_activation_start_there(
    name: str, starts: dict[str, gs.CriticalInitializer], growths: dict[str, np.ndarray]
) -> None:
    start, found = starts[name], growths[name]
    assert abs(found.mean()) < 5 * found.std(ddof=1) / np.sqrt(SEEDS) < 0.05
    assert start.sigma_w == pytest.approx(float(theory.edge_of_chaos(name, bias_of(name))), rel=1e-12)
    same = replace(start, activation="tanh", sigma_w=starts["tanh"].sigma_w, sigma_b=starts["tanh"].sigma_b)
    assert same == starts["tanh"]  # but for its gains, so that one program serves all


UNTUNED = ("relu", "sigmoid")


@jax.jit
def untuned(place: Array, x: Array) -> Array:
    """The growth in networks of the activation of this place, which one program has all of."""
    branches = [gs.ACTIVATIONS[name] for name in UNTUNED]
    kernel, zeros = nnx.initializers.lecun_normal(), nnx.initializers.zeros
    return growth(lambda z: lax.switch(place, branches, z), kernel, zeros, x)


@pytest.mark.parametrize("name", UNTUNED)
def test_an_untuned_start_is_far_from_it(name: str) -> None:
    found = np.asarray(untuned(jnp.asarray(UNTUNED.index(name)), random.normal(random.key(5), (WIDTH,))))
    assert found.mean() < -0.3  # 1e-4 of the gradient, or less


def test_relu_is_he_and_linear_is_lecun() -> None:
    assert gs.critical_initializer("relu").sigma_w == pytest.approx(np.sqrt(2), abs=1e-12)
    assert gs.critical_initializer("identity").sigma_w == pytest.approx(1, abs=1e-12)
    assert gs.critical_initializer("tanh", 0).sigma_b == 0


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernels_have_the_variance_of_their_fan_in(law: str, dtype: str) -> None:
    start = gs.critical_initializer("tanh", 0.3, law=law)
    fans: dict[tuple[int, ...], int] = {(96, 64): 96, (64, 96): 64, (3, 3, 8, 96): 72}
    kernels = jax.jit(lambda key: [start(key, shape, dtype) for shape in fans])(random.key(3))
    for (shape, fan_in), kernel in zip(fans.items(), kernels, strict=True):
        assert (kernel.shape, kernel.dtype) == (shape, dtype)
        square, n = np.asarray(kernel, np.float64) ** 2, np.prod(shape)
        mean = square.mean() / (start.sigma_w**2 / fan_in)
        if law == "delta_orthogonal" and len(shape) == 4:
            assert np.count_nonzero(square) == square[1, 1].size == 768
        # The variance of a square is at most 2, that of a Gaussian; a bfloat16 is rounded by up to 2⁻⁹.
        assert abs(mean - 1) < (1e-5 if "orthogonal" in law else 5 * np.sqrt(2 / n)) + 2.0**-9 * (dtype == "bfloat16")


def test_orthogonal_kernels_are_and_biases_are_normal() -> None:
    start = gs.critical_initializer("tanh", 0.3, law="orthogonal")
    others = gs.critical_initializer("tanh", law="delta_orthogonal"), gs.critical_initializer("relu")

    @jax.jit
    def drawn(key: Array) -> tuple[Array, ...]:
        kernel, bias = start(key, (3, 3, 8, 64), "float32"), start.bias(key, (10_000,))
        return kernel, others[0](key, (3, 32, 32)), bias, others[1].bias(key, (8,))

    kernel, delta, bias, zeros = map(np.asarray, drawn(random.key(0)))
    kernel = kernel.reshape(-1, 64)
    np.testing.assert_allclose(kernel.T @ kernel, start.sigma_w**2 * np.eye(64), atol=1e-5)
    np.testing.assert_allclose(delta[1] @ delta[1].T, np.eye(32), atol=1e-5)
    assert abs(np.std(bias, dtype=np.float64) / 0.3 - 1) < 5 * np.sqrt(1 / 2e4)
    assert not np.any(zeros)


def test_axes_are_those_of_jax() -> None:
    axes: dict[str, Any] = {"in_axis": (1, 3), "out_axis": 0, "batch_axis": 2}
    start = gs.critical_initializer("identity", **axes)
    jax_ = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", **axes)
    stacked = gs.critical_initializer("identity", law="orthogonal", batch_axis=0)
    shape = (50, 7, 30, 5, 2)  # a fan-in of 70

    @jax.jit
    def drawn(key: Array) -> tuple[Array, ...]:
        return start(key, shape, jnp.float32), jax_(key, shape, jnp.float32), stacked(key, (4, 8, 8))

    mine, theirs, stack = map(np.asarray, drawn(random.key(0)))
    assert abs(np.var(mine, dtype=np.float64) * 70 - 1) < 5 * np.sqrt(2 / mine.size)
    assert abs(np.var(theirs, dtype=np.float64) * 70 - 1) < 5 * np.sqrt(2 / mine.size)
    np.testing.assert_allclose(stack @ stack.transpose(0, 2, 1), np.broadcast_to(np.eye(8), (4, 8, 8)), atol=1e-5)
    assert np.unique(stack).size == stack.size


def test_layers_of_flax_take_it_under_jit() -> None:
    start = gs.critical_initializer("relu", law="orthogonal")
    jitted = jax.jit(start, static_argnums=(1, 2))

    @jax.jit
    def convolved(x: Array) -> Array:
        conv = nnx.Conv(3, 8, (3, 3), kernel_init=start, bias_init=start.bias, rngs=nnx.Rngs(0))
        return conv(x)

    assert convolved(jnp.ones((1, 6, 6, 3))).shape == (1, 6, 6, 8)
    dense = linen.Dense(8, kernel_init=start, bias_init=start.bias, param_dtype=jnp.bfloat16)
    parameters = jax.jit(dense.init)(random.key(0), jnp.ones((1, 4), jnp.bfloat16))["params"]
    assert parameters["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(jitted(random.key(0), (6, 4), "float32"), start(random.key(0), (6, 4)), rtol=1e-6)
    assert hash(start) == hash(gs.critical_initializer("relu", law="orthogonal"))
    with jax.enable_x64(True):
        assert jitted(random.key(0), (4, 4), "float64").dtype == jnp.float64


def test_a_function_of_ones_own_starts_at_its_edge() -> None:
    start = gs.critical_initializer(lambda z: 2 * jnp.tanh(z / 2), 0.3)
    same = gs.critical_initializer("tanh", 0.15)  # 2φ(z/2): the length is four times as large
    assert start.sigma_w == pytest.approx(same.sigma_w, rel=1e-9)


@pytest.mark.further
def test_no_edge_is_refused_with_the_reason_and_can_be_measured_at_a_depth() -> None:
    for name, sigma_b, reason in (
        ("relu", 0.1, "no length is fixed"),
        ("softplus", 0.0, "no length is fixed"),
        ("gelu", 0.0, "the length fixed where chi = 1 is not the stable one"),
    ):
        said = f"activation: {name} has no edge of chaos at sigma_b={sigma_b:g} .{reason}"
        with pytest.raises(ValueError, match=said):
            gs.critical_initializer(name, sigma_b)
    start = gs.critical_initializer("gelu", depth=10)
    fresh = gs.sweep(
        gs.feedforward(128, "gelu"), depth=10, seeds=32, key=9, statistics="log_jvp", sigma_w=start.sigma_w
    ).log_jvp.values[:, -1]
    # Both the gain and this check have an error, over 16 and over 32 networks.
    assert abs(fresh.mean()) < 5 * fresh.std(ddof=1) * np.sqrt(1 / 32 + 1 / 16)
    with pytest.raises(ValueError, match=r"activation: the gradient of .* over 3 layers is vanishing throughout"):
        gs.critical_initializer(lambda z: jnp.exp(-((z - 20) ** 2)) + 1e-3 * z, depth=3)


@pytest.fixture
def no_checker() -> Iterator[None]:
    with own_checks():
        yield


AXIS: list[Any] = [None, "x", 1.5, {}, True, [None], ["x"], 99, [1j]]
WRONG: dict[str, Any] = {
    "activation": [*KINDS["choice"], lambda z: z[:1], jax.nn.softmax],
    "sigma_b": [None, "x", [1.0], {}, 1j, True, np.nan, np.inf, -1.0, 1e300],
    "law": KINDS["choice"], "depth": [*KINDS["size or None"], 10**9],
    "in_axis": [*AXIS, ()], "out_axis": [*AXIS, ()], "batch_axis": AXIS,
}  # fmt: skip


@pytest.mark.parametrize("argument", WRONG)
def test_critical_initializer_refuses(argument: str, no_checker: None) -> None:
    refused_each(
        argument, WRONG[argument], lambda value: gs.critical_initializer(**{"activation": "tanh", argument: value})
    )


def test_a_kernel_that_cannot_be_is_refused(no_checker: None) -> None:
    start: Any = gs.critical_initializer("tanh")
    refused_each("shape", [None, "x", 3, (), (4,), (4, -1), (4, 0), (4, 2.5), (4, "x")],
                 lambda shape: start(random.key(0), shape))  # fmt: skip
    refused_each("dtype", ["x", int, "complex64", bool, object()], lambda dtype: start(random.key(0), (4, 4), dtype))
    refused_each("dtype", [int], lambda dtype: start.bias(random.key(0), (4,), dtype))
    meet = gs.critical_initializer("tanh", in_axis=0)
    refused("in_axis", lambda: gs.critical_initializer("tanh", in_axis=-1)(random.key(0), (4, 4)))
    assert meet(random.key(0), (4, 4)).shape == (4, 4)
