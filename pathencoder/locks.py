"""Locks: one process at a time works on a file or in a folder."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from filelock import FileLock, Timeout

from pathencoder.errors import StoreError
from pathencoder.files import storing

# what file systems without locks (some Lustre and NFS mounts) answer
_WITHOUT_LOCKS = frozenset(
    {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
)


class Busy(StoreError):
    """Another process holds the lock."""


class Lock:
    """A lock file, held from construction until `release`.

    The operating system releases the lock when the process ends, however it ends. A killed process
    leaves an empty lock file behind, which holds nothing.

    Args:
        path: The lock file, in an existing folder.
        busy: The message for the case that another process holds the lock.
        seconds: How long to wait for it.

    Attributes:
        held: False on file systems without locks, where nothing prevents a second process.

    Raises:
        Busy: Another process holds the lock.
        StoreError: The lock file cannot be created.
    """

    def __init__(self, path: Path, busy: str, *, seconds: float = 0.0) -> None:
        self.held = True
        self._path = path
        self._lock = FileLock(path, thread_local=False)
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

    def release(self) -> None:
        """Remove the lock file and let the next process lock."""
        if self.held:
            _remove(self._path)
            self._lock.release()
            self.held = False


def _remove(path: Path) -> None:
    """Remove a lock file that is still held, so that it is not another process's.

    Windows cannot remove an open file; there filelock does it after closing.
    """
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
