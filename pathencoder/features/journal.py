"""The journal of an unfinished feature file: finished rows, from which a later run resumes.

The file holds eight bytes with the length of a JSON header, the header, then records of one size
(id, checksum, tag, row). It is only appended to, so a killed process or a power failure damages
its end at most; a damaged record is dropped and computed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import StoreError
from pathencoder.files import Mismatch, storing
from pathencoder.locks import Lock, Lost

Rows = NDArray[np.float32]
_SYNC_SECONDS = 5.0
# settings that are stated only where they have another value; earlier versions did not record the
# sha256 of weights whose publisher states none
_UNSTATED = {"views": 1, "sha256": "not recorded", "readout": "as published"}


def settings_of(path: Path) -> dict[str, Any] | None:
    """The settings of a journal; None where there is none, or it has no rows yet."""
    try:
        with path.open("rb") as file:
            header, _ = _header_of(file)
    except OSError:
        return None
    return None if header is None else dict(header["settings"])


def _header_of(file: BinaryIO) -> tuple[dict[str, Any] | None, int]:
    """The header of a journal, and where its records start."""
    length = int.from_bytes(file.read(8), "little")
    text = file.read(length) if 0 < length < 1 << 20 else b""
    try:
        header: dict[str, Any] = json.loads(text)
    except ValueError:
        return None, 8 + length
    return header, 8 + length


class Journal:
    """Rows by a 64-bit id, appended to a file and read back in any order.

    A row that is appended again replaces the one before. Memory: one dictionary entry a row.

    Args:
        path: The file; it is resumed where it exists.
        settings: All that the rows depend on.
        facts: Further facts, kept in the header of a new file. Of an existing file, `self.facts`
            are its own.
        tag_bytes: Bytes that are kept beside each row.
        anew: Drop the rows of an earlier run.

    Raises:
        Mismatch: The file was begun with other settings; the message names what differs.
        Busy: Another process is writing the file.
        StoreError: The file cannot be opened.

    Every method that writes may raise Lost: another process took the file over, since this one was
    stopped for long.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        facts: Mapping[str, Any] | None = None,
        tag_bytes: int = 0,
        anew: bool = False,
    ) -> None:
        self.path = path
        self.facts: dict[str, Any] = dict(facts or {})
        self._settings = {**settings, "tag_bytes": tag_bytes}
        self._tag_bytes = tag_bytes
        self._record: np.dtype[Any] | None = None
        self._start = 0
        self._places: dict[int, int] = {}
        self._count = 0
        self._tags: Any = ()
        self._synced = time.monotonic()
        self._lock = lock_of(path)
        try:
            with storing(path):
                old = path.exists() and not anew
                if self._lock.taken_over and path.exists():
                    _detach(path)
                self._file: BinaryIO = path.open("r+b" if old else "w+b")
            try:
                self._load()
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def __contains__(self, key: int) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """Shape of a row; None before the first."""
        return None if self._record is None else tuple(self._record["row"].shape)

    def append(self, key: int, row: Rows, tag: bytes = b"") -> None:
        """Append one row.

        Args:
            key: Its id.
            row: float32, of the shape of all rows.
            tag: `tag_bytes` bytes to keep beside it.

        Raises:
            StoreError: It cannot be written.
            Mismatch: It has another shape than the rows before.
        """
        self._lock.check()
        with storing(self.path):
            if self._record is None:
                self._begin(row.shape)
            assert self._record is not None
            if row.shape != self._record["row"].shape:
                raise Mismatch(
                    f"{self.path}: a row of shape {row.shape} among rows of shape"
                    f" {self._record['row'].shape}. Delete the file and start again"
                )
            row = np.ascontiguousarray(row, dtype="<f4")
            assert len(tag) == self._tag_bytes
            tags = np.frombuffer(tag, np.uint8)
            record = np.array((key, zlib.crc32(tag + row.tobytes()), tags, row), dtype=self._record)
            self._file.write(record.tobytes())
            self._places[key] = self._count
            self._count += 1
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self.flush()

    def rows(self, keys: Sequence[int]) -> Rows:
        """The rows of these ids, float32 [len(keys), ...]."""
        assert self._record is not None
        self._file.flush()
        records = self._map(self._count)
        return np.asarray(records["row"][[self._places[key] for key in keys]], dtype=np.float32)

    def tag(self, key: int) -> bytes:
        """The tag of the row of an id."""
        place = self._places[key]
        if place >= len(self._tags):
            self._file.flush()
            self._tags = self._map(self._count)["tag"]
        return bytes(self._tags[place].tobytes())

    def restart(self, facts: Mapping[str, Any]) -> None:
        """Drop all rows, and keep these facts from now on."""
        self._record, self._places, self._count, self._tags = None, {}, 0, ()
        self.facts = dict(facts)

    def confirm(self) -> None:
        """Look whether this process still is the only one that writes the file.

        Raises:
            Lost: It is not.
        """
        self._lock.confirm()

    def flush(self) -> None:
        """Write everything appended so far to the disk."""
        with storing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file and keep it for the next run; one without rows is removed."""
        if self._file.closed:
            return
        empty = not self._places and not self._is_lost()
        # a full disk: the records before are whole, the next run drops the incomplete one
        with contextlib.suppress(OSError):
            self._file.flush()
        self._close(delete=empty)

    def delete(self) -> None:
        """Close and remove the file, after its rows were written elsewhere."""
        self._tags = ()  # Windows deletes no file that is mapped
        self._close(delete=True)

    def _is_lost(self) -> bool:
        try:
            self._lock.confirm()
        except Lost:
            return True
        return False

    def _close(self, *, delete: bool) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        try:
            if delete:
                self._lock.confirm()
                self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _begin(self, shape: tuple[int, ...]) -> None:
        header = json.dumps(
            {"settings": self._settings, "facts": self.facts, "shape": shape}
        ).encode()
        self._file.seek(0)
        self._file.truncate()
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._start = 8 + len(header)
        self._record = _record_type(shape, self._tag_bytes)

    def _load(self) -> None:
        header = self._read_header()
        if header is None:
            return
        differing = [
            k
            for k in sorted({*header["settings"], *self._settings})
            if header["settings"].get(k) != self._settings.get(k)
        ]
        if differing:
            raise Mismatch(
                f"{self.path} holds the rows of a run with other settings"
                f" ({describe_differences(header['settings'], self._settings)}). Choose another"
                " --out, return to those settings, or start again with --overwrite"
                " (overwrite=True in Python)"
            )
        self.facts = header["facts"]
        self._record = _record_type(tuple(header["shape"]), self._tag_bytes)
        size = self.path.stat().st_size - self._start
        whole = size // self._record.itemsize
        if whole:
            records = self._map(whole)
            whole = next(
                (
                    i
                    for i, r in enumerate(records)
                    if zlib.crc32(r["tag"].tobytes() + r["row"].tobytes()) != r["crc"]
                ),
                whole,
            )
            self._places = {int(key): i for i, key in enumerate(records["id"][:whole])}
            del records
        self._count = whole
        self._file.truncate(self._start + whole * self._record.itemsize)
        self._file.seek(0, os.SEEK_END)

    def _read_header(self) -> dict[str, Any] | None:
        """The header; None where the file is new or ends inside its header."""
        header, self._start = _header_of(self._file)
        return header

    def _map(self, count: int) -> Any:
        assert self._record is not None
        return np.memmap(
            self.path, dtype=self._record, mode="r", offset=self._start, shape=(count,)
        )


def describe_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The settings in which two runs differ, in words."""
    names = sorted(k for k in {*there, *here} if there.get(k) != here.get(k))
    both = [{**_UNSTATED, **settings} for settings in (there, here)]
    return "; ".join(
        f"{name}: {_short(both[0].get(name))} there, {_short(both[1].get(name))} now"
        for name in names
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _record_type(shape: tuple[int, ...], tag_bytes: int) -> np.dtype[Any]:
    return np.dtype(
        [("id", "<u8"), ("crc", "<u4"), ("tag", "u1", (tag_bytes,)), ("row", "<f4", shape)]
    )


def lock_of(path: Path) -> Lock:
    """The lock of a journal and of its feature file, against processes of this and other machines.

    Raises:
        Busy: Another process holds it.
        StoreError: The folder cannot be written.
    """
    name = path.name.removeprefix(".").removesuffix(".partial")
    return Lock(
        path.with_name(f"{path.name}.lock"),
        f"another process is writing {name}: let it finish",
        between_machines=True,
    )


def refuse_busy(path: Path) -> None:
    """Raise Busy where another process holds the lock of a journal, before work begins.

    Raises:
        Busy: Another process holds it.
    """
    if any(path.with_name(f"{path.name}{end}").exists() for end in (".lock", ".lease")):
        lock_of(path).release()


def remove_remains(path: Path) -> None:
    """Remove the journal and locks of a file that is finished, left by a process that was killed.

    It may have been killed just after the file got its name.
    """
    beside = [path, *(path.with_name(f"{path.name}{end}") for end in (".lock", ".lease"))]
    if any(one.exists() for one in beside):
        with contextlib.suppress(StoreError):  # another process is at work, or only reading works
            lock = lock_of(path)
            path.unlink(missing_ok=True)
            lock.release()


def _detach(path: Path) -> None:
    """Make a file anew: a process that may still have it open writes into the old one."""
    copy = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
    shutil.copyfile(path, copy)
    os.replace(copy, path)
