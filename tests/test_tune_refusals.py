"""What `gs.tune` refuses, each with its reason, while the rest is tuned; and bad input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from inspected import drawn
from jax import Array, lax
from wrong import own_checks

import gradsim as gs
from gradsim.inspection.solve import solve

X = drawn(0, 16, 24)


class Gated(linen.Module):
    """A gate, and a batch norm that swallows the scale before it."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = linen.BatchNorm(use_running_average=False)(linen.Dense(8, name="normed")(x))
        x = linen.silu(linen.Dense(8, name="gate")(x)) * linen.Dense(8, name="value")(x)
        return linen.Dense(2, name="out")(x)


def test_a_linen_model_with_what_a_norm_swallows() -> None:
    variables = jax.jit(Gated().init)(jax.random.key(0), X)
    tuned, table = gs.tune(Gated(), X, variables=variables)
    structures: list[Any] = [jax.tree.structure(tuned), jax.tree.structure(variables)]
    assert structures[0] == structures[1]
    jax.tree.map(np.testing.assert_array_equal, tuned["batch_stats"], variables["batch_stats"])
    np.testing.assert_array_equal(tuned["params"]["normed"]["kernel"], variables["params"]["normed"]["kernel"])
    row = table.sel(layer="normed")
    assert row.status == "refused"
    assert "before a norm: d ln gain / d ln scale is" in str(row.reason.values)
    assert abs(float(row.slope)) < 0.01
    assert table.scale.sel(layer="gate") == table.scale.sel(layer="value") != 1
    np.testing.assert_allclose(table.gain_after[1:], 1, rtol=0.01)


def test_an_embedding_with_places_before_a_norm_keeps_its_scale() -> None:
    def model(p: Any, x: Array) -> Array:
        h = x @ p["embed"] + jnp.linspace(-1.0, 1.0, 8)
        h = h - h.mean(-1, keepdims=True)
        return (h / jnp.sqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6)) @ p["out"]

    given = {"embed": np.float32(0.3) * drawn(1, 24, 8), "out": jnp.asarray(np.eye(8, 3), "float32")}
    _, table = gs.tune(model, given, X, target=3.0)
    assert table.status.values.tolist() == ["refused", "tuned"]
    assert table.scale.values[0] == 1
    assert "normalized behind it: its gain is at most" in str(table.reason.values[0])


def test_query_and_key_are_refused_and_value_is_tuned() -> None:
    model = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    _, table = gs.tune(model, X.reshape(4, 12, 8))
    status = dict(zip(table.layer.values, table.status.values, strict=True))
    assert status == {"query": "refused", "key": "refused", "value": "tuned", "out": "tuned"}
    assert "acts little on the layer's gain" in str(table.reason.sel(layer="query").values)
    np.testing.assert_allclose(table.gain_after, 1, rtol=0.01)


def odd(p: Any, x: Array) -> Array:
    """Layers that cannot be tuned, each for another reason, and a last one that can."""
    x = 1e-4 * jnp.tanh(x @ p["saturated"])
    x = jax.nn.relu(x @ p["dead"] - 1e6)
    x = jnp.tanh(jnp.tanh(x @ p["shared"]) @ p["shared"])
    x = lax.scan(lambda h, _: (jnp.tanh(h @ p["recurrent"]), None), x, length=3)[0]
    return x @ p["last"] + jnp.eye(2)[0] @ p["apart"]


def test_what_is_refused_has_a_reason_and_the_rest_is_tuned() -> None:
    shapes = {
        "saturated": (24, 6),
        "dead": (6, 6),
        "shared": (6, 6),
        "recurrent": (6, 6),
        "last": (6, 3),
        "apart": (2, 3),
    }
    given = {name: drawn(i + 1, *shape) for i, (name, shape) in enumerate(shapes.items())}
    tuned, table = gs.tune(odd, given, X)
    reasons = dict(zip(table.layer.values.tolist(), table.reason.values.tolist(), strict=True))
    assert list(reasons) == ["saturated", "dead", "shared", "recurrent", "last"]
    assert reasons["saturated"].startswith("saturated, or normalized behind it: its gain is at most")
    assert reasons["dead"] == "dead: its gain is 0, and no scale brings it to the target"
    assert reasons["shared"] == "shared: 2 calls have this kernel, each with a gain of its own"
    assert reasons["recurrent"].startswith("shared by all turns of a loop, each with a gain of its own")
    assert reasons["last"] == ""
    np.testing.assert_array_equal(tuned["dead"], given["dead"])
    for name, variable in table.variables.items():
        assert variable.attrs["long_name"], name


