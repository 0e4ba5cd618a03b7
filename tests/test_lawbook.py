"""The laws as data: each is measured through the same interface, and a wrong one is caught.

The laws that take long have tests of their own, beside the networks that they are about.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from script_modules import load

from gradsim.laws import ERRORS, LAWS, Law
from gradsim.laws.claims import CLAIMS
from gradsim.laws.record import bound, estimated, exact, sampled, sampled_variance

OF_MEMORY = tuple(f"I{number}" for number in range(1, 10))
QUICK = ("A1", "A3", "A10", "A14", "B1", "B2", "B3", "B4", "C1", "C2", "F1", "G1", "G12", "G13", *OF_MEMORY)
QUICK += ("H4", "K1", "K2")
BUILT = {"A1", "A3", "A4", "A5", "A7", "A8", "A9", "A10", "A14", "B1", "B2", "B3", "B4", "B7", "C1", "C2"}
BUILT |= {
    *(f"I{number}" for number in range(1, 10)),
    *(f"H{number}" for number in range(1, 5)),
    "A2",
    "A12",
    *(f"G{number}" for number in range(1, 16)),
    "D1",
    "D2",
    "D3",
    "E1",
    "E4",
    "E5",
    "E7",
    "F1",
    "F2",
    *(f"K{number}" for number in range(1, 5)),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", QUICK)
def test_law_holds(name: str) -> None:
    checks = LAWS[name].measure(1, 0)
    assert checks
    for check in checks:
        assert check.holds, check


def test_every_law_of_what_is_built_is_there() -> None:
    assert {name.split()[0] for name in LAWS} == BUILT
    assert all(law.id == name and law.statement and law.source for name, law in LAWS.items())


def test_what_a_check_allows() -> None:
    assert estimated("", 1 + 0.99 * ERRORS * 0.1, 0.1, 1.0).holds
    assert not estimated("", 1 - 1.01 * ERRORS * 0.1, 0.1, 1.0).holds
    assert exact("", [1.0, 2.0], [1.0, 2.0 + 1e-10], 1e-9).holds
    assert not exact("", [1.0, 2.0], [1.0, 2.0 + 1e-8], 1e-9).holds
    assert not exact("", [1.0, math.nan], 1.0, 1e-9).holds
    assert bound("", [-5.0, 0.5], 0.0, 1.0).holds
    assert not bound("", [-5.0, 1.5], 0.0, 1.0).holds
    assert not bound("", [-5.0, math.nan], 0.0, 1.0).holds


def test_standard_errors_are_those_of_the_sample() -> None:
    sample = np.random.default_rng(0).standard_normal((400, 1000))
    means = np.array([sampled("", row, 0.0).z for row in sample])
    variances = np.array([sampled_variance("", row, 1.0).z for row in sample])
    for z in (means, variances):  # the deviation of 400 numbers is known to 3.5 %
        assert z.std() == pytest.approx(1, abs=0.16)
        assert abs(z.mean()) < 0.225
    assert sampled("", sample, 0.0, deviation=2.0).error == pytest.approx(2 / math.sqrt(400_000))


@pytest.fixture(scope="module")
def script() -> Any:
    return load("laws")


def test_script_writes_table_page_and_figure_and_redraws_them(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [file.name for file in script.main(["--only", "A14", "B1", "--out", str(tmp_path)])] == ["laws.png"]
    assert "3 of 3 checks of 2 laws hold" in capsys.readouterr().out
    table = (tmp_path / "laws.csv").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("law,statement,source,quantity,predicted,measured,error,kind,z,holds")
    assert [line.split(",")[0] for line in table[1:]] == ["A14", "B1", "B1"]
    assert "| A14 |" in (tmp_path / "laws.md").read_text(encoding="utf-8")
    again = tmp_path / "again"
    script.main(["--data", str(tmp_path / "laws.zarr"), "--out", str(again)])
    assert (again / "laws.md").read_bytes() == (tmp_path / "laws.md").read_bytes()


def test_claims_stand_beside_what_is_measured(script: Any, tmp_path: Path) -> None:
    script.main(["--only", "I3", "--out", str(tmp_path)])
    page = (tmp_path / "claims.md").read_text(encoding="utf-8")
    rows = (tmp_path / "claims.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "claim,holds,law,quantity,claimed,predicted,measured,error"
    assert [row.split(",")[0] for row in rows[1:]] == ["minGRU remembers", "minLSTM remembers"]
    assert "| minGRU remembers | It forgets e-fold in 1.2 steps at b = 0 | I3 | min_gru: E ln g |" in page
    assert {one.law for one in CLAIMS} <= set(LAWS)


def test_a_law_that_does_not_hold_is_an_error(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Law("Z1", "two and two are five", "nobody", lambda effort, key: [exact("sum", 4.0, 5.0, 1e-9)])
    monkeypatch.setitem(LAWS, "Z1", wrong)
    with pytest.raises(SystemExit, match="a law does not hold"):
        script.main(["--only", "Z1", "--out", str(tmp_path)])
    assert "| NO |" in (tmp_path / "laws.md").read_text(encoding="utf-8")


def test_unknown_laws_are_refused(script: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="only: got Z9; pass some of: A1; A3"):
        script.main(["--only", "Z9", "--out", str(tmp_path)])
