"""Networks that are trained at once: those of a chunk, or fewer where the device has run out of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np

from gradsim import arguments
from gradsim.sweeps import chunks
from gradsim.sweeps.calls import EXHAUSTED
from gradsim.sweeps.course import Place

Filled = tuple[Place, dict[str, np.ndarray]]  # networks, and the room of what is recorded of them


class Size:
    """How many cells and seeds one call takes of a chunk; smaller for all threads once one has met a full device."""

    def __init__(self, chunk: chunks.Chunk) -> None:
        self.now, self._lock, self._said = (chunk.cells, chunk.seeds), Lock(), False

    def halve(self, tried: tuple[int, int], error: Exception) -> None:
        """Half of what was tried, of its seeds and then of its cells; said once.

        Raises: the error where it is another one, or one network alone was tried.
        """
        if tried == (1, 1) or not any(words in str(error) for words in EXHAUSTED):
            raise error
        with self._lock:
            if self.now != tried:  # another thread has met it meanwhile
                return
            cells, seeds = tried
            if not self._said:
                self._said = True
                arguments.warn(
                    f"device: out of memory in training {cells} cells x {seeds} seeds at once; goes on with half of "
                    "that, or less where it takes less. The numbers are the same within rounding"
                )
            self.now = (cells, -(-seeds // 2)) if seeds > 1 else (-(-cells // 2), 1)


def split(places: Sequence[Filled], size: tuple[int, int]) -> Iterator[list[Filled]]:
    """The same part of each place, of so many cells and seeds, after the other; repeated networks fill the last.

    What is no more than a repetition is left out.
    """
    whole = places[0][0]
    for cells in chunks.slices(whole.cells.size, size[0]):
        for seeds in chunks.slices(whole.seeds.size, size[1]):
            rows, columns = (slice(some[0], some[0] + count) for some, count in zip((cells, seeds), size, strict=True))
            parts = [
                (Place(place.number, place.cells[cells], place.seeds[seeds]), _views(records, rows, columns))
                for place, records in places
            ]
            if there := [part for part in parts if next(iter(part[1].values())).size]:
                yield there


def _views(records: dict[str, Any], rows: slice, columns: slice) -> dict[str, Any]:
    return {name: values[rows, columns] for name, values in records.items()}
