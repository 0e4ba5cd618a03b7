"""What `gradient_records` reads of an optimizer's state, its summary, and its figure."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray
from jax import Array, lax, random
from tracked import PARAMS, once, run
from unrolled import own_checks
from wrong import KINDS, refused, refused_each

import gradsim as gs
from gradsim.tracking.track import Tracked


def made(**changes: Any) -> xarray.Dataset:
    """Records of three parameters over four steps, all of which learn."""
    base = {"log_gradient": -3.0, "log_update": -5.0, "log_parameter": 0.0, "log_ratio": -5.0, "zeros": 0,
            "non_finite": 0, "non_finite_update": 0}  # fmt: skip
    values = {name: (("step", "parameter"), np.full((4, 3), value)) for name, value in base.items()}
    coords = {"step": [0, 10, 20, 30], "parameter": ["x", "y", "z"], "log_rounding": ("parameter", np.full(3, -16.6))}
    dataset = xarray.Dataset(values, coords)
    for name, (step, parameter, value) in changes.items():
        dataset[name].loc[{"step": slice(step, None), "parameter": parameter}] = value
    return dataset


def test_a_summary_says_who_does_not_learn_in_one_warning() -> None:
    fine = gs.gradient_summary(made(log_gradient=(30, "x", -np.inf)))  # one record of four is a moment's
    assert fine.status.values.tolist() == ["learns"] * 3
    assert fine.vanished.values.tolist() == [0.25, 0, 0]
    assert np.isnan(fine.since).all()
    with pytest.warns(RuntimeWarning) as caught:
        said = gs.gradient_summary(
            made(log_gradient=(10, "x", -np.inf), log_ratio=(0, "y", -20.0), non_finite=(20, "z", 3))
        )
    assert said.status.values.tolist() == ["vanished", "vanished", "non-finite"]
    assert said.since.values.tolist() == [10, 0, 20]
    assert len(caught) == 1
    assert str(caught[0].message) == (
        "gradient_summary: 1 of 3 parameters are non-finite (not finite), z since update 20; 2 of 3 parameters have "
        "vanished (no gradient, or updates below rounding), x since update 10"
    )


def test_steps_without_any_update_are_no_vanishing() -> None:
    """As those between the updates of MultiSteps, or of a warm-up that begins at zero."""
    still = made()
    still["log_update"][:3] = still["log_ratio"][:3] = -np.inf
    assert gs.gradient_summary(still).status.values.tolist() == ["learns"] * 3


def test_a_deep_sigmoid_network_has_vanished_where_its_norms_say() -> None:
    start = jax.nn.initializers.lecun_normal(batch_axis=0)
    params = {"w": start(random.key(0), (60, 16, 16))}

    def loss(params: Any) -> Array:
        x, _ = lax.scan(lambda x, w: (jax.nn.sigmoid(x @ w), None), jnp.ones(16), params["w"])
        return jnp.sum(x**2)

    optimizer = gs.track_gradients(optax.sgd(0.1), every=1, stacked="w")
    records = gs.gradient_records(once(optimizer, jax.jit(jax.grad(loss))(params), params))
    growth = np.diff(records.log_gradient.values[0])
    assert abs(growth[-40:].mean() - 1.5) < 0.3  # a factor of some 4 a layer, though squares underflow
    assert records.log_gradient.min() < -70
    with pytest.warns(RuntimeWarning, match=r"of 60 parameters have vanished"):
        gs.gradient_summary(records)


@pytest.fixture
def no_checker() -> Iterator[None]:
    with own_checks():
        yield


def test_states_and_records_of_another_kind_are_refused(no_checker: None) -> None:
    sgd = optax.sgd(0.1)
    fresh = gs.track_gradients(sgd).init(PARAMS)
    refused_each("state", [None, 3, "x", {}, [], sgd.init(PARAMS), sgd, fresh, KINDS["dataset"][-1],
                           gs.track_gradients(sgd).init({"n": jnp.arange(3)})], gs.gradient_records)  # fmt: skip
    both, logs, counts = (jnp.stack([x, x]) for x in (fresh.steps, fresh.logs, fresh.counts))
    for recorded, moved in (([1, 2], 0), ([1, 1], 1)):  # members that differ in how many, and in which
        steps = both.at[1, 0].add(moved)
        members = Tracked(fresh.inner, jnp.ones(2, int), jnp.asarray(recorded), steps, logs, counts, fresh.rows)
        refused("state", lambda members=members: gs.gradient_records(members))  # type: ignore[misc]
    one, two = (gs.track_gradients(sgd, every=every) for every in (1, 2))
    w = {"w": jnp.ones(3)}
    refused("state", lambda: gs.gradient_records(run(optax.chain(one, two), 3, lambda _: w, w)[1]))
    for call in (gs.gradient_summary, gs.plot.gradient_records):
        refused_each("records", "dataset", call)
        refused("records", lambda call=call: call(made().drop_vars("zeros")))  # type: ignore[misc]
        refused("records", lambda call=call: call(made().isel(step=0)))  # type: ignore[misc]
        refused("records", lambda call=call: call(made().isel(step=[])))  # type: ignore[misc]


def test_a_figure_shows_what_is_zero_and_what_is_not_finite() -> None:
    one = made(log_gradient=(10, "x", -np.inf), non_finite=(20, "z", 3))
    figure: Any = gs.plot.gradient_records(one)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exactly zero", "not finite"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["x", "y", "z"]
    assert not gs.plot.gradient_records(made()).legends
    members = xarray.concat([made(), one], "member")
    assert len(gs.plot.gradient_records(members).legends) == 1
