"""Prepare the next inputs in the background while one is processed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    """What preparation gives: it holds files or memory until it is closed."""

    def close(self) -> None:
        """Free what it holds; safe to repeat."""


T = TypeVar("T")
P = TypeVar("P", bound=Closing)


class Ahead(Generic[T, P]):
    """Jobs are prepared in their order, at most `depth` ahead of the one that was taken last.

    A context manager: at its end, what was prepared and not taken is closed.

    Args:
        jobs: In the order in which they are taken.
        prepare: Prepares one; its error is raised when the job is taken.
        wanted: Whether a job may be prepared in advance; the others are when they are taken.
        stop: Called at the end, before the threads are waited for: lets `prepare` end early.
        depth: Jobs that may be ready in advance.
    """

    def __init__(
        self,
        jobs: Sequence[T],
        prepare: Callable[[T], P],
        *,
        wanted: Callable[[T], bool] = lambda _: True,
        stop: Callable[[], None] = lambda: None,
        depth: int = 1,
    ) -> None:
        self._jobs, self._prepare, self._wanted, self._stop = jobs, prepare, wanted, stop
        self._places = {id(job): place for place, job in enumerate(jobs)}
        self._depth = depth
        self._lock = threading.Lock()
        self._started: dict[int, Future[P]] = {}
        self._next = 0  # the first job that was not considered yet
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="pathencoder-ahead")

    def __enter__(self) -> Ahead[T, P]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future in self._started.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()

    def is_ready(self, job: T) -> bool:
        """Whether a job can be taken without waiting."""
        future = self._started.get(self._places[id(job)])
        return future is not None and future.done()

    def take(self, job: T) -> P:
        """A prepared job, which the caller closes. Those that follow it are begun.

        Raises:
            Exception: The error of its preparation.
        """
        place = self._places[id(job)]
        with self._lock:
            self._begin_up_to(place + self._depth)
            mine = self._started.pop(place, None)
        if mine is None:
            return self._prepare(job)
        try:
            return mine.result()
        except BaseException:  # also Ctrl-C while it is waited for: closed at the end
            self._started[place] = mine
            raise

    def _begin_up_to(self, last: int) -> None:
        while self._next <= min(last, len(self._jobs) - 1):
            if self._wanted(self._jobs[self._next]):
                job = self._jobs[self._next]
                self._started[self._next] = self._pool.submit(self._prepare, job)
            self._next += 1
