"""What a run says of itself: JSON lines always, a line for people, TensorBoard and Weights and Biases where asked."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from training.monitor.collapse import FirstFeatures, spread
from training.monitor.knn import LabelledSet, knn_accuracy, knn_report, labelled_set
from training.monitor.trackers import Tracker

__all__ = [
    "FirstFeatures",
    "LabelledSet",
    "Monitor",
    "knn_accuracy",
    "knn_report",
    "labelled_set",
    "peak_memory_mb",
    "spread",
]

log = logging.getLogger(__name__)


class Monitor:
    """Appends JSON lines to run/log.jsonl.

    Every line has the step, wall seconds and CPU seconds of this process. A value that is not
    finite is written as null. run=None: a process that says nothing, as all but the first of
    several are.
    """

    def __init__(self, run: Path | None, trackers: list[Tracker] | None = None) -> None:
        self._file = (run / "log.jsonl").open("a") if run else None
        self._trackers = trackers or []
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def write(self, kind: str, step: int, values: dict[str, Any], words: str | None = None) -> None:
        """One line, and the same in words to the log (`words`, or all values; "": not there)."""
        if self._file is None:
            return
        clocks = {
            "wall_s": round(time.monotonic() - self._wall, 1),
            "cpu_s": round(time.process_time() - self._cpu, 1),
        }
        self._file.write(
            json.dumps(
                {"kind": kind, "step": step, **{k: _plain(v) for k, v in values.items()}, **clocks}
            )
            + "\n"
        )
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


def in_words(values: dict[str, Any]) -> str:
    """name value, four digits, two blanks between."""
    return "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
    )


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


def peak_memory_mb(device: torch.device | None = None) -> float:
    """The most memory so far, MB.

    Of the GPU on CUDA, else resident memory of this process (nan on Windows, which does not tell).
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
