"""The progress of a run on a Ray cluster: all workers in one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from pathencoder.cli import report
from pathencoder.cli.common import plural
from pathencoder.cluster.pool import Watcher
from pathencoder.cluster.worker import Seen
from pathencoder.features.job import Outcome
from pathencoder.text import duration
from pathencoder.walk import printable

_LINE_SECONDS = 30.0
_NOTE = ": note: "


class RayMeter(Watcher):
    """What all workers do: a bar on a terminal, a line from time to time elsewhere.

    Args:
        sources: The inputs, as the user typed them.
        word: What an input is, in the singular.
        line_seconds: Between two lines where standard error is no terminal.

    Attributes:
        begun_: The numbers of the inputs that were begun.
        done: (done, total) of each of them that has said it.
    """

    def __init__(
        self, sources: Sequence[Path], word: str, *, line_seconds: float = _LINE_SECONDS
    ) -> None:
        self.begun_: set[int] = set()
        self.done: dict[int, tuple[int, int]] = {}
        self._sources, self._word, self._line_seconds = sources, word, line_seconds
        self._ended: set[int] = set()
        self._first: dict[int, int] = {}  # tiles that an earlier run had done
        self._notes: set[str] = set()
        self._started = self._shown = time.monotonic()
        self._workers = 0
        self._bar: Any = None

    def __enter__(self) -> RayMeter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def begun(self, number: int, where: str) -> None:
        """A worker begins an input."""
        self.begun_.add(number)

    def ended(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """An input has its outcomes."""
        self._ended.add(number)
        first = outcomes[0]
        if first.rows:
            self.done[number] = (first.rows, first.rows)
            self._first.setdefault(number, first.rows - first.new)
        count = f"[{len(self._ended)}/{len(self._sources)}]"
        words = ", ".join(dict.fromkeys(report.WORDS[outcome.status] for outcome in outcomes))
        self._echo(f"{count} {self._name(number)}: {words}")
        if self._bar is not None:
            self._bar.update(len(self._ended) - self._bar.n)

    def seen(self, seen: Seen) -> None:
        """How far an input is; its messages are printed, each note once."""
        if seen.total:
            self.done[seen.number] = (seen.done, seen.total)
            self._first.setdefault(seen.number, seen.done)
        for message in seen.said:
            _, is_note, note = str(message).partition(_NOTE)
            if not is_note or note not in self._notes:
                self._notes.add(note)
                self._echo(str(message))

    def again(self, number: int, reason: str) -> None:
        """A worker died."""
        self._echo(f"{self._name(number)}: its worker died ({reason}). It is resumed by another")

    def fewer(self, reason: str) -> None:
        """A worker did not start."""
        self._echo(f"warning: one worker less: {printable(reason)}")

    def waiting(self, workers: int) -> None:
        """No worker is ready yet."""
        self._echo(
            f"none of {plural(workers, 'worker')} is ready: they load the encoder, or wait for free"
            " cores or GPUs (`ray status` lists them)"
        )

    def tick(self, workers: int) -> None:
        """Show the line, if it is time to."""
        self._workers = workers
        if sys.stderr.isatty():
            self._draw()
        elif time.monotonic() - self._shown > self._line_seconds:
            self._shown = time.monotonic()
            click.echo(self.line(), err=True)

    def line(self) -> str:
        """All workers in one line."""
        ended, every = len(self._ended), len(self._sources)
        return f"{ended:,} of {plural(every, self._word)} done, {self._rate()}{self._left()}"

    def _rate(self) -> str:
        new = sum(done - self._first[number] for number, (done, _) in self.done.items())
        rate = new / max(time.monotonic() - self._started, 1e-9)
        workers = plural(self._workers, "worker")
        return f"{plural(new, 'tile')} by {workers}, {rate:.1f} tiles/s"

    def _left(self) -> str:
        """The time left, from the time an input took; none before each worker has done one."""
        ended, every = len(self._ended), len(self._sources)
        if ended < max(self._workers, 1) or ended == every:
            return ""
        each = (time.monotonic() - self._started) / ended
        return f", about {duration(each * (every - ended))} left"

    def _draw(self) -> None:
        if self._bar is None:
            import tqdm

            self._bar = tqdm.tqdm(
                total=len(self._sources),
                desc=f"{self._word}s",
                unit=self._word,
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.set_postfix_str(self._rate())

    def _echo(self, text: str) -> None:
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def _name(self, number: int) -> str:
        return printable(self._sources[number])
