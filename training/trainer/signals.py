"""A request to stop from outside: Ctrl-C, SIGTERM, and SIGUSR1, which Slurm sends ahead of a time limit (--signal=USR1@120)."""

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
    """signal: the name of the one that came; None: none did."""

    signal: str | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside: the signals are noted and nothing else happens, so that a step can be finished.

    A second Ctrl-C interrupts at once. In another than the main thread, where Python allows no
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
