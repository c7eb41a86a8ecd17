"""Locks: one process at a time works on a file or in a folder.

The system's locks hold between the processes of one machine, and on some network file systems
between machines. A lease (pathencoder/leases.py) holds between machines on every file system.
"""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path

from filelock import FileLock, Timeout

from pathencoder.errors import StoreError
from pathencoder.files import storing
from pathencoder.leases import Lease, Seen

# what file systems without locks (some Lustre and NFS mounts) answer
_WITHOUT_LOCKS = frozenset(
    {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
)
_POLL = 0.2  # seconds


class Busy(StoreError):
    """Another process holds the lock.

    Attributes:
        seen: Its lease, as it was found; None where the system's lock shows that it is alive.
    """

    def __init__(self, message: str, seen: Seen | None = None) -> None:
        super().__init__(message)
        self.seen = seen


class Lost(Busy):
    """Another process took the lock, since this one did not renew its lease for long."""


class Lock:
    """A lock file, held from construction until `release`.

    The operating system releases the lock when the process ends, however it ends. A killed process
    leaves an empty lock file behind, which holds nothing.

    Args:
        path: The lock file, in an existing folder.
        busy: The message for the case that another process holds the lock.
        seconds: How long to wait for it.
        between_machines: Also hold a lease, beside the lock file. A process that was killed on
            another machine keeps the lease until `leases.STALE` seconds have passed.

    Attributes:
        held: False on file systems without locks, where only a lease prevents a second process.
        taken_over: The lease was that of a process that renewed it no more; it may still run.

    Raises:
        Busy: Another process holds the lock.
        StoreError: The lock file cannot be created.
    """

    def __init__(
        self, path: Path, busy: str, *, seconds: float = 0.0, between_machines: bool = False
    ) -> None:
        self.held = True
        self._path, self._busy = path, busy
        self._lock = FileLock(path, thread_local=False)
        self._lease: Lease | None = None
        until = time.monotonic() + seconds
        with storing(path):
            try:
                self._lock.acquire(timeout=seconds)
            except Timeout:
                raise Busy(busy) from None
            except (NotImplementedError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
                    raise
                self.held = False
                _remove(path)
            if between_machines:
                self._take_lease(until)

    @property
    def taken_over(self) -> bool:
        """Whether the lease was taken from a process that may still run."""
        return self._lease is not None and self._lease.taken_over

    def check(self) -> None:
        """Raise Lost where another process has taken the lock; cheap.

        Raises:
            Lost: Another process has it.
        """
        if self._lease is not None and not self._lease.is_held():
            self._lose()

    def confirm(self) -> None:
        """As `check`, but looks at the lease itself: before something that cannot be undone.

        Raises:
            Lost: Another process has it.
        """
        if self._lease is not None and not self._lease.renew():
            self._lose()

    def release(self) -> None:
        """Remove the lock file and let the next process lock."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self.held:
            _remove(self._path)
            self._lock.release()
            self.held = False

    def _take_lease(self, until: float) -> None:
        while True:
            lease = Lease(self._path.with_suffix(".lease"), alone=self.held)
            try:
                seen = lease.take()
            except BaseException:
                self.release()
                raise
            if seen is None:
                self._lease = lease
                return
            if time.monotonic() > until:
                self.release()
                raise Busy(self._busy, seen)
            time.sleep(_POLL)

    def _lose(self) -> None:
        name = self._path.stem.removeprefix(".").removesuffix(".partial")
        raise Lost(
            f"{self._path.parent}: another process has taken over {name}:"
            " this one did not run for a while. What the other one writes is kept"
        )


def _remove(path: Path) -> None:
    """Remove a lock file that is still held, so that it is not another process's.

    Windows cannot remove an open file; there filelock does it after closing.
    """
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
