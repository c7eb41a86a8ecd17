"""`--ray`: the jobs of a verb on the workers of a Ray cluster.

Each worker does a job by the function that does it without Ray; only where it runs differs.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pathencoder.cli.common import plural
from pathencoder.cli.inputs import name_of, source_of
from pathencoder.cli.job import Job
from pathencoder.cli.jobs import Ended, Loop, failed
from pathencoder.cli.messages import plain_messages
from pathencoder.cli.meter import Meter
from pathencoder.cli.ray_meter import RayMeter
from pathencoder.cli.ray_options import RayOptions
from pathencoder.cluster.pool import Result, results
from pathencoder.cluster.session import Plan, Share, session, share_out
from pathencoder.cluster.worker import Report
from pathencoder.errors import SlideError, StoreError
from pathencoder.features.job import Outcome

_RETRIES = 2
_PROBE_SECONDS = 10.0  # a network file system shows a new file after some seconds
_LOCK_SECONDS = 30.0  # until the lock of a worker that died is free

Do = Callable[[Job, Meter], Outcome | list[Outcome]]
Prepare = Callable[[Share, Plan], Do]


def run_on_ray(
    jobs: Sequence[Job],
    prepare: Prepare,
    ray: RayOptions,
    *,
    out: Path,
    files: Sequence[Path] = (),
    debug: bool = False,
) -> Ended:
    """Process the jobs on a cluster, as `Loop.run` does here.

    Args:
        jobs: The jobs.
        prepare: Can be pickled. Called once in each worker; returns what does a job.
        ray: Where, and on what.
        out: The output folder, which every worker must see.
        files: Further files that the workers read.
        debug: Show what Ray and the workers print, and tracebacks.

    Returns:
        The outcome of every job.

    Raises:
        PathEncoderError: No worker could start.
    """
    word = "slide" if all(job.kind == "slide" for job in jobs) else "input"
    here = None if all(p.is_absolute() for p in _paths(jobs, out, files)) else os.getcwd()
    with session(ray.address, logs=debug) as nodes, _probe(out) as probe:
        plan = share_out(nodes, jobs=len(jobs), cores=ray.cores, gpus=ray.gpus)
        click.echo(_of_plan(plan), err=True)
        make = _Make(prepare, plan, here, probe, debug)
        with RayMeter([source_of(job) for job in jobs], word) as meter:
            found = results(jobs, make, plan, retries=_RETRIES, watcher=meter)
            return _Collected(jobs, meter).all(found)


@dataclass
class _Collected:
    """The outcomes so far."""

    jobs: Sequence[Job]
    meter: RayMeter

    def __post_init__(self) -> None:
        self._outcomes: dict[int, list[Outcome]] = {}

    def all(self, found: Iterator[Result]) -> Ended:
        """Take all results; Ctrl-C and an output folder that takes no more files end the run."""
        stopped_by: KeyboardInterrupt | StoreError | None = None
        try:
            for result in found:
                self._take(result)
        except (KeyboardInterrupt, StoreError) as stop:
            stopped_by = stop
            for result in _rest(found):
                with contextlib.suppress(StoreError):
                    self._take(result)
        outcomes = [outcome for number in range(len(self.jobs)) for outcome in self._of(number)]
        return Ended(outcomes, stopped_by)

    def _take(self, result: Result) -> None:
        if result.stopped:
            return
        if isinstance(result.error, StoreError):  # those of one input are outcomes already
            raise result.error
        source = source_of(self.jobs[result.number])
        outcomes = [failed(source, result.error)] if result.error is not None else result.value
        if result.attempts > 1:
            for outcome in outcomes:
                outcome.notes.append(f"begun {result.attempts} times, because workers died")
        self._outcomes[result.number] = outcomes
        self.meter.ended(result.number, outcomes)

    def _of(self, number: int) -> list[Outcome]:
        if number in self._outcomes:
            return self._outcomes[number]
        source = source_of(self.jobs[number])
        if number not in self.meter.begun_:
            return [Outcome(source, "unreached")]
        done, total = self.meter.done.get(number, (0, 0))
        return [Outcome(source, "stopped", notes=[f"{done:,} of {total:,} done"] * bool(total))]


def _rest(found: Iterator[Result]) -> Iterator[Result]:
    """Stop the jobs that run; the results of those that end before they stop."""
    with contextlib.suppress(KeyboardInterrupt):
        yield found.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
        yield from found


@dataclass(frozen=True)
class _Make:
    """Prepares a worker.

    Attributes:
        prepare: What the verb prepares.
        plan: Of the pool.
        here: The folder that relative paths are relative to; None: there are none.
        probe: A file in the output folder, absolute.
        debug: Print tracebacks.
    """

    prepare: Prepare
    plan: Plan
    here: str | None
    probe: Path
    debug: bool

    def __call__(self, share: Share) -> Callable[[Job, Report], list[Outcome]]:
        if self.here is not None:
            try:
                os.chdir(self.here)
            except OSError:
                raise StoreError(_unseen(self.here)) from None
        until = time.monotonic() + _PROBE_SECONDS
        while not self.probe.exists():
            if time.monotonic() > until:
                raise StoreError(_unseen(self.probe.parent))
            time.sleep(0.5)
        return functools.partial(_one, self.prepare(share, self.plan), self.debug)


def _one(do: Do, debug: bool, job: Job, report: Report) -> list[Outcome]:  # noqa: FBT001
    """Do one job in a worker; what it prints is sent to the driver."""
    if job.remote is None and job.kind != "nothing" and not job.source.exists():
        return [failed(job.source, SlideError(_unseen(job.source)))]
    loop = Loop(
        do, source_of, name_of, debug=debug, new_meter=lambda name: _SentMeter(name, report)
    )
    until = time.monotonic() + (_LOCK_SECONDS if report.attempt > 1 else 0)
    with contextlib.redirect_stderr(_Lines(report)), plain_messages():
        while True:
            ended = loop.run([job])
            if ended.stopped_by is not None:
                raise ended.stopped_by
            if all(o.status != "busy" for o in ended.outcomes) or time.monotonic() > until:
                return ended.outcomes
            report.progress(0, 0)
            time.sleep(1)


class _SentMeter(Meter):
    """A meter that shows nothing here: the driver shows all workers."""

    def __init__(self, name: str, report: Report) -> None:
        super().__init__(name)
        self._report = report

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self._report.progress(done, total)


class _Lines(io.TextIOBase):
    """A stream whose lines are sent to the driver."""

    encoding = "utf-8"

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report, self._begun = report, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._report.say(line)
        return len(text)


@contextlib.contextmanager
def _probe(out: Path) -> Iterator[Path]:
    """A file in the output folder, by which a worker knows that it sees the same folder."""
    probe = Path(os.path.abspath(out)) / f".{uuid.uuid4().hex}.probe"
    try:
        probe.write_bytes(b"")
        yield probe
    finally:
        probe.unlink(missing_ok=True)


def _paths(jobs: Sequence[Job], out: Path, files: Sequence[Path]) -> list[Path]:
    return [out, *files, *(job.source for job in jobs if job.remote is None)]


def _unseen(path: str | Path) -> str:
    return (
        f"the worker on {platform.node()} does not see {path}: shared storage is needed, at the"
        " same place on every machine"
    )


def _of_plan(plan: Plan) -> str:
    cores = plural(plan.share.cpus, "core")
    of = f"a GPU and {cores}" if plan.share.gpus else cores
    return f"Ray: {plural(plan.workers, 'worker')} with {of} each"
