"""Leases: files that their holder renews, for locks between machines.

A lease is a small file on the file system that the machines share. Its holder writes a random name
into it and sets its modification time every few seconds. A process that finds a lease which was not
renewed for ten times as long takes it over. Times are those that the file system gives: the age of
a lease is the difference from a file that was written at this moment beside it, so that the clocks
of the machines do not matter.

A holder that was stopped (SIGSTOP, a suspended machine) may run again after that. It finds another
name in the file, and must write nothing more. Only a process that stops between its last look and
the one system call that follows cannot know.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

BEAT = 6.0  # seconds between two renewals
STALE = 10 * BEAT  # seconds without renewal after which the holder counts as dead
_SETTLE = 0.5  # seconds in which two processes that take over at once see which one has it


@dataclass(frozen=True)
class Seen:
    """A lease file, as it was found.

    Attributes:
        name: The random name of its holder.
        machine: Of its holder and the file system, as a hash.
        renewed: Its modification time in nanoseconds.
    """

    name: str
    machine: str
    renewed: int


class Lease:
    """One process's right to write a file.

    Args:
        path: The lease file, in an existing folder.
        alone: This process holds a lock that excludes all others of this machine: a lease of this
            machine is that of a process that has ended.

    Attributes:
        taken_over: It was the lease of a process that may still run.
    """

    def __init__(self, path: Path, *, alone: bool) -> None:
        self.taken_over = False
        self._path, self._alone = path, alone
        self._name = uuid.uuid4().hex
        self._machine = ""
        self._lost, self._end = False, threading.Event()
        self._renewed = time.monotonic()
        self._thread: threading.Thread | None = None

    def take(self) -> Seen | None:
        """Take the lease and renew it from now on.

        Returns:
            The lease of another process, where that one holds it; None: it is taken.

        Raises:
            OSError: The folder cannot be written.
        """
        self._machine = _machine(self._path.parent.stat().st_dev)
        draft = self._path.with_name(f"{self._drafts()}.{self._machine}-{self._name}.incomplete")
        try:
            now = self._write(draft)
            for _ in range(3):
                if _linked(draft, self._path):
                    break
                seen = _look(self._path)
                if seen is None:  # released meanwhile
                    continue
                ended = self._alone and seen.machine == self._machine
                if not ended and now - seen.renewed < STALE * 1e9:
                    return seen
                os.replace(draft, self._path)
                self.taken_over = not ended
                break
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        if self.taken_over:
            time.sleep(_SETTLE)
        seen = _look(self._path)
        if seen is None or seen.name != self._name:
            return seen or Seen("", "", 0)
        self._renewed = time.monotonic()
        self._remove_old_drafts(now)
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return None

    def is_held(self) -> bool:
        """Whether this process has the lease; looks at the file where it was not renewed lately."""
        if not self._lost and time.monotonic() - self._renewed > 2 * BEAT:
            return self.renew()
        return not self._lost

    def renew(self) -> bool:
        """Look at the file and renew it; False where another process has the lease.

        A file system that does not answer is no loss: the next look decides.
        """
        if self._lost:
            return False
        try:
            seen = _look(self._path)
            if seen is None or seen.name != self._name:
                self._lost = True
                return False
            os.utime(self._path)
            self._renewed = time.monotonic()
        except OSError:
            pass
        return True

    def release(self) -> None:
        """Renew no more, and remove the file unless another process has it."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with contextlib.suppress(OSError):
            seen = _look(self._path)
            if seen is not None and seen.name == self._name:
                self._path.unlink(missing_ok=True)

    def _remove_old_drafts(self, now: int) -> None:
        """Remove what processes left that were killed while they tried to take the lease.

        Where no other process of this machine may try, its drafts are removed at once.
        """
        for start in (self._drafts(), self._path.name):  # the second: of older versions
            for left in self._path.parent.glob(f"{glob.escape(start)}.*.incomplete"):
                ended = self._alone and left.name.startswith(f"{start}.{self._machine}-")
                with contextlib.suppress(OSError):
                    if ended or now - left.stat().st_mtime_ns > STALE * 1e9:
                        left.unlink()

    def _drafts(self) -> str:
        """How the names of drafts begin: short, where the lease has the longest name there is."""
        digest = hashlib.blake2b(os.fsencode(self._path.name), digest_size=8).hexdigest()
        return f".{digest}"

    def _beat(self) -> None:
        while not self._end.wait(BEAT) and self.renew():
            pass

    def _write(self, draft: Path) -> int:
        """Write this process's lease beside the place where it will be; returns the time there."""
        with draft.open("x", encoding="utf-8") as file:
            file.write(json.dumps({"name": self._name, "machine": self._machine}))
        os.utime(draft)  # the time of the server, where there is one
        return draft.stat().st_mtime_ns


def _linked(draft: Path, path: Path) -> bool:
    """Give a file a second name; False where that name exists."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links on this file system
        try:
            with path.open("xb") as file:
                file.write(draft.read_bytes())
        except FileExistsError:
            return False
    return True


def _look(path: Path) -> Seen | None:
    """A lease file; None where there is none. Opening it makes NFS ask the server."""
    try:
        with path.open("rb") as file:
            text, renewed = file.read(4096), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        return Seen(str(found["name"]), str(found["machine"]), renewed)
    except (ValueError, KeyError, TypeError):  # being written, or cut off by a full disk
        return Seen("", "", renewed)


def _machine(device: int) -> str:
    """A hash of this machine's present start and of a file system on it.

    Two mounts of one file system count as two machines, since their locks may not exclude each
    other.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        start = f"{uuid.getnode()} {platform.node()}"
    return hashlib.blake2b(f"{start} {device}".encode(), digest_size=8).hexdigest()
