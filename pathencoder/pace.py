"""Where the time of a run goes: into reading images, or into the network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_READING_AHEAD = 0.1  # share of waiting below which reading keeps ahead of the network


@dataclass
class Pace:
    """Times of one input; they grow while it is encoded.

    Attributes:
        reading: Seconds in which the network waited for images to be read.
        network: Seconds in which the program waited for the network.
        notes: What had to be changed on the way, as sentences.
    """

    reading: float = 0.0
    network: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> float | None:
        """Share of the time in which the network waited for reading; None before the first."""
        seconds = self.reading + self.network
        return self.reading / seconds if seconds else None

    @contextlib.contextmanager
    def of_reading(self) -> Iterator[None]:
        """Count the time of the block as waiting for reading."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.reading += time.perf_counter() - started

    @contextlib.contextmanager
    def of_network(self) -> Iterator[None]:
        """Count the time of the block as waiting for the network."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.network += time.perf_counter() - started

    def add(self, other: Pace) -> None:
        """Add the times of another input."""
        self.reading += other.reading
        self.network += other.network


def who_waits(waiting: float | None) -> str:
    """In words, which of reading and network waits for the other; "" where it is not known."""
    if waiting is None:
        return ""
    if waiting < _READING_AHEAD:
        return "reading is ahead of the network"
    return f"the network waited for reading {100 * waiting:.0f} % of the time"
