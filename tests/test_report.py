"""The report says what the numbers say, and no more; hand-made inspections, and models as they come."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from inspected import inspected
from jax import Array
from layout import faults

import gradsim as gs
from gradsim.inspection.rates import chains, fit
from gradsim.inspection.words import size

LN10 = float(np.log(10.0))


def said(*args: Any, **options: Any) -> str:
    """The report without line breaks within sentences."""
    return " ".join(str(gs.report(inspected(*args, **options))).split())


def line(slope: float, count: int = 50) -> np.ndarray:
    """Log norms that fall by `slope` a layer on their way back."""
    return -slope * np.arange(count - 1, -1, -1.0)


def test_a_healthy_model_is_told_so_and_gets_no_cures() -> None:
    text = said(line(0.01))
    assert "Healthy" in text
    assert "keeps its size" in text
    assert "What would help" not in text
    for word in ("gs.tune", "Vanishes", "Explodes", "Dead", "gain"):
        assert word not in text


def test_vanishing_is_given_its_rate_its_formats_and_cures() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    data = inspected(line(1.4, 200) + noise)
    (chain,) = chains(data)
    slope, covariance = np.polyfit(np.arange(200), data.log_gradient.values, 1, cov=True)
    np.testing.assert_allclose(chain.gradient.slope, -slope[0], rtol=1e-12)
    np.testing.assert_allclose(chain.gradient.error, np.sqrt(covariance[0, 0]), rtol=1e-9)
    text = " ".join(str(gs.report(data)).split())
    assert "Vanishes: on its way back through 200 layers, layers.0 to layers.199" in text
    assert "by 1.4 ± 0.0001 nats a layer (× 0.247, 0.61 decades)" in text
    hidden = int((data.log_float_gradient == -np.inf).sum())
    assert f"In plain float32 the gradient is zero though it is not: from layers.{hidden - 1} back" in text
    row = next(one for one in str(gs.report(data)).splitlines() if one.strip().startswith("float16"))
    count = int(data.lost.sel(format="float16").sum())
    assert row.split()[1:3] == [f"layers.{count - 1}", str(count)]
    scaled = int(data.lost_scaled.sel(format="float16").sum())
    assert row.split()[4:6] == [f"layers.{scaled - 1}", str(scaled)]
    assert "Larger initial weights (gs.tune, gs.critical_initializer): the outputs keep their size" in text
    assert "No float of 32 bits or fewer" in text
    assert "gain" not in text


def test_cures_follow_from_what_outputs_do() -> None:
    forward = 0.7 * np.arange(50)
    weak, strong = said(line(0.7), activation=-forward), said(line(-0.7), activation=forward)
    assert "Larger initial weights, about × 2.01 a layer: the outputs shrink × 0.497 a layer" in weak
    assert "Smaller initial weights, about × 0.497 a layer: the outputs grow × 2.01 a layer" in strong
    assert "Normalization" in strong
    assert "Clipping" in strong
    saturating, chaotic = said(line(0.7), activation=forward), said(line(-0.7))
    assert "driven into saturation" in saturating
    assert "edge of chaos" in chaotic
    assert "Normalization" not in chaotic
    assert "no scale of the weights" in said(line(-0.3), types="BatchNorm")
    assert "within the branches of skip connections" in said(line(0.3), types="LayerNorm")


def test_saturation_turns_the_cure_around() -> None:
    flat, steep = said(line(0.7), saturated=0.8), said(line(0.7), saturated=0.02)
    assert "Smaller initial weights and biases (gs.tune): 80% of the tanhs and sigmoids" in flat
    assert "Saturated: half and more of the tanhs and sigmoids are flat after layers.0" in flat
    assert "not the signal (2% of the tanhs and sigmoids are flat)" in steep
    assert "Saturated:" not in steep
    unknown = said(line(0.7), saturated=np.nan)
    assert "flat" not in unknown


def test_residual_blocks_that_explode_are_scaled_by_the_root_of_their_number() -> None:
    names = [f"blocks.{i}{part}" for i in range(16) for part in (".up", "")]
    logs = np.repeat(line(-0.35, 16), 2)
    data = inspected(logs, layers=names, types=["Linear", "Block"] * 16, activation=-logs)
    (chain,) = chains(data)
    assert (chain.first, chain.last, chain.length, chain.is_composite) == ("blocks.0", "blocks.15", 16, True)
    text = " ".join(str(gs.report(data)).split())
    assert "branches times 1/√16 = 0.25" in text
    assert "about ×" not in text


def test_gains_are_spoken_of_where_they_were_measured() -> None:
    text = said(line(1.4), log_gain=0.0, log_gain_error=0.0)
    assert "the layers' own gain is 1, the gradient changes × 0.247 a layer, which therefore comes from between" in text
    unknown = said(line(1.4), log_gain=np.nan)
    assert "own gain" not in unknown


def test_one_layer_that_is_to_blame_is_named() -> None:
    logs = np.where(np.arange(40) < 12, -30.0, 0.0)
    text = said(logs)
    assert "Most of that is at one place: × 9.4e-14 back through layers.12." in text
    assert "layers.12 first" in text
    assert "Larger initial weights" not in text
    (chain,) = chains(inspected(line(2.0, 40) + 30.0 * (np.arange(40) < 12)))
    assert not chain.is_one_place  # a jump against the trend is no cause of it


def test_a_scan_over_time_is_given_its_rate_and_its_gates() -> None:
    steps = np.stack([np.full(100, np.nan), line(0.5, 100) - 1, line(0.5, 100)])
    names = ["input", "cell.hf", "cell"]
    for kind, cure in (("LSTMCell", "ln(100 − 1) = 4.6"), ("SimpleCell", "Gates (LSTM, GRU), or orthogonal")):
        data = inspected(np.zeros(3), layers=names, types=["input", "Linear", kind], by_step=steps)
        (chain,) = chains(data)
        assert (chain.by_step, chain.length, chain.rows) == (True, 100, (2,))
        text = " ".join(str(gs.report(data)).split())
        assert "Vanishes: on its way back through the 100 steps of cell" in text
        assert "0.5 ± " in text
        assert "down to 1/e after 2 steps of 100" in text
        assert cure in text
    layers = inspected(np.zeros(3), layers=names, types=["input", "Linear", "Block"], by_step=steps)
    assert "if they are layers" in " ".join(str(gs.report(layers)).split())
    exploding = inspected(np.zeros(3), layers=names, types=["input", "Linear", "SimpleCell"], by_step=-steps)
    assert "Clipping of the gradient's norm, and smaller or orthogonal" in " ".join(str(gs.report(exploding)).split())
    steady = inspected(np.zeros(3), layers=names, types=["input", "Linear", "LSTMCell"], by_step=0 * steps)
    assert "try the last alone" in " ".join(str(gs.report(steady)).split())


def test_dead_units_missing_gradients_and_what_is_not_finite_are_placed() -> None:
    dead = np.zeros(8)
    dead[3] = 0.97
    text = said(np.zeros(8), dead=dead)
    assert "Dead: at layers.3" in text
    assert "97%" in text
    assert "larger initial biases" in text
    missing = np.zeros(8)
    missing[:2] = -np.inf
    text = said(missing)
    assert "No gradient: 2 layers have none at all (layers.0, layers.1)" in text
    assert "No gradient: 2 parameters have none at all" in text
    assert "Healthy" not in text
    bad = np.array([0.0, 0.0, 0.25, 1.0])
    text = said(np.zeros(4), not_finite=bad, first_not_finite="layers.2")
    assert "Not finite in the forward pass: first at layers.2, 25% of its entries" in text
    assert "What is not finite comes first" in text
    assert "The loss is nan, every layer's output finite" in said(np.zeros(4), loss=float("nan"))


def test_formats_get_loss_scaling_or_bfloat16_by_what_they_lose() -> None:
    assert "In float16, loss scaling: without it 12 layers from layers.11 back lost, with 32768 none" in said(
        line(0.01, 12) - 16
    )
    assert "bfloat16 rather than float16: float16 loses 12 layers even with a loss times 32768" in said(
        line(0.01, 12) - 40
    )
    text = said(line(0.01, 12) - 16, dtype="float16")
    assert "In float16 half of the gradient's entries and more round to zero at 12 layers" in text
    assert "brings back the 12 layers" in said(line(0.01, 12) - 103)


def test_what_has_no_layers_that_are_alike_is_given_its_range() -> None:
    text = said([0.0, -LN10], layers=["encoder", "decoder"])
    assert "between 0.1 and 1." in text
    text = said([0.0, -LN10, -2.0], layers=["encoder", "body", "decoder"])
    assert "3 layers, encoder to decoder" in text
    text = said([*line(0.0, 10), -20.0], layers=[*(f"layers.{i}" for i in range(10)), "query"])
    assert "that of query is below a millionth" in text
    alone = inspected(np.zeros(3)).assign(rounding=("parameter", np.array([0.0, 1.0, 1e-6])))
    assert "Rounding alone: the gradient of layers.1.kernel is zero" in str(gs.report(alone))
    assert "from layers.0 back, 1 layer and 1 parameter." in said([-95.0, 0.0, 0.0])
    assert "has no clear rate" in said([0.0, 5.0, -4.0, 6.0, -4.0, 9.0])


def test_tables_of_long_models_leave_out_their_middle() -> None:
    lines = str(gs.report(inspected(line(0.0, 300)))).splitlines()
    table = lines[2 : lines.index("", 3)]
    assert len(table) == 42
    assert table[21] == "… 260 rows more, which the Dataset holds …"
    assert [table[20].split()[0], table[22].split()[0]] == ["layers.19", "layers.280"]
    assert max(map(len, lines)) <= 110
    shown = gs.report(inspected(line(0.0, 40)))
    assert "rows more" not in shown
    assert repr(shown) == str(shown)


def test_sizes_are_written_beyond_every_range() -> None:
    logs = [-540 * LN10, 0.0, 700 * LN10 + np.log(9.96), -np.inf, np.inf, np.nan, np.log(0.0214), -4 * LN10]
    assert [size(one) for one in logs] == ["1.0e-540", "1", "1.0e+701", "0", "inf", "nan", "0.0214", "1.0e-04"]
    assert fit(np.array([0.0, 1.0, -np.inf])) is None
    two: Any = fit(np.array([0.0, np.nan, 2.0, 3.0]))
    assert (two.slope, two.change) == pytest.approx((1.0, 3.0))
    assert two.error == pytest.approx(0.0, abs=1e-12)


class Net(nnx.Module):
    """Three sigmoid layers, one of them wide."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(6)])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.sigmoid(layer(x))
        return x


