"""Progress: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from pathencoder.cli.course import Course
from pathencoder.pace import Pace, who_waits
from pathencoder.text import duration

_LINE_SECONDS = 30.0
_ENOUGH = 64  # tiles after which the remaining time is estimated
_SAID_SECONDS = 1.0  # between two texts beside the bar


class Meter:
    """The progress of one input.

    Call it with (done, total); `done` may begin above zero where an earlier run stopped. It raises
    KeyboardInterrupt where the course was stopped.

    Args:
        name: Of the input.
        unit: What is counted, in the singular.
        line_seconds: Time between two lines.
        course: All inputs of the command.
        lane: Which of the inputs that are processed at the same time; the line of its bar.

    Attributes:
        pace: Where the time goes.
    """

    def __init__(
        self,
        name: str,
        *,
        unit: str = "tile",
        line_seconds: float = _LINE_SECONDS,
        course: Course | None = None,
        lane: int = 0,
    ) -> None:
        self._name, self._unit = name, unit
        self._line_seconds = line_seconds
        self._course, self._lane = course, lane
        self._bar: Any = None
        self._started = self._said = time.monotonic()
        self._first: int | None = None
        self.done = self.total = 0
        self.pace = Pace()

    def __call__(self, done: int, total: int) -> None:
        """Show the progress, if it is time to."""
        if self._course is not None and self._course.stop.is_set():
            raise KeyboardInterrupt
        self.done, self.total = done, total
        if self._first is None:
            self._first = done
            self._started = self._said = time.monotonic()
            if done:
                click.echo(f"{self._name}: resuming after {done:,} of {total:,}", err=True)
        if sys.stderr.isatty():
            self._draw()
        elif time.monotonic() - self._said > self._line_seconds:
            self._say()

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _draw(self) -> None:
        now = time.monotonic()
        if self._bar is None:
            import tqdm

            self._bar = tqdm.tqdm(
                total=self.total,
                initial=self._first or 0,
                desc=self._name,
                unit=self._unit,
                leave=False,
                dynamic_ncols=True,
                position=self._lane,
            )
        elif now - self._said > _SAID_SECONDS:
            self._bar.set_postfix_str(", ".join(self._beside()), refresh=False)
            self._said = now
        self._bar.update(self.done - self._bar.n)

    def _say(self) -> None:
        now = time.monotonic()
        rate = (self.done - (self._first or 0)) / max(now - self._started, 1e-9)
        known = self.done - (self._first or 0) >= _ENOUGH
        left = [f"{duration((self.total - self.done) / rate)} left"] if known else []
        parts = [f"{self.done:,} of {self.total:,} {self._unit}s", f"{rate:.1f}/s", *left]
        click.echo(f"{self._name}: {', '.join([*parts, *self._beside()])}", err=True)
        self._said = now

    def _beside(self) -> list[str]:
        """The time left for all inputs, and which of reading and network waits."""
        of_this = 1 - self.done / max(self.total, 1)
        left = None if self._course is None else self._course.seconds_left(of_this)
        whole = "" if left is None else f"about {duration(left)} left for all inputs"
        return [part for part in (whole, who_waits(self.pace.waiting)) if part]
