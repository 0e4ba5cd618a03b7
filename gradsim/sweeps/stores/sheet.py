"""What a store says of its sweep or training: arguments, axes, the parts it comes in; as JSON and back, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple, get_args

import numpy as np

from gradsim.engine.plan import Plan
from gradsim.engine.tiling import Tiling
from gradsim.sweeps.chunks import Chunk, Effort, deepened
from gradsim.sweeps.course import Course

FORMAT = 2
MOST_POINTS = 2**28  # more than a sweep can have along one axis


class Told(NamedTuple):
    """A statistic as its numbers are read: `at` where it is costly, the shape of one network's value by network.

    Those of a training run are no statistics of a product, of which −inf is dead and what leaves the floats is lost:
    `kind` is then "record", or "flag" of one that is true or false.
    """

    name: str
    about: Mapping[str, Any]  # long_name, units, of a narrow dtype which one
    dims: tuple[str, ...]  # after those of gains and seeds: depth or step first, and what it has beside
    at: tuple[int, ...] | None
    infinite: bool
    undefined: bool
    dead: str  # what the flag asks, if its −inf tells that a network is dead
    shapes: tuple[tuple[int, ...], ...]
    kind: str = "statistic"


@dataclass(frozen=True)
class Part:
    """A rectangle of one network's cells and seeds that is measured, and written, by a chunk plan of its own.

    A Zarr chunk is what one call of the device gives: no two writes touch the same one. The plan is kept, so that the
    sweep goes on as it began on a machine with another memory.
    """

    network: int
    axes: Mapping[str, np.ndarray]
    seeds: np.ndarray
    chunk: Chunk
    steps: int  # of the program, some of which may be beyond the depth
    span: tuple[int, int] | None = None  # the steps it holds, after the first number to the second; None: all of them
    follows: int | None = None  # the part of the same networks that holds the steps before those

    @property
    def cells(self) -> int:
        return math.prod(axis.size for axis in self.axes.values())

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks along the seeds and along the cells."""
        return -(-self.seeds.size // self.chunk.seeds), -(-self.cells // self.chunk.cells)

    @property
    def size(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def rows(self) -> slice:
        """Which of all depths it holds."""
        return slice(None) if self.span is None else slice(*self.span)

    def planned(self, plan: Plan) -> Plan:
        """The plan up to the last step that it holds."""
        if self.span is None:
            return plan
        return replace(plan, depth=self.span[1], at=tuple(one for one in plan.at if one <= self.span[1]))

    def course(self, plan: Plan) -> Course:
        """That of the plan, by this part's chunks."""
        plan = self.planned(plan)
        return Course(deepened(plan, self.steps), plan.depth, self.chunk, self.cells, self.seeds.size)


@dataclass(frozen=True)
class Sheet:
    """All that a store says beside its numbers."""

    arguments: Mapping[str, Any]  # what must be the same to go on, as JSON holds it
    axis: str | None  # that of several networks
    networks: Mapping[str, Any]  # their descriptions by name
    own: tuple[tuple[str, ...], ...]  # the axes that each network has
    axes: Mapping[str, np.ndarray]
    seeds: np.ndarray
    dims: tuple[str, ...]  # (network,) gains, seed
    coordinates: Mapping[str, tuple[Any, ...]]
    attrs: Mapping[str, Any]
    statistics: tuple[Told, ...]
    parts: tuple[Part, ...] = field(default=())

    def box(self, network: int) -> dict[str, np.ndarray]:
        """The axes of one network, and the seeds."""
        return {**{name: self.axes[name] for name in self.own[network]}, "seed": self.seeds}

    def shape(self, part: Part, told: Told) -> tuple[int, ...]:
        """That of a statistic of one network, of the steps that the part holds."""
        shape = told.shapes[part.network]
        return shape if part.span is None else (part.span[1] - part.span[0], *shape[1:])

    def share(self, part: Part) -> Fraction:
        """That of all steps which it holds."""
        return Fraction(1) if part.span is None else Fraction(part.span[1] - part.span[0], self.arguments["depth"])

    @property
    def total(self) -> int:
        """The networks of all parts."""
        return sum(part.cells * part.seeds.size for part in self.parts if part.follows is None)

    @property
    def points(self) -> int:
        """Those of one network's grid in the Dataset, seeds included; along a gain that it lacks it repeats."""
        return self.seeds.size * math.prod(axis.size for axis in self.axes.values())

    def same(self, other: Sheet) -> bool:
        """Whether all but the attributes is equal."""
        return replace(self, attrs={}).json() == replace(other, attrs={}).json()

    def json(self) -> str:
        """A Zarr group's metadata with all of it among the attributes."""
        told = {
            "format": FORMAT,
            "arguments": self.arguments,
            "axis": self.axis,
            "networks": list(self.networks.items()),
            "own": self.own,
            "axes": _encoded(self.axes),
            "seeds": _encode(self.seeds),
            "dims": self.dims,
            "coordinates": [[name, one[0], _encode(one[1]), dict(*one[2:])] for name, one in self.coordinates.items()],
            "statistics": [one._asdict() for one in self.statistics],
            "parts": [
                {
                    "network": part.network,
                    "axes": _encoded(part.axes),
                    "seeds": _encode(part.seeds),
                    "chunk": [part.chunk.cells, part.chunk.seeds, *part.chunk.tiling, part.chunk.devices],
                    "effort": part.chunk.effort,
                    "steps": part.steps,
                    **({} if part.span is None else {"span": part.span, "follows": part.follows}),
                }
                for part in self.parts
            ],
        }
        attributes = {**self.attrs, "gradsim": told}
        return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, ensure_ascii=False)


def read(text: str) -> Sheet:
    """The sheet of this JSON. Raises: ValueError, KeyError, TypeError or AttributeError where it is none."""
    attrs = dict(json.loads(text)["attributes"])
    told = attrs.pop("gradsim")
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']!r}, and this gradsim reads {FORMAT}")
    return Sheet(
        arguments=dict(told["arguments"]),
        axis=None if told["axis"] is None else str(told["axis"]),
        networks={str(name): dict(one) for name, one in told["networks"]},
        own=tuple(tuple(map(str, names)) for names in told["own"]),
        axes={str(name): _decode(values) for name, values in told["axes"].items()},
        seeds=_decode(told["seeds"]),
        dims=tuple(map(str, told["dims"])),
        coordinates={
            str(name): (dims if isinstance(dims, str) else tuple(map(str, dims)), _decode(values), dict(about))
            for name, dims, values, about in told["coordinates"]
        },
        attrs={str(name): value for name, value in attrs.items()},
        statistics=tuple(_told(one) for one in told["statistics"]),
        parts=tuple(_part(one, told) for one in told["parts"]),
    )


def _told(one: Mapping[str, Any]) -> Told:
    if one["kind"] not in ("statistic", "record", "flag") or (one["kind"] == "statistic" and not one["dims"]):
        raise ValueError(f"{one['name']} is of no kind that is known")
    return Told(
        str(one["name"]),
        {str(name): str(value) for name, value in one["about"].items()},
        tuple(map(str, one["dims"])),
        None if one["at"] is None else tuple(map(int, one["at"])),
        bool(one["infinite"]),
        bool(one["undefined"]),
        str(one["dead"]),
        tuple(tuple(map(_size, shape)) for shape in one["shapes"]),
        str(one["kind"]),
    )


def _part(one: Mapping[str, Any], told: Mapping[str, Any]) -> Part:
    cells, seeds, block, steps = map(_size, one["chunk"][:4])
    tangents, devices = (*one["chunk"][4:], 1)[:2]  # a store from before does not say how many devices share a chunk,
    effort = one.get("effort", "level 1")  # nor this
    if effort not in get_args(Effort):
        raise ValueError("a part is compiled as none is")
    network = int(one["network"])
    if not 0 <= network < len(told["networks"]) or set(one["axes"]) != set(told["own"][network]):
        raise ValueError("a part is of none of its networks")
    axes = {str(name): _decode(values) for name, values in one["axes"].items()}
    chunk = Chunk(cells, seeds, Tiling(block, steps, _size(tangents) if tangents else 0), _size(devices), effort)
    return Part(network, axes, _decode(one["seeds"]), chunk, _size(one["steps"]), *_span(one, told))


def _span(one: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int | None]:
    """The steps of a part that does not hold all, and the part before it: one that is told of before, as wide."""
    if one.get("span") is None:
        return None, None
    (first, last), follows = one["span"], one["follows"]
    if follows is None:
        return (0, _size(last)), None
    before = told["parts"][follows]
    same = all(before.get(name) == one.get(name) for name in ("network", "axes", "seeds", "chunk", "effort"))
    rises = before["span"][1] == _size(first) < _size(last) <= told["arguments"]["depth"]
    if not (same and rises and 0 <= follows < told["parts"].index(one)):
        raise ValueError("a part follows none of its networks")
    return (first, last), follows


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no size")
    return value


def rest(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The boxes that fill `new` beside `old`, a box within it: one for each axis that has more points."""
    for name in new:
        fresh = new[name][~np.isin(new[name], old[name])]
        if fresh.size:
            later = list(new)[list(new).index(name) + 1 :]
            yield {**new, name: fresh, **{other: old[other] for other in later}}


def positions(values: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Where each value stands in `within`, whose entries differ; −1 where it does not."""
    order = np.argsort(within)
    place = order[np.minimum(np.searchsorted(within, values, sorter=order), within.size - 1)]
    return np.where(within[place] == values, place, -1)


def _encoded(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: _encode(values) for name, values in arrays.items()}


def _encode(values: Any) -> dict[str, Any]:
    """Numbers or names as JSON holds them, every digit kept."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        if array.ndim and array.size > 1 and np.all(np.diff(array) == array[1] - array[0]):
            step = int(array[1] - array[0])
            return {"range": [int(array[0]), int(array[0]) + step * array.size, step]}
        return {"whole": array.tolist()}
    if array.dtype.kind == "f":
        plain = np.where(np.isfinite(array), array, 0.0).tolist()
        return {"real": plain if np.isfinite(array).all() else _with_words(array)}
    return {"text": array.tolist()}


def _with_words(array: np.ndarray) -> Any:
    """NaN and infinities as words: JSON has no such numbers."""
    words = [value if math.isfinite(value) else str(value) for value in array.ravel().tolist()]
    return words if array.ndim else words[0]


def _decode(told: Mapping[str, Any]) -> np.ndarray:
    ((kind, values),) = told.items()
    if kind == "range":
        whole = range(*map(int, values))
        if len(whole) > MOST_POINTS:
            raise ValueError(f"an axis of {len(whole)} points")
        return np.arange(whole.start, whole.stop, whole.step, dtype=np.int64)
    if kind == "real":
        return np.array(values, np.float64)
    return np.array(values, {"whole": np.dtype(np.int64), "text": np.dtype(np.str_)}[kind])
