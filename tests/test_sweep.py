"""Sweeps: the shape and labels of what comes back, and what its numbers depend on."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unrolled import own_checks

import gradsim as gs
from gradsim.sweeps.dataset import described

WIDTH = 6
NETWORK = gs.feedforward(WIDTH, "tanh")
LINEAR = gs.feedforward(WIDTH, "identity")
RELU = gs.feedforward(WIDTH, "relu")
HE = gs.feedforward(WIDTH, "relu", "he_normal")
TWO_GAINS: dict[str, Any] = {"depth": 6, "seeds": 2, "dtype": "float64", "statistics": ("log_gain", "log_jvp")}
TIED = gs.feedforward(WIDTH, "identity", "orthogonal", tied=True)
KEEPS_LENGTHS = gs.feedforward(WIDTH, "identity", "orthogonal")
THREE = ("log_gain", "log_jvp", "length")
ALL = ("log_gain", "log_jvp", "log_spectral", "length", "log_length", "slope", "saturated")


def sweep(network: Any = NETWORK, **options: Any) -> xarray.Dataset:
    return gs.sweep(network, **{"depth": 4, "seeds": 3, **options})


@pytest.fixture(scope="module")
def labelled() -> xarray.Dataset:
    networks = {"tanh": NETWORK, "relu": HE}
    return sweep(networks, statistics=ALL, sigma_b=[0.0, 0.5], sigma_w=np.array([0.5, 1.0, 2.0]), key=7)


def test_dimensions_come_in_the_order_given(labelled: xarray.Dataset) -> None:
    for name in (*ALL, "dead"):
        assert labelled[name].dims == ("network", "sigma_b", "sigma_w", "seed", "depth"), name
        assert labelled[name].shape == (2, 2, 3, 3, 4), name
        assert labelled[name].dtype == (bool if name == "dead" else np.float64)


def test_coordinates_are_the_points(labelled: xarray.Dataset) -> None:
    np.testing.assert_array_equal(labelled.sigma_w, [0.5, 1.0, 2.0])
    np.testing.assert_array_equal(labelled.sigma_b, [0.0, 0.5])
    np.testing.assert_array_equal(labelled.seed, [0, 1, 2])
    np.testing.assert_array_equal(labelled.depth, [1, 2, 3, 4])
    assert list(labelled.network.values) == ["tanh", "relu"]
    assert labelled.depth.attrs["units"] == "layer"
    for name in ("sigma_w", "sigma_b"):
        assert labelled[name].attrs["units"] == "1"
        assert "σ" in labelled[name].attrs["long_name"]


def test_variables_carry_names_and_units(labelled: xarray.Dataset) -> None:
    for name in ALL:
        assert labelled[name].attrs["long_name"]
        assert labelled[name].attrs["units"] == ("nat" if name.startswith("log_") else "1")
    assert labelled.dead.attrs["long_name"]


def test_attributes_say_where_the_numbers_came_from(labelled: xarray.Dataset) -> None:
    for name in ("gradsim_version", "gradsim_commit", "jax_version", "device", "command", "created"):
        assert isinstance(labelled.attrs[name], str), name
    assert labelled.attrs["key"] == 7
    assert labelled.attrs["dtype"] == "float32"
    assert labelled.attrs["direction"] == "forward"
    about = described(labelled)
    assert list(about) == ["tanh", "relu"]
    assert about["tanh"]["family"] == "feedforward"
    assert (about["relu"]["activation"], about["relu"]["initializer"]) == ("relu", "he_normal")
    # What a Dataset stores must be plain.
    assert all(isinstance(value, str | int | float) for value in labelled.attrs.values())
    assert all(isinstance(name, str) for name in labelled.attrs)


def test_names_of_networks_do_not_overwrite_the_provenance() -> None:
    clash = sweep({"key": NETWORK, "dtype": HE}, key=5)
    assert clash.attrs["key"] == 5
    assert clash.attrs["dtype"] == "float32"


def test_fixed_and_default_gains_are_recorded() -> None:
    one = sweep(HE, sigma_b=0.25)
    assert float(one.sigma_w) == pytest.approx(math.sqrt(2))
    assert float(one.sigma_b) == 0.25
    assert one.log_gain.dims == ("seed", "depth")
    two = sweep({"a": HE, "b": NETWORK})
    np.testing.assert_allclose(two.sigma_w, [math.sqrt(2), 1.0])
    assert two.sigma_w.dims == ("network",)


def test_dataset_survives_netcdf_like_selection_and_arithmetic(labelled: xarray.Dataset) -> None:
    growth = labelled.log_gain.sel(depth=4).mean("seed") / 4
    assert growth.dims == ("network", "sigma_b", "sigma_w")
    # tanh has slopes of at most 1: its gain grows with σ_w without a bias.
    assert np.all(np.diff(growth.sel(network="relu", sigma_b=0.0)) > 0)


def test_costly_statistics_are_taken_where_asked(labelled: xarray.Dataset) -> None:
    """An orthogonal linear layer multiplies every vector by σ_w."""
    some = sweep(KEEPS_LENGTHS, statistics="log_spectral", at=[2, 3], sigma_w=1.5).log_spectral
    last = labelled.sel(network="tanh")
    np.testing.assert_array_equal(np.isfinite(some), np.broadcast_to([False, True, True, False], some.shape))
    known = np.broadcast_to(np.log(1.5) * np.array([2, 3]), (some.sizes["seed"], 2))
    np.testing.assert_allclose(some.sel(depth=[2, 3]), known, atol=1e-6)
    np.testing.assert_array_equal(
        np.isfinite(last.log_spectral).all(["sigma_b", "sigma_w", "seed"]), [False, False, False, True]
    )
    # ‖J‖_F²/n ≤ σ_max² ≤ ‖J‖_F²
    difference = (last.log_spectral - last.log_gain).sel(depth=4)
    assert np.all(difference > 0)
    assert np.all(difference < math.log(WIDTH) / 2)
    assert not last.dead.any()  # a value that was not asked for is not a dead network


def test_statistics_take_a_name_or_several_each_once() -> None:
    assert set(sweep(TIED, statistics="length").data_vars) == {"length"}
    several = sweep(statistics=["log_jvp", "length", "log_jvp"], burn_in=5)
    assert set(several.data_vars) == {"dead", "log_jvp", "length"}


def test_whole_numbers_may_come_as_floats_or_numpy() -> None:
    """4.0 and numpy's integers are whole."""
    wanted = sweep().log_gain
    for depth, seeds in ((4.0, np.int32(3)), (np.int64(4), 3.0)):
        with own_checks():
            np.testing.assert_array_equal(sweep(depth=depth, seeds=seeds).log_gain, wanted)


