"""Requests to stop: Ctrl-C, SIGTERM, and SIGUSR1, which Slurm sends before a time limit.

Slurm sends it with the option --signal=USR1@120.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")  # the last is not on Windows


@dataclass
class StopRequest:
    """Whether the run was asked to stop.

    Attributes:
        signal: Name of the signal that arrived; None before one does.
    """

    signal: str | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Note the signals while the block runs, so that the step can be finished.

    A second Ctrl-C interrupts immediately. Outside the main thread, where Python allows no
    handlers, nothing is noted.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {
        n: signal.signal(n, note)
        for n in (getattr(signal, name, None) for name in _NAMES)
        if n is not None
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
