"""Run a command and watch its processes: wall and processor seconds, and memory over time.

Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY, _SHARED_EVERY = 0.05, 0.5  # seconds between samples of RSS, and of PSS, which costs more


@dataclass
class Watched:
    """A command that has ended.

    Attributes:
        seconds: From its start to its end.
        cpu: Processor seconds of all its processes.
        peak_mb: Highest sum of the resident memory of its processes. Pages that several of them
            share count in each.
        peak_shared_mb: The same with pages that are shared divided between them (PSS), which is
            sampled less often.
        samples: (what the probe returned, resident MB), in order of time.
        out: What it printed on standard output.
    """

    seconds: float
    cpu: float
    peak_mb: float
    peak_shared_mb: float
    samples: list[tuple[float, float]] = field(default_factory=list)
    out: str = ""


def watch(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    probe: Callable[[], float] | None = None,
) -> Watched:
    """Run a command to its end.

    Args:
        command: The command.
        cwd: Its folder.
        env: Variables beside ours.
        probe: Called at each sample; says how far the command is.

    Raises:
        SystemExit: It failed; with what it printed.
    """
    found = Watched(0.0, 0.0, 0.0, 0.0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=out, stderr=err
        )
        shared_at = 0.0
        while not _ended(process, _EVERY):
            family = _family(process.pid)
            now = sum(map(_resident, family))
            found.peak_mb = max(found.peak_mb, now)
            if probe is not None:
                found.samples.append((probe(), now))
            if time.perf_counter() - shared_at > _SHARED_EVERY:
                shared_at = time.perf_counter()
                found.peak_shared_mb = max(found.peak_shared_mb, sum(map(_proportional, family)))
        found.seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        out.seek(0)
        err.seek(0)
        found.out = out.read().decode(errors="replace")
        if process.returncode:
            said = err.read().decode(errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(command)}: status {process.returncode}\n{said}")
    return found


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                with contextlib.suppress(OSError):
                    found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    return 0.0


def _proportional(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