def test_gains_may_come_as_any_numbers() -> None:
    wanted = sweep(sigma_w=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).log_gain
    whole = range(1, 7)
    for points in (tuple(whole), np.array(whole, np.int8), jnp.asarray(whole, float), whole):
        np.testing.assert_array_equal(sweep(sigma_w=points).log_gain, wanted)


# What may not change a number


def test_a_longer_sweep_extends_a_shorter_one_bit_for_bit() -> None:
    short, long = sweep(statistics=THREE), sweep(statistics=THREE, depth=9)
    for name in short.data_vars:
        np.testing.assert_array_equal(long[name].sel(depth=short.depth), short[name])


def test_more_seeds_keep_the_first_ones() -> None:
    few, many = sweep(), sweep(seeds=7)
    np.testing.assert_allclose(many.log_gain.sel(seed=few.seed), few.log_gain, atol=2e-6)


def test_other_cells_do_not_change_a_cell() -> None:
    """A number alone equals that number on an axis, in any company and order of axes."""
    alone = sweep(sigma_w=1.5, sigma_b=0.3).log_gain
    axes = sweep(sigma_w=[0.7, 1.5, 3.0], sigma_b=[0.3, 0.1]).log_gain.sel(sigma_w=1.5, sigma_b=0.3)
    swapped = sweep(sigma_b=[0.3, 0.1], sigma_w=[0.7, 1.5, 3.0]).log_gain.sel(sigma_w=1.5, sigma_b=0.3)
    one_point = sweep(sigma_w=[1.5], sigma_b=0.3).log_gain
    assert one_point.dims == ("sigma_w", "seed", "depth")
    for other in (axes, swapped, one_point.isel(sigma_w=0)):
        np.testing.assert_allclose(other, alone, atol=2e-6)


