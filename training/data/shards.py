"""Tar shards: where each member lies, and reading a member without unpacking. python -m training.data.shards FOLDER writes the indices.

An index beside a shard (core-000.tar -> core-000.tar.index.npy, int64 [members, 2]: offset and size in bytes) spares a walk over
all headers, and is memory-mapped: it costs no memory until it is asked.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import tarfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pathencoder.errors import ImageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a tile's bytes lie: a file, and the range in it (size -1: the whole file)."""

    file: Path
    offset: int = 0
    size: int = -1


@dataclass(frozen=True)
class Members:
    """The whole members of a tar in their order. names: their stems. cut: whether the tar ends in the middle of one, or has no end mark."""

    names: list[str]
    ranges: np.ndarray  # int64 [members, 2]: offset and size
    cut: bool


def members_of(shard: Path) -> Members:
    """Walk the headers of a tar. One that was cut short gives the members before the cut."""
    names, ranges, cut, end = [], [], False, shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                if member.isfile():
                    if member.offset_data + member.size > end:
                        cut = True
                        break
                    names.append(Path(member.name).stem)
                    ranges.append((member.offset_data, member.size))
            cut = cut or tar.offset > end - tarfile.BLOCKSIZE  # a whole tar ends in two empty blocks
    except (tarfile.TarError, EOFError, OSError):
        cut = True
    return Members(names, np.array(ranges, dtype=np.int64).reshape(-1, 2), cut)


def index_path(shard: Path) -> Path:
    """The file that holds a shard's index."""
    return shard.with_name(f"{shard.name}.index.npy")


@functools.lru_cache(maxsize=256)
def ranges_of(shard: Path) -> np.ndarray:
    """int64 [members, 2], offset and size of each member: from the index beside the shard, memory-mapped, or else from the headers."""
    file = index_path(shard)
    if file.is_file():
        index: np.ndarray = np.load(file, mmap_mode="r")
        return index
    found = members_of(shard)
    if found.cut:
        log.warning("shard %s is cut short: its first %d tiles are whole, the others are skipped", shard, len(found.names))
    return found.ranges


def write_index(shard: Path) -> Path:
    """Write the index of one shard beside it."""
    np.save(index_path(shard), members_of(shard).ranges)
    return index_path(shard)


def read(place: Place) -> bytes:
    """The bytes of a tile. Raises ImageError when the file ends before they do."""
    if place.size < 0:
        return place.file.read_bytes()
    data = _FILES.read(place)
    if len(data) < place.size:
        raise ImageError(f"{place.file} is cut short: {len(data)} of {place.size} bytes at {place.offset}")
    return data


class _OpenFiles:
    """The shards read last, one handle each, shared by the decoding threads."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._files: OrderedDict[Path, BinaryIO] = OrderedDict()

    def read(self, place: Place) -> bytes:
        with self._lock:
            file = self._files.pop(place.file, None) or place.file.open("rb")
            self._files[place.file] = file
            if len(self._files) > self._most:
                self._files.popitem(last=False)[1].close()
            file.seek(place.offset)
            return file.read(place.size)

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def forget(self) -> None:
        """In a forked process: handles of its own from here on, for the position in an inherited one is the parent's too."""
        self._lock, self._files = threading.Lock(), OrderedDict()


_FILES = _OpenFiles(most=64)
atexit.register(_FILES.close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_FILES.forget)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for tar in sorted(Path(sys.argv[1]).glob("*.tar")):
        write_index(tar)
