"""How far all inputs of a command are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from pathencoder.features.job import Outcome


@dataclass
class Course:
    """The inputs that are left, and how long those took that were encoded.

    Attributes:
        left: Inputs that have not ended.
        lanes: How many are processed at a time.
        stop: Set where all are to stop.
    """

    left: int
    lanes: int = 1
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seconds: float = 0.0
    _encoded: int = 0

    def ended(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Count an input that has ended."""
        with self._lock:
            self.left -= 1
            if any(outcome.new for outcome in outcomes):
                self._encoded += 1
                self._seconds += seconds

    def seconds_left(self, of_this: float) -> float | None:
        """About how long the rest takes; None before an input was encoded, and for the last one.

        Args:
            of_this: Share of the current input that is left.
        """
        with self._lock:
            others = self.left - 1
            if not self._encoded or others <= 0:
                return None
            return (others + of_this) * self._seconds / self._encoded / self.lanes
