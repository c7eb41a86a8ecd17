"""Throughput of a run: tiles per second, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class Throughput:
    """Measures the steps since the last measurement.

    The wait for the first batch, while the loader starts, is not counted.

    Args:
        batch: Tiles of a step, over all processes.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._steps, self._waited = 0, 0.0
        self._since: float | None = None

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each arrives counts as waiting."""
        while True:
            asked = time.monotonic()
            item = next(batches, None)
            now = time.monotonic()
            if item is None:
                return
            if self._since is None:
                self._since = now
            else:
                self._waited += now - asked
            yield item
            self._steps += 1

    def measure(self) -> tuple[float, float]:
        """Measure the time since the last measurement; call it at the end of a step.

        Returns:
            Tiles per second, and the share of the time spent waiting for data.
        """
        now = time.monotonic()
        elapsed = max(now - (self._since or now), 1e-9)
        rate, wait = (self._steps + 1) * self._batch / elapsed, self._waited / elapsed
        self._since, self._steps, self._waited = now, -1, 0.0
        return rate, wait

    def restart(self) -> None:
        """Leave out the time up to now; call it at the end of a step, after other work."""
        if self._since is not None:
            self._since, self._steps, self._waited = time.monotonic(), -1, 0.0
