"""Progress: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from pathencoder.text import duration

_LINE_SECONDS = 30.0
_ENOUGH = 64  # tiles after which the remaining time is estimated


class Meter:
    """The progress of one input.

    Call it with (done, total); `done` may begin above zero where an earlier run stopped.
    """

    def __init__(
        self, name: str, *, unit: str = "tile", line_seconds: float = _LINE_SECONDS
    ) -> None:
        self._name, self._unit = name, unit
        self._line_seconds = line_seconds
        self._bar: Any = None
        self._started = self._said = time.monotonic()
        self._first: int | None = None
        self.done = self.total = 0

    def __call__(self, done: int, total: int) -> None:
        """Show the progress, if it is time to."""
        self.done, self.total = done, total
        if self._first is None:
            self._first = done
            self._started = time.monotonic()
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
        if self._bar is None:
            import tqdm

            start = self._first or 0
            self._bar = tqdm.tqdm(
                total=self.total,
                initial=start,
                desc=self._name,
                unit=self._unit,
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.update(self.done - self._bar.n)

    def _say(self) -> None:
        now = time.monotonic()
        rate = (self.done - (self._first or 0)) / max(now - self._started, 1e-9)
        known = self.done - (self._first or 0) >= _ENOUGH
        left = f", {duration((self.total - self.done) / rate)} left" if known else ""
        click.echo(
            f"{self._name}: {self.done:,} of {self.total:,} {self._unit}s, {rate:.1f}/s{left}",
            err=True,
        )
        self._said = now
