"""The scripts about depth: the numbers behind the figures, against theory and against what is known."""

from typing import Any

import numpy as np
import pytest
from script_modules import load, measured

import gradsim as gs
from gradsim import cli


@pytest.mark.further
def test_schemes_are_those_of_the_networks_that_bear_their_names() -> None:
    chosen = ("lecun_normal", "glorot_uniform", "he_normal", "torch_linear")
    options: Any = {"depth": 3, "seeds": 2, "key": 1}
    together = cli.join_schemes(cli.perform(cli.schemes(("tanh", "relu"), chosen, width=8, **options)))
    for scheme in chosen:
        alone = gs.sweep(gs.feedforward(8, "tanh", scheme), **options)
        here = together.sel(activation="tanh", initializer=scheme)
        np.testing.assert_allclose(here["log_gain"], alone["log_gain"], rtol=1e-6)
        assert here["sigma_w"] == alone["sigma_w"]
        assert here["sigma_b"] == alone["sigma_b"]


@pytest.mark.further
def test_the_measured_edge_of_tanh_is_that_of_theory() -> None:
    """The first map of the quick preset: the zero contour lies within 3 % of the edge of chaos in sigma_w."""
    module = load("phase_diagram")
    datasets = module.measure(cli.parse(module.PRESETS, ["--activations", "tanh", "--rows"]))
    apart = module.deviation(datasets["tanh"])
    assert apart.size == module.PRESETS["quick"].points_b
    assert np.all(np.abs(apart) < 0.03)


@pytest.mark.further
def test_random_directions_fall_as_theory_of_the_first_order_says() -> None:
    module = load("depth_profile")
    names = ["--activations", "tanh", "relu", "--schemes", "orthogonal", "he_normal", "identity"]
    options = cli.parse(module.PRESETS, [*names, "--width", "32", "--depth", "8", "--seeds", "400"])
    one = module.measure(options)["schemes"]
    assert one["log_jvp_theory"].sel(initializer="identity").isnull().all()
    log_jvp = one["log_jvp"].drop_sel(initializer="identity")
    residual = (log_jvp.mean("seed") - one["log_jvp_theory"]) / (log_jvp.std("seed") / 20)
    assert float(abs(residual).max()) < 4
    from_infinite = (log_jvp.mean("seed") - one["theory"]) / (log_jvp.std("seed") / 20)
    assert float(from_infinite.sel(initializer="he_normal", depth=8).max()) < -4


def test_the_figure_of_derivatives_says_what_it_must() -> None:
    module, datasets = load("derivatives"), measured("derivatives", "--factors", "0.1", "1")
    slope = datasets["activations"]["slope"]
    assert slope.sel(activation="sigmoid").max() == 0.25
    assert slope.sel(activation="tanh").max() == 1
    last = datasets["chain"].sel(sigma_w=0.1).isel(depth=-1, seed=0)
    assert last["log_gain"] == pytest.approx(-115.12925, abs=1e-5)
    assert last["float32_product"] == 0
    figure = module.draw(datasets)["derivatives"]
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "0 from layer 46" in said
    assert "$10^{-50}$" in said
