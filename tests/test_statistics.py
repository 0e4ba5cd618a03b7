"""Statistics: those of one's own, and those that a network does not have."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from unrolled import own_checks

import gradsim as gs
from gradsim import Statistic, scaled
from gradsim.engine import statistics
from gradsim.engine.rounding import is_narrow
from gradsim.engine.statistic import View
from gradsim.engine.statistics import STATISTICS
from gradsim.engine.trial import try_statistic
from gradsim.scaled import Scaled


def mean_of(view: View) -> Array:
    return jnp.mean(view.preactivations[0])


MEAN = Statistic("mean", "mean preactivation", "1", mean_of)
OPTIONS: dict[str, Any] = {"depth": 3, "seeds": 2}


def sweep(network: gs.Network, wanted: Any, **options: Any) -> Any:
    with own_checks():
        return gs.sweep(network, statistics=wanted, **OPTIONS, **options)


def test_an_own_statistic_may_return_a_plain_array_beside_a_name() -> None:
    def product(view: View) -> Array:
        assert view.product is not None
        return jnp.ldexp(jnp.sqrt(view.product.squares / 5), view.product.exponent)

    gain = Statistic("gain", "gain", "1", product, ("all",))
    measured = sweep(gs.feedforward(5, "tanh"), ["log_gain", gain, MEAN])
    np.testing.assert_allclose(np.log(measured.gain), measured.log_gain, atol=1e-5)
    assert measured["mean"].dims == ("seed", "depth")
    assert np.unique(measured["mean"]).size == 6


def test_a_costly_statistic_may_return_a_plain_array() -> None:
    late = Statistic("late", "mean preactivation at some depths", "1", mean_of, costly=True)
    measured = sweep(gs.feedforward(5, "tanh"), [late, MEAN], at=2)
    np.testing.assert_array_equal(measured.late.sel(depth=2), measured["mean"].sel(depth=2))
    assert bool(measured.late.sel(depth=[1, 3]).isnull().all())


def test_get_takes_names_and_statistics_each_once() -> None:
    assert statistics.get(["length", MEAN, "length", MEAN]) == (STATISTICS["length"], MEAN)
    assert statistics.get(MEAN) == (MEAN,)
    assert statistics.get([STATISTICS["length"], "length"]) == (STATISTICS["length"],)


@pytest.mark.parametrize(
    ("wanted", "direction", "message"),
    [
        ([MEAN, Statistic("mean", "another", "1", mean_of)], "forward", "got two different ones named 'mean'; pass"),
        ([Statistic("x", "x", "1", mean_of, directions=("backward",))], "forward", "'x' needs direction='backward'"),
        ([STATISTICS["log_jvp"]], "backward", "'log_jvp' needs direction='forward'"),
    ],
)
def test_get_refuses(wanted: Any, direction: str, message: str) -> None:
    with own_checks(), pytest.raises(ValueError, match=f"^statistics: {message}"):
        statistics.get(wanted, direction)


@pytest.mark.parametrize(
    ("network", "name", "why"),
    [
        (gs.linear_recurrence(4), "slope", "it has no activation"),
        (gs.attention(4, mlp=0), "saturated", "it has no activation"),
        (gs.feedforward(4), "token_spread", r"its state is not \[tokens, width\]"),
    ],
)
def test_what_a_network_does_not_have_is_refused_with_the_reason(network: gs.Network, name: str, why: str) -> None:
    with (
        own_checks(),
        pytest.raises(ValueError, match=f"^statistics: '{name}' is not there for {network.family}: {why}"),
    ):
        gs.sweep(network, statistics=name, **OPTIONS)


def test_a_reason_of_ones_own() -> None:
    picky = Statistic("picky", "x", "1", mean_of, missing=lambda network: "it is not mine")
    with own_checks(), pytest.raises(ValueError, match=r"'picky' is not there for feedforward: it is not mine"):
        sweep(gs.feedforward(4), picky)


WRONG: list[tuple[Any, str]] = [
    (lambda view: view.preactivations[0], r"measures float32 of shape \[4\]; measure must .* of shape \[\]"),
    (lambda view: view.product.squares, r"cannot be measured \(AttributeError: .*; measure must return"),
    (lambda view: None, r"cannot be measured \(.*; measure must return"),
    (lambda view: "a", r"cannot be measured \(.*; measure must return"),
    (lambda view: Scaled(jnp.ones(()), jnp.zeros(3, jnp.int32)), r"measures int32 of shape \[3\]; measure"),
    (lambda view: Scaled(jnp.ones(()), jnp.zeros(())), r"(measures float32 of shape \[\]|cannot be .*); measure"),
    (lambda view: Scaled((jnp.ones(()),), jnp.int32(0)), r"cannot be measured"),
]


@pytest.mark.parametrize(("measure", "message"), WRONG)
@pytest.mark.parametrize("costly", [False, True])
def test_what_measures_something_else_is_refused_by_name(measure: Any, message: str, costly: bool) -> None:
    own = Statistic("own", "own", "1", measure, costly=costly)
    with own_checks(), pytest.raises(ValueError, match=f"^statistics: 'own' {message}") as caught:
        try_statistic(gs.feedforward(4), own, "forward", "float32")
    assert "\n" not in str(caught.value)


def test_by_parameter_gives_one_number_for_each_and_one_for_all() -> None:
    def norms(view: View) -> Array:
        found = [scaled.norm(view.weight_gradients[name]) for name in view.network.parameters]
        each = jnp.stack([jnp.ldexp(one.mantissa, one.exponent) for one in found])
        return jnp.concatenate([jnp.sqrt(jnp.sum(each**2))[None], each])

    options: dict[str, Any] = {"needs": ("one", "weights"), "directions": ("backward",), "by_parameter": True}
    own = Statistic("own", "own", "1", norms, **options)
    measured = sweep(gs.feedforward(4), [own, "log_weight_gradient"], direction="backward")
    np.testing.assert_allclose(np.log(measured.own), measured.log_weight_gradient, atol=1e-5)
    one = Statistic("own", "own", "1", lambda view: jnp.ones(()), **options)
    with pytest.raises(ValueError, match=r"'own' measures float32 of shape \[\]; .* of shape \[3\]"):
        try_statistic(gs.feedforward(4), one, "backward", "float32")


class NoHash:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, view: View) -> Array:
        return jnp.ones(())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"name": "seed"}, "name"),
        ({"long_name": None}, "long_name"),
        ({"units": 1}, "units"),
        ({"measure": None}, "measure"),
        ({"measure": NoHash()}, "measure"),
        ({"needs": "all"}, "needs"),
        ({"needs": ["all"]}, "needs"),
        ({"needs": ("everything",)}, "needs"),
        ({"needs": ("weights",), "directions": ("backward",)}, "needs"),
        ({"needs": ("one", "weights")}, "needs"),
        ({"logarithm": 3}, "logarithm"),
        ({"costly": "yes"}, "costly"),
        ({"by_parameter": None}, "by_parameter"),
        ({"directions": ()}, "directions"),
        ({"directions": ("sideways",)}, "directions"),
        ({"directions": "forward"}, "directions"),
        ({"missing": "attention"}, "missing"),
    ],
)
def test_fields_of_another_kind_are_refused_at_construction(fields: dict[str, Any], name: str) -> None:
    given: dict[str, Any] = {"name": "own", "long_name": "own", "units": "1", "measure": mean_of, **fields}
    with own_checks(), pytest.raises((TypeError, ValueError), match=f"^{name}: got .*; pass |^{name}: .* has no hash"):
        Statistic(**given)


def test_a_statistic_named_like_a_gain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^statistics: 'sigma_w' is a gain of feedforward"):
        try_statistic(gs.feedforward(4), Statistic("sigma_w", "x", "1", mean_of), "forward", "float32")


def holed(z: Array) -> Array:
    """tanh, but for some numbers."""
    return jnp.where((z > 1.31) & (z < 1.49), jnp.nan, jnp.tanh(z))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_statistic_has_a_number_for_a_network_that_is_lost(dtype: str) -> None:
    """Its singular values were those of zero, and none of its units saturated."""
    network = gs.feedforward(8, holed)
    chosen = [
        name
        for name, one in STATISTICS.items()
        if "forward" in one.directions
        and not one.of_pair
        and one.missing(network) is None
        and (dtype == "bfloat16" or not is_narrow(one))
    ]
    assert {"log_singular_values", "log_spectral", "log_jvp", "saturated", "slope", "length"} <= set(chosen)
    with own_checks(), pytest.warns(RuntimeWarning, match="left the range of floats"):
        data = gs.sweep(network, depth=4, seeds=8, sigma_w=1.5, statistics=chosen, at=[1, 2, 3, 4], dtype=dtype)
    lost = np.isnan(data.log_gain.values)
    assert 4 < lost.sum() < 28
    for name in set(data.data_vars) - {"dead", *(f"{one}_lost" for one in data.data_vars)}:
        values = data[name].transpose("seed", "depth", ...).values
        assert np.isnan(values[lost]).all(), name
        assert not np.isnan(values[~lost]).all(), name
