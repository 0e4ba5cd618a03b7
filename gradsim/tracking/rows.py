"""Which parameters a record has rows for, what they are called, and which of them are stacks of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradsim import arguments

Stacked = bool | str | Sequence[str] | Callable[[str], bool]


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of a record are: one for each parameter, or for each layer of a stacked one.

    All are equal where one is empty: optax makes a state out of no parameters to see which of its parts are
    shaped like them, and compares it with the real one.
    """

    every: int
    leaves: tuple[int, ...] = ()
    """Which leaves of the tree are recorded: those of real or complex numbers."""
    paths: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    """The layers of each leaf; 0 where it is not a stack of layers."""
    sizes: tuple[int, ...] = ()
    """The number of entries of each row of the leaf."""
    dtypes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return False
        return not self.paths or not other.paths or vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(Rows)

    def __len__(self) -> int:
        return sum(max(layers, 1) for layers in self.layers)


def rows_of(params: Any, every: int, stacked: Stacked) -> Rows:
    found: list[tuple[int, str, int, int, str]] = []
    for place, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(params)[0]):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        name, shape, layers = name_of(path), np.shape(leaf), 0
        if _is_stacked(name, stacked):
            if not shape or not shape[0]:
                raise ValueError(f"stacked: {name} has the shape {shape}; pass paths of parameters with a layer axis")
            layers = shape[0]
        size = int(np.prod(shape)) // max(layers, 1)
        found.append((place, name, layers, size, jnp.result_type(leaf).name))
    names = [name for _, name, *_ in found]
    for wanted in _paths(stacked) if names else ():
        if not any(_beneath(name, wanted) for name in names):
            raise ValueError(f"stacked: no parameter is at {wanted!r}; the paths are: {arguments.shown(names)}")
    leaves, paths, layers_, sizes, dtypes = zip(*found, strict=True) if found else ((),) * 5
    return Rows(every, leaves, paths, layers_, sizes, dtypes)


def name_of(path: Sequence[Any]) -> str:
    """A path in a tree as names between slashes; the value in a variable of flax.nnx is the variable."""
    if path and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/") or "parameter"


def check_stacked(stacked: Any) -> None:
    wanted = "True, a path such as 'blocks', a sequence of paths, or a function of the path"
    if isinstance(stacked, bool | str) or callable(stacked):
        return
    if not isinstance(stacked, Sequence) or not all(isinstance(path, str) for path in stacked):
        raise TypeError(f"stacked: {arguments.got(stacked)}; pass {wanted}")


def _paths(stacked: Any) -> tuple[str, ...]:
    if isinstance(stacked, bool) or callable(stacked):
        return ()
    return (stacked,) if isinstance(stacked, str) else tuple(stacked)


def _is_stacked(name: str, stacked: Any) -> bool:
    if isinstance(stacked, bool):
        return stacked
    return bool(stacked(name)) if callable(stacked) else any(_beneath(name, path) for path in _paths(stacked))


def _beneath(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")
