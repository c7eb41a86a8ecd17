"""An exponential mean of the loss, for the line for people: single losses vary by the batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

_DECAY = 0.9  # of a log line: the mean covers about the last ten


class Smoothed:
    """The exponential mean of a figure over log lines, corrected for its start (as in Adam).

    Args:
        name: The figure.
        log: Lines of the log so far, for a resumed run.
    """

    def __init__(self, name: str, log: Iterable[dict[str, Any]] = ()) -> None:
        self._sum = self._weight = 0.0
        self._earlier = [
            (line["step"], line[name])
            for line in log
            if line["kind"] == "train" and line.get(name) is not None
        ]

    def add(self, step: int, value: float) -> float:
        """The mean after the value of a step; one that is not finite is left out.

        Of the earlier lines, those of steps that a resumed run repeats do not count.
        """
        for earlier, before in self._earlier:
            if earlier < step:
                self._add(before)
        self._earlier = []
        self._add(value)
        return self._sum / self._weight if self._weight else math.nan

    def _add(self, value: float) -> None:
        if math.isfinite(value):
            self._sum = _DECAY * self._sum + (1 - _DECAY) * value
            self._weight = _DECAY * self._weight + 1 - _DECAY
