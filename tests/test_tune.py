"""Models made critical: every layer's gain against its dense Jacobian, what is refused and why, and training."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inspected import drawn
from jax import Array, lax

import gradsim as gs
from gradsim.digits import labels

X = drawn(0, 16, 24)


def draws(deviation: float) -> Any:
    """Kernels drawn by numpy, each from the last one's generator: nothing to compile."""
    generator = np.random.default_rng(1)

    def draw(_: Any, shape: Any, dtype: Any) -> Array:
        return jnp.asarray(deviation / np.sqrt(np.prod(shape[:-1])) * generator.standard_normal(shape), dtype)

    return draw


def tanh_layer(kernel: Array, bias: Array, x: Array) -> Array:
    return jnp.tanh(x @ kernel + bias)


def relu_conv(kernel: Array, bias: Array, x: Array) -> Array:
    numbers = lax.conv_dimension_numbers((1, *x.shape), kernel.shape, ("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=numbers)[0] + bias)


def gain(jacobian: Any, outputs: int) -> float:
    return float(np.sqrt(np.sum(np.asarray(jacobian, np.float64) ** 2) / outputs))


def jacobian_of(layer: Any) -> Any:
    """(kernel, bias, x) -> its Jacobian for each example, and what it gives."""
    both = jax.jacrev(lambda *operands: (layer(*operands),) * 2, 2, has_aux=True)
    return jax.jit(jax.vmap(both, (None, None, 0)))


jacobian_of_tanh, jacobian_of_conv = jacobian_of(tanh_layer), jacobian_of(relu_conv)


def same_structure(one: Any, two: Any) -> bool:
    structures: list[Any] = [jax.tree.structure(one), jax.tree.structure(two)]
    return bool(structures[0] == structures[1])


class Tanh(nnx.Module):
    """Dense tanh layers."""

    def __init__(self, depth: int, width: int, deviation: float) -> None:
        rngs = nnx.Rngs(0)
        draw = draws(deviation)
        self.layers = nnx.List([nnx.Linear(width, width, kernel_init=draw, rngs=rngs) for _ in range(depth)])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


class Convolutions(nnx.Module):
    """Plain convolutions with ReLU, and a head on their mean."""

    def __init__(self, depth: int, channels: int) -> None:
        rngs = nnx.Rngs(0)
        sizes = [1, *[channels] * depth]
        draw = draws(0.5)
        self.layers = nnx.List([nnx.Conv(n, m, (3, 3), kernel_init=draw, rngs=rngs) for n, m in pairwise(sizes)])
        self.head = nnx.Linear(channels, 3, kernel_init=draws(1.0), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x.mean((1, 2)))


class Block(nnx.Module):
    """x + branch(x)."""

    def __init__(self, width: int, draw: Any, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.one = nnx.Linear(width, 2 * width, kernel_init=draw, rngs=rngs)
        self.two = nnx.Linear(2 * width, width, kernel_init=draw, rngs=rngs)

    def branch(self, x: Array) -> Array:
        return self.two(nnx.relu(self.one(self.norm(x))))

    def __call__(self, x: Array) -> Array:
        return x + self.branch(x)


class Blocks(nnx.Module):
    """A deep residual MLP."""

    def __init__(self, depth: int, width: int, deviation: float) -> None:
        draw, rngs = draws(deviation), nnx.Rngs(0)
        self.blocks = nnx.List([Block(width, draw, rngs) for _ in range(depth)])

    def __call__(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.sampled(1)
@pytest.mark.parametrize("deviation", [0.1, 4.0])
def test_50_tanh_layers(deviation: float) -> None:
    model = Tanh(50, 24, deviation)
    given = jax.tree.map(jnp.copy, nnx.state(model))
    tuned, table = gs.tune(model, X)
    x = X
    for i, layer in enumerate(tuned.layers):
        parameters = layer.kernel[...], layer.bias[...]
        last = i == 49  # that of the last layer is the gain of its product
        jacobian, x = jacobian_of_tanh(*parameters, x)
        found = gain(layer.kernel[...], 24) if last else gain(jacobian, x.size)
        assert 0.95 < found < 1.05
        np.testing.assert_allclose(table.gain_after.values[i], found, rtol=1e-3)
        scale = float(table.scale.sel(layer=f"layers.{i}"))
        np.testing.assert_allclose(layer.kernel[...], np.asarray(model.layers[i].kernel[...]) * scale, rtol=1e-5)
    assert set(table.status.values) == {"tuned"}
    assert abs(np.log(table.gain_before.values)).max() > 0.2
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), given)


def test_15_relu_convolutions() -> None:
    images = drawn(1, 4, 5, 5, 1)
    tuned, table = gs.tune(Convolutions(15, 8), images)
    x = images
    for i, layer in enumerate(tuned.layers):
        parameters = layer.kernel[...], layer.bias[...]
        jacobian, x = jacobian_of_conv(*parameters, x)
        assert 0.95 < gain(jacobian, x.size) < 1.05
        assert abs(float(table.gain_after[i]) - gain(jacobian, x.size)) < 4 * float(table.gain_error[i]) + 1e-3
    assert table.layer.values[-1] == "head"
    assert table.type.values[-2:].tolist() == ["Conv", "Linear"]
    np.testing.assert_allclose(table.gain_after.values, 1, atol=0.01)
    np.testing.assert_allclose(table.slope.values, 1, atol=1e-3)


@jax.jit
def jacobians(block: Block, x: Array) -> tuple[Array, Array, Array]:
    """Of the branch, and of the layer within it; and what the block gives."""
    branch = jax.vmap(jax.jacrev(block.branch))(x)
    return branch, jax.vmap(jax.jacrev(lambda y: nnx.relu(block.one(y))))(block.norm(x)), block(x)


@pytest.mark.parametrize("target", [None, 0.3])
def test_branches_of_a_deep_residual_mlp(target: float | None) -> None:
    tuned, table = gs.tune(Blocks(5, 12, 3.0), X[:, :12], branch_target=target)
    wanted = 1.0 if target is None else target
    x = X[:, :12]
    for i, block in enumerate(tuned.blocks):
        row, size = table.sel(layer=f"blocks.{i}.two"), x.size
        jacobian, within, x = jacobians(block, x)
        jacobian = np.asarray(jacobian, np.float64)
        assert 0.95 < gain(jacobian, size) / wanted < 1.05
        np.testing.assert_allclose(row.gain_after, gain(jacobian, size), rtol=1e-3)
        np.testing.assert_allclose(row.block_gain_after, gain(jacobian + np.eye(12), size), rtol=1e-3)
        assert (row.of, row.target) == ("branch", wanted)
        assert 0.95 < gain(within, 2 * size) < 1.05
    assert np.isnan(table.block_gain_after.sel(layer="blocks.0.one"))


def parallel(p: Any, x: Array) -> Array:
    return (x + jnp.tanh(x @ p["one"]) + jax.nn.relu(x @ p["two"])) @ p["last"]


def test_parallel_branches_share_a_scale() -> None:
    given = {name: np.float32(0.2) * drawn(i + 1, 24, 24) for i, name in enumerate(("one", "two", "last"))}
    tuned, table = gs.tune(parallel, given, X)

    def branch(x: Array) -> Array:
        return jnp.tanh(x @ tuned["one"]) + jax.nn.relu(x @ tuned["two"])

    assert 0.95 < gain(jax.jit(jax.vmap(jax.jacrev(branch)))(X), X.size) < 1.05
    scales = table.scale.values.tolist()
    assert table.of.values.tolist() == ["branch", "branch", "layer"]
    assert scales[0] == scales[1] != scales[2]


def parent(p: Any, x: Array) -> Array:
    for one in p["layers"]:
        x = x + jnp.tanh(x @ one["w"] + one["b"])
    return x @ p["head"]


def test_a_function_whose_branches_stand_in_a_loop() -> None:
    layers = [{"w": np.float32(0.01) * drawn(i + 1, 24, 24), "b": jnp.full(24, 0.1)} for i in range(4)]
    given = {"layers": layers, "head": jnp.eye(24)[:, :5], "steps": jnp.arange(3)}
    tuned, table = gs.tune(parent, given, X)
    assert same_structure(tuned, given)
    assert table.of.values.tolist() == ["branch"] * 4 + ["layer"]
    assert table.parameter.values.tolist() == [*(f"layers.{i}.w" for i in range(4)), "head"]
    x = X
    for one in tuned["layers"]:
        jacobian, step = jacobian_of_tanh(one["w"], one["b"], x)
        assert 0.95 < gain(jacobian, x.size) < 1.05
        np.testing.assert_array_equal(one["b"], np.float32(0.1))
        x = x + step


def test_per_input() -> None:
    model = nnx.Sequential(
        *(nnx.Linear(n, m, kernel_init=draws(1.0), rngs=nnx.Rngs(0)) for n, m in ((24, 12), (12, 18)))
    )
    tuned, _ = gs.tune(model, X, per="input", target=0.7)
    for layer, width in zip(tuned.layers, (24, 12), strict=True):
        np.testing.assert_allclose(gain(layer.kernel[...], width), 0.7, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dtypes_stay(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        given = jnp.asarray(0.01 * np.asarray(drawn(1, 12, 12)), dtype)
        tuned, table = gs.tune(lambda p, x: x @ p, given, jnp.asarray(X[:, :12], dtype))
    assert tuned.dtype == dtype
    np.testing.assert_allclose(table.gain_after, 1, rtol=0.01)


def deep(p: Any, x: Array) -> Array:
    x = jnp.tanh(x @ p["first"])
    for w in p["layers"]:
        x = jnp.tanh(x @ w)
    return x @ p["head"]


def model(p: Any, x: Array) -> Array:
    """The same, with its layers in a scan: it compiles in no time."""
    x = jnp.tanh(x @ p["first"])
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"])[0] @ p["head"]


@jax.jit
def trained(p: Any, images: Array, digits: Array) -> Array:
    """The accuracy after so many steps down the signs of gradients, on images that were not seen."""

    def loss(p: Any, i: Array) -> Array:
        rows = jnp.arange(len(i))
        return -jnp.mean(jax.nn.log_softmax(model(p, images[i]))[rows, digits[i]])

    def step(p: Any, i: Any) -> Any:
        return jax.tree.map(lambda x, g: x - 2e-4 * jnp.sign(g), p, jax.grad(loss)(p, i)), None

    batches = np.random.default_rng(0).integers(0, 1400, (600, 32))
    p = lax.scan(step, {**p, "layers": jnp.stack(p["layers"])}, batches)[0]
    return jnp.mean(jnp.argmax(model(p, images[1400:]), -1) == digits[1400:])


@pytest.mark.further
def test_the_tuned_model_trains_where_the_untuned_does_not() -> None:
    images, digits = jnp.asarray(gs.digits(), jnp.float32), jnp.asarray(labels())
    for seed in range(2):
        keys = jax.random.split(jax.random.key(seed), 51)
        given = {
            "first": 0.05 * jax.random.normal(keys[0], (64, 24)),
            "layers": [0.1 * jax.random.normal(key, (24, 24)) for key in keys[1:50]],
            "head": 0.2 * jax.random.normal(keys[50], (24, 10)),
        }
        tuned = gs.tune(deep, given, images[:20]).model
        assert trained(given, images, digits) < 0.3
        assert trained(tuned, images, digits) > 0.5
