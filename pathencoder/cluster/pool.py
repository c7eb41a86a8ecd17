"""Jobs on a pool of Ray actors: results in the order in which they are ready.

A job whose worker dies is done again by another one; after `retries` deaths it has failed. An error
that a job raises is its result: it is not tried again.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pathencoder._version import __version__
from pathencoder.cluster.session import Plan, import_ray
from pathencoder.cluster.worker import Answer, JobFailed, Make, Seen, Worker
from pathencoder.errors import PathEncoderError

_WAIT_SECONDS = 0.2
_WATCH_SECONDS = 1.0
_GRACE_SECONDS = 15.0  # for jobs that were asked to stop
_PATIENCE_SECONDS = 60.0  # until it is said that no worker is ready


class WorkerLost(PathEncoderError):
    """The process that did a job ended, and so did those that tried it again."""


@dataclass(frozen=True)
class Result:
    """The end of one job.

    Attributes:
        number: Its place in the list of jobs.
        value: What it returned.
        error: What it raised; WorkerLost where its worker died too often.
        trace: The traceback of what it raised.
        stopped: The pool was interrupted, and the job stopped before its end.
        attempts: How often it was begun.
    """

    number: int
    value: Any = None
    error: Exception | None = None
    trace: str = ""
    stopped: bool = False
    attempts: int = 1


class Watcher:
    """What becomes known while jobs run. Its methods do nothing: override what is to be shown."""

    def begun(self, number: int, where: str) -> None:
        """A worker begins a job."""

    def seen(self, seen: Seen) -> None:
        """How far a job is, and what it says."""

    def again(self, number: int, reason: str) -> None:
        """The worker of a job died; the job is begun again."""

    def fewer(self, reason: str) -> None:
        """A worker did not start; those that are left do its work."""

    def waiting(self, workers: int) -> None:
        """No worker is ready after some time, of so many."""

    def tick(self, workers: int) -> None:
        """Called several times a second, with the number of workers that run."""


def results(
    jobs: Sequence[Any],
    make: Make,
    plan: Plan,
    *,
    retries: int = 1,
    watcher: Watcher | None = None,
    grace_seconds: float = _GRACE_SECONDS,
) -> Iterator[Result]:
    """Do jobs on the workers of a Ray session that is open.

    Args:
        jobs: Each can be pickled.
        make: Can be pickled. Called once in each worker with its share; returns what does a job,
            called with the job and a `Report`.
        plan: How many workers, and what each has.
        retries: How often a job is begun again after its worker died.
        watcher: Its methods are called with what happens.
        grace_seconds: How long jobs may take to stop after an interrupt, before they are killed.

    Yields:
        One result for each job, in the order in which they are ready. After Ctrl-C, those of the
        jobs that were running, and nothing of the others.

    Raises:
        PathEncoderError: No worker could start; the first one's error.
        KeyboardInterrupt: After the results of the jobs that were running.
    """
    pool = _Pool(jobs, make, plan, retries, watcher or Watcher())
    try:
        yield from pool.work()
    except KeyboardInterrupt:
        yield from pool.stop(grace_seconds)
        raise
    finally:
        pool.kill()


@dataclass
class _Hand:
    """One worker: its actor, where it is, and the number of its job."""

    actor: Any
    where: str = ""
    number: int = -1
    is_watched: bool = False


class _Pool:
    def __init__(
        self, jobs: Sequence[Any], make: Make, plan: Plan, retries: int, watcher: Watcher
    ) -> None:
        self._ray = import_ray()
        self._jobs, self._plan = jobs, plan
        self._retries, self._watcher = retries, watcher
        self._make = self._ray.put(make)  # sent to each machine once
        self._class = self._ray.remote(Worker).options(
            num_cpus=plan.share.cpus,
            num_gpus=plan.share.gpus,
            max_concurrency=2,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._todo = deque(range(len(jobs)))
        self._attempts = [0] * len(jobs)
        self._slots = plan.workers
        self._spare = plan.workers * (retries + 1)  # workers that may die before their first job
        self._idle: list[_Hand] = []
        self._starting: dict[Any, _Hand] = {}
        self._running: dict[Any, _Hand] = {}
        self._watching: dict[Any, _Hand] = {}
        self._watched = self._began = time.monotonic()
        self._error: Exception | None = None
        self._is_stopping = False

    def work(self) -> Iterator[Result]:
        """Do all jobs."""
        while self._todo or self._running:
            self._hire()
            self._hand_out()
            if not (self._idle or self._starting or self._running):
                raise self._error or WorkerLost("no worker could start")
            yield from self._collect()
            self._watch()

    def stop(self, seconds: float) -> Iterator[Result]:
        """Ask the running jobs to stop; wait for them, but not for ever."""
        for hand in self._running.values():
            hand.actor.stop.remote()
        self._is_stopping = True
        until = time.monotonic() + seconds
        while self._running and time.monotonic() < until:
            yield from self._collect()
        yield from (Result(hand.number, stopped=True) for hand in self._running.values())

    def kill(self) -> None:
        """End all workers at once."""
        for hand in [*self._idle, *self._starting.values(), *self._running.values()]:
            self._dismiss(hand)

    def _dismiss(self, hand: _Hand) -> None:
        with contextlib.suppress(Exception):  # it or the session may have ended already
            self._ray.kill(hand.actor)

    def _hire(self) -> None:
        """Start workers while there is work for more of them."""
        hands = len(self._idle) + len(self._starting) + len(self._running)
        wanted = min(self._slots, len(self._todo) + len(self._running))
        for _ in range(wanted - hands):
            actor = self._class.remote()
            ref = actor.start.remote(self._make, self._plan.share, __version__)
            self._starting[ref] = _Hand(actor)

    def _hand_out(self) -> None:
        while self._idle and self._todo:
            hand = self._idle.pop()
            hand.number = number = self._todo.popleft()
            self._attempts[number] += 1
            ref = hand.actor.run.remote(number, self._jobs[number], self._attempts[number])
            self._running[ref] = hand
            self._watcher.begun(number, hand.where)

    def _collect(self) -> Iterator[Result]:
        """The results that are ready, after a short wait for the first."""
        refs = [*self._running, *self._starting, *self._watching]
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=_WAIT_SECONDS)
        more, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in {*ready, *more}:
            if ref in self._watching:
                self._heard(ref)
            elif ref in self._starting:
                self._started(ref)
            else:
                yield from self._ended(ref)

    def _heard(self, ref: Any) -> None:
        self._watching.pop(ref).is_watched = False
        with contextlib.suppress(self._ray.exceptions.RayError):  # it died: the job's end says so
            seen = self._ray.get(ref)
            if seen is not None:
                self._watcher.seen(seen)

    def _started(self, ref: Any) -> None:
        hand = self._starting.pop(ref)
        try:
            hand.where, answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            answer = Answer(error=WorkerLost(f"a worker did not start: {why_lost(error)}"))
            if self._spare and not _missing_module(error):
                self._spare -= 1
                return
        if answer.error is None:
            self._idle.append(hand)
            return
        self._dismiss(hand)
        self._slots -= 1
        self._error = self._error or answer.error
        if self._slots:
            self._watcher.fewer(str(answer.error))

    def _ended(self, ref: Any) -> Iterator[Result]:
        hand = self._running.pop(ref)
        number, attempts = hand.number, self._attempts[hand.number]
        try:
            answer, seen = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:  # the answer cannot be sent
            self._idle.append(hand)
            yield Result(number, error=JobFailed(str(error)), attempts=attempts)
            return
        except self._ray.exceptions.RayError as error:
            self._dismiss(hand)
            yield from self._lost(number, f"{hand.where}: {why_lost(error)}")
            return
        self._idle.append(hand)
        self._watcher.seen(seen)
        yield Result(number, answer.value, answer.error, answer.trace, answer.stopped, attempts)

    def _lost(self, number: int, reason: str) -> Iterator[Result]:
        attempts = self._attempts[number]
        if self._is_stopping:
            yield Result(number, stopped=True, attempts=attempts)
            return
        if attempts > self._retries:
            times = "" if attempts == 1 else f" ({attempts} times)"
            error = WorkerLost(f"its worker died{times}, {reason}")
            yield Result(number, error=error, attempts=attempts)
            return
        self._todo.appendleft(number)
        self._watcher.again(number, reason)

    def _watch(self) -> None:
        """Ask the running workers how far they are, from time to time."""
        now = time.monotonic()
        if now - self._watched > _WATCH_SECONDS:
            self._watched = now
            for hand in self._running.values():
                if not hand.is_watched:
                    hand.is_watched = True
                    self._watching[hand.actor.watch.remote()] = hand
        if self._running or self._idle:
            self._began = now
        elif now - self._began > _PATIENCE_SECONDS:
            self._began = now
            self._watcher.waiting(len(self._starting))
        self._watcher.tick(len(self._running) + len(self._idle))


def why_lost(error: Exception) -> str:
    """Why Ray lost a worker, in a few words."""
    said = str(error)
    if "OutOfMemory" in type(error).__name__ or "memory monitor" in said or "low on memory" in said:
        return "ended by Ray, because the memory of its machine was nearly full"
    if module := _missing_module(error):
        return f"no module {module} on its machine: install the same packages there"
    if "node" in said.lower() and "died" in said and "worker process has died" not in said:
        return "its machine left the cluster"
    return "its process ended unexpectedly (killed, or out of memory)"


def _missing_module(error: Exception) -> str | None:
    found = re.search(r"No module named '([^']+)'", str(error))
    return found[1] if found else None
