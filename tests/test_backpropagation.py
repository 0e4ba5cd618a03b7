"""Backward products, gradients and weight gradients against autodiff of the whole unrolled network."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax import Array
from unrolled import own_checks

import gradsim as gs
from gradsim import Network, initializers
from gradsim.engine.streams import network_keys

WIDTH, DEPTH, SEEDS, KEY, SIGMA_W, SIGMA_B = 6, 8, 2, 3, (0.8, 1.5), 0.3
EXACT = 1e-12  # nats, float64


class Reference(NamedTuple):
    """What autodiff finds of one network, and its weights and biases [steps, …]."""

    ws: Array
    bs: Array
    products: Array  # [from after so many steps, to after so many, n, n]
    gradients: Array  # [from after so many steps, n]
    by_parameter: tuple[Array, Array]  # of all layers' weights and biases
    by_shared: Array  # of one matrix at all steps after so many, [from, n, n]


class Case(NamedTuple):
    """One network differentiated as a whole, beside what gradsim measured of the same draws."""

    reference: Reference
    measured: xarray.Dataset
    forward: xarray.Dataset
    pairs: xarray.Dataset


def run(h: Array, ws: Array, bs: Array, start: Any = 0, end: Any = DEPTH) -> Array:
    """The state after `end` steps, from h after `start`: all steps are taken, so that any two of these may be given."""

    def step(h: Array, layer: tuple[Array, Array, Array]) -> tuple[Array, None]:
        w, b, i = layer
        return jnp.where((start <= i) & (i < end), jnp.tanh(h @ w + b), h), None

    return jax.lax.scan(step, h, (ws, bs, jnp.arange(DEPTH)))[0]


def loss(h: Array) -> Array:
    return jnp.sum(h**2)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def cases(request: pytest.FixtureRequest) -> list[Case]:
    network = gs.feedforward(WIDTH, tied=request.param)
    common: dict[str, Any] = {"depth": DEPTH, "seeds": SEEDS, "key": KEY, "sigma_b": SIGMA_B, "dtype": "float64"}
    names = ["log_gain", "log_spectral", "log_gradient", "log_weight_gradient"]
    names += ["log_weight_gradient_sum"] * request.param
    axis: dict[str, Any] = {"sigma_w": list(SIGMA_W)}
    every = range(1, DEPTH + 1)
    back = gs.sweep(network, direction="backward", statistics=names, loss=loss, at=every, **common, **axis)
    ahead = gs.sweep(network, **common, **axis)
    pairs = gs.partial_products(network, **common, **axis)
    places = [{"seed": seed, "sigma_w": sigma_w} for seed in range(SEEDS) for sigma_w in SIGMA_W]
    with jax.enable_x64(True):
        h, w, b = drawn(network, np.arange(SEEDS, dtype=np.uint32))
        sigma = np.array(SIGMA_W)[:, None, None, None]
        networks = [(h[seed], scaled, SIGMA_B * b[seed]) for seed in range(SEEDS) for scaled in sigma * w[seed]]
        found = jax.tree.map(np.asarray, references(*map(np.stack, zip(*networks, strict=True))))
    return [
        Case(jax.tree.map(lambda leaf: leaf[i], found), *(one.sel(place) for one in (back, ahead, pairs)))  # noqa: B023
        for i, place in enumerate(places)
    ]


@partial(jax.jit, static_argnames="network")  # compiled, as in a sweep: an operation at a time rounds otherwise
@partial(jax.vmap, in_axes=(None, 0))
def drawn(network: Network, seed: Array) -> tuple[Array, Array, Array]:
    keys = network_keys(jax.random.key(KEY), seed)
    steps = jnp.zeros(DEPTH, int) if network.tied else jnp.arange(DEPTH)
    weights = jax.vmap(lambda t: network.draw(jax.random.fold_in(keys.weights, t), "float64"))(steps)
    return initializers.normal(keys.once, (WIDTH,), "float64"), weights.w, weights.b


@jax.jit
@jax.vmap
def references(h: Array, ws: Array, bs: Array) -> Reference:
    """Autodiff of the whole unrolled network, from every step and to every step."""
    ends = jnp.arange(DEPTH + 1)
    starts = ends[:-1]
    begun = jax.vmap(lambda start: run(h, ws, bs, 0, start))(starts)

    def product(h: Array, start: Array) -> Array:
        return jax.vmap(lambda end: jax.jacrev(run)(h, ws, bs, start, end))(ends)

    def of_state(h: Array, start: Array) -> Array:
        return jax.grad(lambda h: loss(run(h, ws, bs, start)))(h)

    def of_shared(h: Array, start: Array) -> Array:
        return jax.grad(lambda w: loss(run(h, jnp.broadcast_to(w, ws.shape), bs, start)))(ws[0])

    return Reference(
        ws,
        bs,
        jax.vmap(product)(begun, starts),
        jax.vmap(of_state)(begun, starts),
        jax.grad(lambda ws, bs: loss(run(h, ws, bs)), argnums=(0, 1))(ws, bs),
        jax.vmap(of_shared)(begun, starts),
    )


def log_gain(jacobian: Array) -> float:
    return 0.5 * float(np.log(np.sum(np.square(jacobian)) / WIDTH))


def log_norm(gradient: Array) -> float:
    return float(np.log(np.linalg.norm(gradient)))


def compare(cases: list[Case], reference: Callable[[Reference, int], float], variable: str, **place: Any) -> None:
    for case in cases:
        expected = np.array([reference(case.reference, i) for i in range(DEPTH)])
        np.testing.assert_allclose(case.measured[variable].sel(**place), expected, rtol=0, atol=EXACT)


@pytest.mark.sampled(1)
def test_suffixes_equal_jacrev_of_the_whole_network(cases: list[Case]) -> None:
    compare(cases, lambda found, i: log_gain(found.products[i, DEPTH]), "log_gain")


@pytest.mark.further
def test_spectral_norm_of_suffixes(cases: list[Case]) -> None:
    compare(cases, lambda found, i: float(np.log(np.linalg.norm(found.products[i, DEPTH], 2))), "log_spectral")


def test_gradient_reaching_every_step_equals_grad(cases: list[Case]) -> None:
    compare(cases, lambda found, i: log_norm(found.gradients[i]), "log_gradient")


@pytest.mark.parametrize(("field", "place"), [("w", 0), ("b", 1)])
def test_weight_gradients_equal_grad(cases: list[Case], field: str, place: int) -> None:
    compare(cases, lambda found, i: log_norm(found.by_parameter[place][i]), "log_weight_gradient", parameter=field)


def test_the_norm_over_all_parameters_joins_the_fields(cases: list[Case]) -> None:
    for case in cases:
        fields = case.measured.log_weight_gradient
        joined = 0.5 * np.logaddexp(2 * fields.sel(parameter="w"), 2 * fields.sel(parameter="b"))
        np.testing.assert_allclose(fields.sel(parameter="all"), joined, rtol=0, atol=EXACT)


def test_tied_weights_sum_their_steps(cases: list[Case]) -> None:
    """The gradient of one shared matrix is the sum over its uses, from any step on."""
    if "log_weight_gradient_sum" not in cases[0].measured:
        assert (cases[0].reference.ws[0] != cases[0].reference.ws[1]).all()
        return
    assert (cases[0].reference.ws[0] == cases[0].reference.ws).all()
    compare(cases, lambda found, i: log_norm(found.by_shared[i]), "log_weight_gradient_sum", parameter="w")


def test_every_pair_of_steps_equals_jacrev(cases: list[Case]) -> None:
    for case in cases:
        measured = case.pairs.log_gain.transpose("start", "depth").to_numpy()
        for start in range(DEPTH):
            assert np.isnan(measured[start, :start]).all()
            expected = [log_gain(jacobian) for jacobian in case.reference.products[start, start + 1 :]]
            np.testing.assert_allclose(measured[start, start:], expected, rtol=0, atol=EXACT)


def test_prefix_and_suffix_meet_in_the_whole(cases: list[Case]) -> None:
    for case in cases:
        whole = float(case.forward.log_gain.sel(depth=DEPTH))
        assert whole == pytest.approx(float(case.measured.log_gain.sel(depth=1)), abs=EXACT)
        assert whole == pytest.approx(float(case.pairs.log_gain.sel(start=0, depth=DEPTH)), abs=EXACT)


def test_weight_gradients_continue_in_a_straight_line_below_the_floats() -> None:
    """A sigmoid network of 400 layers: the first layers' gradients lie near 1e-260, far below float32."""
    measured = gs.sweep(
        gs.feedforward(16, "sigmoid"), direction="backward", statistics="log_weight_gradient", depth=400, seeds=4
    )
    logs = measured.log_weight_gradient.sel(parameter="w").mean("seed")
    depth = measured.depth
    slopes = [
        float(logs.sel(depth=part).polyfit("depth", 1).polyfit_coefficients[0])
        for part in (slice(20, 150), slice(250, 380))
    ]
    assert float(logs.sel(depth=1)) < -400
    assert depth.size == 400
    assert slopes[0] == pytest.approx(slopes[1], rel=0.05)


