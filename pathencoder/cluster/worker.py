"""The side of the workers: a process that does one job after the other and says how far it is."""

from __future__ import annotations

import os
import pickle
import platform
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pathencoder._version import __version__
from pathencoder.cluster.session import Share
from pathencoder.errors import PathEncoderError

Do = Callable[[Any, "Report"], Any]
Make = Callable[[Share], Do]


class JobFailed(PathEncoderError):
    """An error of a job that cannot be sent from one process to another, as text."""


class OtherVersion(PathEncoderError):
    """A worker runs another version of this package."""


@dataclass(frozen=True)
class Answer:
    """The end of a job, or of a worker's start.

    Attributes:
        value: What the job returned.
        error: What it raised instead.
        trace: The traceback of the error.
        stopped: It was asked to stop, and did.
    """

    value: Any = None
    error: Exception | None = None
    trace: str = ""
    stopped: bool = False


@dataclass(frozen=True)
class Seen:
    """How far the job `number` is, and what it said since the last time."""

    number: int
    done: int
    total: int
    said: list[Any] = field(default_factory=list)


class Report:
    """Through it a job says how far it is.

    Attributes:
        attempt: 1, or more where a worker died in this job before.
    """

    def __init__(self, number: int, attempt: int) -> None:
        self.attempt = attempt
        self._number = number
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._said: list[Any] = []

    def progress(self, done: int, total: int) -> None:
        """Call it often, also so that the job can be stopped.

        Raises:
            KeyboardInterrupt: The job is to stop.
        """
        self._done, self._total = done, total
        if self._stop.is_set():
            raise KeyboardInterrupt

    def say(self, message: Any) -> None:
        """Send a message that can be pickled to the driver."""
        with self._lock:
            self._said.append(message)

    def take(self) -> Seen:
        """How far the job is; each message is given once."""
        with self._lock:
            said, self._said = self._said, []
        return Seen(self._number, self._done, self._total, said)

    def stop(self) -> None:
        """Let the next call of `progress` raise KeyboardInterrupt."""
        self._stop.set()


class Worker:
    """A Ray actor with two threads: one works, the other answers `watch` and `stop`."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._do: Do | None = None

    def start(self, make: Make, share: Share, version: str) -> tuple[str, Answer]:
        """Prepare for jobs.

        Args:
            make: Called once with the worker's share; returns what does a job.
            share: The cores and GPUs of this worker.
            version: Of this package, on the driver.

        Returns:
            The worker's machine and process, and an answer with an error where it cannot work.
        """
        here = f"{platform.node()}, process {os.getpid()}"
        try:
            if version != __version__:
                raise OtherVersion(
                    f"{platform.node()} has pathencoder {__version__}, and this machine {version}:"
                    " install the same version"
                )
            self._do = make(share)
        except Exception as error:
            return here, Answer(error=portable(error), trace=traceback.format_exc())
        return here, Answer()

    def run(self, number: int, job: Any, attempt: int) -> tuple[Answer, Seen]:
        """Do one job; returns its end, and what it said last."""
        assert self._do is not None
        report = self._report = Report(number, attempt)
        try:
            answer = Answer(self._do(job, report))
            pickle.dumps(answer)
        except KeyboardInterrupt:
            answer = Answer(stopped=True)
        except Exception as error:
            answer = Answer(error=portable(error), trace=traceback.format_exc())
        finally:
            self._report = None
        return answer, report.take()

    def watch(self) -> Seen | None:
        """How far the job is that is running; None where none is."""
        report = self._report
        return report.take() if report is not None else None

    def stop(self) -> None:
        """Stop the job that is running at its next progress."""
        report = self._report
        if report is not None:
            report.stop()


def portable(error: Exception) -> Exception:
    """The same error, or its text where pickle would lose or change it."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception:  # of any code of a class that pickle calls
        pass
    return JobFailed(f"{type(error).__name__}: {error}".removesuffix(": "))
