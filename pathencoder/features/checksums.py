"""Checksums of a feature file, in its first 512 bytes: damage is found before HDF5 reads it.

Those of a Zarr folder are attributes of its root.

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
from typing import Any, BinaryIO

BLOCK = 512  # bytes: the smallest user block that HDF5 allows
_MARK = b"pathencoder checksums 1 "
_CHUNK = 1 << 20
_ATTRIBUTES, _KEY = ".zattrs", "checksums"  # of a Zarr folder


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


def write_folder(folder: Path, rows: str) -> None:
    """Write the checksums of a finished Zarr folder, of format 2, whose rows are the array `rows`.

    They are attributes of the root: the size and hash of every other file, and a hash of the other
    attributes.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / _ATTRIBUTES)
    found = {p.relative_to(folder).as_posix(): [p.stat().st_size, _digest_of(p)] for p in files}
    attributes = json.loads((folder / _ATTRIBUTES).read_text(encoding="utf-8"))
    attributes[_KEY] = {"rows": rows, "files": found}
    attributes[_KEY]["attributes"] = _digest_of_attributes(attributes)
    (folder / _ATTRIBUTES).write_text(json.dumps(attributes), encoding="utf-8")


def marked(path: Path) -> bool:
    """Whether a file or Zarr folder has the checksums of this package."""
    try:
        if path.is_dir():
            return _KEY in json.loads((path / _ATTRIBUTES).read_text(encoding="utf-8"))
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK
    except (OSError, ValueError):
        return False


def digest_of(path: Path) -> str:
    """A hash of a feature file or Zarr folder as it lies on the disk, hexadecimal."""
    if not path.is_dir():
        return _digest_of(path)
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {_digest_of(file)}\n".encode())
    return digest.hexdigest()


def check(path: Path, *, rows: bool) -> None:
    """Compare a file with its checksums; a file without checksums passes.

    Args:
        path: A feature file, of this package or of another program.
        rows: Also read and compare the rows.

    Raises:
        ValueError: The file differs from what was written.
        OSError: It cannot be read.
    """
    if path.is_dir():
        _check_folder(path, rows=rows)
        return
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


def _check_folder(folder: Path, *, rows: bool) -> None:
    if not (folder / _ATTRIBUTES).is_file():  # of another format of Zarr
        return
    attributes = json.loads((folder / _ATTRIBUTES).read_text(encoding="utf-8"))
    written = attributes.get(_KEY)
    if written is None:
        return
    if _digest_of_attributes(attributes) != written["attributes"]:
        raise ValueError("its attributes are not what was written")
    for name, (size, digest) in written["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise ValueError(f"{name} is missing or has another size than was written")
        is_block = name.startswith(f"{written['rows']}/") and not file.name.startswith(".")
        if (rows or not is_block) and _digest_of(file) != digest:
            raise ValueError(f"{name} is not what was written")


def _digest_of_attributes(attributes: dict[str, Any]) -> str:
    """Of the attributes of a root, and of the list of checksums but for this one."""
    listed = {k: v for k, v in attributes[_KEY].items() if k != "attributes"}
    text = json.dumps({**attributes, _KEY: listed}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file, [(0, path.stat().st_size)])


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
