"""Figures: what is drawn is what the Dataset says, labelled, and nothing outside is touched."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray
from plotted import BIAS, maps, schemes, texts
from unrolled import own_checks

import gradsim as gs
from gradsim import plot, theory
from gradsim.plot.style import residual_frame


def test_phase_diagram_draws_the_zero_contour_where_the_growth_is_zero() -> None:
    figure = plot.phase_diagram(maps())
    (contour,) = [artist for artist in figure.axes[0].collections if hasattr(artist, "levels")]
    line = np.concatenate([path.vertices for path in contour.get_paths()])
    np.testing.assert_allclose(line[:, 0], 1 + line[:, 1] / 2, atol=1e-6)
    assert np.ptp(line[:, 1]) == pytest.approx(1.4)


def test_phase_diagram_lays_the_theory_over_it() -> None:
    line: Any
    (line,) = plot.phase_diagram(maps()).axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), theory.edge_of_chaos("tanh", BIAS))
    np.testing.assert_allclose(line.get_ydata(), BIAS)
    held = maps().assign(edge_of_chaos=("sigma_b", 1 + BIAS))
    (line,) = plot.phase_diagram(held).axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), 1 + BIAS)
    assert not plot.phase_diagram(maps(), theory=None).axes[0].lines


def test_phase_diagram_says_what_is_what() -> None:
    said = texts(plot.phase_diagram({"tanh": maps(), "relu": maps(0.2, "relu")}))
    for wanted in ("vanishing", "exploding", "tanh", "ReLU", "a", "b", "growth of the gradient (nat/layer)"):
        assert wanted in said
    assert r"weight gain $\sigma_w$" in said
    assert r"bias gain $\sigma_b$" in said
    assert "measured: no growth" in said
    assert "theory: edge of chaos (Schoenholz et al. 2017)" in said


def test_panels_of_a_scale_of_their_own_name_it() -> None:
    strong, weak = maps(), maps()
    weak["log_gain"] = weak.log_gain / 50
    figure = plot.phase_diagram({"strong": strong, "weak": weak}, None, scale="own")
    drawn: list[Any] = [ax.collections[0].norm for ax in figure.axes[:2]]
    limits = [norm.vmax for norm in drawn]
    assert limits[0] / limits[1] == pytest.approx(50, rel=0.3)  # to one digit each
    said = texts(figure)
    assert {f"strong (±{limits[0]:g})", f"weak (±{limits[1]:g})"} <= set(said)
    assert figure.axes[-1].get_ylim() == (-1, 1)
    with pytest.raises(ValueError, match="scale: got 'each'"):
        plot.phase_diagram(strong, scale="each")


def test_phase_diagram_takes_a_network_axis_and_axes_of_the_caller() -> None:
    both = xarray.concat([maps(), maps(0.3)], "network").assign_coords(network=["a", "b"])
    both.attrs["network"] = json.dumps(dict.fromkeys("ab", gs.feedforward(4).describe()))
    figure = plot.new_figure(3.0)
    axes = figure.subplots(1, 2)
    assert plot.phase_diagram(both, axes=list(axes)) is figure
    assert len(plot.phase_diagram(both).axes) == 3  # two panels and a colour bar
    with pytest.raises(ValueError, match="axes: got 1; pass 2, one for each panel"):
        plot.phase_diagram(both, axes=[axes[0]])


@pytest.mark.parametrize("points", [2, 3, 10, 48])
def test_words_lie_in_their_regions_and_off_the_frame(points: int) -> None:
    one = maps().interp(sigma_b=np.linspace(0.1, 1.5, points))
    for text in plot.phase_diagram(one, theory=None).axes[0].texts:
        weight, bias = text.get_position()
        assert (weight > 1 + bias / 2) == (text.get_text() == "exploding")
        assert 0.2 < bias < 1.4


def test_a_word_is_left_out_where_it_has_no_room() -> None:
    said = texts(plot.phase_diagram(maps(-9.0), theory=None))
    assert "exploding" in said
    assert "vanishing" not in said


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (maps().isel(sigma_b=0), {}, "the growth has no two axes of at least two points; its axes: sigma_w"),
        (maps().isel(sigma_w=[0]), {}, "no two axes of at least two points; its axes: sigma_w, sigma_b"),
        ({"relu": maps().isel(sigma_w=0)}, {}, "the growth of relu has no two axes"),
        (maps(), {"x": "sigma_v"}, "x: the growth has no axis 'sigma_v'; its axes: sigma_w, sigma_b"),
        (maps() * np.nan, {}, "dataset: the growth is NaN everywhere"),
        (maps(), {"theory": "log_gain"}, "theory: 'log_gain' has the axes sigma_w, sigma_b, seed, depth"),
        (maps().expand_dims(sigma_v=[1.0]), {}, "more axes than sigma_w and sigma_b: sigma_v"),
        (maps(), {"statistic": "log_jvp"}, "no 'log_jvp'; it holds: log_gain"),
        (maps(), {"theory": "edge_of_order"}, "neither a variable of the dataset nor one of: edge_of_chaos"),
        (maps().drop_attrs(), {"theory": "edge_of_chaos"}, "is of feed-forward networks with a built-in activation"),
        ({}, {}, "dataset: got no maps"),
    ],
)
def test_phase_diagram_names_what_is_missing(dataset: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.phase_diagram(dataset, **options)


WRONG_KINDS: list[tuple[Any, str]] = [
    (lambda: plot.phase_diagram(None), "dataset: got a NoneType"),  # type: ignore[arg-type]
    (lambda: plot.phase_diagram([maps()]), "dataset: got a list"),  # type: ignore[arg-type]
    (lambda: plot.phase_diagram(maps().log_gain), "dataset: got a DataArray"),
    (lambda: plot.phase_diagram({"a": maps().log_gain}), "dataset: got a DataArray"),
    (lambda: plot.phase_diagram(maps(), 3), "theory: got 3 of type int"),  # type: ignore[arg-type]
    (lambda: plot.phase_diagram(maps(), axes=[1]), "axes: got int"),  # type: ignore[list-item]
    (lambda: plot.depth_profile(None), "dataset: got a NoneType"),  # type: ignore[arg-type]
    (lambda: plot.scheme_map(None), "dataset: got a NoneType"),  # type: ignore[arg-type]
    (lambda: plot.derivatives(None), "datasets: got None of type NoneType"),  # type: ignore[arg-type]
    (lambda: plot.save(None, "x"), "figure: got a NoneType"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), WRONG_KINDS)
def test_the_wrong_kind_of_thing_is_named(call: Any, message: str) -> None:
    with own_checks(), pytest.raises(TypeError, match=message):
        call()


def test_save_takes_strings_and_names_what_it_cannot_write(tmp_path: Path) -> None:
    figure = plot.new_figure(1.0, 1.0)
    assert plot.save(figure, f"{tmp_path}/x", ("png", "svg")) == [tmp_path / "x.png", tmp_path / "x.svg"]
    with pytest.raises(ValueError, match=r"formats: got 'foo'; pass some of: .*png"):
        plot.save(figure, tmp_path / "x", ("foo",))
    with pytest.raises(ValueError, match="stem: there is no folder"):
        plot.save(figure, tmp_path / "missing" / "x")


@pytest.fixture(scope="module")
def gated() -> xarray.Dataset:
    return gs.sweep(gs.gru(4), depth=6, seeds=3, update_bias=[-1.0, 0.0, 2.0], sigma_w=[0.5, 1.0])


def test_any_two_gains_are_axes_over_depth_or_time(gated: xarray.Dataset) -> None:
    ax, bar = plot.phase_diagram(gated).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == (r"weight gain $\sigma_w$", "update-gate bias")
    assert bar.get_ylabel() == "growth of the gradient (nat/step)"
    assert not ax.lines  # no theory is known
    turned = plot.phase_diagram(gated, x="update_bias").axes[0]
    assert (turned.get_xlabel(), turned.get_ylabel()) == ("update-gate bias", r"weight gain $\sigma_w$")
    for along, other in (("update_bias", "sigma_w"), ("sigma_w", "update_bias")):
        line: Any = gated.assign(line=(along, np.arange(gated.sizes[along]) * 1.0))
        (drawn,) = plot.phase_diagram(line, theory="line").axes[0].lines
        x, y = (drawn.get_xdata(), drawn.get_ydata()) if along == "sigma_w" else (drawn.get_ydata(), drawn.get_xdata())
        np.testing.assert_array_equal(x, gated[along])
        np.testing.assert_array_equal(y, np.arange(gated.sizes[along]))
        assert other in gated.dims


def test_a_backward_map_has_the_colours_of_the_gradient() -> None:
    """A linear orthogonal network explodes above σ_w = 1, whichever way it is measured."""
    network = gs.feedforward(4, "identity", "orthogonal")
    for direction in ("forward", "backward"):
        one = gs.sweep(network, depth=4, seeds=1, direction=direction, sigma_w=np.linspace(0.5, 1.6, 12),
                       sigma_b=np.linspace(0, 1, 6))  # fmt: skip
        words = {text.get_text(): text.get_position()[0] for text in plot.phase_diagram(one, None).axes[0].texts}
        assert words["vanishing"] < 1 < words["exploding"]


def test_a_profile_of_one_vector_has_its_theory_beneath(gated: xarray.Dataset) -> None:
    """`log_jvp` may be what is drawn, with a theory of its own, and not only what stands beside the log gain."""
    one = gated.isel(update_bias=0, sigma_w=0).rename(log_gain="log_jvp")
    one["theory"] = one.log_jvp.mean("seed") - 0.1
    above, beneath = plot.depth_profile(one, statistic="log_jvp").axes
    assert [len(ax.lines) > 1 for ax in (above, beneath)] == [True, True]


def test_profiles_take_time_numbers_and_any_number_of_axes(gated: xarray.Dataset) -> None:
    figure = plot.depth_profile(gated)
    assert [ax.get_title() for ax in figure.axes] == [
        "update-gate bias = -1",
        "update-gate bias = 0",
        "update-gate bias = 2",
    ]
    assert figure.axes[0].get_xlabel() == "time (step)"
    assert len(figure.axes[0].lines) == 3  # two gains and the zero
    (one,) = plot.depth_profile(gated.isel(update_bias=0)).axes
    assert len(one.lines) == 3
    (single,) = plot.depth_profile(gated.isel(update_bias=0, sigma_w=0)).axes
    assert len(single.lines) == 2
    assert "weight gain" in " ".join(texts(plot.scheme_map(gated, "update_bias", "sigma_w")))
    with pytest.raises(ValueError, match="lines: got 'sigma_w', which has the panels"):
        plot.depth_profile(gated, None, panels="sigma_w", lines="sigma_w")
    with pytest.raises(ValueError, match="panels: log_gain has no axis 'sigma_v'; its axes: update_bias, sigma_w"):
        plot.depth_profile(gated, panels="sigma_v")
    many = gated.isel(update_bias=0, sigma_w=[0] * 8).assign_coords(sigma_w=np.linspace(0.5, 1, 8))
    with pytest.raises(ValueError, match="lines: sigma_w has 8 points; pass at most 7"):
        plot.depth_profile(many)


def test_figures_say_how_many_networks_left_the_floats_and_refuse_many() -> None:
    one = maps()
    lost = xarray.zeros_like(one.log_gain, bool)
    lost[0, 0, 0] = True
    one = one.assign(log_gain_lost=lost)
    with pytest.raises(ValueError, match="max_lost: 1 of 2 networks of a cell left the range of floats"):
        plot.phase_diagram(one)
    with pytest.warns(RuntimeWarning, match="1 of 780 networks left the range of floats"):
        figure = plot.phase_diagram(one, max_lost=0.5)
    assert "1 of 780 networks left the floats" in texts(figure)


def test_scheme_map_writes_the_last_log_gain() -> None:
    said = texts(plot.scheme_map(schemes()))
    for wanted in ("sigmoid", "ReLU", "LeCun normal", "\u22125.0", "0", "+2.5", "+50.0", "dead", "log gain (nat)"):
        assert wanted in said


def test_depth_profile_draws_mean_band_and_theory() -> None:
    figure = plot.depth_profile(schemes())
    ax: Any = figure.axes[0]
    measured, dashed = ax.lines[0], ax.lines[1]
    np.testing.assert_allclose(measured.get_ydata(), -np.arange(1, 6), atol=1e-12)
    np.testing.assert_allclose(dashed.get_ydata(), -np.arange(1, 6))
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(-1 + 0.4)
    said = texts(figure)
    assert {"depth (layer)", "log gain (nat)", "theory, infinite width", "orthogonal", "c"} <= set(said)


def test_residuals_are_in_standard_errors_and_name_their_papers() -> None:
    one = schemes()
    error = np.std(np.linspace(-0.5, 0.5, 11), ddof=1) / np.sqrt(11)
    attributes = {"long_name": "first order in 1/N", "source": "A & B 2018"}
    off = (one["theory"] + 2 * error).assign_attrs(attributes)
    figure = plot.depth_profile(one.assign(theory=one["theory"] - error, log_jvp=one["log_gain"], log_jvp_theory=off))
    beneath: Any = figure.axes[3]
    for line, wanted in zip(beneath.lines[:4], (1, 1, -2, -2), strict=True):  # two schemes, then the other statistic
        np.testing.assert_allclose(line.get_ydata(), wanted)
    assert not np.isfinite(figure.axes[5].lines[0].get_ydata()).any()  # the dead network's
    assert r"$\ln\,\|J u\|$ of a random direction $u$ from first order in 1/N (A & B 2018)" in texts(figure)
    assert "log gain from infinite width" in texts(figure)
    assert len(plot.depth_profile(one, theory=None).axes) == 3


@pytest.mark.parametrize("seeds", [1, 2])
def test_residuals_need_two_networks(seeds: int) -> None:
    line: Any = plot.depth_profile(schemes().isel(seed=slice(seeds))).axes[3].lines[0]
    assert np.isfinite(line.get_ydata()).all() == (seeds == 2)


def test_long_residuals_are_in_sight() -> None:
    ax: Any = plot.new_figure(2.0).subplots()
    residual_frame(ax, -1.0, 300.0)
    assert ax.get_ylim() == pytest.approx((-4, 1.2 * 330 * 66**0.1))
    assert ax.get_yscale() == "symlog"
    assert ax.get_yticks().tolist() == [-2, 0, 2, 10, 100]
    scale = ax.transData - ax.transAxes
    heights = scale.transform([(0, value) for value in (-2, 0, 2, 10, 100, 300)])[:, 1]
    assert min(np.diff(heights)) > 0.05 < 1 - heights[-1]  # labels apart, and a marker within
    residual_frame(ax.figure.subplots(), float("nan"), 0.0)


def test_profiles_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="the dataset holds no 'theory'"):
        plot.depth_profile(schemes().drop_vars("theory"), "theory")
    with pytest.raises(ValueError, match="columns: log_gain has no axis 'initializer'; its axes: activation"):
        plot.scheme_map(schemes().isel(initializer=0))
    with pytest.raises(ValueError, match="there is no 'activations'; there are: chain"):
        plot.derivatives({"chain": schemes()})
    with pytest.raises(ValueError, match="activations holds no 'value'; it holds: log_gain, theory"):
        plot.derivatives({"activations": schemes()})


def test_settings_outside_stay_as_they_are(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    files = plot.save(plot.scheme_map(schemes()), tmp_path / "figure.v2", ("png", "pdf"))
    assert [file.name for file in files] == ["figure.v2.png", "figure.v2.pdf"]
    assert files[0].read_bytes()[:4] == b"\x89PNG"
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import gradsim, sys; gradsim.plot.phase_diagram; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
