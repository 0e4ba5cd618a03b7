"""Settings of every test: arithmetic between dtypes must be spelled out, warnings are errors (pyproject.toml)."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from importlib import metadata
from itertools import count
from pathlib import Path

# Compiling is most of the work of small networks. (At level 0 it is less still, but random draws are ten times slower.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1"  # jaxlib 0.12 ends the process over the first of the others
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * metadata.version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several wait for each other, and for those of other workers

# One cache of compiled programs for all workers and processes of a run, which inherit it, and none beyond the run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="gradsim-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

# Files that take longest; they begin first, lest one worker is left alone with one at the end.
LONGEST = ("test_conformance", "test_devices", "test_script_examples", "test_inspection_models", "test_training",
           "test_spectra", "test_pair", "test_sweep", "test_store_processes", "test_narrow")  # fmt: skip

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell that starts this in the background ignores
jax.config.update("jax_numpy_dtype_promotion", "strict")
gc.set_threshold(100_000, 20, 50)  # tracing makes objects by the million, and little garbage
tests_run = count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--sample`, for a run that must be short: make test-all goes without."""
    parser.addoption("--sample", action="store_true", help="some cases of each test that is marked sampled or further")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first; and leave out what `--sample` does."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    if not config.getoption("sample"):
        return
    groups: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        count = 0 if item.get_closest_marker("further") else len(items)
        if marked := item.get_closest_marker("sampled"):
            count = min(count, *marked.args)
        groups.setdefault((item.nodeid.partition("[")[0], count), []).append(item)
    kept = {item for (_, count), some in groups.items() for item in spread(some, count)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def spread(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    """So many of them, evenly, from the first on."""
    return [items[place * len(items) // count] for place in range(count)] if count < len(items) else items


@pytest.fixture(autouse=True)
def free_compiled_programs() -> Iterator[None]:
    """A process may hold some 65,000 memory maps, and each compiled program takes a few, or a hundred."""
    yield
    if next(tests_run) % 10 == 0 and memory_maps() > 40_000:
        jax.clear_caches()
        gc.collect()


def memory_maps() -> int:
    """Those of this process; where they cannot be counted, too many."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 10**9
