"""What a sweep may use: which devices of this process, how much of their memory, and which share of the chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import jax
import psutil

from gradsim import arguments
from gradsim.cores import cores

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LEAST_MEMORY = 2**20


@dataclass(frozen=True)
class Machine:
    """The devices, all of this process if None; the most bytes of one, half of those free if None; which process."""

    chosen: tuple[Any, ...] | None = None
    max_memory: int | None = None
    process: int | None = None
    processes: int | None = None

    @property
    def devices(self) -> tuple[Any, ...]:
        return tuple(jax.local_devices()) if self.chosen is None else self.chosen

    @property
    def platform(self) -> str:
        return str(self.devices[0].platform)

    @property
    def plain(self) -> bool:
        """Whether JAX's own default device is the only one."""
        return self.devices == (jax.local_devices()[0],)

    @property
    def threads(self) -> int:
        """How many programs the device runs side by side: one for each core of a CPU which nobody has asked for."""
        return cores() if self.chosen is None and self.plain and self.platform == "cpu" else 1

    def free_memory(self) -> int:
        """Bytes that each device can still give."""
        stats = [device.memory_stats() for device in self.devices] if self.platform != "cpu" else []
        if stats and all(one and "bytes_limit" in one for one in stats):
            return min(int(one["bytes_limit"] - one["bytes_in_use"]) for one in stats)
        return int(psutil.virtual_memory().available) // len(self.devices)

    def share(self) -> tuple[int, int]:
        """The number of this process and of all on one store; JAX's own where jax.distributed has been set up."""
        if self.process is not None and self.processes is not None:
            return self.process, self.processes
        return (jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else (0, 1)


# Of the thread at hand; scripts set it from their options.
_machine: ContextVar[Machine | None] = ContextVar("machine", default=None)


def at_hand() -> Machine:
    """The machine of what is measured now."""
    return _machine.get() or Machine()


@contextmanager
def used(devices: Any = None, max_memory: Any = None, process: Any = None, processes: Any = None) -> Iterator[Machine]:
    """While it is open, what is measured uses these; what is None stays as it was.

    Raises: ValueError or TypeError naming the argument.
    """
    machine = at_hand()
    if devices is not None:
        machine = replace(machine, chosen=_devices(devices))
    if max_memory is not None:
        machine = replace(machine, max_memory=_bytes(max_memory))
    if process is not None or processes is not None:
        process, processes = _share(process, processes)
        machine = replace(machine, process=process, processes=processes)
    token = _machine.set(machine)
    try:
        yield at_hand()
    finally:
        _machine.reset(token)


def _devices(devices: Any) -> tuple[Any, ...]:
    """So many, or these, of this process's devices."""
    local = jax.local_devices()
    if not isinstance(devices, Sequence) or isinstance(devices, str):
        return tuple(local[: arguments.whole("devices", devices, maximum=len(local))])
    wanted = f"a number up to {len(local)}, or some of jax.local_devices(), all of one platform, each once"
    if not all(isinstance(one, jax.Device) for one in devices):
        raise TypeError(f"devices: {arguments.got(devices)}; pass {wanted}")
    here = all(one.process_index == jax.process_index() for one in devices)
    if not devices or not here or len({one.platform for one in devices}) > 1 or len(set(devices)) < len(devices):
        raise ValueError(f"devices: got {arguments.shown(devices)}; pass {wanted}")
    return tuple(devices)


def _bytes(memory: Any) -> int:
    """A number of bytes, or a text with a unit."""
    wanted = "a number of bytes from 1 MiB, or a text such as '2GiB' or '500MiB'"
    if not isinstance(memory, str):
        try:
            return arguments.whole("max_memory", memory, minimum=LEAST_MEMORY)
        except (TypeError, ValueError) as error:
            raise type(error)(f"max_memory: {arguments.got(memory)}; pass {wanted}") from None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])i?)?B?\s*", memory, re.IGNORECASE)
    number = float(found[1]) * UNITS[(found[2] or "").upper()] if found else 0.0
    if not LEAST_MEMORY <= number < 2**63:
        raise ValueError(f"max_memory: got {arguments.shown(memory)}; pass {wanted}")
    return int(number)


def _share(process: Any, processes: Any) -> tuple[int, int]:
    """Which process of how many."""
    if process is None or processes is None:
        name = "process" if process is None else "processes"
        raise ValueError(f"{name}: got None; pass process and processes together, such as process=0, processes=2")
    count = arguments.whole("processes", processes, maximum=2**20)
    return arguments.whole("process", process, minimum=0, maximum=count - 1), count
