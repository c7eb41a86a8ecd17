"""The loop over inputs that every verb uses: each input is processed alone and reported."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from pathencoder.cli import report
from pathencoder.cli.common import echo_json
from pathencoder.cli.course import Course
from pathencoder.cli.meter import Meter
from pathencoder.errors import PathEncoderError, StoreError
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure
from pathencoder.files import Mismatch
from pathencoder.leases import Seen
from pathencoder.locks import Busy
from pathencoder.walk import printable

T = TypeVar("T")

INTERRUPTED = 130
RESUMES = "the same command resumes from there"
STARTS_AGAIN = (
    "with --overwrite the same command starts again with all inputs. To go on, name only those that"
    " are listed as not finished or not reached"
)
RETRIES = (
    "the same command goes on with the inputs that failures.csv still lists; it begins again with"
    " slides of which some tiles failed"
)
_POLL = 2.0  # seconds between two looks at the work of another process


@dataclass(frozen=True)
class Ended:
    """A loop that has ended.

    Attributes:
        outcomes: Of each job, in order; those after a stop are "unreached".
        stopped_by: The KeyboardInterrupt or StoreError that ended the loop early; else None.
    """

    outcomes: list[Outcome]
    stopped_by: KeyboardInterrupt | StoreError | None = None

    @property
    def status(self) -> int:
        """The exit status: 0 all done, 1 failed, 3 some inputs failed, 130 interrupted."""
        if isinstance(self.stopped_by, KeyboardInterrupt):
            return INTERRUPTED
        return 1 if self.stopped_by is not None else report.exit_status(self.outcomes)


@dataclass(frozen=True)
class Loop(Generic[T]):
    """How the jobs of a verb are processed.

    Attributes:
        do: Processes one job; its progress goes to the meter, called with (done, total). A job with
            several output files has several outcomes.
        source: The input of a job, as the user typed it.
        name: The name of a job in progress lines.
        unit: What is counted, in the singular.
        debug: Print the traceback of an unexpected error.
        new_meter: Makes the meter of a job, from its name; None: one that prints.
    """

    do: Callable[[T, Meter], Outcome | list[Outcome]]
    source: Callable[[T], Path]
    name: Callable[[T], str]
    unit: str = "tile"
    debug: bool = False
    new_meter: Callable[[str], Meter] | None = None

    def run(self, jobs: Sequence[T]) -> Ended:
        """Process the jobs one after the other.

        Any error of one input, also an unexpected one, fails that input alone. Ctrl-C and an
        output folder that accepts no more files (a full disk) end the loop. Inputs that another
        process works on are passed over, and looked at again at the end.

        Returns:
            The outcome of every job.
        """
        outcomes, course = self.begun(jobs), Course(len(jobs))
        stopped: KeyboardInterrupt | StoreError | None = None
        try:
            for number in range(len(jobs)):
                self.process(number, jobs, outcomes, course)
            self.come_back(jobs, outcomes, course)
        except (KeyboardInterrupt, StoreError) as stop:
            stopped = stop
        return Ended([one for of_job in outcomes for one in of_job], stopped)

    def begun(self, jobs: Sequence[T]) -> list[list[Outcome]]:
        """The outcomes of jobs that were not reached yet."""
        return [[Outcome(self.source(job), "unreached")] for job in jobs]

    def process(
        self,
        number: int,
        jobs: Sequence[T],
        outcomes: list[list[Outcome]],
        course: Course,
        lane: int = 0,
    ) -> None:
        """Process one job and set its outcomes.

        Args:
            number: Which one.
            jobs: All jobs.
            outcomes: Of all jobs.
            course: How far all jobs are.
            lane: Which of the jobs that are processed at the same time.

        Raises:
            KeyboardInterrupt: The user, or the course, stops all jobs.
            StoreError: The output folder accepts no more files.
        """
        job = jobs[number]
        if len(jobs) > 1 and outcomes[number][0].status == "unreached":
            source = printable(self.source(job))
            click.echo(f"[{number + 1}/{len(jobs)}] {source}", err=True)
        meter = self._meter(printable(self.name(job)), course, lane)
        started = time.monotonic()
        try:
            outcomes[number] = self._one(job, meter)
        except (KeyboardInterrupt, StoreError):
            outcomes[number] = [Outcome(self.source(job), "stopped", notes=_how_far(meter))]
            raise
        course.ended(outcomes[number], time.monotonic() - started)

    def come_back(self, jobs: Sequence[T], outcomes: list[list[Outcome]], course: Course) -> None:
        """Look again at the jobs of other processes: done, given up, or still in work.

        A process of another machine that does not renew its lease may have ended; its job is
        processed here when the lease counts as given up. One that does is left alone.
        """
        busy, said = [n for n, of_job in enumerate(outcomes) if _leases(of_job)], False
        while busy:
            before = {number: _leases(outcomes[number]) for number in busy}
            for number in busy:
                self.process(number, jobs, outcomes, course)
            busy = [n for n in busy if _may_have_ended(before[n], _leases(outcomes[n]))]
            if busy and not said:
                names = ", ".join(printable(self.name(jobs[number])) for number in busy)
                click.echo(f"waiting to see whether another process is at work: {names}", err=True)
                said = True
            if busy:
                time.sleep(_POLL)

    def _meter(self, name: str, course: Course, lane: int) -> Meter:
        if self.new_meter is not None:
            return self.new_meter(name)
        return Meter(name, unit=self.unit, course=course, lane=lane)

    def _one(self, job: T, meter: Meter) -> list[Outcome]:
        try:
            with meter:
                outcome = self.do(job, meter)
        except Exception as error:
            if self.debug and not isinstance(error, StoreError):
                traceback.print_exc()
            return [ended_by(error, self.source(job))]
        return outcome if isinstance(outcome, list) else [outcome]


def _leases(outcomes: Sequence[Outcome]) -> list[Seen | None]:
    """The leases of the other processes that work on a job."""
    return [outcome.lease for outcome in outcomes if outcome.status == "busy"]


def _may_have_ended(before: Sequence[Seen | None], now: Sequence[Seen | None]) -> bool:
    """Whether a process that works on a job has not shown that it runs."""
    return any(seen is not None and seen in before for seen in now)


def ended_by(error: Exception, source: Path) -> Outcome:
    """The outcome of an input that ended with an error.

    Raises:
        StoreError: The error concerns the disk, not this input.
    """
    if isinstance(error, Busy):
        return Outcome(source, "busy", lease=error.seen)
    if isinstance(error, StoreError) and not isinstance(error, Mismatch):
        raise error
    return failed(source, error)


def failed(source: Path, error: Exception) -> Outcome:
    """The outcome of an input that ended with an error."""
    return Outcome(source, "failed", failures=[Failure("", reason_of(error), type(error).__name__)])


def reason_of(error: Exception) -> str:
    """An error as a sentence; an unexpected one asks the user to report it."""
    if isinstance(error, PathEncoderError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        said = f" ({error})" if str(error) else ""
        return (
            f"not enough memory for this input{said}. Close other programs, or lower --batch-size"
        )
    if isinstance(error, OSError) and error.strerror and error.filename:
        path = printable(os.fsdecode(error.filename))
        return f"{path}: {error.strerror}. Check that the file still exists and can be read"
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    return (
        f"a bug in pathencoder: {said}. Run this input again with --debug and report what it prints"
    )


def conclude(
    ended: Ended,
    out: Path,
    *,
    as_text: Callable[[Path | None], str],
    as_json: Callable[[Path | None], dict[str, Any]] | None = None,
    go_on: str = RESUMES,
    debug: bool = False,
) -> int:
    """Write failures.csv, print the summary, and print what stopped the loop early.

    Args:
        ended: The result of the loop.
        out: The output folder.
        as_text: The summary as text; gets the path of failures.csv, None where nothing failed.
        as_json: The summary as JSON values, printed instead where it is given.
        go_on: What the same command does after a stop, and how to go on.
        debug: Print the traceback of what stopped the loop.

    Returns:
        The exit status.
    """
    failures = None
    try:
        failures = report.write_failures(out, ended.outcomes)
    except StoreError as error:
        click.echo(f"warning: {printable(str(error))}", err=True)
    if as_json is not None:
        echo_json(as_json(failures))
    else:
        click.echo(printable(as_text(failures)))
    if isinstance(ended.stopped_by, KeyboardInterrupt):
        click.echo(f"Interrupted. Finished work is kept: {go_on}.", err=True)
    elif ended.stopped_by is not None:
        if debug:
            traceback.print_exception(ended.stopped_by)
        click.echo(f"error: {printable(str(ended.stopped_by))}", err=True)
        if go_on != RESUMES:
            click.echo(f"But {go_on}.", err=True)
    return ended.status


def _how_far(meter: Meter) -> list[str]:
    return [f"{meter.done:,} of {meter.total:,} done"] if meter.total else []