def test_a_model_is_inspected_reported_and_drawn() -> None:
    found = gs.inspect(Net(), jnp.ones((2, 4)), loss=jnp.sum, gains=True)
    text = str(gs.report(found))
    assert "Vanishes: on its way back through 6 layers" in text
    assert "the layers' own gain is" in " ".join(text.split())
    assert faults(gs.plot.inspection(found)) == []


def test_figures_name_layers_by_number_where_they_are_alike_and_by_path_else() -> None:
    figure: Any = gs.plot.inspection(inspected(line(0.1, 30)))
    panel = figure.axes[1]
    assert [one.get_text() for one in panel.get_xticklabels()] == [str(i) for i in range(0, 30, 3)]
    assert panel.get_xlabel() == "layer, in order of execution: n of layers.n"
    names = ["a", "b", "c", "head.0", "head.1"]
    figure = gs.plot.inspection(inspected(np.zeros(5), layers=names))
    assert [one.get_text() for one in figure.axes[1].get_xticklabels()] == names
    assert faults(figure) == []


WRONG: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "inspection: got a NoneType; pass the Dataset that gradsim.inspect returned"),
    ("x", TypeError, "inspection: got a str"),
    (inspected(np.zeros(3)).log_gradient, TypeError, "inspection: got a DataArray"),
    (inspected(np.zeros(3)).drop_vars("lost"), ValueError, "inspection: the dataset holds no lost"),
    (inspected(np.zeros(3)).drop_vars("type"), ValueError, "inspection: the dataset holds no type"),
    (inspected(np.zeros(3)).isel(layer=0), ValueError, "inspection: log_activation has the axes none, not layer"),
    (inspected(np.zeros(3)).isel(layer=[]), ValueError, "inspection: layers or formats are left out"),
    (inspected(np.zeros(3)).isel(format=[0]), ValueError, "inspection: layers or formats are left out"),
    (
        inspected(np.zeros(3), layers=["a", "b", "input"], types=["tap", "tap", "input"]),
        ValueError,
        "inspection: its layers are not in order of execution",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG)
def test_anything_but_an_inspection_is_one_clear_line(wrong: Any, kind: type[Exception], message: str) -> None:
    for call in (gs.report, gs.plot.inspection):
        with pytest.raises(kind, match="^" + message.replace(".", r"\.")) as caught:
            call(wrong)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_drawn_is_one_clear_line() -> None:
    before = inspected(np.zeros(4))
    with pytest.raises(TypeError, match=r"^after: got a int"):
        gs.plot.inspection(before, 3)  # type: ignore[arg-type]
    other = inspected(np.zeros(4), layers=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"^after: its layers are not those of inspection \('a' for 'layers.0'\)"):
        gs.plot.inspection(before, other)
    with pytest.raises(ValueError, match=r"^after: its layers are not those of inspection \(5 for 4\)"):
        gs.plot.inspection(before, inspected(np.zeros(5)))
    with pytest.raises(ValueError, match=r"^inspection: no layer has a finite gradient"):
        gs.plot.inspection(inspected(np.full(4, np.nan)))