def test_the_same_call_gives_the_same_numbers_and_another_key_others() -> None:
    options: dict[str, Any] = {"sigma_w": 1.5, "sigma_b": 0.3, "statistics": THREE}
    first, again, other = sweep(**options), sweep(**options), sweep(**options, key=1)
    for name in THREE:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.any(first[name].to_numpy() == other[name].to_numpy()), name
        assert np.unique(first[name]).size == first[name].size, "two seeds or depths coincide"


@pytest.mark.parametrize("key", [1, 2**31, 2**32 - 1])
def test_large_keys_are_keys_of_their_own(key: int) -> None:
    assert not np.any(sweep(key=key).log_gain.to_numpy() == sweep(key=0).log_gain.to_numpy())


def test_networks_of_one_width_and_law_share_their_draws() -> None:
    """Else a difference between two activations would be noise."""
    pair = {"other": gs.feedforward(WIDTH, lambda z: jnp.maximum(z, 0)), "kinked": RELU}
    gain = sweep(pair, inputs=np.ones((1, WIDTH)), sigma_b=0.0).log_gain
    alone = sweep(RELU, inputs=np.ones((1, WIDTH)), sigma_b=0.0).log_gain
    np.testing.assert_allclose(gain.sel(network="kinked"), gain.sel(network="other"), atol=1e-6)
    np.testing.assert_allclose(gain.sel(network="kinked"), alone, atol=1e-6)


def test_all_layers_draw_anew_unless_tied() -> None:
    """A tied linear network's product is a power of one matrix: ‖J_2‖ follows from the same W."""
    tied, untied = sweep(TIED, statistics="length"), gs.sweep(LINEAR, **TWO_GAINS)
    np.testing.assert_allclose(tied.length.diff("depth"), 0, atol=1e-5)
    steps = np.diff(untied.log_jvp.to_numpy(), axis=1)
    assert np.unique(np.round(steps, 6)).size == steps.size
    power = gs.sweep(gs.feedforward(1, "identity", tied=True), depth=6, seeds=2).log_gain
    np.testing.assert_allclose(power, power.sel(depth=1) * power.depth, rtol=1e-5)


# Inputs and burn-in


def test_seed_i_takes_sample_i_modulo_samples() -> None:
    data = np.random.default_rng(0).normal(size=(3, WIDTH))
    measured = sweep(KEEPS_LENGTHS, inputs=data, seeds=8, statistics="length")
    np.testing.assert_allclose(measured.length.isel(depth=0), np.mean(data**2, axis=1)[np.arange(8) % 3], rtol=1e-5)
    assert "3 samples" in measured.attrs["inputs"]


def test_inputs_may_be_whole_numbers_and_lists() -> None:
    data = [[1, -2, 3, 0, 0, 1], [0, 0, 1, 1, 0, 2]]
    with own_checks():
        taken, wanted = (sweep(RELU, inputs=some) for some in (data, np.array(data, float)))
        np.testing.assert_array_equal(taken.log_gain, wanted.log_gain)


def test_default_inputs_are_gaussian_of_unit_variance() -> None:
    """An orthogonal linear layer keeps ‖x‖², which is χ²_n: mean n, variance 2n."""
    n, seeds = 16, 1500
    keeps = gs.feedforward(n, "identity", "orthogonal")
    length = gs.sweep(keeps, depth=1, seeds=seeds, statistics="length").length.to_numpy()
    assert abs(length.mean() - 1) < 4.5 * math.sqrt(2 / n / seeds)
    assert length.var() == pytest.approx(2 / n, rel=4.5 * math.sqrt((2 + 12 / n) / seeds))


