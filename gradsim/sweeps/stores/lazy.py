"""A store as an xarray.Dataset whose numbers are read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from gradsim.sweeps import flags
from gradsim.sweeps.stores import sheet
from gradsim.sweeps.stores.sheet import Told
from gradsim.sweeps.stores.store import Store, read, understood

KINDS = {
    **dict.fromkeys(("values", "rank", "record"), np.dtype(np.float64)),
    **dict.fromkeys(("dead", "lost", "flag"), np.dtype(bool)),
}


class Backend(BackendEntrypoint):
    """What `xarray.open_dataset` reads a store with; so it caches, and makes chunks of dask, as of any other file."""

    description = "sweeps and training runs that gradsim keeps"

    def open_dataset(self, filename_or_obj: Any, *, drop_variables: Any = None, **_: Any) -> xarray.Dataset:
        store = read(Path(filename_or_obj))
        if store is None:
            raise ValueError(
                f"path: there is no store at {filename_or_obj}; pass one of gradsim.sweep or gradsim.train"
            )
        with understood(store.path):
            return _dataset(store).drop_vars(drop_variables or [])


def _dataset(store: Store) -> xarray.Dataset:
    told = store.sheet
    variables: dict[str, Any] = {}
    lost, networks = store.lost_counts(), told.points * len(told.networks)
    for number, one in enumerate(told.statistics):
        if one.kind != "statistic":
            variables[one.name] = _variable(store, number, one.kind, dict(one.about))
            continue
        about: dict[str, Any] = {**one.about, "lost": lost[one.name], "networks": networks}
        if one.dead:
            variables["dead"] = _variable(store, number, "dead", {"long_name": one.dead})
        variables[one.name] = _variable(store, number, "values", about)
        if "singular_value" in one.dims and "rank" not in variables:
            variables["rank"] = _variable(store, number, "rank", {"long_name": flags.RANK, "units": "1"})
        if lost[one.name]:
            said = {"long_name": flags.LOST.format(one.name)}
            variables[f"{one.name}_lost"] = _variable(store, number, "lost", said)
    return xarray.Dataset(variables, told.coordinates, attrs={**told.attrs, "done": store.share_done()})


def _variable(store: Store, statistic: int, kind: str, about: dict[str, Any]) -> xarray.Variable:
    array = Lazy(store, statistic, kind)
    return xarray.Variable(array.dims, indexing.LazilyIndexedArray(array), about)


class Lazy(BackendArray):
    """One variable: what is asked of it is read chunk by chunk, and put together out of the parts of all networks.

    Args:
        kind: "values" of a statistic, its "dead" and "lost" flags, or the "rank" of its singular values; "record" or
            "flag" of a training run.
    """

    def __init__(self, store: Store, statistic: int, kind: str) -> None:
        told = store.sheet
        self._store, self._statistic, self._kind = store, statistic, kind
        self.told: Told = told.statistics[statistic]
        counted = len(self.told.dims) - (kind == "rank")  # the singular values are counted
        self.dims = (*told.dims, *self.told.dims[:counted])
        inner = tuple(max(sizes) for sizes in zip(*self.told.shapes, strict=True))[:counted]
        several = (len(told.networks),) if told.axis else ()
        grid = (*several, *[axis.size for axis in told.axes.values()], told.seeds.size)
        self.shape = grid + inner
        self.dtype = KINDS[kind]
        self._grid = len(grid)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """The numbers at an index, a whole number, a slice or an array along each dimension."""
        asked = [np.arange(size)[one] for size, one in zip(self.shape, key, strict=True)]
        index = [np.atleast_1d(one) for one in asked]
        nothing = np.nan if self.dtype.kind == "f" else False
        out = np.full([one.size for one in index], nothing, self.dtype)
        if self._store.sheet.axis:
            for place, network in enumerate(index[0]):
                self._fill(out[place], int(network), index[1:])
        else:
            self._fill(out, 0, index)
        return out.reshape([one.size for one in asked if one.ndim])

    def _fill(self, out: np.ndarray, network: int, index: Sequence[np.ndarray]) -> None:
        """Put what there is of one network into `out`, over the gains and seeds, and then the depths, of this index."""
        told = self._store.sheet
        grid = self._grid - bool(told.axis)
        wanted = dict(zip([*told.axes, "seed"], index[:grid], strict=True))
        values = {name: {**told.axes, "seed": told.seeds}[name][places] for name, places in wanted.items()}
        for number, part in enumerate(told.parts):
            if part.network != network:
                continue
            box = {**part.axes, "seed": part.seeds}
            places = {name: sheet.positions(values[name], points) for name, points in box.items()}
            chosen = {name: np.flatnonzero(there >= 0) for name, there in places.items()}
            at = [places[name][chosen[name]] for name in box]
            if not all(one.size for one in at):
                continue
            points = [points.size for points in part.axes.values()]
            cells = np.ravel_multi_index(np.ix_(*at[:-1]), points).ravel() if points else np.zeros(1, int)
            own, inner = told.shape(part, self.told), list(index[grid:])  # fewer singular values than others, perhaps
            if part.span is not None:
                inner[0] = inner[0] - part.span[0]
            inside = [np.flatnonzero((one >= 0) & (one < size)) for one, size in zip(inner, own, strict=False)]
            inner = [one[some] for one, some in zip(inner, inside, strict=True)]
            if not all(one.size for one in inner):
                continue
            block = self._block(number, cells, at[-1], inner)
            # Along a gain that the network lacks it is the same at every point.
            shape = [chosen[name].size if name in box else 1 for name in wanted]
            where = [chosen.get(name, np.arange(places.size)) for name, places in wanted.items()]
            out[np.ix_(*where, *inside)] = block.reshape(*shape, *block.shape[2:])

    def _block(self, part: int, cells: np.ndarray, seeds: np.ndarray, inner: Sequence[np.ndarray]) -> np.ndarray:
        """These cells and seeds of one part, [cells, seeds, *inner], out of the chunks that are done."""
        chunk, (_, columns) = self._store.sheet.parts[part].chunk, self._store.sheet.parts[part].grid
        nothing = np.nan if self.dtype.kind == "f" else False
        block = np.full((cells.size, seeds.size, *[one.size for one in inner]), nothing, self.dtype)
        for row in np.unique(seeds // chunk.seeds):
            along = np.flatnonzero(seeds // chunk.seeds == row)
            for column in np.unique(cells // chunk.cells):
                number = int(row * columns + column)
                if (part, number) in self._store.marks:
                    found = self._made(self._store.read(part, self._statistic, number), part)
                    down = np.flatnonzero(cells // chunk.cells == column)
                    places = (cells[down] - column * chunk.cells, seeds[along] - row * chunk.seeds, *inner)
                    block[np.ix_(down, along, *map(np.arange, block.shape[2:]))] = found[np.ix_(*places)]
        return block

    def _made(self, raw: np.ndarray, part: int) -> np.ndarray:
        """What the variable makes of the numbers of a part's chunk, [cells, seeds, …]."""
        one = self.told
        if self._kind == "record":
            return raw
        if self._kind == "flag":
            return raw == 1
        if self._kind == "dead":
            return raw == -np.inf
        if self._kind == "rank":
            return flags.rank(raw)
        pairs = one.dims[0] == "start"
        measured = flags.measured_steps(one.shapes[0][0], one.at, pairs=pairs)[self._store.sheet.parts[part].rows]
        measured = measured.reshape(*measured.shape, *[1] * (len(one.dims) - measured.ndim))
        if self._kind == "lost":
            return flags.out_of_range(raw, measured, infinite=one.infinite, undefined=one.undefined)
        if not one.infinite:
            raw[raw == -np.inf] = np.nan
        return np.where(measured, raw, np.nan) if pairs else raw
