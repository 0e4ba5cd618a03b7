"""Settings of every test: arithmetic between dtypes must be spelled out, warnings are errors (pyproject.toml)."""

from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs() -> Iterator[None]:
    """A process may hold some 65,000 memory maps, and each compiled program takes dozens."""
    yield
    jax.clear_caches()
