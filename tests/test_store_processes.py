"""Processes that write one store: killed at random instants, refused, let in, several at once."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gradsim as gs
from gradsim.sweeps.stores import members


def test_killed_at_any_instant_it_ends_as_if_nothing_had_been() -> None:
    """Bit for bit; a kill costs the chunk on the device, and one more only while one is on its way to the disk."""
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "3", "20"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"]
    assert found["ends"] in ([0, 0], [0, 3])  # the second of two processes is refused, or has nothing left to do
    assert all(lost <= 1 + min(1, written) for lost, written in found["lost"])
    assert found["chunks"] <= found["calls"] <= found["chunks"] + sum(lost for lost, _ in found["lost"])
    shared = found["together"]  # by two, one of them killed, and then by four
    assert not any(shared["ends"]), done.stderr
    assert shared["same"]
    assert found["chunks"] <= shared["calls"] <= found["chunks"] + 2


def test_who_holds_the_store_is_named(tmp_path: Path) -> None:
    """It refuses before anything is written; two processes at once are in the test above."""
    with (
        members.Member(tmp_path, 0, 1),
        pytest.raises(ValueError, match=f"^store: {tmp_path} is being written by process {os.getpid()} on "),
    ):
        gs.sweep(gs.feedforward(6), depth=4, seeds=4, store=tmp_path)
    (tmp_path / "owner").write_text("[]")  # of one that was killed
    assert gs.sweep(gs.feedforward(6), depth=4, seeds=4, store=tmp_path).attrs["done"] == 1.0


def test_who_comes_while_another_leaves_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for that instant, in which the other's lock is still held and nothing says whose it is."""
    with members.locked(tmp_path):
        leaving = members.Member(tmp_path, 0, 2)
    unlink, found = Path.unlink, list[int]()

    def come() -> None:
        with members.locked(tmp_path):
            found.append(len(members.Member(tmp_path, 1, 2).others()))

    coming = threading.Thread(target=come)

    def slowly(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == "owner":
            coming.start()
            coming.join(0.3)

    monkeypatch.setattr(Path, "unlink", slowly)
    with leaving:
        pass
    coming.join()
    assert found == [0]