@pytest.mark.parametrize(
    ("gain", "log_scale", "reason"),
    [
        (lambda x: x - 50.0, 50.0, ""),
        (lambda x: 0.5 * x + np.tanh(x) - 3.0, 4.0, ""),
        (lambda x: 3.0 - abs(x + 8.0), -11.0, ""),  # it falls with the scale, and grows below the largest
        (lambda x: 0.01 * x + 1.0, None, "the scale does not act"),
        (
            lambda x: -1.0 - abs(x - 2.0),
            None,
            "saturated, or normalized behind it: its gain is at most 0.368, with the kernel times 7.39",
        ),
        (lambda x: 3.0 - 0.1 * x, None, "its gain, between 9.03 and 5.99e+04, does not grow"),
        # The gain only draws near to the target; or rounding brings it there, far above.
        (lambda x: -0.3 * max(0.0, 1.0 - x) ** 2, None, "the scale hardly acts where its gain is the target"),
        (lambda x: 0.1 if x > 28 else -0.1 * float(np.exp(-x)), None, "saturated, or normalized"),
        (lambda x: -np.inf, None, "dead: its gain is 0"),
        (lambda x: np.nan, None, "its gain is not finite at any scale"),
    ],
)
def test_scales_that_are_found_and_not(gain: Any, log_scale: float | None, reason: str) -> None:
    found = solve(gain, 0.0, 1e-3)
    assert found.reason.startswith(reason)
    if log_scale is None or found.log_scale is None:
        assert found.log_scale is log_scale
    else:
        assert abs(found.log_scale - log_scale) < 5e-3


def test_the_way_to_a_scale_is_sought_roughly() -> None:
    def true(x: float) -> float:
        return 0.5 * x + float(np.tanh(x)) - 3.0

    def gain(x: float) -> float:
        calls.append(x)
        return true(x)

    calls: list[float] = []
    found = solve(gain, 0.0, 1e-3, rough=lambda x: true(x) + 0.03)
    assert found.log_scale is not None
    assert abs(true(found.log_scale)) < 1e-3
    assert len(calls) <= 3
    # Where the rough gain leads astray, the gain itself is solved.
    assert solve(lambda x: x if x < 5 else np.nan, 0.0, 1e-3, rough=lambda x: 0.2 * x - 2.0).log_scale == 0.0


BAD: Any = "x"
MODEL = nnx.Sequential(nnx.Linear(24, 24, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gs.tune(3, X), TypeError, "model: got 3 of type int"),
        (lambda: gs.tune(MODEL), ValueError, "inputs: got none"),
        (lambda: gs.tune(MODEL, BAD), TypeError, "inputs: got 'x'"),
        (lambda: gs.tune(MODEL, X[:, :2]), ValueError, "inputs: the model does not take them"),
        (lambda: gs.tune(MODEL, X, target=0), ValueError, "target: got 0; pass a number above 0"),
        (lambda: gs.tune(MODEL, X, target=BAD), TypeError, "target: got 'x'"),
        (lambda: gs.tune(MODEL, X, branch_target=-1.0), ValueError, "branch_target: got -1.0"),
        (lambda: gs.tune(MODEL, X, tolerance=1), ValueError, "tolerance: got 1; pass"),
        (lambda: gs.tune(MODEL, X, per=BAD), ValueError, "per: got 'x'; pass one of: output, input"),
        (lambda: gs.tune(MODEL, X, keywords=BAD), TypeError, "keywords: got 'x'"),
        (lambda: gs.tune(MODEL, X, variables={}), TypeError, "variables: got {}"),
        (lambda: gs.tune(lambda x: 2.0 * x, X), ValueError, "model: no kernels; pass one with parameters of two"),
        (lambda: gs.tune(lambda p, x: p * x, X, X), ValueError, "model: no kernels; pass one whose parameters are in"),
        (
            lambda: gs.tune(lambda p, x: x @ p @ p, jnp.eye(24), X),
            ValueError,
            "model: no kernel can be tuned; its only parameter: shared: 2 calls",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with own_checks(), pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