@partial(jax.jit, static_argnums=(0, 1))
def drawn_one_by_one(network: Network, depth: int) -> tuple[Array, Array, Array]:
    """The weights and biases of so many steps, [steps, …], and the input."""
    keys = network_keys(jax.random.key(KEY), 0)
    of_steps = jax.vmap(partial(jax.random.fold_in, keys.weights))(jnp.arange(depth))
    weights = jax.lax.map(lambda key: network.draw(key, jnp.dtype("float32")), of_steps)
    return weights.w, weights.b, jax.random.normal(keys.once, (WIDTH,))


@pytest.mark.parametrize("sigma_w", [0.2, 6.0])
def test_weight_gradients_where_the_states_leave_the_floats(sigma_w: float) -> None:
    """Leaky ReLU states of 2**±250 in a float32 run, against backpropagation by hand in float64, which holds them."""
    depth, slope, sigma_b = 130, 0.01, 0.5 if sigma_w > 1 else 0.0
    network = gs.feedforward(WIDTH, "leaky_relu")
    measured = gs.sweep(
        network, direction="backward", statistics="log_weight_gradient", depth=depth, seeds=1, key=KEY,
        sigma_w=sigma_w, sigma_b=sigma_b, cotangent=np.ones(WIDTH),
    ).isel(seed=0)  # fmt: skip
    ws, bs, first = (np.asarray(some, np.float64) for some in drawn_one_by_one(network, depth))
    states = [first]
    zs = []
    for w, b in zip(ws, bs, strict=True):
        zs.append(sigma_w * states[-1] @ w + sigma_b * b)
        states.append(np.where(zs[-1] > 0, zs[-1], slope * zs[-1]))
    assert abs(np.log2(np.abs(states[-1]).max())) > 200
    gradient, expected = np.ones(WIDTH), np.empty((depth, 2))
    for t in reversed(range(depth)):
        gradient = gradient * np.where(zs[t] > 0, 1, slope)
        expected[t] = np.linalg.norm(np.outer(states[t], gradient)), np.linalg.norm(gradient)
        gradient = sigma_w * ws[t] @ gradient
    found = measured.log_weight_gradient.sel(parameter=["w", "b"]).transpose("depth", "parameter")
    np.testing.assert_allclose(found, np.log(expected), rtol=0, atol=1e-3)


