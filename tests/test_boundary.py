"""The boundary of trainability: the networks of its images, and what an interrupt leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_modules import load, measured, small

import gradsim as gs
from gradsim import cli

boundary = load("trainability_boundary")
BY_GAIN = ("--vertical", "sigma_w", "--center", "1", "1")  # all its windows are trained by one program


def test_a_network_has_its_own_two_rates() -> None:
    """A point of an image against one network, trained by an optimizer that has both rates."""
    found = measured("trainability_boundary", "--zooms", "10")["zoom 10"]["log_ratio"]
    assert found.dims == ("read_out_rate", "hidden_rate")
    point = found.isel(read_out_rate=20, hidden_rate=11)
    generator = np.random.default_rng(0)
    alone = gs.train(
        gs.feedforward(4), data=(generator.standard_normal((5, 4)), generator.standard_normal(5)), depth=1, seeds=1,
        optimizer=boundary.descent(float(point["hidden_rate"]), float(point["read_out_rate"])), held_out=0.2, batch=4,
        steps=24, record=[0, 4, 24], by_layer=False, dtype="float64", sigma_b=0.0,
    ).isel(seed=0)  # fmt: skip
    ratio = np.log(alone["mean_loss"].sel(step=24) / alone["loss"].sel(step=0))
    assert float(point) == pytest.approx(float(ratio), rel=1e-9)
    assert np.isfinite(float(point))


def test_small_rates_converge_and_large_ones_diverge() -> None:
    found = measured("trainability_boundary", *BY_GAIN, "--zooms", "1")["zoom 1"]
    assert found["log_ratio"].dims == ("sigma_w", "learning_rate")
    ratio = found["log_ratio"].sel(sigma_w=1, method="nearest")
    assert float(ratio.isel(learning_rate=slice(10, 20)).max()) < 0 < float(ratio.isel(learning_rate=-1))
    np.testing.assert_allclose(found["learning_rate"][[0, -1]], 10.0 ** np.array([-2.5, 2.5]))


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Ctrl-C in the second window: the first is saved and drawn again, the second is said to be unfinished."""
    train, calls = gs.train, []

    def interrupted(*args: Any, **options: Any) -> Any:
        one = train(*args, **options)
        calls.append(one)
        if len(calls) < 2:
            return one
        interrupt: Any = KeyboardInterrupt()
        interrupt.dataset = one.where(one["learning_rate"] < 0.58)  # two columns of the image
        raise interrupt

    monkeypatch.setattr(gs, "train", interrupted)
    arguments = small("trainability_boundary", [*BY_GAIN, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        boundary.main(arguments)
    assert stopped.value.code == 130
    store = tmp_path / "trainability_boundary.zarr"
    assert str(store) in capsys.readouterr().err
    whole, part = cli.load(store).values()
    assert whole["log_ratio"].notnull().all()
    assert int(part["log_ratio"].notnull().sum()) == 2 * 64
    boundary.main(["--data", str(store), "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "zoom 1       D = " in said
    assert "zoom 10      not finished" in said
