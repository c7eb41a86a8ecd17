"""A reader in a process of its own, which is ended where it does not answer in time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from pathencoder.slides.fastslide_child import ANSWER, REQUEST


class NoAnswer(Exception):
    """The process ended, or it was ended because it did not answer in time."""


class Child:
    """A process that runs a reader's module; one thread at a time may use it.

    Args:
        module: A module with `main`, which speaks the protocol of fastslide_child.py.
        arguments: Of its command line.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def answer(self, seconds: float, request: Sequence[int] | None = None) -> tuple[bool, bytes]:
        """Send a request and wait for its answer; without one, for the answer to the start.

        Args:
            seconds: After this time the process is ended.
            request: Level, left, top, width and height.

        Returns:
            Whether it worked, and the bytes of the answer.

        Raises:
            NoAnswer: The process has ended.
        """
        late = threading.Event()
        timer = threading.Timer(seconds, self._stop, [late])
        timer.daemon = True
        timer.start()
        try:
            return self._ask(request)
        except (OSError, EOFError) as error:
            self.end()
            if late.is_set():
                raise NoAnswer(f"it did not answer in {seconds:g} s and was stopped") from error
            status = self._process.returncode
            raise NoAnswer(f"its process ended (status {status})") from error
        except BaseException:  # Ctrl-C in mid-answer: the rest of it would answer the next request
            self.end()
            raise
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process; safe to repeat."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not sent yet has nowhere to go
                    continue

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _ask(self, request: Sequence[int] | None) -> tuple[bool, bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        if request is not None:
            stdin.write(REQUEST.pack(*request))
            stdin.flush()
        head = stdout.read(ANSWER.size)
        if len(head) < ANSWER.size:
            raise EOFError
        worked, length = ANSWER.unpack(head)
        data = stdout.read(length)
        if len(data) < length:
            raise EOFError
        return worked, data
