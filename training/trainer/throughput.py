"""How fast a run goes: tiles a second, the share of time spent waiting for data, the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class Pace:
    """Clocks over the steps since the last look.

    The wait for the first batch, before the loader is warm, counts for nothing.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._steps, self._waited = 0, 0.0
        self._since: float | None = None

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each comes is waiting."""
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

    def look(self) -> tuple[float, float]:
        """(tiles a second, share of the time that went into waiting for data) since the last look.

        Call it inside a step's end.
        """
        now = time.monotonic()
        elapsed = max(now - (self._since or now), 1e-9)
        rate, wait = (self._steps + 1) * self._batch / elapsed, self._waited / elapsed
        self._since, self._steps, self._waited = now, -1, 0.0
        return rate, wait

    def restart(self) -> None:
        """After something that is no training, inside a step's end: it counts for nothing."""
        if self._since is not None:
            self._since, self._steps, self._waited = time.monotonic(), -1, 0.0
