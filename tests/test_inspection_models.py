"""Models pass through inspection: gradients equal jax.grad's, models stay as they were, bad input is one clear line."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from inspected import drawn
from jax import Array
from unrolled import own_checks

import gradsim as gs
from gradsim.inspection import tap


def log_norms(tree: Any) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log([np.linalg.norm(np.ravel(np.asarray(x, np.float64))) for x in jax.tree.leaves(tree)])


def squares(y: Array) -> Array:
    return jnp.sum(y * y)


class Convolutional(nnx.Module):
    """A convolution with batch norm and dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
        return self.out(self.dropout(x.mean((1, 2))))


class Block(nnx.Module):
    """A pre-norm transformer block; the attention is without biases, for the keys' has a gradient of zero."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, use_bias=False, decode=False, rngs=rngs)
        self.up = nnx.Linear(4, 8, rngs=rngs)
        self.down = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.norm(x))
        return x + self.down(nnx.gelu(self.up(x)))


class Transformer(nnx.Module):
    """Tokens in; its blocks are recomputed in the backward pass."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])

    def __call__(self, tokens: Array) -> Array:
        x = self.embed(tokens)
        for block in self.blocks:
            x = nnx.remat(lambda block, x: block(x))(block, x)
        return x


class Shared(nnx.Module):
    """One layer, called twice."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.layer(jnp.tanh(self.layer(x)))


MODELS: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], Any]] = {
    "convolutional": (Convolutional, np.random.default_rng(0).standard_normal((4, 6, 6, 2)).astype(np.float32)),
    "transformer": (Transformer, np.arange(10).reshape(2, 5) % 5),
    "shared": (Shared, np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)),
    "gru": (
        lambda rngs: nnx.RNN(nnx.GRUCell(2, 3, rngs=rngs)),
        np.random.default_rng(0).standard_normal((2, 5, 2)).astype(np.float32),
    ),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_equal_those_of_jax_and_the_model_is_as_it_was(name: str) -> None:
    make, x = MODELS[name]
    model = make(nnx.Rngs(0))
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    before = jax.tree.map(np.asarray, jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))))
    calls = {type(module): type(module).__dict__.get("__call__") for _, module in nnx.iter_modules(model)}
    found = gs.inspect(model, x, loss=squares)

    @jax.jit
    def gradient_of(parameters: Any) -> Any:
        return jax.grad(lambda p: squares(nnx.merge(graph, p, rest, copy=True)(jnp.asarray(x))))(parameters)

    gradient = gradient_of(parameters)
    np.testing.assert_allclose(found.log_parameter_gradient.values, log_norms(gradient), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.log_float_parameter_gradient.values, log_norms(gradient), rtol=1e-5, atol=1e-5)

    assert nnx.graphdef(model) == graph
    after = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    assert all(kind.__dict__.get("__call__") is call for kind, call in calls.items())


def test_layers_are_in_order_of_execution() -> None:
    found = gs.inspect(Shared(nnx.Rngs(0)), jnp.ones((2, 3)))
    assert found.layer.values.tolist() == ["input", "layer", "layer#2", "model"]
    assert found.type.values.tolist() == ["input", "Linear", "Linear", "Shared"]
    assert set(found.data_vars) >= {"log_activation", "dead", "log_gradient", "log_float_gradient"}
    for variable in found.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]


def test_scopes_of_a_function_are_layers() -> None:
    def block(w: Array, x: Array) -> Array:
        with jax.named_scope("block"):
            with jax.named_scope("linear"):
                h = x @ w
            return jnp.tanh(h)

    def scoped(w: Array, x: Array) -> Array:
        x = jax.vmap(block, (None, 0))(w[0], x)
        with jax.named_scope("outer"):
            return jax.jit(block)(w[1], 2.0 * x)

    def tapped(w: Array, x: Array) -> Array:
        x = tap(jnp.tanh(tap(x @ w[0], "block/linear")), "block")
        h = tap(2.0 * x @ w[1], "outer/block/linear")
        return tap(tap(jnp.tanh(h), "outer/block"), "outer")

    w, x = drawn(0, 2, 3, 3), drawn(1, 4, 3)
    found, expected = gs.inspect(scoped, w, x), gs.inspect(tapped, w, x)
    assert found.layer.values.tolist() == expected.layer.values.tolist()
    assert found.type.values.tolist() == ["input", *["scope"] * 5]
    for name in ("log_gradient", "log_activation", "log_parameter_gradient", "saturated"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_random_streams_may_be_given_by_name() -> None:
    class Dropping(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.a, self.drop = nnx.Linear(3, 3, rngs=rngs), nnx.Dropout(0.5)

        def __call__(self, x: Array, rngs: nnx.Rngs) -> Array:
            return self.drop(self.a(x), rngs=rngs)

    model, x, rngs = Dropping(nnx.Rngs(0)), jnp.ones((2, 3)), nnx.Rngs(dropout=1)
    named = gs.inspect(model, x, loss=squares, keywords={"rngs": rngs})
    placed = gs.inspect(model, x, rngs, loss=squares)
    gradient = nnx.jit(nnx.grad(lambda model: squares(model(x, nnx.Rngs(dropout=1)))))(model)
    for found in (named, placed):
        np.testing.assert_allclose(found.log_parameter_gradient, log_norms(gradient), rtol=1e-5)
    assert int(rngs.dropout.count[...]) == 0


def test_the_model_is_as_it_was_after_an_exception() -> None:
    model = Shared(nnx.Rngs(0))
    call = nnx.Linear.__call__
    with pytest.raises(ValueError, match="inputs: the model does not take them"):
        gs.inspect(model, jnp.ones((2, 5)))
    assert nnx.Linear.__call__ is call
    assert Shared.__dict__["__call__"] is not call
    assert not hasattr(model, "_gradsim_layer")


class Dense(linen.Module):
    """Linen layers with batch norm and dropout."""

    @linen.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        x = linen.BatchNorm(use_running_average=not train)(jnp.tanh(linen.Dense(4)(x)))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=not train)(x))


def test_linen_models() -> None:
    model, x = Dense(), drawn(0, 4, 3)
    variables = jax.jit(model.init)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)
    rngs = {"dropout": jax.random.key(2)}
    found = gs.inspect(model, x, loss=squares, variables=variables, rngs=rngs)

    def loss(parameters: Any) -> Array:
        both = {**variables, "params": parameters}
        return squares(model.apply(both, x, rngs=rngs, mutable=["batch_stats"])[0])

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    there = [name != "Dense_0.bias" for name in found.parameter.values]  # before a batch norm it does nothing
    np.testing.assert_allclose(
        found.log_parameter_gradient.values[there], log_norms(gradient)[there], rtol=1e-5, atol=1e-5
    )
    assert found.layer.values.tolist() == ["input", "Dense_0", "BatchNorm_0", "Dropout_0", "Dense_1", "model"]
    bound = gs.inspect(model.bind(variables), x, loss=squares, keywords={"train": False})
    assert np.isfinite(bound.log_gradient.values).all()


def test_float64_equals_jax_grad() -> None:
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        w, x = (jnp.asarray(generator.standard_normal(shape)) for shape in ((3, 4, 4), (2, 4)))

        def model(w: Array, x: Array) -> Array:
            h = jax.lax.scan(lambda h, one: (tap(jnp.tanh(h @ one), "layer"), None), x, w)[0]
            return tap(jnp.linalg.solve(jnp.eye(4) + h.T @ h, h.T).sum(), "solve")

        found = gs.inspect(model, w, x)
        gradient = jax.jit(jax.grad(model, (0, 1)))(w, x)
    exact = [found.log_parameter_gradient.values[0], found.log_gradient.sel(layer="input").values]
    np.testing.assert_allclose(exact, log_norms(gradient), rtol=1e-10)
    assert found.log_gradient_by_step.shape == (3, 3)


def test_bfloat16_overflow_and_a_gradient_of_zero() -> None:
    def model(w: Array, x: Array) -> Array:
        for _ in range(4):
            x = tap(x * w, "layer")
        return tap(jnp.sum(jnp.where(x > 0, jnp.log(jnp.abs(x)), 0 * x)), "sum")

    w, x = jnp.asarray(2.0**40, jnp.bfloat16), jnp.asarray([2.0**-100, -(2.0**-100)], jnp.bfloat16)
    found = gs.inspect(model, w, x)
    np.testing.assert_allclose(found.log_gradient.sel(layer="input").values, 100 * np.log(2.0), rtol=1e-2)
    assert found.zero_gradient.sel(layer="input").values == 0.5


BAD: Any = 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gs.inspect(3, jnp.ones(2)), TypeError, "model: got 3 of type int"),
        (lambda: gs.inspect(nnx.Linear, jnp.ones(2)), TypeError, "model: got"),
        (lambda: gs.inspect(Shared(nnx.Rngs(0))), ValueError, "inputs: got none"),
        (lambda: gs.inspect(Shared(nnx.Rngs(0)), "x"), TypeError, "inputs: got 'x' of type str"),
        (lambda: gs.inspect(Shared(nnx.Rngs(0)), jnp.ones((2, 3)), loss=BAD), TypeError, "loss: got 3"),
        (
            lambda: gs.inspect(Shared(nnx.Rngs(0)), jnp.ones((2, 3)), loss=jnp.sin),
            ValueError,
            r"loss: got shape \[2, 3\]",
        ),
        (lambda: gs.inspect(Shared(nnx.Rngs(0)), jnp.ones((2, 3)), loss=jnp.argmax), ValueError, "loss: got shape"),
        (lambda: gs.inspect(Shared(nnx.Rngs(0)), jnp.ones((2, 3)), variables={}), TypeError, "variables: got"),
        (lambda: gs.inspect(Shared(nnx.Rngs(0)), jnp.ones((2, 3)), keywords=BAD), TypeError, "keywords: got"),
        (lambda: gs.inspect(lambda x: 2.0 * x, jnp.ones(2)), ValueError, "model: no layers"),
        (lambda: gs.inspect(lambda x: tap(x, "x"), jnp.arange(3)), TypeError, "inputs: got int32, and no parameters"),
        (lambda: gs.inspect(Dense(), jnp.ones((2, 3))), ValueError, "variables: a flax.linen module holds none"),
        (lambda: gs.inspect(lambda x: tap(x, ""), jnp.ones(3)), ValueError, "name: got an empty string"),
        (lambda: tap(jnp.ones(2), BAD), TypeError, "name: got 3"),
    ],
)
def test_bad_input_is_one_clear_line(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


class Residual(nnx.Module):
    """A block, a wide layer after it, and a layer normalization."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.branch, self.norm = nnx.Linear(3, 3, rngs=rngs), nnx.LayerNorm(3, rngs=rngs)
        self.wide = nnx.Linear(3, 300, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.wide(x + jnp.tanh(self.branch(self.norm(x))))


def test_gains_are_those_of_dense_jacobians() -> None:
    model, x = Residual(nnx.Rngs(0)), drawn(0, 2, 3)
    found = gs.inspect(model, x, gains=True)

    @jax.jit
    def jacobians(x: Array) -> dict[str, Array]:
        normal = model.norm(x)
        inner = {"norm": (model.norm, x), "branch": (model.branch, normal)}
        inner["wide"] = model.wide, x + jnp.tanh(model.branch(normal))
        return {name: jax.jacrev(layer)(at) for name, (layer, at) in {**inner, "model": (model, x)}.items()}

    squared = {name: np.sum(np.asarray(one, np.float64) ** 2) for name, one in jacobians(x).items()}
    for name in ("norm", "branch", "wide"):
        expected = 0.5 * np.log(squared[name] / x.size)  # all inputs are of one size
        row = found.sel(layer=name)
        exact = name != "wide"
        assert row.gain_method == ("exact" if exact else "probes")
        error = float(row.log_gain_error)
        assert (error == 0) if exact else (0 < error < 0.2)
        np.testing.assert_allclose(row.log_gain.values, expected, atol=1e-5 if exact else 4 * error)
    row = found.sel(layer="model")  # a product that is not the product of gains
    expected = 0.5 * np.log(squared["model"] / x.size)
    np.testing.assert_allclose(row.log_gain.values, expected, atol=4 * float(row.log_gain_error))
