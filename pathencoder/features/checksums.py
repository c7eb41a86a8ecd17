"""Checksums of a feature file, in its first 512 bytes: damage is found before HDF5 reads it.

HDF5 does not check every address that it follows: some damage makes the library loop for ever. A
user block (HDF5 file format specification, section II) is space at the start that every reader
skips. It holds one line of JSON: where the rows lie, and one BLAKE2b hash of the rows and one of
the rest. The rest is small and checked at every opening, the rows when all of them are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 512  # bytes: the smallest user block that HDF5 allows
_MARK = b"pathencoder checksums 1 "
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Checksums:
    """The size and hashes of a feature file when it was written.

    Attributes:
        size: Bytes of the file.
        start: The byte where the rows begin.
        stop: The byte after the rows.
        rest: BLAKE2b of everything after the user block but the rows, hexadecimal.
        rows: BLAKE2b of the rows, hexadecimal.
    """

    size: int
    start: int
    stop: int
    rest: str
    rows: str


def write(path: Path, start: int, stop: int) -> None:
    """Write the checksums of a finished file whose rows are the bytes from `start` to `stop`."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        found = Checksums(
            size,
            start,
            stop,
            _digest(file, _around(size, start, stop)),
            _digest(file, [(start, stop)]),
        )
        line = _MARK + json.dumps(asdict(found)).encode() + b"\n"
        file.seek(0)
        file.write(line.ljust(BLOCK, b"\0"))


def marked(path: Path) -> bool:
    """Whether a file begins with the checksums of this package."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


def check(path: Path, *, rows: bool) -> None:
    """Compare a file with its checksums; a file without checksums passes.

    Args:
        path: A feature file, of this package or of another program.
        rows: Also read and compare the rows.

    Raises:
        ValueError: The file differs from what was written.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        block = file.read(BLOCK)
        if not block.startswith(_MARK):
            return
        written = Checksums(**json.loads(block[len(_MARK) :].rstrip(b"\0")))
        size = path.stat().st_size
        if size != written.size:
            raise ValueError(f"{size} bytes where {written.size} were written")
        if _digest(file, _around(size, written.start, written.stop)) != written.rest:
            raise ValueError("its structure is not what was written")
        if rows and _digest(file, [(written.start, written.stop)]) != written.rows:
            raise ValueError("its rows are not what was written")


def _around(size: int, start: int, stop: int) -> list[tuple[int, int]]:
    return [(BLOCK, start), (stop, size)]


def _digest(file: BinaryIO, spans: Iterable[tuple[int, int]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for start, stop in spans:
        file.seek(start)
        while start < stop:
            data = file.read(min(_CHUNK, stop - start))
            if not data:
                break
            digest.update(data)
            start += len(data)
    return digest.hexdigest()
