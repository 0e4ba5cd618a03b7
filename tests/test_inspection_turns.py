"""The gains of layers in a scan, turn by turn, are those of the same layers one after the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

import gradsim as gs

STEPS = 3
X = jax.random.normal(jax.random.key(0), (3, STEPS, 5))


def log_gain(jacobian: Any, entries: int) -> float:
    return float(0.5 * jnp.log(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(jacobian)) / entries))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", [nnx.SimpleCell, nnx.LSTMCell])
def test_cells_of_a_recurrence(kind: Any) -> None:
    """Against the Jacobian of the cell's carry, which its output is a part of, by its carry and input."""
    cell = kind(5, 4, rngs=nnx.Rngs(0))
    jacobian = nnx.jit(jax.jacrev(lambda carry, x: cell(carry, x)[0], (0, 1)))
    found = gs.inspect(nnx.RNN(cell), X, gains=True)
    carry = cell.initialize_carry(X[:, 0].shape, nnx.Rngs(0))
    turns = []
    for x in jnp.swapaxes(X, 0, 1):
        turns.append(log_gain(jacobian(carry, x), x.size + sum(leaf.size for leaf in jax.tree.leaves(carry))))
        carry, _ = cell(carry, x)
    row = found.sel(layer="cell")
    np.testing.assert_allclose(row.log_gain_by_step, turns, atol=2e-6)
    np.testing.assert_allclose(row.log_gain, 0.5 * np.log(np.mean(np.exp(2 * np.array(turns)))), atol=2e-6)
    assert row.gain_method == "exact"
    layer, kernel = ("cell.hi", cell.hi.kernel) if kind is nnx.LSTMCell else ("cell.dense_h", cell.dense_h.kernel)
    within = np.full(STEPS, log_gain(kernel[...], 4))
    np.testing.assert_allclose(found.sel(layer=layer).log_gain_by_step, within, atol=2e-6)
    assert np.isnan(found.log_gain_by_step.sel(layer="input")).all()
    assert found.log_gain_by_step.attrs["units"] == "nat"


class Block(nnx.Module):
    """x + tanh of a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + jnp.tanh(self.linear(x))


class Stack(nnx.Module):
    """Blocks in a scan from the last to the first, whose forward pass is repeated in the backward one; or unrolled."""

    def __init__(self, scanned: bool) -> None:
        self.scanned = scanned
        self.blocks = nnx.split_rngs(splits=STEPS)(nnx.vmap(Block, in_axes=(0,), out_axes=0))(nnx.Rngs(0))

    def __call__(self, x: Array) -> Array:
        graph, state = nnx.split(self.blocks)

        def one(x: Array, state: Any) -> tuple[Array, None]:
            return nnx.merge(graph, state)(x), None

        if self.scanned:
            return jax.lax.scan(jax.checkpoint(one), x, state, reverse=True)[0]
        for i in range(STEPS)[::-1]:
            x, _ = one(x, jax.tree.map(lambda leaf, i=i: leaf[i], state))
        return x


def test_blocks_in_a_scan_are_those_of_the_unrolled_stack() -> None:
    x = 2.0 * X[:, 0, :4]
    found = gs.inspect(Stack(scanned=True), x, gains=True)
    wanted = gs.inspect(Stack(scanned=False), x, gains=True)
    for layer in ("blocks", "blocks.linear"):
        mine = [str(one).split("#")[0] == layer for one in wanted.layer.values]
        turns = wanted.log_gain.values[mine][::-1]
        np.testing.assert_allclose(found.log_gain_by_step.sel(layer=layer), turns, atol=2e-6)


def test_many_examples_are_measured_by_probes() -> None:
    x = 2.0 * jax.random.normal(jax.random.key(1), (200, 4))
    model = Stack(scanned=True)
    stacked = jax.tree.leaves(nnx.state(model.blocks))[::-1]
    row = gs.inspect(model, x, gains=True).sel(layer="blocks")
    assert row.gain_method == "probes"
    layer = jax.jit(lambda kernel, bias, x: x + jnp.tanh(x @ kernel + bias))
    jacobian = jax.jit(jax.vmap(jax.jacrev(layer, 2), (None, None, 0)))
    for i in range(STEPS)[::-1]:
        parameters = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        error = float(row.log_gain_error_by_step[i])
        assert 0 < error < 0.05
        assert abs(float(row.log_gain_by_step[i]) - log_gain(jacobian(*parameters, x), x.size)) < 4 * error
        x = layer(*parameters, x)
    assert 0 < row.log_gain_error <= row.log_gain_error_by_step.max()
