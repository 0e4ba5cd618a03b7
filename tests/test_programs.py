"""What is compiled does not change what is measured: levels of optimization, sizes that share a program, draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import gradsim as gs
from gradsim.cli.compiling import families
from gradsim.draws import GAUSSIAN, Part, Transform, interval, together
from gradsim.engine.plan import planned
from gradsim.engine.streams import ahead, extent, network_keys
from gradsim.networks.network import Network
from gradsim.sweeps import chunks, effort, loop

# One ends a process with jaxlib 0.12, and is that release's only choice.
EMITTERS = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}
# 1e-7 has been seen where a machine takes the sums within a step in another order.
ROUNDED = {"attention": 1e-6, "lstm": 1e-6, "s4d": 2e-7, "mamba": 2e-7}
# Their steps are made of the same operations as those of others.
ALIKE = (
    "antisymmetric_rnn", "cornn", "indrnn", "min_gru", "min_lstm", "mlstm", "mamba2", "retnet", "rwkv6", "rwkv7",
    "slstm", "transformer",
)  # fmt: skip
SMALL: dict[str, Any] = {"depth": 5, "seeds": 1, "progress": False}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The plan, tiling and number of networks of each call of a program."""
    calls: list[tuple[Any, ...]] = []
    chosen = loop.program

    def program(*choice: Any) -> Any:
        def call(plan: Any, tiling: Any, gains: Any, drawn: Any, *others: Any) -> Any:
            calls.append((plan, tiling, drawn.normals.shape))
            return chosen(*choice)(plan, tiling, gains, drawn, *others)

        return call

    monkeypatch.setattr(loop, "program", program)
    return calls


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "network", [one for one in families() if one.family not in ALIKE], ids=lambda network: network.family
)
def test_every_effort_of_the_compiler_measures_the_same(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both levels bit for bit at width 64; where a row does not fill the machine's vectors, 2e-7 apart.

    Without the emitters gates round otherwise.
    """

    def measured(options: dict[str, Any]) -> Any:
        jitted = jax.jit(loop._measure, static_argnames=("plan", "tiling"), compiler_options=options)
        monkeypatch.setitem(loop._MEASURE, "brief", jitted)
        return gs.sweep(network, statistics=("log_gain", "length"), **SMALL)

    one, default = (measured({"xla_backend_optimization_level": level, **EMITTERS}) for level in (1, 3))
    brief = measured(effort.BRIEF)
    for name in ("log_gain", "length"):
        np.testing.assert_allclose(one[name], default[name], rtol=0, atol=ROUNDED.get(network.family, 0))
        np.testing.assert_allclose(brief[name], default[name], rtol=0, atol=1e-6)


def test_the_effort_is_what_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(gs.feedforward(64), depth=50, statistics="log_jvp")
    one, many = (chunks.plan_chunk(plan, cells=cells, seeds=300) for cells in (1, 400))
    assert effort.effort(plan, one, 1) == "brief"
    assert effort.effort(plan, one, 1000) == "default"  # mostly drawing, for long
    assert effort.effort(plan, many, 1000) == "level 1"
    assert loop.program(one._replace(effort="brief")) is loop._MEASURE["brief"]
    monkeypatch.setattr(jax, "local_devices", lambda: [type("Device", (), {"platform": "gpu"})])
    assert loop.program(one._replace(effort="brief")) is loop._MEASURE["default"]  # of a store that a CPU began


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "family", [gs.feedforward(8), gs.vanilla_rnn(8), gs.lstm(8, tied=False)], ids=lambda one: one.family
)
def test_one_more_seed_or_layer_runs_the_same_program_and_changes_nothing(
    family: Network, counted: list[tuple[Any, ...]]
) -> None:
    few = gs.sweep(family, depth=101, seeds=9, progress=False)
    more = gs.sweep(family, depth=102, seeds=10, progress=False)
    assert counted[0] == counted[1]
    assert few.sizes[family.axis] == 101
    assert few.sizes["seed"] == 9
    np.testing.assert_array_equal(more["log_gain"].values[:9, :101], few["log_gain"])


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (gs.residual(8, scaling="inverse_depth", layers=5), {}),
        (gs.feedforward(8), {"direction": "backward", "statistics": "log_gradient"}),
    ],
    ids=["scaled by the depth", "backward"],
)
def test_where_the_depth_counts_no_step_is_added(
    network: Network, options: dict[str, Any], counted: list[tuple[Any, ...]]
) -> None:
    gs.sweep(network, **SMALL, **options)
    assert counted[0][0].depth == 5


def test_long_measurements_are_not_made_longer() -> None:
    plan = planned(gs.feedforward(64), depth=50, statistics="log_gain")
    padded = chunks.padded(plan, cells=1000, seeds=100)
    assert padded.depth == 50
    assert chunks.padded(plan, cells=1, seeds=1).depth == 64


def test_draws_are_a_function_of_key_seed_and_step_alone() -> None:
    network, keys = gs.vanilla_rnn(8), network_keys(random.key(3), 5)
    hashed = jax.jit(ahead, static_argnums=1)
    few, many = (
        drawn._replace(weights=random.key_data(drawn.weights))
        for drawn in (hashed(keys, extent(network, steps, given=False)) for steps in (64, 128))
    )
    for one, other in ((few.weights, many.weights), (few.inputs, many.inputs)):
        np.testing.assert_array_equal(one, np.asarray(other)[: len(one)])
        assert len(np.unique(other, axis=0)) == len(other)
    np.testing.assert_array_equal(few.normals, many.normals)
    by_hand = [random.normal(random.fold_in(keys.inputs, step), (8,)) for step in range(4)]
    np.testing.assert_array_equal(np.asarray(few.inputs)[:4], by_hand)
    of_inputs = random.key_data(jax.jit(jax.vmap(random.fold_in, (None, 0)))(keys.inputs, np.arange(128)))
    assert not (np.asarray(many.weights)[:, None] == np.asarray(of_inputs)[None]).all(axis=2).any()


def test_inputs_too_many_to_be_held_are_the_same() -> None:
    network, options = gs.vanilla_rnn(4, features=4096), dict[str, Any](statistics="log_length", seeds=3)
    held, read = (gs.sweep(network, depth=depth, **options).log_length.values[:, :64] for depth in (64, 65))
    assert [extent(network, depth, given=False).shape for depth in (64, 65)] == [(4096,), None]
    np.testing.assert_array_equal(held, read)


SQUARE = Transform(lambda z, shape, dtype: z.reshape(shape).astype(dtype) ** 2)
PARTS = (
    Part(interval(-1.0, 3.0), (7,)),
    Part(GAUSSIAN, (5, 3)),
    Part(random.exponential, (4,)),
    Part(GAUSSIAN, (2, 2), copies=3),
    Part(SQUARE, (6,)),
)


def test_parts_drawn_together_are_independent_and_keep_their_laws() -> None:
    """Means, variances and all correlations of 20,000 draws, within 5 standard errors."""
    many = jax.jit(jax.vmap(lambda key: together(key, jnp.float32, *PARTS)))
    drawn = many(random.split(random.key(0), 20_000))
    assert [leaf.shape[1:] for leaf in drawn] == [(7,), (5, 3), (4,), (3, 2, 2), (6,)]
    for leaf, mean, variance in zip(drawn, (1, 0, 1, 0, 1), (4 / 3, 1, 1, 1, 2), strict=True):
        entries = np.asarray(leaf, np.float64).reshape(20_000, -1)
        np.testing.assert_allclose(entries.mean(axis=0), mean, rtol=0, atol=5 * np.sqrt(variance / 20_000))
        spread = entries.var(axis=0)
        fourth = ((entries - entries.mean(axis=0)) ** 4).mean(axis=0) - spread**2
        np.testing.assert_array_less(np.abs(spread - variance), 5 * np.sqrt(fourth / 20_000))
    every = np.concatenate([np.asarray(leaf, np.float64).reshape(20_000, -1) for leaf in drawn], axis=1)
    apart = np.corrcoef(every.T) - np.eye(every.shape[1])
    assert np.abs(apart).max() < 5 / np.sqrt(20_000)
    squares = np.corrcoef(every.T**2) - np.eye(every.shape[1])  # and what is uncorrelated may still depend
    assert np.abs(squares).max() < 5 / np.sqrt(20_000)


def test_a_part_is_the_same_whatever_the_dtype() -> None:
    """An interval about zero and what is normal to the bit; a sum has its own rounding."""
    parts = (*PARTS[:2], Part(interval(-2.0, 2.0), (9,)))
    with jax.enable_x64(True):
        drawn = jax.jit(together, static_argnums=(1, 2, 3, 4))
        wide, narrow = (drawn(random.key(1), dtype, *parts) for dtype in (jnp.float64, jnp.float32))
    for one, other, apart in zip(wide, narrow, (2 * 2.0**-23, 0, 0), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=apart)


OWN = gs.Initializer(
    "own",
    lambda key, shape, dtype: random.normal(key, shape, dtype) / np.float32(np.sqrt(shape[0])),
    draw_bias=lambda key, shape, dtype: random.normal(key, shape, dtype),
)


OF_OWN = [
    *(family(4, "tanh", OWN) for family in (gs.feedforward, gs.residual, gs.highway, gs.layernorm)),
    gs.batchnorm(4, 4, "tanh", OWN),
    gs.convolutional(4, 4, initializer=OWN),
    *(gs.attention(4, 2, 3, mlp=mlp, initializer=OWN) for mlp in (0, 2)),
    *(cell(4, initializer=OWN, input_initializer=OWN) for cell in (gs.vanilla_rnn, gs.minimal_rnn, gs.lstm, gs.gru)),
]


@pytest.mark.parametrize("network", OF_OWN, ids=lambda network: network.family)
def test_laws_of_ones_own_alone_draw_every_weight_apart(network: Network) -> None:
    weights = network.draw(random.key(0), jnp.dtype("float32"))
    drawn = {name: leaf for name, leaf in weights._asdict().items() if name != "log_time"}  # of uniform numbers
    entries = np.concatenate([np.ravel(leaf) for leaf in drawn.values()])
    assert np.isfinite(entries).all()
    assert len(np.unique(entries)) == len(entries)
