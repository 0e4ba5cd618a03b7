"""A stack of layers in a scan is tuned as its unrolled twin; one layer for all turns is refused with its reason."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from inspected import drawn
from jax import Array, lax

import gradsim as gs

X = drawn(0, 8, 12)
DEPTH = 4
KERNELS = np.asarray(0.5 * np.random.default_rng(1).standard_normal((DEPTH, 12, 12)), np.float32)
HEAD = np.asarray(0.3 * np.random.default_rng(2).standard_normal((12, 3)), np.float32)


def head() -> nnx.Linear:
    return nnx.Linear(12, 3, kernel_init=lambda *_: jnp.asarray(HEAD), rngs=nnx.Rngs(1))


class Layer(nnx.Module):
    """A dense layer with tanh."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(12, 12, kernel_init=nnx.initializers.zeros, rngs=rngs)  # see KERNELS

    def __call__(self, x: Array) -> Array:
        return jnp.tanh(self.linear(x))


class Scanned(nnx.Module):
    """A stack of them by nnx.scan, and a head."""

    def __init__(self) -> None:
        make = nnx.split_rngs(splits=DEPTH)(nnx.vmap(Layer, in_axes=(0,), out_axes=0))
        self.layers, self.head = make(nnx.Rngs(0)), head()
        self.layers.linear.kernel[...] = jnp.asarray(KERNELS)

    def __call__(self, x: Array) -> Array:
        run = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.layers))


class Unrolled(nnx.Module):
    """The same, one after the other."""

    def __init__(self) -> None:
        self.layers, self.head = nnx.List([Layer(nnx.Rngs(0)) for _ in KERNELS]), head()
        for layer, kernel in zip(self.layers, KERNELS, strict=True):
            layer.linear.kernel[...] = jnp.asarray(kernel)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Cell(linen.Module):
    """A layer of the linen stack."""

    @linen.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, None]:
        return jnp.tanh(linen.Dense(12, name="dense")(x)), None


class Stacked(linen.Module):
    """By linen.scan, its parameters stacked along another axis than the first, within remat."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        scan = linen.scan(linen.remat(Cell), variable_axes={"params": 1}, split_rngs={"params": True}, length=DEPTH)
        return linen.Dense(3, name="head")(scan(name="layers")(x, None)[0])


def test_a_scanned_stack_is_tuned_as_its_unrolled_twin() -> None:
    tuned, table = gs.tune(Scanned(), X)
    twin, wanted = gs.tune(Unrolled(), X)
    names = ("gain_before", "gain_after", "scale", "slope")
    for name in names:
        np.testing.assert_allclose(table[name], wanted[name], rtol=1e-5)
    assert abs(np.log(table.scale.values)).max() > 0.2
    assert table.layer.values.tolist() == [*(f"layers.linear[{i}]" for i in range(DEPTH)), "head"]
    assert set(table.type.values) == {"Linear"}
    assert set(table.status.values) == {"tuned"}
    kernels = np.stack([layer.linear.kernel[...] for layer in twin.layers])
    np.testing.assert_allclose(tuned.layers.linear.kernel[...], kernels, rtol=1e-5)
    run = nnx.jit(lambda model: model(X))
    np.testing.assert_allclose(run(tuned), run(twin), rtol=1e-5, atol=1e-6)

    kernel = jnp.asarray(np.swapaxes(KERNELS, 0, 1))
    params = {
        "layers": {"dense": {"kernel": kernel, "bias": jnp.zeros((12, DEPTH))}},
        "head": {"kernel": twin.head.kernel[...], "bias": jnp.zeros(3)},
    }
    variables, linened = gs.tune(Stacked(), X, variables={"params": params})
    np.testing.assert_allclose(linened.scale[:DEPTH], wanted.scale[:DEPTH], rtol=1e-5)
    found = variables["params"]["layers"]["dense"]["kernel"]
    np.testing.assert_allclose(found, np.swapaxes(kernels, 0, 1), rtol=1e-5)


@jax.jit
def jacobian_of_tanh(kernel: Array, x: Array) -> Any:
    """For each example, and what the layer gives."""
    return jax.vmap(jax.jacrev(lambda x: (jnp.tanh(x @ kernel),) * 2, has_aux=True))(x)


@pytest.mark.parametrize("form", ["transposed", "nested", "reversed"])
def test_slices_are_found_wherever_scans_take_them(form: str) -> None:
    """Of a function, in other orders of axes, scans in scans, and from the last to the first."""

    def layer(h: Array, w: Array) -> tuple[Array, Array]:
        h = jnp.tanh(h @ w)
        return h, h.sum()

    def model(w: Array, x: Array) -> Any:
        if form == "nested":
            return lax.scan(lambda h, several: lax.scan(layer, h, several), x, jnp.moveaxis(w, 3, 1))
        return lax.scan(layer, x, jnp.transpose(w, (2, 1, 0)) if form == "transposed" else w, reverse=True)

    axes = {"transposed": (2, 1, 0), "nested": (0, 1, 2), "reversed": (0, 1, 2)}[form]
    stacked = np.moveaxis(KERNELS.reshape(2, 2, 12, 12), 1, 3) if form == "nested" else np.transpose(KERNELS, axes)
    given = jnp.asarray(stacked)
    tuned, table = gs.tune(model, given, X)
    assert tuned.shape == given.shape
    order = [0, 1, 2, 3] if form == "nested" else [3, 2, 1, 0]
    turns = {"nested": ["[0, 0]", "[0, 1]", "[1, 0]", "[1, 1]"]}.get(form, [f"[{i}]" for i in order])
    assert table.parameter.values.tolist() == turns
    x, tuned = X, np.asarray(tuned)
    back = np.moveaxis(tuned, 3, 1).reshape(4, 12, 12) if form == "nested" else np.transpose(tuned, axes)
    for i in order[:-1]:
        jacobian, x = jacobian_of_tanh(back[i], x)
        np.testing.assert_allclose(np.sqrt(np.sum(np.square(jacobian)) / x.size), 1, atol=0.01)
    np.testing.assert_allclose(table.gain_after, 1, atol=0.01)


def test_a_cell_of_all_turns_is_refused_and_the_rest_is_tuned() -> None:
    def draw(_: Any, shape: Any, dtype: Any) -> Array:
        return jnp.asarray(KERNELS[0, : shape[0], : shape[1]], dtype)

    cell = nnx.SimpleCell(12, 4, kernel_init=draw, recurrent_kernel_init=draw, rngs=nnx.Rngs(0))
    model = nnx.Sequential(nnx.RNN(cell), nnx.Linear(4, 3, kernel_init=draw, rngs=nnx.Rngs(1)))
    _, table = gs.tune(model, X.reshape(2, 4, 12))
    status = dict(zip(table.layer.values, table.status.values, strict=True))
    assert status["layers.1"] == "tuned"
    assert [status[f"layers.0.cell.{one}"] for one in ("dense_h", "dense_i")] == ["refused", "refused"]
    assert "shared by all turns of a loop" in str(table.reason.sel(layer="layers.0.cell.dense_h").values)
