"""The log of a run: JSON lines, the same in words, and trackers.

TensorBoard and Weights and Biases get the figures where the config asks for them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import torch

from pathencoder.errors import ConfigError
from training.monitor.trackers import Tracker

log = logging.getLogger(__name__)


FILE = "log.jsonl"


class Monitor:
    """Appends JSON lines to run/log.jsonl.

    Every line has the step, and the wall seconds and CPU seconds of this process. A value that is
    not finite is written as null.

    Args:
        run: The run's folder; None: nothing is written, as in all processes but the first.
        trackers: Where the figures are sent as well.
    """

    def __init__(self, run: Path | None, trackers: list[Tracker] | None = None) -> None:
        self._file = _open(run / FILE) if run else None
        self._trackers = trackers or []
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def write(self, kind: str, step: int, values: dict[str, Any], words: str | None = None) -> None:
        """Write one line.

        Args:
            kind: What the line is about: train, knn, skipped, alarm.
            step: Steps that are done.
            values: The figures, by name.
            words: The line for people, which goes to `logging`; None: all values; "": no line.
        """
        if self._file is None:
            return
        clocks = {
            "wall_s": round(time.monotonic() - self._wall, 1),
            "cpu_s": round(time.process_time() - self._cpu, 1),
        }
        figures = {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps({"kind": kind, "step": step, **figures, **clocks}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.write(kind, step, values)
        if words != "":
            log.info("%s", words or f"{kind} step {step}  {in_words(values)}")

    def close(self) -> None:
        """Close the file and the trackers."""
        if self._file:
            self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _open(file: Path) -> IO[str]:
    """Open a log for appending, on a fresh line: a killed process may have left half a line."""
    stream = file.open("a", encoding="utf-8")
    if not _ends_with_newline(file):
        stream.write("\n")
    return stream


def _ends_with_newline(file: Path) -> bool:
    if not file.stat().st_size:
        return True
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read run/log.jsonl.

    Lines that are not whole, as a killed process leaves them, are skipped with a warning.

    Args:
        run: The run's folder.

    Returns:
        The lines in the order of their steps. Where a resumed run wrote a step again, the later
        line replaces the earlier one.

    Raises:
        ConfigError: There is no log.
    """
    lines = {(x["kind"], x["step"], x.get("alarm")): x for x in as_written(run)}
    return sorted(lines.values(), key=lambda line: line["step"])


def as_written(run: Path) -> list[dict[str, Any]]:
    """All whole lines of run/log.jsonl in the order of the file; errors as in `read_log`.

    The clocks begin again in every process that resumed the run.
    """
    file = run / FILE
    if not file.is_file():
        raise ConfigError(f"{run} has no {FILE}: give the folder of a run")
    lines, broken = [], []
    for number, text in enumerate(file.read_bytes().splitlines(), 1):
        line = _parse(text)
        if line is None:
            broken.append(number)
        else:
            lines.append(line)
    if broken:
        log.warning(
            "%s: skipped line %s: not whole, as a killed run leaves it",
            file,
            ", ".join(map(str, broken)),
        )
    return lines


def _parse(text: bytes) -> dict[str, Any] | None:
    """A line of the log; None for one that is not whole."""
    try:
        line = json.loads(text)
    except ValueError:  # also UnicodeDecodeError
        return None
    return line if isinstance(line, dict) and {"kind", "step"} <= line.keys() else None


def in_words(values: dict[str, Any]) -> str:
    """Names and values in one line, floats with four digits."""
    return "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
    )


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


def peak_memory_mb(device: torch.device | None = None) -> float:
    """Peak memory of this process in MB.

    Args:
        device: On CUDA, the memory of this GPU counts, else the resident memory of the process.

    Returns:
        MB; NaN on Windows, which does not report it.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
