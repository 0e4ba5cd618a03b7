"""The models of the inspection script: the form in which they are trained computes what they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradsim as gs
from gradsim.cli import own_models
from gradsim.cli.flax_models import PIXELS, Sizes, make, split


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["transformer_pre", "transformer_post", "mlp"])
def test_a_model_taken_apart_is_the_model(name: str) -> None:
    x = jax.random.normal(jax.random.key(1), (3, PIXELS))
    made = make(name, Sizes(width=4, layers=3, blocks=3, length=64), 0, x)
    parts = split(made)
    with jax.numpy_dtype_promotion("standard"):  # flax mixes dtypes
        found, _ = jax.jit(parts.call)(parts.parameters, parts.state, x)
        wanted = jax.jit(lambda x: made.model(x))(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_blocks_of_a_transformer_are_one_loop() -> None:
    """A deeper one is no larger a program."""
    x, lengths = jnp.zeros((2, PIXELS)), set()
    for blocks in (2, 5):
        parts = split(make("transformer_pre", Sizes(width=4, layers=1, blocks=blocks, length=64), 0, x))
        with jax.numpy_dtype_promotion("standard"):
            lengths.add(len(jax.make_jaxpr(parts.call)(parts.parameters, parts.state, x).eqns))
    assert len(lengths) == 1


@pytest.mark.further
def test_the_benchmark_times_inspections_and_steps_that_are_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    with jax.numpy_dtype_promotion("standard"):
        row = own_models.inspected("three layers", lambda: own_models.Stack(4, 3), (2, 4), 1)
        rows = own_models.tracked(1, width=4, layers=2, batch=3)
        say_when = own_models.training(gs.track_gradients(own_models.OPTIMIZERS["sgd"], every=100), True, 4, 2, 3)
        _, state = [say_when() for _ in range(3)][-1]
    assert row["times"] == row["seconds"]["gs.inspect"] / row["seconds"]["jax.grad"] > 0
    assert [one["name"] for one in rows] == list(own_models.OPTIMIZERS)
    assert gs.gradient_records(state).step.values.tolist() == [0, 10, 20]
    assert "three layers" in capsys.readouterr().out
