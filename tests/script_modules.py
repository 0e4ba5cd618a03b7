"""The scripts as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "scripts"


def load(name: str) -> ModuleType:
    """scripts/name.py, executed once."""
    if (module := sys.modules.get(f"scripts_{name}")) is None:
        spec = importlib.util.spec_from_file_location(f"scripts_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # tyro reads the options' docstrings from there
        spec.loader.exec_module(module)
    return module
