"""Figures: what is drawn is what the Dataset says, labelled, and nothing outside is touched."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray

import gradsim as gs
from gradsim import plot, theory
from gradsim.plot.style import residual_frame

WEIGHT, BIAS = np.linspace(0.5, 3, 26), np.linspace(0.1, 1.5, 15)


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def maps(shift: float = 0.0, activation: str = "tanh") -> xarray.Dataset:
    """Maps whose growth is zero on σ_w = 1 + σ_b / 2 + shift."""
    growth = WEIGHT[:, None] - 1 - BIAS / 2 - shift
    depth = np.arange(1, 5)
    coordinates: Any = {
        "sigma_w": ("sigma_w", WEIGHT, {"long_name": "weight gain σ_w", "units": "1"}),
        "sigma_b": ("sigma_b", BIAS, {"long_name": "bias gain σ_b", "units": "1"}),
        "seed": [0, 1],
        "depth": ("depth", depth, {"units": "layer"}),
    }
    values = growth[..., None, None] * depth + np.array([-0.1, 0.1])[:, None]
    return xarray.Dataset(
        {"log_gain": (("sigma_w", "sigma_b", "seed", "depth"), values)},
        coordinates,
        attrs={"burn_in": 1, "network": repr(gs.feedforward(4, activation))},
    )


def schemes() -> xarray.Dataset:
    depth = np.arange(1, 6)
    slopes = np.array([[-1.0, 0.0], [0.5, 10.0], [-20.0, 0.2]])
    seeds = np.linspace(-0.5, 0.5, 11)
    values = slopes[..., None, None] * depth + seeds[:, None]
    values[2, 0] = np.nan
    return xarray.Dataset(
        {
            "log_gain": (("activation", "initializer", "seed", "depth"), values),
            "theory": (("activation", "initializer", "depth"), slopes[..., None] * depth),
        },
        {"activation": ["sigmoid", "tanh", "relu"], "initializer": ["lecun_normal", "orthogonal"], "depth": depth},
    )


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


def test_phase_diagram_takes_a_network_axis_and_axes_of_the_caller() -> None:
    both = xarray.concat([maps(), maps(0.3)], "network").assign_coords(network=["a", "b"])
    both.attrs |= {"a": maps().attrs["network"], "b": maps().attrs["network"]}
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
        (maps().isel(sigma_b=0), {}, "no axis 'sigma_b' of at least two points"),
        (maps().isel(sigma_w=[0]), {}, "no axis 'sigma_w' of at least two points"),
        ({"relu": maps().isel(sigma_w=0)}, {}, "the growth of relu has no axis 'sigma_w'"),
        (maps().expand_dims(sigma_v=[1.0]), {}, "more axes than sigma_w and sigma_b: sigma_v"),
        (maps(), {"statistic": "log_jvp"}, "no 'log_jvp'; it holds: log_gain"),
        (maps(), {"theory": "edge_of_order"}, "neither a variable of the dataset nor a function"),
        (maps().drop_attrs(), {}, "names no built-in activation"),
        ({}, {}, "dataset: got no maps"),
    ],
)
def test_phase_diagram_names_what_is_missing(dataset: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.phase_diagram(dataset, **options)


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
    assert ax.get_ylim() == pytest.approx((-4, 330))
    assert ax.get_yscale() == "symlog"
    residual_frame(ax.figure.subplots(), float("nan"), 0.0)


def test_profiles_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="the dataset holds no 'theory'"):
        plot.depth_profile(schemes().drop_vars("theory"))
    with pytest.raises(ValueError, match="wanted: activation, depth, initializer, seed"):
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
