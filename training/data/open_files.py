"""Read ranges of files that stay open: the shards that were read last, one handle each."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ImageError

MOST_FILES = 4096  # open shards
_FEWEST = 64
FILES_PER_SHARD = 4  # that a process may open: a quarter of them are shards


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tile are.

    Attributes:
        file: The file; a URL in an object store.
        offset: The first byte.
        size: Bytes; -1: the whole file.
        of: The size that the file must have; -1: any.
    """

    file: Path | str
    offset: int = 0
    size: int = -1
    of: int = -1


def read(place: Place) -> bytes:
    """The bytes of a tile in a local file.

    Raises:
        ImageError: The file ends before them, or has another size than `place` says.
        OSError: It cannot be read.
    """
    if place.size < 0:
        return Path(place.file).read_bytes()
    data = _FILES.read(place)
    if len(data) < place.size:
        raise ImageError(
            f"{place.file} is cut short: {len(data)} of {place.size} bytes at {place.offset}"
        )
    return data


def close_files() -> None:
    """Close all shards, so that a replaced file is read, not the old one."""
    _FILES.close()


def allow(files: int) -> int:
    """Let this process keep so many shards open, as far as its hard limit of open files allows.

    Args:
        files: Shards that are read in turn.

    Returns:
        How many may stay open.
    """
    wanted = min(files, MOST_FILES)
    if sys.platform != "win32" and wanted > _FILES.most:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        enough = wanted * FILES_PER_SHARD
        if soft >= 0:
            new = max(soft, enough if hard < 0 else min(hard, enough))
            resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
        _FILES.most = most_open()
    return min(wanted, _FILES.most)


def most_open() -> int:
    """How many shards stay open: a quarter of the open files that this process may have."""
    if sys.platform == "win32":
        return _FEWEST
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if limit < 0 else max(_FEWEST, min(limit // FILES_PER_SHARD, MOST_FILES))


class _Handle:
    """An open file; closed when no thread reads from it any more."""

    def __init__(self, path: Path | str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self.number).st_size
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        if sys.platform != "win32":
            return os.pread(self.number, size, offset)
        with self._lock:
            os.lseek(self.number, offset, os.SEEK_SET)
            return os.read(self.number, size)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class OpenFiles:
    """The most recently read files, shared by the decoding threads.

    Args:
        most: How many stay open.
    """

    def __init__(self, most: int) -> None:
        self.most, self._lock = most, threading.Lock()
        self._files: OrderedDict[Path | str, _Handle] = OrderedDict()

    def read(self, place: Place) -> bytes:
        """The bytes of a place, fewer where the file ends before them.

        Raises:
            ImageError: The file has another size than `place` says.
        """
        handle = self._handle(place.file)
        if place.of not in (-1, handle.size):
            raise ImageError(
                f"{place.file} has {handle.size} bytes, and had {place.of} when the corpus was"
                " opened: start again to read it anew"
            )
        # a damaged index may state any size: allocate no more than the file holds
        start = min(place.offset, handle.size)
        return handle.read(start, min(place.size, handle.size - start))

    def _handle(self, path: Path | str) -> _Handle:
        with self._lock:
            handle = self._files.get(path)
            if handle is not None:
                self._files.move_to_end(path)
                return handle
        handle = _Handle(path)  # not under the lock: opening may take long on a network
        with self._lock:
            self._files[path] = handle
            while len(self._files) > self.most:
                self._files.popitem(last=False)
        return handle

    def close(self) -> None:
        """Close all files, each when it is not being read."""
        with self._lock:
            self._files.clear()

    def forget(self) -> None:
        """In a forked process: another thread of the parent may have held the lock."""
        self._lock, self._files = threading.Lock(), OrderedDict()


_FILES = OpenFiles(most=most_open())
atexit.register(_FILES.close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_FILES.forget)
