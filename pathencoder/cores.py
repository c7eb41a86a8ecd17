"""The processor cores that this process may use."""

from __future__ import annotations

import os


def available() -> int:
    """The number of cores, at least 1.

    A scheduler such as Slurm, `taskset` or a container's cpuset leaves a process fewer cores than
    the machine has; only those count.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
