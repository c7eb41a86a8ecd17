"""The memory that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_OWN, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # of control groups, on Linux


def available() -> int | None:
    """Bytes that this process may use at most; None where the system does not say.

    They are those of the machine without swap, or fewer where a container or a scheduler such as
    Slurm limits a process; what others use at the moment counts along.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows, or a system that does not know them
        return None
    return min([machine, *_limits()]) if machine > 0 else None


def _limits() -> Iterator[int]:
    """The limits of the control groups that this process is in."""
    try:
        groups = [line.split(":", 2) for line in _OWN.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return
    for _, controllers, place in groups:
        if not controllers:  # version 2
            root, name = _ROOT, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = _ROOT / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / place.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root) and (value := _number(group / name)) is not None:
                yield value


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max"
        return None
