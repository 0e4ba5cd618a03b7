"""Small arrays measured many at a time: one program in place of many, for each takes as long to start as to run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

MANY = 16
FEW = 4  # so many are measured one by one
SMALL = 3 * 2**12  # entries, up to which arrays wait for others of their shapes; larger ones would take memory for it
LARGE = 2**19  # entries, so many that programs wait for those before them


class Later:
    """What will have been measured, once all is fetched: results by the number of the program that ran."""

    run: int
    row: int | None  # among those that it measured


class Together:
    """What is measured of many operands, each a tree of arrays; the results come to the host at once, at the end."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[Any, list[tuple[Later, list[Any]]]] = OrderedDict()
        self.results: list[Any] = []

    def __call__(self, measure: Callable[..., Any], *operands: Any) -> Later:
        """`measure` is a function that keeps its identity, for it is compiled once."""
        leaves, structure = jax.tree.flatten(operands)
        shapes = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
        later, key = Later(), (measure, structure, shapes)
        size = sum([leaf.size for leaf in leaves])
        if size > SMALL:
            self._alone(key, later, leaves)
            if size > LARGE:
                jax.block_until_ready(self.results[-1])  # until it has run, the operands stay in memory
            return later
        waiting = self.waiting.setdefault(key, [])
        waiting.append((later, leaves))
        if len(waiting) == MANY:
            self._together(key, self.waiting.pop(key))
        return later

    def fetched(self, tree: Any) -> Any:
        """A tree of what was measured, and of other arrays, on the host; to be called once, at the end."""
        while self.waiting:
            key, waiting = self.waiting.popitem()
            if len(waiting) > FEW:
                self._together(key, waiting)
            else:
                for later, leaves in waiting:
                    self._alone(key, later, leaves)
        found, structure = jax.tree.flatten(tree)
        others = {place: leaf for place, leaf in enumerate(found) if not isinstance(leaf, Later)}
        results, others = jax.device_get((self.results, others))
        for place, leaf in enumerate(found):
            if place in others:
                found[place] = others[place]
            else:
                whole = results[leaf.run]
                found[place] = whole if leaf.row is None else jax.tree.map(lambda x, row=leaf.row: x[row], whole)
        # A result may be a tree of its own.
        return jax.tree.unflatten(structure, found)

    def _alone(self, key: Any, later: Later, leaves: list[Any]) -> None:
        later.run, later.row = len(self.results), None
        self.results.append(_one(key[0], key[1], leaves))

    def _together(self, key: Any, waiting: list[tuple[Later, list[Any]]]) -> None:
        for row, (later, _) in enumerate(waiting):
            later.run, later.row = len(self.results), row
        # One program for any number: the last stands for those that are missing.
        rows = [leaves for _, leaves in waiting]
        self.results.append(_many(key[0], key[1], rows + rows[-1:] * (MANY - len(rows))))


@partial(jax.jit, static_argnums=(0, 1))
def _one(measure: Callable[..., Any], structure: Any, leaves: list[Any]) -> Any:
    return measure(*jax.tree.unflatten(structure, leaves))


@partial(jax.jit, static_argnums=(0, 1))
def _many(measure: Callable[..., Any], structure: Any, rows: list[list[Any]]) -> Any:
    stacked = [jnp.stack(column) for column in zip(*rows, strict=True)]
    return jax.vmap(lambda *leaves: measure(*jax.tree.unflatten(structure, leaves)))(*stacked)


def itself(x: Any) -> Any:
    """What is measured already."""
    return x
