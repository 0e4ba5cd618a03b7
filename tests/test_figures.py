"""Every figure can be read: with few and many panels and lines, with flat and huge data."""

from collections.abc import Callable
from typing import Any

import figure_data as made
import pair_figure_data as paired
import pytest
import spectral_figure_data as spectral
import training_figure_data as trained
from inspected import inspections
from layout import faults, reading

import gradsim as gs
from gradsim import plot
from gradsim.plot.benchmark import benchmark
from gradsim.plot.boundary import trainability_boundary
from gradsim.plot.coordinates import coordinate_check
from gradsim.plot.critical import critical_lines, finite_width_scaling, look, spaced
from gradsim.plot.explosion import batchnorm_explosion
from gradsim.plot.finite_width import finite_width
from gradsim.plot.laws import laws
from gradsim.plot.layers import layer_gradients
from gradsim.plot.learning import learning
from gradsim.plot.low_precision import low_precision
from gradsim.plot.memory import memory
from gradsim.plot.recurrent import recurrent_diagram
from gradsim.plot.remedies import remedies, residual_diagram
from gradsim.plot.spectra import conditions, singular_values
from gradsim.plot.trainability import trainability
from gradsim.plot.two_inputs import two_inputs


def maps(data: str, count: int) -> Any:
    datasets = {name: made.gain_map(data) for name in made.NAMES[:count]}
    return plot.phase_diagram(datasets, theory=("edge_of_chaos", "no_growth"))


def recurrent(data: str, count: int) -> Any:
    titles = made.TITLES[:count]
    families = {title: made.gain_map(data, "sigma_w", "sigma_v", "time") for title in titles}
    return recurrent_diagram(families, [2, 4, 8] if count == 2 else list(range(2, 2 + count)))


# As many panels, rows or lines as asked.
FIGURES: dict[str, Callable[[str, int], Any]] = {
    "phase_diagram": maps,
    "scheme_map": lambda data, count: plot.scheme_map(made.schemes(data, count, count)),
    "scheme_map, one row": lambda data, count: plot.scheme_map(made.schemes(data, 1, count)),
    "depth_profile": lambda data, count: plot.depth_profile(made.schemes(data, count, count)),
    "depth_profile, no theory": lambda data, count: plot.depth_profile(made.schemes(data, 1, count), None),
    "derivatives": lambda data, count: plot.derivatives(made.slopes(data, count)),
    "memory": lambda data, count: memory(made.memories(data, count)),
    "recurrent_diagram": recurrent,
    "layer_gradients": lambda data, count: layer_gradients(made.layers(data, count, min(count, 3), True)),
    "layer_gradients, rows": lambda data, count: layer_gradients(made.layers(data, min(count, 3), count, False)),
    "remedies": lambda data, count: remedies(*made.cures(data, count, count)),
    "remedies, depth": lambda data, count: remedies(*made.cures(data, count, 0)),
    "remedies, unequal": lambda data, count: remedies(*made.cures(data, count, 1)),
    "batchnorm_explosion": lambda data, count: batchnorm_explosion(made.explosions(data, count, count)),
    "critical_lines": lambda data, count: critical_lines(made.lines(data, count, count)),
    "finite_width_scaling": lambda data, count: finite_width_scaling(made.distances(data, count, count)),
    "finite_width": lambda data, count: finite_width(made.scattered(data, min(count, 3), count)),
    "singular_values": lambda data, count: singular_values(spectral.spectra(data, min(count, 4), count)),
    "conditions": lambda data, count: conditions(spectral.conditions(data, min(count, 2), count)),
    "trainability": lambda data, count: trainability(trained.trainable(data, count)),
    "learning": lambda data, count: learning(trained.learnt(data, min(count, 5), 1)),
    "learning, groups": lambda data, count: learning(trained.learnt(data, 2, min(count, 3))),
    "two_inputs": lambda data, count: two_inputs(*paired.two_inputs(data, count)),
    "laws": lambda data, count: laws(made.checks(data, count)),
    "gradient_records": lambda data, count: plot.gradient_records(trained.gradients(data, count)),
    "trainability_boundary": lambda data, count: trainability_boundary(*trained.windows(data, count)),
    "coordinate_check": lambda data, count: coordinate_check(*trained.coordinates(data, count)),
    "low_precision": lambda data, count: low_precision(made.lost(data)),
    "benchmark": lambda data, count: benchmark(made.timings(data, count)),
    "inspection": lambda data, count: plot.inspection(*inspections(data, 6 * count)),
    "inspection, before and after": lambda data, count: plot.inspection(*inspections(data, 6 * count, after=True)),
    "inspection, steps": lambda data, count: plot.inspection(*inspections(data, 40, after=True, scans=count)),
}


