"""Products of Jacobians through a model equal jax.jacrev's, beyond the range of floats, whether examples mix or not."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inspected import drawn
from jax import Array
from unrolled import own_checks

import gradsim as gs
from gradsim.inspection import tap

TINY = np.float32(1e-25)  # its square is no float32


class Model(nnx.Module):
    """A batch norm, which mixes examples in training, and a recurrence, whose end it returns TINY² times."""

    def __init__(self, mixes: bool, scanned: bool = True) -> None:
        self.scanned, rngs = scanned, nnx.Rngs(0)
        self.a, self.b = (nnx.Linear(n, 2, use_bias=False, rngs=rngs) for n in (4, 2))
        alone: dict[str, Any] = {"use_bias": False, "use_scale": False, "use_fast_variance": False}  # less to compile
        self.norm = nnx.BatchNorm(2, use_running_average=not mixes, rngs=rngs, **alone)

    def __call__(self, x: Array) -> Array:
        return TINY * (TINY * self.rest(tap(self.norm(self.a(x)), "rows")))

    def rest(self, rows: Array) -> Array:
        def step(h: Array, row: Array) -> tuple[Array, Array]:
            h = tap(jnp.tanh(self.b(h + row)), "cell")
            return h, h

        h, steps = jnp.zeros((len(rows), 2), rows.dtype), jnp.swapaxes(rows, 0, 1)
        if self.scanned:
            return jax.lax.scan(step, h, steps)[0]
        for one in steps:
            h, _ = step(h, one)
        return h


def inputs(examples: int) -> Array:
    return drawn(0, examples, 3, 4)


@cache
def dense(mixes: bool, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of the model without TINY² [examples, 2, examples, 3, 2]: output by rows, and rows by input."""
    graph, state = nnx.split(Model(mixes))

    def model() -> Model:
        return nnx.merge(graph, state, copy=True)

    def rows(x: Array) -> Array:
        copied = model()
        return copied.norm(copied.a(x))

    @jax.jit
    def both(x: Array) -> tuple[Array, Array]:
        return jax.jacrev(lambda h: model().rest(h))(rows(x)), jax.jacfwd(rows)(x)

    return tuple(np.asarray(one, np.float64) for one in both(inputs(examples)))  # type: ignore[return-value]


def log_gain(matrix: np.ndarray, entries: int) -> float:
    return float(0.5 * np.log(np.sum(matrix**2) / entries))


# 300 examples have 600 outputs, more than are pushed one by one.
@pytest.mark.sampled(1)
@pytest.mark.parametrize(("examples", "mixes"), [(2, True), (300, False), (300, True)])
def test_products_equal_dense_matrices(examples: int, mixes: bool) -> None:
    x = inputs(examples)
    found = gs.inspect(Model(mixes, scanned=examples == 2), x, products=True)
    backward, forward = dense(mixes, examples)
    expected = {
        "log_gain_to_output": log_gain(backward, forward.size // x.size) + 2 * np.log(np.float64(TINY)),
        "log_gain_from_input": log_gain(forward, x.size),
    }
    for name, number in expected.items():
        there, error = found[name].sel(layer="rows"), float(found[f"{name}_error"].sel(layer="rows"))
        probes = mixes and examples == 300
        assert there.attrs["method"] == ("probes" if probes else "exact")
        assert (0 < error < 0.05) if probes else error == 0
        np.testing.assert_allclose(there, number, rtol=1e-6, atol=4.5 * error or 1e-6)
    ends = list(zip(expected, ("input", "model"), strict=True))  # both products are the whole model's
    whole, errors = ([found[f"{name}{of}"].sel(layer=end).item() for name, end in ends] for of in ("", "_error"))
    np.testing.assert_allclose(whole[0], whole[1], atol=4.5 * np.hypot(*errors) or 1e-6)


@pytest.mark.parametrize("mixes", [False, True])
def test_matrices_are_kept(mixes: bool) -> None:
    backward, _ = dense(mixes, 2)
    found = gs.inspect(Model(mixes), inputs(2), keep="jacobians", layers=["rows", "model"])
    assert sorted(str(name) for name in found.data_vars if "jacobian" in str(name)) == [
        "jacobian.model",
        "jacobian.rows",
    ]
    kept = found["jacobian.rows"]
    each = np.stack([backward[i, :, i].reshape(2, -1) for i in range(2)])
    expected = backward.reshape(4, -1) if mixes else each
    np.testing.assert_allclose(kept, expected * np.float64(TINY) ** 2, rtol=1e-5, atol=1e-57)
    assert kept.dims == ("output", "entry of rows") if mixes else ("example", "output", "entry of rows")
    if not mixes:
        mean = gs.inspect(Model(mixes), inputs(2), keep="jacobians", layers=["rows"], average=True)["jacobian.rows"]
        np.testing.assert_allclose(mean, each.mean(0) * np.float64(TINY) ** 2, rtol=1e-5, atol=1e-57)


BAD: Any = 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"products": BAD}, TypeError, "products: got 3"),
        ({"keep": "gradients"}, ValueError, "keep: got 'gradients'"),
        ({"layers": ["rows"]}, ValueError, "keep: got None with layers"),
        ({"keep": "jacobians", "layers": "rows"}, TypeError, "layers: got 'rows'"),
        ({"keep": "jacobians", "layers": ["row"]}, ValueError, "layers: got row; pass some of input, a, "),
        ({"keep": "jacobians", "average": BAD}, TypeError, "average: got 3"),
    ],
)
def test_bad_input_is_one_clear_line(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message):
        gs.inspect(Model(False), inputs(2), **options)
