"""The gains of layers in a scan, turn by turn, are those of the same layers one after the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inspected import drawn
from jax import Array

import gradsim as gs

STEPS = 3
X = np.asarray(drawn(0, 3, STEPS, 5))


def log_gain(jacobian: Any, entries: int) -> float:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(jacobian)]
    return float(0.5 * np.log(sum(np.sum(leaf**2) for leaf in leaves) / entries))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", [nnx.SimpleCell, nnx.LSTMCell])
def test_cells_of_a_recurrence(kind: Any) -> None:
    """Against the Jacobian of the cell's carry, which its output is a part of, by its carry and input."""
    cell = kind(5, 4, rngs=nnx.Rngs(0))
    found = gs.inspect(nnx.RNN(cell), X, gains=True)

    @nnx.jit
    def turn(carry: Any, x: Array) -> Any:
        both = jax.jacrev(lambda carry, x: (cell(carry, x)[0],) * 2, (0, 1), has_aux=True)
        return both(carry, x)

    carry = cell.initialize_carry(X[:, 0].shape, nnx.Rngs(0))
    turns = []
    for x in np.swapaxes(X, 0, 1):
        entries = x.size + sum(leaf.size for leaf in jax.tree.leaves(carry))
        jacobian, carry = turn(carry, x)
        turns.append(log_gain(jacobian, entries))
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
    """Blocks in a scan from the last to the first, whose forward pass is repeated in the backward one."""

    def __init__(self) -> None:
        self.blocks = nnx.split_rngs(splits=STEPS)(nnx.vmap(Block, in_axes=(0,), out_axes=0))(nnx.Rngs(0))

    def __call__(self, x: Array) -> Array:
        graph, state = nnx.split(self.blocks)

        def one(x: Array, state: Any) -> tuple[Array, None]:
            return nnx.merge(graph, state)(x), None

        return jax.lax.scan(jax.checkpoint(one), x, state, reverse=True)[0]


class Unrolled(nnx.Module):
    """The same, one after the other."""

    def __init__(self, stack: Stack) -> None:
        graph, state = nnx.split(stack.blocks)
        rows = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], state) for i in range(STEPS)]
        self.blocks = nnx.List([nnx.merge(graph, row) for row in rows])

    def __call__(self, x: Array) -> Array:
        for block in list(self.blocks)[::-1]:
            x = block(x)
        return x


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack()


def test_blocks_in_a_scan_are_those_of_the_unrolled_stack(stack: Stack) -> None:
    x = np.float32(2) * X[:, 0, :4]
    found = gs.inspect(stack, x, gains=True)
    wanted = gs.inspect(Unrolled(stack), x, gains=True)
    for part in ("", ".linear"):
        turns = wanted.log_gain.sel(layer=[f"blocks.{i}{part}" for i in range(STEPS)])
        np.testing.assert_allclose(found.log_gain_by_step.sel(layer=f"blocks{part}"), turns, atol=2e-6)


def test_many_examples_are_measured_by_probes(stack: Stack) -> None:
    x = 2.0 * drawn(1, 200, 4)
    stacked = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(stack.blocks))[::-1]]
    row = gs.inspect(stack, x, gains=True).sel(layer="blocks")
    assert row.gain_method == "probes"

    @jax.jit
    def layer(kernel: Array, bias: Array, x: Array) -> Any:
        def one(x: Array) -> tuple[Array, Array]:
            return (x + jnp.tanh(x @ kernel + bias),) * 2

        return jax.vmap(jax.jacrev(one, has_aux=True))(x)

    for i in range(STEPS)[::-1]:
        parameters = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        error = float(row.log_gain_error_by_step[i])
        assert 0 < error < 0.05
        jacobian, x = layer(*parameters, x)
        assert abs(float(row.log_gain_by_step[i]) - log_gain(jacobian, x.size)) < 4 * error
    assert 0 < row.log_gain_error <= row.log_gain_error_by_step.max()