def test_a_given_cotangent_equals_the_loss_it_comes_from() -> None:
    cotangent = np.linspace(-1, 1, WIDTH)
    network = gs.feedforward(WIDTH)
    common: dict[str, Any] = {"depth": 5, "seeds": 2, "direction": "backward", "statistics": "log_gradient"}
    given = gs.sweep(network, cotangent=cotangent, **common)
    through_loss = gs.sweep(network, loss=lambda h: jnp.dot(h, jnp.asarray(cotangent, h.dtype)), **common)
    np.testing.assert_allclose(given.log_gradient, through_loss.log_gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cotangent": np.ones(WIDTH + 1)}, "cotangent: got shape"),
        ({"cotangent": (np.ones(WIDTH), np.ones(WIDTH))}, "cotangent: got a tree"),
        ({"cotangent": np.full(WIDTH, np.nan)}, "cotangent: got NaN, inf or nothing but zeros"),
        ({"cotangent": np.ones(WIDTH) * 1j}, "cotangent: got shape .* of complex128; pass real numbers"),
        ({"cotangent": np.full(WIDTH, 1e300)}, "cotangent: got 1e\\+300, beyond float32"),
        ({"cotangent": np.ones(WIDTH), "statistics": "log_gain"}, "cotangent: log_gain do not read the gradient"),
        ({"loss": loss, "statistics": "log_gain"}, "loss: log_gain do not read the gradient"),
        ({"cotangent": np.ones(WIDTH), "loss": loss}, "pass one of the two"),
        ({"loss": lambda h: h}, "loss: it returns"),
        ({"loss": lambda h: h @ jnp.ones(3)}, "loss: JAX cannot evaluate it"),
        ({"loss": 3}, "loss: got 3"),
        ({"direction": "forward", "loss": loss}, "pass direction='backward'"),
        ({"direction": "sideways"}, "direction: got 'sideways'"),
        ({"statistics": "log_jvp"}, "needs direction='forward'"),
        ({"direction": "forward", "statistics": "log_gradient"}, "needs direction='backward'"),
        ({"statistics": "log_weight_gradient_sum"}, "needs tied weights"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with own_checks(), pytest.raises((ValueError, TypeError), match=message):
        gs.sweep(
            gs.feedforward(WIDTH),
            depth=3,
            seeds=1,
            **{"direction": "backward", "statistics": "log_gradient", **options},
        )