def test_burn_in_shifts_the_states_and_not_the_draws() -> None:
    long = sweep(statistics=THREE, depth=9, sigma_w=2.0, sigma_b=0.3)
    late = sweep(statistics=("log_jvp", "length"), depth=4, burn_in=5, sigma_w=2.0, sigma_b=0.3)
    np.testing.assert_allclose(late.length, long.length.isel(depth=slice(5, None)), rtol=1e-6)
    np.testing.assert_array_equal(late.depth, [1, 2, 3, 4])
    assert late.attrs["burn_in"] == 5
    assert not np.any(late.log_jvp.to_numpy() == long.log_jvp.isel(depth=slice(0, 4)).to_numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_the_precision_of_the_run(dtype: str) -> None:
    """An orthogonal chain keeps lengths to its rounding: 1e-7 or 1e-16 a layer."""
    keeps = gs.feedforward(16, "identity", "orthogonal")
    error = np.abs(gs.sweep(keeps, depth=50, seeds=2, dtype=dtype).log_gain).max()
    assert error < {"float32": 1e-5, "float64": 1e-13}[dtype]
    assert (error > 1e-9) == (dtype == "float32")


# Algebra


@settings(deadline=None, max_examples=8)
@given(factor=st.floats(1e-8, 1e8))
def test_a_gain_of_a_linear_network_adds_its_logarithm_every_layer(factor: float) -> None:
    """Exact but for rounding, in every single network."""
    one, scaled = gs.sweep(LINEAR, sigma_w=1.0, **TWO_GAINS), gs.sweep(LINEAR, sigma_w=factor, **TWO_GAINS)
    for name in ("log_gain", "log_jvp"):
        np.testing.assert_allclose(scaled[name], one[name] + one.depth * math.log(factor), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=6)
@given(power=st.integers(-20, 20))
@example(power=-20)
@example(power=20)
def test_a_gain_that_is_a_power_of_two_changes_no_bit(power: int) -> None:
    """The mantissas stay as they are: only exponents move, so the float32 run agrees to float64's digits."""
    data = np.random.default_rng(5).normal(size=(3, WIDTH))
    one, scaled = (sweep(RELU, inputs=data, sigma_w=gain) for gain in (1.0, 2.0**power))
    np.testing.assert_allclose(scaled.log_gain, one.log_gain + one.depth * power * math.log(2), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=6)
@given(scale=st.floats(1e-3, 1e3))
def test_a_relu_network_without_bias_ignores_the_size_of_its_input(scale: float) -> None:
    data = np.random.default_rng(2).normal(size=(3, WIDTH))
    one, scaled = (sweep(RELU, inputs=data * s, dtype="float64", statistics=("log_gain", "log_length"))
                   for s in (1.0, scale))  # fmt: skip
    np.testing.assert_allclose(scaled.log_gain, one.log_gain, atol=1e-12)
    np.testing.assert_allclose(scaled.log_length, one.log_length + 2 * math.log(scale), atol=1e-12)


def test_numbers_that_leave_the_floats_are_told_and_exact_zeros_are_not() -> None:
    """Squared lengths of 10^(4 depth) pass the largest float64, 1.8e308, at layer 78 (77 if they started larger)."""
    with pytest.warns(RuntimeWarning, match=r"length: 3 of 3 networks left the range of floats") as told:
        lengths = sweep(LINEAR, depth=100, statistics=("length", "log_length"), sigma_w=100.0, sigma_b=0.0)
    lost = ~np.isfinite(lengths.length)
    assert len(told) == 1
    first = int(lost.depth[lost.any("seed")][0])
    assert f"first at depth {first}; " in str(told[0].message)
    assert str(told[0].message).endswith("or take log_length")
    assert told[0].filename == __file__
    np.testing.assert_array_equal(lengths.length_lost, lost)
    assert not lost.sel(depth=slice(None, 75)).any()
    assert lost.sel(depth=slice(80, None)).all()
    assert np.isfinite(lengths.log_length).all()
    assert sweep(sigma_w=0.0).dead.all()  # a warning would fail this test
