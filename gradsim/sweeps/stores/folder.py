"""Files of a store: their names, and how what is written is on disk before it counts."""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

SHEET, DONE, LOCK, OWNER, PARTIAL = "zarr.json", "done", "lock", "owner", ".partial"
# Of several processes all but the first have a number in the names of theirs.
OWN = re.compile(r"(zarr\.json|(done|owner)(\.\d+)?)(\.partial)?|lock((\.\d+)?\.own)?")


def replace(file: Path, text: str) -> None:
    """Put the text into the file, whole or not at all, whenever the process or the machine stops."""
    partial = file.with_name(file.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """What was written to a file, or which files a folder has, goes to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens none, and keeps it in order itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(file: str | Path) -> int | None:
    """CRC-32 of a file's bytes; None where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return zlib.crc32(stream.read())
    except OSError:
        return None


def foreign(folder: Path) -> str:
    """The name of something in the folder that no store has; "" where there is nothing of the kind, nor a folder."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return ""
    return next((name for name in names if not OWN.fullmatch(name) and not _is_part(name)), "")


def suffix(process: int) -> str:
    """What the names of a process's files end with; nothing where it is the first, or the only one."""
    return f".{process}" if process else ""


def numbered(folder: Path, name: str) -> list[int]:
    """The numbers from 1 on of the processes that have a file of this name."""
    ends = (file.name.removeprefix(f"{name}.") for file in folder.glob(f"{name}.*"))
    return sorted(int(end) for end in ends if end.isdigit())


def part_name(number: int) -> str:
    """The folder of a part."""
    return f"part{number}"


def _is_part(name: str) -> bool:
    return name.startswith("part") and name[4:].isdigit()


def shown(value: Any) -> str:
    """`value` as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]} …"
