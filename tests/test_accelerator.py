"""`make figures ACCELERATOR=…`: what it installs fits the rest, and it stops where no such device is found."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from gradsim.cli import accelerator

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs and a CPU."""
    there = {"gpu": [SimpleNamespace(device_kind="H100")] * 2, "cpu": [SimpleNamespace(platform="cpu")]}

    def local_devices(backend: str) -> list[Any]:
        if backend not in there:
            raise RuntimeError("Unknown backend")
        return there[backend]

    monkeypatch.setattr(jax, "local_devices", local_devices)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("given", [[], ["cuda12"], ["cuda13"]])
def test_what_is_found_is_said(given: list[str]) -> None:
    assert accelerator.main(given) == "found 2 x H100 (gpu)"


@pytest.mark.usefixtures("gpus")
def test_where_there_is_none_it_stops() -> None:
    with pytest.raises(SystemExit, match=r"^error: tpu: JAX finds none here but the cpu .*Unknown backend"):
        accelerator.main(["tpu"])
    for wrong in (["rocm"], ["tpu", "cuda12"]):
        with pytest.raises(SystemExit, match=r"^error: accelerator: got .*; pass one of: cuda12, cuda13, tpu"):
            accelerator.main(wrong)


@pytest.mark.parametrize("kind", accelerator.KINDS)
def test_the_plugin_is_that_of_the_locked_jax(kind: str) -> None:
    """And nothing is pinned twice."""
    base, extra = ((ROOT / name).read_text() for name in ("requirements.lock", f"requirements-{kind}.lock"))
    assert not set(base.splitlines()) & set(extra.splitlines())
    names = [set(re.findall(r"^(\S+)==", text, re.MULTILINE)) for text in (base, extra)]
    assert not names[0] & names[1]
    if kind != "tpu":
        versions = [re.findall(rf"^{name}==(.*)$", text, re.MULTILINE)
                    for name, text in (("jax", base), (f"jax-{kind}-plugin", extra))]  # fmt: skip
        assert versions[0] == versions[1] != []
    else:
        assert "libtpu==" in extra


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_looks_for_a_device_before_it_draws() -> None:
    def said(*options: str) -> str:
        done = subprocess.run(["make", "-n", "figures", *options], cwd=ROOT, capture_output=True, text=True)
        return done.stdout + done.stderr

    lines = said("ACCELERATOR=cuda13", "PRESET=accelerator", "VENV=none").splitlines()
    (install,) = [number for number, line in enumerate(lines) if "requirements-cuda13.lock" in line]
    look = lines.index("none/bin/python -m gradsim.cli.accelerator cuda13")
    draw, _ = [number for number, line in enumerate(lines) if "gradsim.cli.figures" in line]  # and what is timed
    assert install < look < draw
    assert "--at-once 1 " in lines[draw]
    assert ".venv-cuda13/bin/python -m gradsim.cli.figures" in said("ACCELERATOR=cuda13")
    assert "gradsim.cli.accelerator \n" in said("PRESET=accelerator")
    assert "gradsim.cli.accelerator" not in said()
    assert 'ACCELERATOR is one of cuda12 cuda13 tpu, and "rocm" came' in said("ACCELERATOR=rocm")