@pytest.mark.sampled(10)
@pytest.mark.parametrize(("data", "count"), [("usual", 1), ("usual", 7), ("flat", 1), ("huge", 2)])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_read(name: str, data: str, count: int) -> None:
    assert faults(FIGURES[name](data, count)) == []


@pytest.mark.sampled(4)
@pytest.mark.parametrize("data", ["flat", "huge"])
@pytest.mark.parametrize(
    "name", ["remedies", "remedies, depth", "remedies, unequal", "batchnorm_explosion", "benchmark"]
)
def test_names_of_many_lines_are_pushed_apart(name: str, data: str) -> None:
    assert faults(FIGURES[name](data, 7)) == []


def test_an_eighth_width_and_activation_are_drawn() -> None:
    lines: Any = finite_width_scaling({f"φ{k}": made.distances("usual", 1, 2)["tanh"] for k in range(9)})
    assert [text.get_text() for text in lines.legends[0].get_texts()] == [f"φ{k}" for k in range(9)]
    assert len({tuple(look(place).items()) for place in range(64)}) == 64
    one = made.lines("usual", 1, 9)
    assert one["tanh"].sizes["width"] == 9
    figure: Any = critical_lines(one)
    assert len(figure.axes[0].containers) == 9
    explosion: Any = batchnorm_explosion({f"φ{k}": made.explosions("usual", 1, 2)["identity"] for k in range(8)})
    assert sum(text.get_text().startswith("φ") for text in explosion.axes[0].texts) == 8


def test_a_kind_is_in_the_legend_only_where_it_is_drawn() -> None:
    datasets, table = made.cures("flat", 7, 0)
    for place, one in enumerate(datasets.values()):
        one.attrs["kind"] = f"kind {place}"
    figure: Any = remedies(datasets, table)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"kind {k}" for k in range(7)]
    assert faults(figure) == []


def test_ticks_that_are_spaced() -> None:
    ax: Any = plot.new_figure(2.0, 2.0).subplots()
    ax.set_ylim(0, 10)
    assert spaced(ax.yaxis, [5.0, 5.5, 9.0, 0.0, 20.0], 0.1) == [0, 5, 9]
    ax.set_yscale("log")
    ax.set_ylim(1, 1e4)
    assert spaced(ax.yaxis, [1.0, 2.0, 10.0, 100.0, 1e5], 0.1) == [1, 10, 100]


@pytest.mark.parametrize("data", ["usual", "flat", "huge"])
def test_the_residual_diagram_can_be_read(data: str) -> None:
    assert faults(residual_diagram(*made.residuals(data))) == []


def test_faults_are_found() -> None:
    figure = plot.new_figure(3.0, 3.0)
    ax: Any = figure.subplots()
    ax.set_xticks([0, 0.5], ["$10^{0}$", "1"])
    ax.text(0.5, 0.5, "one")
    ax.text(0.52, 0.5, "other")
    ax.text(0.5, 9, "far").set_in_layout(False)
    found = "\n".join(faults(figure))
    for wanted in ("'one' and 'other' overlap", "'far' leaves the figure", "read alike"):
        assert wanted in found


@pytest.mark.parametrize(
    ("label", "number"),
    [("$10^{-3}$", 1e-3), ("1", 1.0), ("$10^{-0}$", 1.0), ("$2·10^{5}$", 2e5), ("\u22127", -7.0), ("+10", 10.0)],
)
def test_labels_are_read_as_numbers(label: str, number: float) -> None:
    assert reading(label) == number


def test_layer_gradients_take_what_a_sweep_returns() -> None:
    """One network or several, with no axis of schemes."""
    options: Any = {"seeds": 2, "direction": "backward", "statistics": "log_weight_gradient"}
    several = {name: gs.feedforward(4) for name in ("one", "other")}
    for network, panels in ((gs.feedforward(4), 1), (several, 2)):
        figure = layer_gradients({f"key {key}": gs.sweep(network, depth=4, key=key, **options) for key in (0, 1)})
        assert len(figure.axes) == panels
        assert all(len(ax.lines) >= 2 for ax in figure.axes)
